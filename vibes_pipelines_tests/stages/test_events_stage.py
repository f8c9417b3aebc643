"""Events from the CRM's table to the platform and back: sent once, and their outcomes recorded."""

import asyncio
import json
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from vibes_pipelines.cli.main import main
from vibes_pipelines.crm.database import CrmError
from vibes_pipelines.orchestration.jobs import op_run_config, send_events
from vibes_pipelines.orchestration.ops import send_new_events
from vibes_pipelines.orchestration.resources import ProjectResource
from vibes_pipelines.sandbox.population import build_world
from vibes_pipelines.stages.api import vibes_api
from vibes_pipelines.stages.erasing import erase
from vibes_pipelines.stages.events import (
    TooManyEvents,
    event_id_of,
    event_status,
    json_value,
    planned_event,
    send_crm_events,
    send_one,
)
from vibes_pipelines.store.inbox import Inbox
from vibes_pipelines.sync_config import load_sync_config
from vibes_pipelines.sync_config.outreach import Events as EventSource
from vibes_pipelines.vibes.api_transport import VibesAuthError
from vibes_pipelines.vibes.callback_api import CallbackSpec
from vibes_pipelines.vibes.event_api import InvalidEvent
from vibes_pipelines_tests.support.callbacks import running_receiver
from vibes_pipelines_tests.support.loop import EXAMPLE, Loop, running_loop

NOW = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
WEST = timezone(timedelta(hours=-5))
TABLE = (
    "CREATE TABLE shop_events (no INTEGER, kind TEXT, contact TEXT, mobile TEXT, item TEXT,"
    " amount NUMERIC, clerk TEXT, at TEXT)"
)
SOURCE = {
    "table": "shop_events",
    "id": "no",
    "type": "kind",
    "contact": "contact",
    "mdn": "mobile",
    "data": ["item", "amount"],
    "debug": ["clerk"],
    "occurred_at": "at",
    "max_per_run": 5,
}


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Loop]:
    sync_config = tmp_path / "sync.yaml"
    section = f"\nevents: {json.dumps(SOURCE)}\n"
    sync_config.write_text(EXAMPLE.read_text(encoding="utf-8") + section, encoding="utf-8")
    with running_loop(tmp_path, build_world(30, seed=3), sync_config) as running:
        with running.sandbox.crm.edit() as editor:
            editor.connection.execute(TABLE)
        yield running


def happen(loop: Loop, number: int, contact: str | None, **more: Any) -> None:
    """Something happens in the shop."""
    row = {
        "no": number,
        "kind": "day_of_delivery",
        "contact": contact,
        "mobile": None,
        "item": "lamp",
        "amount": 12,
        "clerk": "c9",
        "at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        **more,
    }
    marks = ", ".join(f":{name}" for name in row)
    with loop.sandbox.crm.edit() as editor:
        editor.connection.execute(f"INSERT INTO shop_events VALUES ({marks})", row)


def contact_of(loop: Loop) -> str:
    """A contact whom the platform knows."""
    persons = loop.sandbox.account.platform.persons.values()
    return next(p.external_person_id for p in persons if p.external_person_id and p.mdn)


async def register(loop: Loop, address: str) -> None:
    async with vibes_api(loop.project) as api:
        answer = await api.callbacks.register(CallbackSpec("event_processed", address, {}))
    assert answer.outcome == "accepted", answer


