"""The inbox keeps each event once, and beside it whatever else came; it gives events in order."""

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from vibes_pipelines.store.database import MIGRATIONS, open_engine, writer
from vibes_pipelines.store.inbox import CONFLICT, PAGE_ROWS, Arrival, Finished, Inbox
from vibes_pipelines.store.ledger import Ledger
from vibes_pipelines_tests.support.callbacks import ADDED, REMOVED, stored_rows

NOW = datetime(2026, 1, 10, 12, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger.db'}"
    return str(request.getfixturevalue("postgresql_url"))


@pytest.fixture
def inbox(url: str) -> Iterator[Inbox]:
    with Inbox(url, clock=lambda: NOW) as opened:
        yield opened


def arrival(event_id: str | None = "E1", content: str = "c1", **values: Any) -> Arrival:
    whole = Arrival(
        source_address="127.0.0.1",
        path="/callbacks",
        body=content.encode(),
        body_bytes=len(content),
        content_hash=content,
        event_id=event_id,
        event_type=REMOVED,
        event_at=NOW - DAY,
        subscription_list_id="1234",
        external_person_id="C1",
    )
    return replace(whole, **values)


def waiting_ids(inbox: Inbox) -> list[int]:
    return [callback.id for page in inbox.waiting() for callback in page]


class TestStoring:
    def test_a_body_is_kept_as_it_came(self, inbox: Inbox, url: str) -> None:
        body = bytes(range(256))
        inbox.store([arrival(None, parked="the body is not JSON", body=body, body_bytes=256)])
        [row] = stored_rows(url)
        assert (row["body"], row["status"], row["reason"]) == (
            body,
            "parked",
            "the body is not JSON",
        )
        assert row["finished_at"] == row["received_at"] == NOW

    def test_the_same_event_again_is_a_duplicate(self, inbox: Inbox, url: str) -> None:
        assert inbox.store([arrival(), arrival()]) == ["stored", "duplicate"]
        assert inbox.store([arrival()]) == ["duplicate"]
        assert len(stored_rows(url)) == 1

    def test_other_content_under_the_same_event_id_is_parked_beside_it(
        self, inbox: Inbox, url: str
    ) -> None:
        told = inbox.store([arrival(), arrival(content="c2"), arrival(content="c3")])
        assert told == ["stored", "conflict", "conflict"]
        assert inbox.store([arrival(content="c2")]) == ["duplicate"]
        found = [(row["event_id"], row["status"], row["reason"]) for row in stored_rows(url)]
        assert found == [("E1", "stored", None), *[("E1", "parked", CONFLICT)] * 2]

    def test_events_of_two_types_may_share_an_event_id(self, inbox: Inbox, url: str) -> None:
        told = inbox.store([arrival(event_type=ADDED), arrival(content="c2")])
        assert told == ["stored", "stored"]
        assert inbox.store([arrival(event_type=ADDED)]) == ["duplicate"]
        assert {row["status"] for row in stored_rows(url)} == {"stored"}

    def test_what_was_heard_is_found_by_key_and_number_too(self, inbox: Inbox) -> None:
        number = "+13125550142"
        inbox.store(
            [
                arrival("E1", "e1", external_person_id=None, person_key="k1"),
                arrival("E2", "e2", external_person_id=None, mdn=number, event_at=NOW - DAY / 2),
                arrival("E3", "e3", person_key="k1", mdn=number),
                arrival("E4", "e4", external_person_id=None),
            ]
        )
        found = inbox.heard((REMOVED,), NOW - DAY, ["C1"], person_keys=["k1"], mdns=[number])
        assert [callback.event_id for callback in found] == ["E1", "E3", "E2"]

    def test_without_an_event_id_the_content_tells_duplicates(self, inbox: Inbox) -> None:
        told = inbox.store([arrival(None), arrival(None), arrival(None, "c2"), arrival("c1")])
        assert told == ["stored", "duplicate", "stored", "stored"]

    def test_an_event_of_the_future_happened_when_it_arrived(self, inbox: Inbox, url: str) -> None:
        inbox.store([arrival(event_at=NOW + DAY), arrival("E2", event_at=NOW + DAY / 48)])
        assert [row["event_at"] for row in stored_rows(url)] == [NOW, NOW + DAY / 48]

    def test_all_of_a_call_are_stored_or_none(self, inbox: Inbox, url: str) -> None:
        naive = (NOW - DAY).replace(tzinfo=None)
        with pytest.raises(TypeError):
            inbox.store([arrival(), arrival("E2", event_at=naive)])
        assert stored_rows(url) == []


class TestWaiting:
    def test_events_come_in_their_own_order_and_ties_in_that_of_arrival(self, inbox: Inbox) -> None:
        times = [NOW, NOW - DAY, None, NOW - 2 * DAY, NOW - DAY]
        inbox.store([arrival(f"E{n}", event_at=at) for n, at in enumerate(times, start=1)])
        assert waiting_ids(inbox) == [4, 2, 5, 1, 3]

    def test_pages_lose_and_repeat_nothing_while_they_are_finished(self, inbox: Inbox) -> None:
        rows = PAGE_ROWS * 2 + 7
        inbox.store([arrival(f"E{n}", event_at=NOW - (n % 5) * DAY) for n in range(rows)])
        seen: Counter[int] = Counter()
        for page in inbox.waiting():
            seen.update(callback.id for callback in page)
            inbox.finish([Finished(callback.id, "ignored", "seen") for callback in page])
        assert seen == Counter(range(1, rows + 1))
        assert waiting_ids(inbox) == []
        assert inbox.backlog() == {"ignored": rows}

    def test_the_first_end_of_a_callback_stands(self, inbox: Inbox, url: str) -> None:
        inbox.store([arrival()])
        inbox.finish([Finished(1, "applied", "opted_out")])
        inbox.finish([Finished(1, "ignored", "superseded")])
        [row] = stored_rows(url)
        assert (row["status"], row["reason"], row["finished_at"]) == ("applied", "opted_out", NOW)

    def test_the_newest_that_waits_is_the_last_that_came(self, inbox: Inbox) -> None:
        assert inbox.newest_waiting() is None
        inbox.store([arrival(), arrival("E2", event_at=NOW - 3 * DAY), arrival("E3", parked="no")])
        assert inbox.newest_waiting() == 2


class TestLaterEvents:
    def test_those_of_the_same_list_that_share_an_identifier(self, inbox: Inbox) -> None:
        inbox.store([arrival(person_key="k1")])
        [[removal]] = inbox.waiting()
        added: dict[str, Any] = {"event_type": ADDED, "event_at": NOW}
        inbox.store(
            [
                arrival("same", **added),
                arrival("by_key", **added, external_person_id=None, person_key="k1"),
                arrival("older", event_type=ADDED, event_at=NOW - 2 * DAY),
                arrival("at_once", event_type=ADDED, event_at=NOW - DAY),
                arrival("undated", event_type=ADDED, event_at=None),
                arrival("other_list", **added, subscription_list_id="9"),
                arrival("other_person", **added, external_person_id="C2"),
                arrival("nobody", **added, external_person_id=None),
                arrival("parked", **added, parked="a conflict"),
            ]
        )
        later = [callback.event_id for callback in inbox.later_events(removal, ADDED)]
        assert later == ["same", "by_key"]

    def test_a_callback_without_a_person_shares_nothing(self, inbox: Inbox) -> None:
        inbox.store([arrival(external_person_id=None)])
        [[nobody]] = inbox.waiting()
        inbox.store([arrival("E2", event_type=ADDED, event_at=NOW, external_person_id=None)])
        assert inbox.later_events(nobody, ADDED) == []


class TestManyWriters:
    def test_threads_store_each_event_once(self, url: str, inbox: Inbox) -> None:
        def store(number: int) -> list[str]:
            events = [f"E{(n * (number + 1)) % 40}" for n in range(40)]
            own = Inbox(url)
            try:
                return [own.store([arrival(event)])[0] for event in events]
            finally:
                own.close()

        with ThreadPoolExecutor(4) as pool:
            told = Counter(told for answers in pool.map(store, range(4)) for told in answers)
        assert told["stored"] == len(stored_rows(url)) == 40
        assert told["conflict"] == 0

    def test_processes_store_each_event_once_and_agree_on_conflicts(self, url: str) -> None:
        code = (
            "import sys; from vibes_pipelines.store.inbox import Arrival, Inbox\n"
            "with Inbox(sys.argv[1]) as inbox:\n"
            "    for n in range(60):\n"
            "        content = f'{n}/{sys.argv[2]}' if n % 2 else str(n)\n"
            "        inbox.store([Arrival('', '', b'', 0, content, event_id=f'E{n}')])\n"
        )
        started = [
            subprocess.Popen([sys.executable, "-c", code, url, str(number)]) for number in range(3)
        ]
        assert [process.wait(120) for process in started] == [0, 0, 0]
        statuses = Counter((row["event_id"], row["status"]) for row in stored_rows(url))
        for n in range(60):
            assert statuses[f"E{n}", "stored"] == 1
            assert statuses[f"E{n}", "parked"] == (2 if n % 2 else 0)


class TestMigration:
    def test_a_ledger_of_the_first_release_gains_the_inbox_and_keeps_its_rows(
        self, url: str
    ) -> None:
        engine = open_engine(url)
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        with writer(engine).begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "0001")
            connection.execute(
                sa.text("INSERT INTO accepted_snapshots VALUES ('2026-01-01', 'crm/x', 5, 'h')")
            )
        engine.dispose()
        with Ledger(url) as ledger:
            assert ledger.accepted_rows("2026-01-02") == {"crm/x": 5}
        inbox = Inbox(url)  # the ledger's migration made its table
        try:
            assert inbox.store([arrival()]) == ["stored"]
        finally:
            inbox.close()

    def test_an_id_is_never_given_twice(self, url: str, inbox: Inbox) -> None:
        inbox.store([arrival(), arrival("E2")])
        engine = open_engine(url)
        with writer(engine).begin() as connection:
            connection.execute(sa.text("DELETE FROM callbacks"))
        engine.dispose()
        inbox.store([arrival("E3")])
        assert waiting_ids(inbox) == [3]


