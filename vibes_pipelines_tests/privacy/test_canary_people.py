"""Canary people: none of their values is seen where it must not, whatever happens.

Personal values belong into snapshots, diff sets, import files and the ledger. They do not belong
into a log, an event or metadata of Dagster, the metrics, a report, the output of a command that
does not ask for them in clear, or the name of a file.
"""

import json
import logging
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from vibes_pipelines.orchestration.build import build_defs
from vibes_pipelines.orchestration.jobs import delivery_run_config
from vibes_pipelines.sandbox import faults
from vibes_pipelines.sandbox.platform_records import Person
from vibes_pipelines.sandbox.population import build_world
from vibes_pipelines.stages.inbox import drain
from vibes_pipelines.stages.quarantine_desk import list_cases
from vibes_pipelines.stages.reconciling import read_summary
from vibes_pipelines.store.inbox import Inbox
from vibes_pipelines_tests.privacy.canaries import (
    EXCUSED,
    TRIBE_COMMANDS,
    VIBES_COMMANDS,
    Watch,
    every_command,
)
from vibes_pipelines_tests.support.callbacks import as_bytes, running_receiver, subscription_body
from vibes_pipelines_tests.support.loop import EXAMPLE, Loop, running_loop
from vibes_pipelines_tests.support.served_receiver import serving

PEOPLE = [50, pytest.param(1_000, marks=[pytest.mark.slow, pytest.mark.timeout(1_800)])]

SECTIONS = """
callbacks: {url: "https://callbacks.example.org/callbacks"}
events: {table: happened, contact: contact, mdn: mdn, data: [who]}
"""

CANARY_WORDS = {"Zqcanary-born", "Zqcanary-tier", "Zqcanary-maybe", "Zqcanary-score", "Zqcanary"}

PERSONAL = ("contact_id", "first_name", "last_name", "mobile", "birth_date")
"""Columns of the CRM that tell who somebody is."""

PASSWORDS = ("SNOWFLAKE_PASSWORD", "VIBES_API_PASSWORD")

FAULTS: dict[tuple[str, str], dict[str, Any]] = {
    ("api", "status"): {"match": {"path_regex": "persons/external"}, "status": 422, "times": 2},
    ("api", "delay"): {"match": {"path_regex": "persons"}, "delay_s": 0.1, "times": 1},
    ("api", "reset"): {"match": {"path_regex": "persons"}, "times": 1},
    ("api", "hang"): {"match": {"path_regex": "persons"}, "delay_s": 1, "times": 1},
    ("api", "partial"): {"match": {"path_regex": "persons"}, "times": 1},
    ("api", "stall"): {"match": {"path_regex": "persons"}, "delay_s": 0.1, "times": 1},
    ("sftp", "refuse"): {"times": 1},
    ("sftp", "slow"): {"delay_s": 0.001, "times": 1},
    ("sftp", "half"): {"match": {"path_regex": "files/out"}, "times": 1},
    ("sftp", "reset"): {"match": {"path_regex": "files"}, "times": 1},
    ("reports", "duplicate"): {"delay_s": 0.1, "times": 1},
    ("reports", "late"): {"delay_s": 0.1, "times": 1},
    ("reports", "half"): {"times": 1},
}
"""Every kind of failure that the sandbox knows."""


def script(*places: str) -> list[dict[str, Any]]:
    return [
        {"on": place, "action": action} | fault
        for (place, action), fault in FAULTS.items()
        if place in places
    ]


def sync_config(folder: Path) -> Path:
    path = folder / "sync.yaml"
    path.write_text(EXAMPLE.read_text(encoding="utf-8") + SECTIONS, encoding="utf-8")
    return path


def learn(watch: Watch, loop: Loop) -> None:
    """The values that the canaries have by now, on both sides."""
    for row in loop.sandbox.crm.rows():
        watch.learn(*(row[name] for name in PERSONAL), of=str(row["contact_id"]))
    for person in loop.sandbox.platform.persons.values():
        watch.learn(*told_of(person), of=person.external_person_id)


def told_of(person: Person) -> Iterator[object]:
    """The values of a person at the platform."""
    yield from (person.person_key, person.mdn, person.external_person_id)
    for name in ("first_name", "last_name", "birthdate"):
        value = person.custom.get(name)
        yield f"{value:%Y-%m-%d}" if isinstance(value, datetime) else value