class TestTheTable:
    def test_a_dry_run_counts_and_does_nothing(self, loop: Loop) -> None:
        happen(loop, 1, contact_of(loop))
        run = send_crm_events(loop.project)
        assert (run.dry_run, run.new) == (True, 1)
        assert event_status(loop.project)["events"] == {}

    def test_each_row_is_one_event_and_none_is_sent_twice(self, loop: Loop) -> None:
        contact = contact_of(loop)
        happen(loop, 1, contact)
        happen(loop, 2, None, mobile="(312) 555-0142")
        run = send_crm_events(loop.project, dry_run=False)
        assert (run.new, run.sent.accepted) == (2, 2)
        happen(loop, 3, contact)
        again = send_crm_events(loop.project, dry_run=False)
        assert (again.new, again.sent.accepted) == (1, 1)
        assert len(loop.sandbox.account.events.accepted) == 3
        expected = event_id_of("A1b2C3", "shop_events", "1")
        assert expected in loop.sandbox.account.events.accepted

    def test_a_row_that_breaks_a_rule_is_refused_and_stops_no_other(self, loop: Loop) -> None:
        happen(loop, 1, None)
        happen(loop, 2, contact_of(loop), kind="no such type!")
        happen(loop, 3, contact_of(loop), item="x" * 17_000)
        happen(loop, 4, contact_of(loop))
        run = send_crm_events(loop.project, dry_run=False)
        assert (run.new, run.refused, run.sent.accepted) == (4, 3, 1)
        assert event_status(loop.project)["events"] == {"accepted": 1, "rejected": 3}

    def test_two_rows_under_one_id_are_refused_unless_they_say_the_same(self, loop: Loop) -> None:
        for item in ("lamp", "lamp"):
            happen(loop, 1, contact_of(loop), item=item, at=NOW)
        for item in ("lamp", "chair"):
            happen(loop, 2, contact_of(loop), item=item, at=NOW)
        run = send_crm_events(loop.project, dry_run=False)
        assert (run.new, run.refused, run.sent.accepted) == (2, 1, 1)

    def test_what_happened_too_long_ago_is_not_told(self, loop: Loop) -> None:
        happen(loop, 1, contact_of(loop), at="2020-01-01T00:00:00Z")
        assert send_crm_events(loop.project, dry_run=False).new == 0

    def test_an_age_that_nobody_can_read_is_refused_alone(self, loop: Loop) -> None:
        happen(loop, 1, contact_of(loop), at="01/02/2020 10:00")
        happen(loop, 2, contact_of(loop))
        happen(loop, 3, contact_of(loop), at=None)
        run = send_crm_events(loop.project, dry_run=False)
        assert (run.new, run.refused, run.sent.accepted) == (2, 1, 1)

    def test_more_than_may_leave_at_once_do_not_leave(self, loop: Loop) -> None:
        for number in range(6):
            happen(loop, number, contact_of(loop))
        with pytest.raises(TooManyEvents, match=r"events\.max_per_run"):
            send_crm_events(loop.project, dry_run=False)
        assert loop.sandbox.account.events.accepted == {}

    def test_what_is_missing_is_named(self, loop: Loop) -> None:
        with loop.sandbox.crm.edit() as editor:
            editor.connection.execute("ALTER TABLE shop_events RENAME COLUMN item TO thing")
        with pytest.raises(CrmError, match="no column 'item'"):
            send_crm_events(loop.project)
        with loop.sandbox.crm.edit() as editor:
            editor.connection.execute("DROP TABLE shop_events")
        with pytest.raises(CrmError, match=r"correct events\.table"):
            send_crm_events(loop.project)


def test_nothing_is_told_of_an_erased_person_and_everything_of_others(loop: Loop) -> None:
    loop.reconcile()
    erased = contact_of(loop)
    loop.sandbox.set_faults([{"action": "status", "status": 401}])
    happen(loop, 1, erased)
    with pytest.raises(VibesAuthError):
        send_crm_events(loop.project, dry_run=False)  # planned, and not sent
    loop.sandbox.set_faults(None)
    erase(loop.project, erased, "asked for", "ann")
    happen(loop, 2, erased)
    happen(loop, 3, contact_of(loop))
    run = send_crm_events(loop.project, dry_run=False)
    assert (run.new, run.refused, run.sent.accepted, run.sent.rejected) == (2, 1, 1, 1)
    with pytest.raises(InvalidEvent, match="was erased"):
        send_one(loop.project, "day_of_delivery", "4", event_data={"external_person_id": erased})
    told = [str(event) for event in loop.sandbox.account.events.accepted.values()]
    assert len(told) == 1
    assert erased not in told[0]


def test_outcomes_come_back_by_callback_and_are_recorded_once(loop: Loop) -> None:
    happen(loop, 1, contact_of(loop))
    happen(loop, 2, "nobody at all")
    with Inbox(loop.project.settings.ledger_url) as inbox, running_receiver(inbox) as receiver:
        asyncio.run(register(loop, f"http://127.0.0.1:{receiver.port}/callbacks"))
        send_crm_events(loop.project, dry_run=False)
        deadline = time.monotonic() + 60
        while receiver.receiver.tally.stored < 2:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    found = event_status(loop.project)["outcomes"]
    assert [(o["stage"], o["state"], o["callbacks"]) for o in found] == [
        ("routing", "failed", 1),
        ("routing", "processing", 1),
    ]
    assert send_crm_events(loop.project, dry_run=False).outcomes == 0


def test_an_empty_incentive_pool_is_told_with_what_to_do(loop: Loop) -> None:
    happen(loop, 1, contact_of(loop), kind="coupon_earned")
    with Inbox(loop.project.settings.ledger_url) as inbox, running_receiver(inbox) as receiver:
        asyncio.run(register(loop, f"http://127.0.0.1:{receiver.port}/callbacks"))
        send_crm_events(loop.project, dry_run=False)
        deadline = time.monotonic() + 60
        while receiver.receiver.tally.stored < 2:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    assert not loop.sandbox.account.activity.messages
    said = CliRunner().invoke(main, ["events", "status"]).output.splitlines()
    assert (
        "outcome processing failed et127_no_incentive_codes: 1; "
        "The incentive pool is empty; import codes, then send the event anew."
    ) in said


def test_the_job_sends_and_its_dry_run_does_not(loop: Loop) -> None:
    happen(loop, 1, contact_of(loop))
    resources = {"project": ProjectResource()}
    for dry_run, sent in ((True, 0), (False, 1)):
        config = op_run_config(send_new_events, dry_run=dry_run)
        assert send_events.execute_in_process(run_config=config, resources=resources).success
        assert len(loop.sandbox.account.events.accepted) == sent


