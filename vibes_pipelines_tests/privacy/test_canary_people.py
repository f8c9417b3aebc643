"""Canary people: none of their values is seen where it must not, whatever happens.

Personal values belong into snapshots, diff sets, import files and the ledger. They do not belong
into a log, an event or metadata of Dagster, the metrics, a report, the output of a command that
does not ask for them in clear, or the name of a file.
"""

import logging
import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from click.testing import CliRunner

from vibes_pipelines.cli.main import main
from vibes_pipelines.orchestration.build import build_defs
from vibes_pipelines.orchestration.jobs import delivery_run_config
from vibes_pipelines.sandbox.population import build_world
from vibes_pipelines.stages.delivering import approve
from vibes_pipelines.stages.inbox import drain
from vibes_pipelines.stages.quarantine_desk import list_cases
from vibes_pipelines.stages.reconciling import read_summary
from vibes_pipelines.store.inbox import Inbox
from vibes_pipelines_tests.support.callbacks import as_bytes, running_receiver, subscription_body
from vibes_pipelines_tests.support.loop import Loop, running_loop

PEOPLE = [50, pytest.param(1_000, marks=[pytest.mark.slow, pytest.mark.timeout(1_800)])]
DATA = frozenset({".parquet", ".persons", ".opt_outs", ".db", ".db-wal", ".db-shm", ".key"})
"""Files that hold people on purpose, and the key of the hashes."""


@dataclass
class Watch:
    """Collects what people may read, and knows every value of the canaries."""

    loop: Loop
    values: set[str] = field(default_factory=set)
    seen: list[tuple[str, str]] = field(default_factory=list)

    def note(self, where: str, text: str) -> None:
        self.seen.append((where, text))

    def learn(self) -> None:
        """The values that the canaries have by now, on both sides."""
        for row in self.loop.sandbox.crm.rows():
            self.values |= {str(row["contact_id"]), str(row["first_name"]), str(row["last_name"])}
            digits = re.sub(r"\D", "", str(row["mobile"] or ""))
            self.values |= {str(row["mobile"]), digits, digits[-10:]}
        for person in self.loop.sandbox.platform.persons.values():
            self.values |= {person.person_key, str(person.mdn), str(person.mdn)[-10:]}
            self.values |= {str(person.external_person_id)}
        self.values = {value for value in self.values if len(value) >= 6 and value != "None"}

    def leaks(self) -> dict[str, set[str]]:
        """Where a value was seen, by where it was noted."""
        words = "|".join(re.escape(value) for value in sorted(self.values, key=len, reverse=True))
        pattern = re.compile(rf"(?<![0-9A-Za-z])(?:{words})(?![0-9A-Za-z])")
        found: dict[str, set[str]] = {}
        for where, text in self.seen:
            hits = set(pattern.findall(text))
            if hits:
                found.setdefault(where, set()).update(sorted(hits)[:5])
        return found


def run(watch: Watch, instance: dg.DagsterInstance, job: str) -> bool:
    quiet = {"console": {"config": {"log_level": "CRITICAL"}}}
    result = (
        build_defs()
        .resolve_job_def(job)
        .execute_in_process(
            instance=instance,
            partition_key=watch.loop.today,
            run_config=dg.RunConfig(ops=delivery_run_config(dry_run=False).ops, loggers=quiet),
            raise_on_error=False,
        )
    )
    for entry in instance.all_logs(result.run_id):
        watch.note(f"Dagster event of {job}", f"{dg.serialize_value(entry)}\n{entry.user_message}")
    return bool(result.success)


def command(watch: Watch, *arguments: str) -> str:
    result = CliRunner().invoke(main, arguments)
    told = f"{result.output}\n{result.stderr}\n{result.exception}"
    watch.note(f"output of {' '.join(arguments[:2])}", told)
    return result.output


