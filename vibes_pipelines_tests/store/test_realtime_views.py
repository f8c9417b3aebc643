"""What was sent in real time, as the daily run asks for it: pending, and to certify."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from vibes_pipelines.store.ledger import Ledger
from vibes_pipelines.store.ledger_views import PENDING_SCHEMA
from vibes_pipelines.store.realtime import RealtimeBook
from vibes_pipelines.store.realtime_views import with_newer
from vibes_pipelines.store.records import Change, Operation, Receipt
from vibes_pipelines.store.sent_changes import SentChanges

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
DAY, NEXT = "2026-01-02", "2026-01-03"
LATER = AT + timedelta(hours=1)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger.db'}"
    return str(request.getfixturevalue("postgresql_url"))


@pytest.fixture
def ledger(url: str) -> Iterator[Ledger]:
    with Ledger(url) as opened:
        yield opened


@pytest.fixture
def book(url: str, ledger: Ledger) -> Iterator[RealtimeBook]:
    opened = RealtimeBook(url, clock=lambda: AT)
    yield opened
    opened.close()


def operation(number: int, value: str, **others: Any) -> Operation:
    name = Change("first_name", "set", "Ada", value, "crm_changed")
    found = Operation(
        operation_id=f"op{number}",
        diff_set="realtime x",
        day=DAY,
        as_of=AT + timedelta(minutes=number),
        lane="persons",
        route="api",
        route_reason="in real time",
        kind="update",
        external_person_id="C1",
        person_key="k1",
        mdn=None,
        subscription_list_id=None,
        changes=(name,),
    )
    return replace(found, **others)


def send(book: RealtimeBook, one: Operation, status: Any = "accepted") -> None:
    book.plan([one])
    book.mark_sent([one.operation_id])
    book.record([Receipt(one.operation_id, status)])


def values(table: pa.Table) -> list[tuple[str, str]]:
    return [(row["field"], row["value"]) for row in table.to_pylist()]


def test_what_was_sent_before_the_snapshots_is_pending_with_its_newest_value(
    ledger: Ledger, book: RealtimeBook
) -> None:
    send(book, operation(1, "Eve"))
    send(book, operation(2, "Eva"))
    send(book, operation(99, "Liz"))  # after the snapshots were taken
    assert values(ledger.pending_in_real_time(DAY, LATER)) == [("first_name", "Eva")]


def test_what_was_refused_planned_or_withdrawn_is_not_pending(
    ledger: Ledger, book: RealtimeBook
) -> None:
    send(book, operation(1, "Eve"), "rejected")
    book.plan([operation(2, "Eva"), operation(3, "Liz")])
    book.withdraw(["op3"])
    assert ledger.pending_in_real_time(DAY, LATER).num_rows == 0
    assert [row["operation_id"] for row in ledger.to_certify(NEXT).to_pylist()] == ["op1"]


def test_what_became_of_a_send_later_does_not_change_what_was_pending(
    ledger: Ledger, url: str
) -> None:
    """Law: rebuilding a day gives the same bytes."""
    now = [AT]
    with RealtimeBook(url, clock=lambda: now[0]) as book:
        send(book, operation(1, "Eve"), "unknown")
        before = ledger.pending_in_real_time(DAY, LATER)
        assert values(before) == [("first_name", "Eve")]
        now[0] = LATER + timedelta(hours=1)
        book.mark_sent(["op1"])
        book.withdraw(["op1"])
        send(book, operation(2, "Eva"))  # decided on before, sent after
    assert ledger.pending_in_real_time(DAY, LATER).equals(before)
    assert values(ledger.pending_in_real_time(DAY, now[0] + timedelta(hours=1))) == [
        ("first_name", "Eva")
    ]


def test_an_opt_out_that_is_sent_again_counts_from_then(book: RealtimeBook, url: str) -> None:
    send(book, operation(1, "x", kind="opt_out"), "unknown")
    with RealtimeBook(url, clock=lambda: LATER) as later:
        later.mark_sent(["op1"])
        assert [one.at for one in later.sent(["C1"], AT)] == [LATER]


def test_an_add_is_pending_with_its_identifiers(ledger: Ledger, book: RealtimeBook) -> None:
    send(book, operation(1, "Eve", kind="add", mdn="+13125550142"))
    assert values(ledger.pending_in_real_time(DAY, LATER)) == [
        ("external_person_id", "C1"),
        ("first_name", "Eve"),
        ("mdn", "+13125550142"),
    ]


def test_a_verdict_ends_it_from_that_day_on(ledger: Ledger, book: RealtimeBook) -> None:
    send(book, operation(1, "Eve"))
    assert ledger.to_certify(DAY).num_rows == 0  # not yet of an earlier day
    assert ledger.to_certify(NEXT).num_rows == 1
    ledger.record_outcomes([("op1", "confirmed", "share")], NEXT)
    assert ledger.to_certify(NEXT).num_rows == 1  # the day again asks the same
    assert ledger.to_certify("2026-01-04").num_rows == 0
    assert ledger.pending_in_real_time(DAY, LATER).num_rows == 1
    assert ledger.pending_in_real_time(NEXT, LATER).num_rows == 0


def test_sends_are_rivals_in_the_order_of_their_instants(
    ledger: Ledger, book: RealtimeBook
) -> None:
    send(book, operation(2, "Eva"))
    send(book, operation(1, "Eve"))
    found = ledger.rivals(NEXT, LATER).sort_by("sequence").to_pylist()
    assert [row["value"] for row in found] == ["Eve", "Eva"]
    assert {row["answered_at"] for row in found} == {AT.replace(tzinfo=None)}


def test_of_its_own_day_a_send_is_a_rival_once_it_had_left(
    ledger: Ledger, book: RealtimeBook
) -> None:
    send(book, operation(1, "Eve"))
    send(book, operation(2, "Eva", day=NEXT))
    found = ledger.rivals(NEXT, LATER).sort_by("sequence").to_pylist()
    assert [row["value"] for row in found] == ["Eve", "Eva"]
    assert [row["value"] for row in ledger.rivals(NEXT, AT).to_pylist()] == ["Eve"]


@pytest.mark.parametrize(("minutes", "kept"), [(-1, "Eve"), (1, "Ida")])
def test_of_two_pending_values_the_newer_one_is_under_way(minutes: int, kept: str) -> None:
    def table(value: str, at: datetime) -> pa.Table:
        row = {"external_person_id": "C1", "field": "first_name", "value": value}
        other = row | {"field": "tier", "value": "gold"}
        rows = [one | {"accepted_at": at.replace(tzinfo=None)} for one in (row, other)]
        return pa.Table.from_pylist(rows if value == "Ida" else rows[:1], PENDING_SCHEMA)

    both = with_newer(table("Ida", AT + timedelta(minutes=minutes)), table("Eve", AT))
    assert sorted(values(both)) == [("first_name", kept), ("tier", "gold")]


def test_what_had_left_for_the_next_base_is_told_as_of_the_day(
    ledger: Ledger, book: RealtimeBook, url: str
) -> None:
    send(book, operation(1, "Eve"))
    send(book, operation(2, "Eva"), "rejected")
    send(book, operation(99, "Liz"))  # after the snapshots were taken
    with SentChanges(url) as sent:
        for judged, count in ((DAY, 1), (NEXT, 0)):
            ledger.record_outcomes([("op1", "confirmed", "share")], NEXT)
            rows = sent.values(DAY, LATER, judged).to_pylist()
            assert [row["external_person_id"] for row in rows] == ["C1"] * count