class TestTheCall:
    def run(self, *arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(main, ["events", *arguments])
        return result.exit_code, result.output

    def test_a_call_is_sent_once_for_its_key(self, loop: Loop) -> None:
        call = ("send", "day_of_delivery", "--key", "order 7", "--contact", contact_of(loop))
        told_of = ("--data", '{"item": "lamp"}')
        code, text = self.run(*call, *told_of, "--json")
        told = json.loads(text)
        assert (code, told["status"]) == (0, "accepted")
        assert told["event_id"] == event_id_of("A1b2C3", "call", "day_of_delivery\norder 7")
        assert self.run(*call, *told_of)[0] == 0
        assert len(loop.sandbox.account.events.accepted) == 1
        assert self.run("status")[1].split() == ["accepted", "1"]

    def test_a_key_that_stands_for_other_data_is_refused(self, loop: Loop) -> None:
        call = ("send", "day_of_delivery", "--key", "order 7", "--contact", contact_of(loop))
        assert self.run(*call)[0] == 0
        code, text = self.run(*call, "--data", '{"item": "lamp"}')
        assert (code, "--key of its own" in text) == (1, True)
        assert len(loop.sandbox.account.events.accepted) == 1

    def test_without_a_table_there_is_nothing_new_to_send(self, loop: Loop) -> None:
        with loop.changed(VIBES_SYNC_CONFIG=EXAMPLE):
            code, text = self.run("send-new")
        assert (code, "no section events" in text) == (1, True)

    @pytest.mark.parametrize(
        ("arguments", "code", "says"),
        [
            (("day_of_delivery", "--key", "1"), 1, "names no person"),
            (("no such type!", "--key", "1", "--contact", "C"), 1, "event_type"),
            (("x", "--key", "1", "--contact", "C", "--data", "[]"), 2, "not a JSON object"),
            (("x", "--key", "1", "--contact", "C", "--data", "{"), 2, "not JSON"),
            (("x", "--contact", "C"), 2, "--key"),
        ],
    )
    def test_wrong_usage_says_what_is_right(
        self, loop: Loop, arguments: tuple[str, ...], code: int, says: str
    ) -> None:
        found, text = self.run("send", *arguments)
        assert (found, says in text) == (code, True)
        assert loop.sandbox.account.events.accepted == {}

    def test_the_table_by_command(self, loop: Loop) -> None:
        happen(loop, 1, contact_of(loop))
        assert self.run("send-new", "--dry-run")[1].startswith("dry run: new 1")
        code, text = self.run("send-new", "--json")
        assert (code, json.loads(text)["sent"]["accepted"]) == (0, 1)


texts = st.text(min_size=1, max_size=30)


@given(texts, texts, texts, texts)
def test_an_id_is_short_and_of_one_thing_only(company: str, source: str, key: str, o: str) -> None:
    found = event_id_of(company, source, key)
    assert len(found) == 40
    assert found == event_id_of(company, source, key)
    if o != key:
        assert found != event_id_of(company, source, o)


def test_an_event_carries_values_as_json_has_them() -> None:
    at = datetime(2026, 1, 2, tzinfo=UTC)
    values = [1, 1.5, True, "x", None, Decimal(7), Decimal("1.10"), float("nan"), at, at.date()]
    assert [json_value(value) for value in values] == [
        1, 1.5, True, "x", None, 7, "1.10", None, at.isoformat(), "2026-01-02",
    ]  # fmt: skip
    for none in ("Infinity", "-Infinity", "NaN", "sNaN"):
        assert json_value(Decimal(none)) is None
    assert json_value([Decimal("1.5"), {"at": at.date()}]) == ["1.5", {"at": "2026-01-02"}]


@pytest.mark.parametrize("blank", [None, "", "  "])
def test_a_row_without_its_id_is_refused_alone_and_once(blank: str | None) -> None:
    config = load_sync_config(EXAMPLE)
    source = EventSource(table="t", contact="c")
    rows = [{"id": blank, "event_type": "x", "c": name} for name in ("C1", "C1", "C2")]
    first, again, other = [planned_event(config, source, row) for row in rows]
    assert (first.refused, first.event_data) == (
        "a row of t has no id (events.id): give it one",
        {},
    )
    assert first == again
    assert first.event_id != other.event_id


@pytest.mark.parametrize("end", [date.max, "9999-12-31", datetime.max.replace(tzinfo=WEST)])
def test_a_time_at_the_end_of_the_calendar_is_refused_alone(end: date | str) -> None:
    source = EventSource(table="t", contact="c", occurred_at="at")
    row = {"id": 1, "event_type": "x", "c": "C1", "at": end}
    refused = planned_event(load_sync_config(EXAMPLE), source, row).refused
    assert refused is not None
    assert "holds no time that can be read" in refused


def test_an_event_is_good_for_as_long_as_is_said() -> None:
    config = load_sync_config(EXAMPLE)
    source = EventSource(table="t", contact="c", occurred_at="at", max_age_h=2)
    row = {"id": 1, "event_type": "x", "c": "C1", "at": "2026-01-02T00:00:00Z"}
    planned = planned_event(config, source, row)
    assert planned.send_until == datetime(2026, 1, 2, tzinfo=UTC) + timedelta(hours=2)