def run(watch: Watch, instance: dg.DagsterInstance, day: str, job: str) -> bool:
    quiet = {"console": {"config": {"log_level": "CRITICAL"}}}
    result = (
        build_defs()
        .resolve_job_def(job)
        .execute_in_process(
            instance=instance,
            partition_key=day,
            run_config=dg.RunConfig(ops=delivery_run_config(dry_run=False).ops, loggers=quiet),
            raise_on_error=False,
        )
    )
    note_events(watch, instance, result.run_id, job)
    return bool(result.success)


def note_events(watch: Watch, instance: dg.DagsterInstance, run_id: str, job: str) -> None:
    for entry in instance.all_logs(run_id):
        watch.note(f"Dagster event of {job}", f"{dg.serialize_value(entry)}\n{entry.user_message}")


def spoil(loop: Loop, people: int) -> None:
    """Every contact gets a canary's name; some get what no sync can carry, with a canary in it.

    Half of them get a last name, too, so that there are two groups of changed columns.
    """
    with loop.sandbox.crm.edit() as editor:
        editor.connection.execute("UPDATE contacts SET first_name = 'Zqcanary' || rowid")
        editor.connection.execute(
            "UPDATE contacts SET last_name = 'Zqlast' || rowid WHERE rowid % 2 = 0"
        )
        for nth, assignment in enumerate(
            (
                "birth_date = 'Zqcanary-born'",
                "tier = 'Zqcanary-tier'",
                "mobile = '+1555Zqcanary'",
                "first_name = 'Zqcanary' || char(1)",
                "sms_opt_in = 'Zqcanary-maybe'",
                "score = 'Zqcanary-score'",
                "last_name = '=Zqcanary()'",
            )
        ):
            editor.connection.execute(
                f"UPDATE contacts SET {assignment} WHERE rowid = ?",
                (3 + nth * max(1, people // 10),),
            )
        editor.connection.execute(
            "CREATE TABLE happened AS SELECT rowid AS id, 'order_shipped' AS event_type,"
            " contact_id AS contact, mobile AS mdn, first_name AS who FROM contacts LIMIT 9"
        )
        editor.connection.execute("UPDATE happened SET event_type = who WHERE id = 5")


@contextmanager
def wrong(*variables: str) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for variable in variables:
            patch.setenv(variable, "wrong-password")
        yield


@pytest.mark.parametrize("people", PEOPLE)
def test_no_value_of_a_canary_is_seen(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    people: int,
) -> None:
    """Through failures of every kind, and through every command."""
    caplog.set_level(logging.INFO)
    watch = Watch(set(CANARY_WORDS))
    with (
        running_loop(tmp_path, build_world(people, seed=5), sync_config(tmp_path)) as loop,
        dg.DagsterInstance.ephemeral() as instance,
    ):
        spoil(loop, people)
        learn(watch, loop)
        fail_and_deliver(watch, loop, instance)
        use_commands_before_a_day(watch, loop, tmp_path)
        loop.sandbox.next_day()
        learn(watch, loop)
        run(watch, instance, loop.today, "reconcile_daily")
        be_called_back(watch, loop)
        use_every_command(watch, loop, tmp_path)
        learn(watch, loop)
        watch.note("log", caplog.text)
        watch.note("terminal", "\n".join(capfd.readouterr()))
        watch.note_files(loop.project.settings.home)
        for path in (tmp_path / "sandbox").rglob("*"):
            watch.note("file name at the platform", path.name)
    assert watch.leaks() == {}
    assert len(watch.values) > people * 3
    assert watch.ran == VIBES_COMMANDS


def fail_and_deliver(watch: Watch, loop: Loop, instance: dg.DagsterInstance) -> None:
    """The first day: refused logins, a hold, and every fault that the sandbox can make."""
    with wrong("SNOWFLAKE_PASSWORD"):
        assert not run(watch, instance, loop.today, "reconcile_daily")
    loop.sandbox.set_faults(script("sftp"))
    assert not run(watch, instance, loop.today, "reconcile_daily")
    loop.sandbox.set_faults(None)
    assert not run(watch, instance, loop.today, "reconcile_daily")  # held: nobody approved it
    hand_files_over(watch, loop, held=True)
    held = read_summary(loop.project, loop.today).diff_set
    watch.command("approve", held, "--reason", "looked at")
    hand_files_over(watch, loop, held=False)
    with wrong("VIBES_API_PASSWORD"):
        assert not run(watch, instance, loop.today, "repush")
    loop.sandbox.set_faults(script("api", "reports", "sftp"))
    run(watch, instance, loop.today, "repush")
    loop.sandbox.set_faults(None)
    run(watch, instance, loop.today, "repush")


def hand_files_over(watch: Watch, loop: Loop, *, held: bool) -> None:
    """While the file server cannot be used: what goes by file is written, the rest left to the API.

    A group of changed columns takes both roads about as long.
    """
    rate = len(loop.sandbox.crm.rows()) // 2
    upload = ("upload-files", "--out", str(loop.project.settings.home / "for-upload"))
    with loop.changed(VIBES_API_RATE_PER_S=rate, VIBES_SFTP_GAP_S="0", VIBES_SFTP_PORT="9"):
        watch.command(*upload)
        told = json.loads(watch.command(*upload, "--json"))
    assert bool(told["files"]) is not held
    assert bool(told["held"]) is held


def test_the_faults_are_all_that_the_sandbox_knows() -> None:
    known = {(place, action) for place, actions in faults._ACTIONS.items() for action in actions}
    assert set(FAULTS) == known


def test_every_command_meets_the_canaries_or_is_excused() -> None:
    assert set(every_command()) == VIBES_COMMANDS | TRIBE_COMMANDS | set(EXCUSED)
    assert not set(EXCUSED) & (VIBES_COMMANDS | TRIBE_COMMANDS)
    assert all(EXCUSED.values())


def be_called_back(watch: Watch, loop: Loop) -> None:
    """Callbacks about canaries, readable and not, and what the receiver tells of them."""
    row = loop.sandbox.crm.rows()[5]
    key, name = str(row["contact_id"]), str(row["first_name"])
    at = "2026-01-02T10:00:00Z"
    bodies = [
        as_bytes(subscription_body("subscription_removed", "e1", at, external_person_id=key)),
        as_bytes(subscription_body("subscription_added", "e1", at, external_person_id=key)),
        f'{{"event_type": "{name}", "person": {{"external_person_id": "{key}"}}'.encode(),
        name.encode(),
    ]
    project = loop.project
    with closing(Inbox(project.settings.ledger_url)) as inbox, running_receiver(inbox) as served:
        for body in bodies:
            _, answer = served.request("POST", f"/callbacks?who={key}", body)
            watch.note("answer to a callback", answer)
        watch.note("metrics", served.request("GET", "/metrics")[1])
    drained = drain(project, dry_run=False)
    watch.note("drain", f"{drained.sentence} {drained.reasons}")


def serve(watch: Watch, loop: Loop, folder: Path) -> None:
    """The receiver as a process of its own, with what it says of readable bodies and others."""
    row = loop.sandbox.crm.rows()[6]
    log = folder / "receiver.log"
    with (
        log.open("wb") as errors,
        serving(loop.project.settings.ledger_url, errors=errors.fileno()) as served,
    ):
        watch.note("output of callbacks serve", "".join(served.lines))
        for body in (str(row["first_name"]).encode(), json.dumps(dict(row), default=str).encode()):
            address = f"{served.address}/callbacks/{row['contact_id']}"
            with urllib.request.urlopen(address, body, timeout=60) as answer:
                watch.note("answer to a callback", answer.read().decode())
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{served.address}/{row['contact_id']}", timeout=60)
        with refused.value:
            watch.note("answer to a callback", refused.value.read().decode())
    watch.note("output of callbacks serve", log.read_text("utf-8"))
    watch.ran.add("callbacks serve")


def use_commands_before_a_day(watch: Watch, loop: Loop, folder: Path) -> None:
    """Those of a set-up, also with logins that are refused."""
    day, new = loop.today, folder / "new"
    watch.command("init", "--table", "contacts", "--company-key", "A1b2C3", "--out", str(new))
    assert (new / "sync.yaml").is_file()
    for path in (new / "sync.yaml", new / ".env"):
        watch.note(f"file {path.name}", path.read_text("utf-8"))
    watch.command("doctor", "--day", day)
    watch.command("preview", "--day", day)
    with wrong(*PASSWORDS):
        watch.command("init", "--company-key", "A1b2C3", "--out", str(folder / "other"))
        watch.command("doctor", "--day", day, "--json")
        watch.command("preview", "--day", day, "--json")
    watch.command("init", "--table", str(loop.sandbox.crm.rows()[0]["contact_id"])[:5])


def use_every_command(watch: Watch, loop: Loop, folder: Path) -> None:
    """Commands that answer for many; whoever asks for one person in clear is shown it in clear."""
    use_the_desk(watch, loop)
    serve(watch, loop, folder)
    parked = json.loads(watch.command("callbacks", "parked", "list", "--json"))
    first, second = (str(one["id"]) for one in parked[:2])
    watch.command("callbacks", "parked", "list")
    watch.command("callbacks", "parked", "retry", first, "--reason", "once more")
    watch.command("callbacks", "parked", "drop", second, "--reason", "nobody's")
    watch.command("callbacks", "plan")
    watch.command("callbacks", "apply")
    tell_events(watch, loop)
    watch.command("retention", "plan")
    watch.command("retention", "apply", "--json")
    watch.command("approve", "ffffffff", "--reason", "x")
    watch.command("report")
    watch.command("preview", "--day", loop.today)
    reconcile_by_hand(watch, loop, folder)
    key = str(loop.sandbox.crm.rows()[20]["contact_id"])
    learn(watch, loop)
    watch.command("explain", key, allowed=watch.values_of(key))
    watch.command("explain", key, "--field", "nothing", allowed=watch.values_of(key))
    watch.command("erase", key, "--reason", "asked for", "--dry-run")
    with wrong("VIBES_API_PASSWORD"):
        watch.command("erase", key, "--reason", "asked for")
    watch.command("erase", key, "--reason", "asked for")
    watch.command("erase", key, "--reason", "asked for", "--json")
    watch.command("explain", key, allowed=watch.values_of(key))


def use_the_desk(watch: Watch, loop: Loop) -> None:
    assert "Zqcanary" not in watch.command("quarantine", "list", "--all")
    cases = list_cases(loop.project)
    assert cases
    for case in cases[:3]:
        watch.command("quarantine", "show", case.case_id)
        watch.command("quarantine", "show", case.case_id, "--json")
    first = cases[0].case_id
    watch.command("quarantine", "resolve", first, "--as", "ignore", "--reason", "known")
    watch.command("quarantine", "undo", first, "--reason", "not known")
    watch.command("quarantine", "resolve", first, "--as", "new-person", "--reason", "x")
    person_key = next(iter(loop.sandbox.platform.persons.values())).person_key
    link = ("--as", "link", "--person-key", person_key, "--reason", "x")
    for case in cases:
        watch.command("quarantine", "resolve", case.case_id, *link)


def tell_events(watch: Watch, loop: Loop) -> None:
    """Events about canaries: taken, and of a type that the platform does not know."""
    row = loop.sandbox.crm.rows()[7]
    whom = ("--contact", str(row["contact_id"]), "--mdn", str(row["mobile"]))
    data = json.dumps({"who": row["first_name"]})
    for event_type in ("order_shipped", "no_such_type"):
        watch.command("events", "send", event_type, "--key", "k1", *whom, "--data", data)
    with wrong("VIBES_API_PASSWORD"):
        watch.command("events", "send", "order_shipped", "--key", "k2", *whom, "--data", data)
    watch.command("events", "send", "order_shipped", "--key", "k3", *whom, "--data", data[:-1])
    watch.command("events", "send-new", "--dry-run")
    watch.command("events", "send-new")
    watch.command("events", "status", "--json")


def reconcile_by_hand(watch: Watch, loop: Loop, folder: Path) -> None:
    landed = loop.project.settings.home / "landing"
    feeds = {
        "contacts": "crm/contacts",
        "persons": "share/persons",
        "subscriptions": "share/subscriptions",
    }
    sources = [
        word
        for option, feed in feeds.items()
        for word in (f"--{option}", str(landed / feed / loop.today))
    ]
    config = ("--config", str(loop.project.settings.sync_config))
    out = folder / "by-hand"
    watch.command("reconcile", *config, *sources, "--out", str(out))
    watch.note_files(out)
    people = [str(folder / "people.csv") if word == sources[1] else word for word in sources]
    Path(people[1]).write_text(f"contact_id\n{loop.sandbox.crm.rows()[8]['first_name']}\n")
    watch.command("reconcile", *config, *people, "--out", str(folder / "not-there"))


def test_the_watch_sees_a_leak() -> None:
    watch = Watch({"Zqcanary1", "3125550042"})
    watch.note("log", "row 7 of +1 (3125550042): no")
    watch.note("event", "Zqcanary12 is somebody else")
    watch.note("asked for", "Zqcanary1", allowed=frozenset({"Zqcanary1"}))
    assert watch.leaks() == {"log": {"3125550042"}}
