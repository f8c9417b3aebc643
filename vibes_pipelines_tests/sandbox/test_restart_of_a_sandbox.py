"""State that outlives the sandbox's process: the world, what waits to be sent, the calendar."""

import json
import os
import shlex
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vibes_pipelines.sandbox.api_limits import Credentials
from vibes_pipelines.sandbox.home import SandboxHomeError
from vibes_pipelines.sandbox.journal import JournalError
from vibes_pipelines.sandbox.platform import Person, Subscription
from vibes_pipelines.sandbox.population import build_world
from vibes_pipelines.sandbox.saved import SavedRecords
from vibes_pipelines.sandbox.service import API_USER, Sandbox
from vibes_pipelines_tests.sandbox.receiver import eventually, receiving
from vibes_pipelines_tests.sandbox.stand_in import ApiClient

PEOPLE, SEED = 200, 7
EDIT = {"custom_fields": {"first_name": "Augusta", "score": 7.5, "interests": ["golf"]}}


@contextmanager
def running(home: Path, *, resume: bool) -> Iterator[Sandbox]:
    sandbox = Sandbox(home, build_world(PEOPLE, SEED), seed=SEED)
    sandbox.start(resume=resume)
    try:
        yield sandbox
    finally:
        sandbox.stop()


def client(environment: dict[str, str]) -> ApiClient:
    credentials = Credentials(API_USER, environment["VIBES_API_PASSWORD"])
    headers = {
        "Authorization": credentials.header(),
        "Content-Type": "application/json",
        "X-API-Version": "2",
    }
    return ApiClient(int(environment["VIBES_API_URL"].rpartition(":")[2]), headers=headers)


def state(sandbox: Sandbox) -> dict[str, Any]:
    platform = sandbox.platform
    return {
        "persons": {key: repr(person) for key, person in platform.persons.items()},
        "subscriptions": sorted(map(repr, platform.subscriptions)),
        "shelves": {
            shelf.name: {key: repr(value) for key, value in shelf.items()}
            for shelf in (*sandbox.account.shelves(), *sandbox._callbacks.shelves())
        },
        "now": sandbox.now(),
        "today": sandbox.today,
        "next": platform.next_number,
    }


def outsider(sandbox: Sandbox) -> Person:
    """Somebody with a number who is on no list."""
    return next(
        person
        for person in sandbox.platform.persons.values()
        if person.mdn and not sandbox.platform.subscriptions_of(person.person_key)
    )


def live_a_little(sandbox: Sandbox, url: str) -> None:
    """A change of every sort; the callback of each waits."""
    sandbox.set_callback_manner({"hold": True})
    api, person = client(sandbox.environment()), outsider(sandbox)
    registration = {"callback_type": "person_updated", "destination": {"url": url}}
    assert api.call("POST", "/config/callbacks/", registration).status == 201
    path = f"/mobiledb/persons/{person.person_key}"
    assert api.call("PUT", path, EDIT).status == 200
    invitation = {"person_key": person.person_key}
    assert api.call("POST", "/campaigns/acquisition/777/participants", invitation).status == 201
    data = {"person_key": person.person_key, "price": 1.5}
    event = {"event_type": "day_of_delivery", "event_id": "E1", "event_data": data}
    assert api.call("POST", "/events", event).status == 202
    sandbox.act("wallet/install", {"token": "r3zhm8", "uuid": "u1", "provider": "passbook"})
    sandbox.act("devices/open-app", {"app_id": "APP1", "os": "IOS"})
    sandbox.act("numbers/deactivate", {"mdn": "+13125550199"})
    sandbox.next_day()


def test_a_resumed_sandbox_is_where_it_was(tmp_path: Path) -> None:
    with receiving() as there:
        with running(tmp_path / "home", resume=False) as sandbox:
            live_a_little(sandbox, there.url)
            before, crm = state(sandbox), sandbox.crm.rows()
            files = sorted(p.name for p in sandbox.home.sftp.rglob("*"))
            keys = (sandbox.home.keys / "client_ed25519").read_bytes()
        assert there.received == []
        with running(tmp_path / "home", resume=True) as sandbox:
            eventually(lambda: len(sandbox._callbacks.queue) == 0, "what waited to be sent")
            sent = len(there.received)
            after = state(sandbox)
            assert (after.pop("shelves").pop("deliveries"), sent > 0) == ({}, True)
            before["shelves"].pop("deliveries")
            shelves = before.pop("shelves")
            assert after == before
            assert shelves == {
                name: kept
                for name, kept in state(sandbox)["shelves"].items()
                if name != "deliveries"
            }
            assert sandbox.crm.rows() == crm
            assert sorted(p.name for p in sandbox.home.sftp.rglob("*")) == files
            assert (sandbox.home.keys / "client_ed25519").read_bytes() == keys