def spoil(loop: Loop, people: int) -> None:
    """Every contact gets a canary's name; some get what no sync can carry, with a canary in it."""
    with loop.sandbox.crm.edit() as editor:
        editor.connection.execute(
            "UPDATE contacts SET first_name = 'Zqcanary' || rowid, last_name = 'Zqlast' || rowid"
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


CANARY_WORDS = {"Zqcanary-born", "Zqcanary-tier", "Zqcanary-maybe", "Zqcanary-score", "Zqcanary"}
FAULTS: list[dict[str, Any]] = [
    {"match": {"path_regex": "persons/external"}, "action": "status", "status": 422, "times": 2},
    {"match": {"path_regex": "persons"}, "action": "reset", "times": 1},
    {"match": {"path_regex": "subscriptions/"}, "action": "status", "status": 503, "times": 2},
]


@contextmanager
def wrong(loop: Loop, variable: str) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(variable, "wrong-password")
        yield


@pytest.mark.parametrize("people", PEOPLE)
def test_no_value_of_a_canary_is_seen(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    people: int,
) -> None:
    caplog.set_level(logging.INFO)
    with (
        running_loop(tmp_path, build_world(people, seed=5)) as loop,
        dg.DagsterInstance.ephemeral() as instance,
    ):
        watch = Watch(loop, set(CANARY_WORDS))
        spoil(loop, people)
        watch.learn()
        with wrong(loop, "SNOWFLAKE_PASSWORD"):
            assert not run(watch, instance, "reconcile_daily")
        assert not run(watch, instance, "reconcile_daily")  # held: nobody approved it
        approve(loop.project, read_summary(loop.project, loop.today).diff_set, "looked at")
        with wrong(loop, "VIBES_API_PASSWORD"):
            assert not run(watch, instance, "repush")
        loop.sandbox.set_faults(FAULTS)
        run(watch, instance, "repush")
        loop.sandbox.set_faults(None)
        loop.sandbox.next_day()
        watch.learn()
        run(watch, instance, "reconcile_daily")
        be_called_back(watch)
        use_every_command(watch)
        watch.learn()
        watch.note("log", caplog.text)
        watch.note("terminal", "\n".join(capfd.readouterr()))
        data = loop.project.settings.home
        for path in data.rglob("*"):
            watch.note("file name", str(path.relative_to(data)))
            if path.is_file() and path.suffix not in DATA:
                watch.note(f"file {path.relative_to(data)}", path.read_text("utf-8", "replace"))
        for path in (tmp_path / "sandbox").rglob("*"):
            watch.note("file name at the platform", path.name)
    assert watch.leaks() == {}
    assert len(watch.values) > people * 3


def be_called_back(watch: Watch) -> None:
    """Callbacks about canaries, readable and not, and what the receiver tells of them."""
    row = watch.loop.sandbox.crm.rows()[5]
    key, name = str(row["contact_id"]), str(row["first_name"])
    at = "2026-01-02T10:00:00Z"
    bodies = [
        as_bytes(subscription_body("subscription_removed", "e1", at, external_person_id=key)),
        as_bytes(subscription_body("subscription_added", "e1", at, external_person_id=key)),
        f'{{"event_type": "{name}", "person": {{"external_person_id": "{key}"}}'.encode(),
        name.encode(),
    ]
    project = watch.loop.project
    with closing(Inbox(project.settings.ledger_url)) as inbox, running_receiver(inbox) as served:
        for body in bodies:
            _, answer = served.request("POST", f"/callbacks?who={key}", body)
            watch.note("answer to a callback", answer)
        watch.note("metrics", served.request("GET", "/metrics")[1])
    drained = drain(project, dry_run=False)
    watch.note("drain", f"{drained.sentence} {drained.reasons}")


def use_every_command(watch: Watch) -> None:
    """Commands that answer for many; whoever asks for one person in clear is shown it in clear."""
    loop = watch.loop
    assert "Zqcanary" not in command(watch, "quarantine", "list", "--all")
    cases = list_cases(loop.project)
    assert cases
    for case in cases[:3]:
        command(watch, "quarantine", "show", case.case_id)
        command(watch, "quarantine", "show", case.case_id, "--json")
    command(
        *(watch, "quarantine", "resolve", cases[0].case_id, "--as", "ignore", "--reason", "known")
    )
    command(watch, "quarantine", "undo", cases[0].case_id, "--reason", "not known")
    command(watch, "quarantine", "resolve", cases[0].case_id, "--as", "new-person", "--reason", "x")
    command(watch, "callbacks", "plan")
    command(watch, "callbacks", "parked", "list")
    command(watch, "retention", "plan")
    command(watch, "retention", "apply", "--json")
    command(watch, "approve", "ffffffff", "--reason", "x")
    command(watch, "report")
    command(watch, "preview")
    key = str(loop.sandbox.crm.rows()[20]["contact_id"])
    command(watch, "erase", key, "--reason", "asked for", "--dry-run")
    command(watch, "erase", key, "--reason", "asked for")


def test_the_watch_sees_a_leak() -> None:
    watch = Watch(loop=None, values={"Zqcanary1", "3125550042"})  # type: ignore[arg-type]
    watch.note("log", "row 7 of +1 (3125550042): no")
    watch.note("event", "Zqcanary12 is somebody else")
    assert watch.leaks() == {"log": {"3125550042"}}