def test_an_error_of_the_database_shows_no_value(url: str, inbox: Inbox) -> None:
    with pytest.raises(sa.exc.SQLAlchemyError) as raised:
        inbox.store([arrival(None, event_at=NOW, source_address=None, mdn="+13125550142")])
    assert "+13125550142" not in str(raised.value).partition("DETAIL")[0]


class TestUrgency:
    def test_what_is_urgent_comes_first_and_what_arrives_meanwhile_before_the_next_page(
        self, inbox: Inbox
    ) -> None:
        updates = [
            arrival(f"U{n}", f"u{n}", event_type="person_updated") for n in range(PAGE_ROWS + 1)
        ]
        inbox.store([*updates, arrival("R1", "r1")])
        pages = []
        for page in inbox.waiting(urgent=(REMOVED,)):
            pages.append([callback.event_id for callback in page])
            if len(pages) == 2:  # older than all of them, and urgent
                inbox.store([arrival("R2", "r2", event_at=NOW - 3 * DAY)])
            inbox.finish([Finished(callback.id, "ignored", "seen") for callback in page])
        assert [len(page) for page in pages] == [1, PAGE_ROWS, 1, 1]
        assert (pages[0], pages[2]) == (["R1"], ["R2"])

    def test_a_look_that_finishes_nothing_gives_each_callback_once(self, inbox: Inbox) -> None:
        inbox.store([arrival("R1"), arrival("U1", "u1", event_type=None)])
        found = [c.event_id for page in inbox.waiting(urgent=(REMOVED,)) for c in page]
        assert found == ["R1", "U1"]