def test_days_go_on_after_a_restart_as_without_one(tmp_path: Path) -> None:
    days = []
    for name, is_restarted in (("plain", False), ("restarted", True)):
        with running(tmp_path / name, resume=False) as sandbox:
            sandbox.next_day()
            if not is_restarted:
                sandbox.next_day()
                days.append((state(sandbox), extracts(sandbox)))
        if is_restarted:
            with running(tmp_path / name, resume=True) as sandbox:
                sandbox.next_day()
                days.append((state(sandbox), extracts(sandbox)))
    assert days[0] == days[1]


def extracts(sandbox: Sandbox) -> dict[str, str]:
    folder = sandbox.home.sftp_folder("/files/out")
    return {path.name: path.read_text("utf-8") for path in folder.iterdir()}


def test_there_must_be_something_to_resume(tmp_path: Path) -> None:
    with pytest.raises(SandboxHomeError, match="no sandbox's state to resume"):
        Sandbox(tmp_path / "home", build_world(20, 1)).start(resume=True)


def test_a_damaged_state_is_said_to_be_so(tmp_path: Path) -> None:
    with running(tmp_path / "home", resume=False) as sandbox:
        journal = sandbox.home.journal
        sandbox._journal._database.execute("DELETE FROM records WHERE shelf = 'place'")
    assert journal.exists()
    with pytest.raises(JournalError, match="start a new world"):
        Sandbox(tmp_path / "home", build_world(PEOPLE, SEED)).start(resume=True)


@contextmanager
def process(home: Path, *, resume: bool) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    """A sandbox in a process of its own, killed at the end; and its environment."""
    code = (
        "import sys; from pathlib import Path; from vibes_pipelines.sandbox.service import serve;"
        " serve(Path(sys.argv[1]), 50, resume=sys.argv[2] == 'resume')"
    )
    word = "resume" if resume else "new"
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(home), word],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert child.stdout is not None
    try:
        environment: dict[str, str] = {}
        for line in child.stdout:
            if line.startswith("# ready"):
                break
            name, _, value = shlex.split(line)[1].partition("=")
            environment[name] = value
        yield child, environment
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


def test_what_was_acknowledged_survives_a_killed_process(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with process(home, resume=False) as (child, environment):
        api = client(environment)
        answers = [
            api.call("PUT", f"/mobiledb/persons/external/K-{number}", EDIT).status
            for number in range(40)
        ]
        assert answers == [201] * 40
        child.send_signal(signal.SIGKILL)
        child.wait()
    with process(home, resume=True) as (_, environment):
        api = client(environment)
        paths = (f"/mobiledb/persons/external/K-{number}" for number in range(40))
        assert {api.call("GET", path).body["custom_fields"]["score"] for path in paths} == {"7.5"}
        with urllib.request.urlopen(f"{environment['VIBES_API_URL']}/sandbox/now") as answer:
            assert json.load(answer)["now"].startswith("2026-01-01T06:00")


INSTANTS = st.datetimes(timezones=st.just(UTC))
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text()
    | INSTANTS
    | st.dates()
    | st.decimals(allow_nan=False),
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(st.text(), inner)
        | st.builds(
            Person,
            st.text(),
            st.text(),
            st.none(),
            st.none(),
            st.none(),
            st.dictionaries(st.text(), inner),
            INSTANTS,
            INSTANTS,
        )
    ),
)


@given(VALUES)
def test_records_are_read_back_as_they_were(value: object) -> None:
    records = SavedRecords((Person,))
    back = records.load(records.dump(value))
    assert (back, type(back)) == (value, type(value))


def test_unnamed_records_are_not_saved() -> None:
    with pytest.raises(TypeError, match="Subscription"):
        SavedRecords((Person,)).dump(Subscription("k", "1", datetime(2026, 1, 1, tzinfo=UTC)))
    assert SavedRecords(()).dump([Decimal("1.0"), date(2026, 1, 1)]).count("!") == 2