class TestTheDesk:
    def test_what_was_heard_of_contacts_since_leaves_out_what_is_parked(self, inbox: Inbox) -> None:
        inbox.store(
            [
                arrival("E1", "e1", event_at=NOW - 2 * DAY),
                arrival("E2", "e2", parked="unreadable"),
                arrival("E3", "e3", external_person_id="C2"),
                arrival("E4", "e4"),
            ]
        )
        found = inbox.heard((REMOVED,), NOW - DAY, ["C1"])
        assert [callback.event_id for callback in found] == ["E4"]
        assert inbox.bodies([found[0].id]) == {found[0].id: b"e4"}

    def test_a_decision_ends_only_what_is_parked(self, inbox: Inbox, url: str) -> None:
        inbox.store([arrival("E1", "e1"), arrival("E2", "e2", parked="unreadable")])
        assert inbox.drop([1, 2], "looked at") == [2]
        assert inbox.retry({1: arrival("E1", "e1")}, "again") == []
        assert [row["status"] for row in stored_rows(url)] == ["stored", "dropped"]

    def test_a_retried_callback_without_a_time_keeps_its_place_of_arrival(self, url: str) -> None:
        with Inbox(url, clock=lambda: NOW) as inbox:
            inbox.store([arrival("E1", parked="unreadable", event_at=None)])
        with Inbox(url, clock=lambda: NOW + DAY) as later:
            assert later.retry({1: arrival("E1", event_at=None)}, "it can be read now") == [1]
            [[callback]] = later.waiting()
        assert callback.order_at == NOW
        assert callback.decided_reason == "it can be read now"
