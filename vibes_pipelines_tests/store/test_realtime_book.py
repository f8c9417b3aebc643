"""The book of what is sent in real time: intents, answers, what is under way, cursors."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from vibes_pipelines.store.realtime import RealtimeBook
from vibes_pipelines.store.records import Change, Kind, Operation, Receipt

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
NAME = Change("first_name", "set", "Ada", "Eve", "crm_wins")
UPDATES: tuple[Kind, ...] = ("update",)
GONE = Change("score", "clear", "5", None, "crm_cleared")


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def book(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RealtimeBook]:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    if request.param == "postgresql":
        url = str(request.getfixturevalue("postgresql_url"))
    with RealtimeBook(url, clock=lambda: AT) as opened:
        yield opened


def operation(number: int, kind: str = "update", *, lane: str = "persons") -> Operation:
    return Operation(
        operation_id=f"op{number}",
        diff_set="realtime x",
        day="2026-01-02",
        as_of=AT + timedelta(minutes=number),
        lane=lane,  # type: ignore[arg-type]
        route="api",
        route_reason="in real time",
        kind=kind,  # type: ignore[arg-type]
        external_person_id="C1",
        person_key="k1",
        mdn="+13125550142",
        subscription_list_id=None,
        changes=(NAME, GONE),
    )


def accepted(book: RealtimeBook, *operations: Operation) -> None:
    book.plan(operations)
    book.mark_sent([one.operation_id for one in operations])
    book.record([Receipt(one.operation_id, "accepted") for one in operations])


def test_an_intent_is_written_once_and_comes_back_as_it_was(book: RealtimeBook) -> None:
    book.plan([operation(1)])
    book.plan([replace(operation(1), external_person_id="C2")])
    assert book.unfinished() == [operation(1)]
    assert (book.size(), dict(book.counts("2026-01-02"))) == (1, {"update": 1})
    assert dict(book.counts("2026-01-03")) == {}


def test_opt_outs_come_before_persons(book: RealtimeBook) -> None:
    book.plan([operation(1), operation(2, "opt_out", lane="opt_outs")])
    assert [one.operation_id for one in book.unfinished()] == ["op2", "op1"]
    assert [one.operation_id for one in book.unfinished(UPDATES)] == ["op1"]


def test_what_was_made_anew_counts_once(book: RealtimeBook) -> None:
    outs = [
        replace(operation(n, "opt_out", lane="opt_outs"), subscription_list_id=f"L{n // 3}")
        for n in range(1, 5)
    ]
    book.plan([*outs, operation(8), operation(9)])
    assert dict(book.counts("2026-01-02")) == {"update": 2, "opt_out": 2}
    book.withdraw(["op1", "op2", "op8"])
    assert dict(book.counts("2026-01-02")) == {"update": 1, "opt_out": 1}
    assert (book.opt_outs("2026-01-02"), book.clears("2026-01-02")) == ({("C1", "L1")}, 3)


@pytest.mark.parametrize(("status", "is_open"), [("accepted", 0), ("rejected", 0), ("unknown", 1)])
def test_what_got_no_answer_stays_unfinished(book: RealtimeBook, status: str, is_open: int) -> None:
    book.plan([operation(1)])
    book.mark_sent(["op1"])
    assert [one.attempts for one in book.unfinished()] == [1]
    book.record([Receipt("op1", status, "SomeClass")])  # type: ignore[arg-type]
    assert len(book.unfinished()) == is_open
    assert book.newest(["C1", "C2"])["C1"].status == status


def test_what_is_withdrawn_is_neither_unfinished_nor_under_way(book: RealtimeBook) -> None:
    book.plan([operation(1)])
    book.mark_sent(["op1"])
    assert book.pending(AT).num_rows == 2
    book.withdraw(["op1"])
    assert book.unfinished() == []
    assert book.pending(AT).num_rows == 0
    assert book.sent(["C1"], AT) == []


def test_values_under_way_stand_with_what_an_add_names(book: RealtimeBook) -> None:
    accepted(book, operation(1), operation(2, "add"))
    found = [
        (row["field"], row["value"], row["accepted_at"].minute)
        for row in book.pending(AT).to_pylist()
    ]
    assert found == [
        ("first_name", "Eve", 5),
        ("score", None, 5),
        ("first_name", "Eve", 6),
        ("score", None, 6),
        ("external_person_id", "C1", 6),
        ("mdn", "+13125550142", 6),
    ]
    assert book.pending(AT + timedelta(minutes=3)).num_rows == 0


def test_what_was_sent_since_is_told_with_its_time(book: RealtimeBook) -> None:
    accepted(book, operation(1))
    [sent] = book.sent(["C1", "C9"], AT)
    assert (sent.operation.operation_id, sent.at) == ("op1", AT)
    assert book.sent(["C1"], AT + timedelta(seconds=1)) == []


def test_who_was_given_to_which_contact_is_told_by_either(book: RealtimeBook) -> None:
    key = Change("external_person_id", "set", None, "C1", "adopt")
    adoption = replace(operation(1), changes=(key, NAME))
    planned = replace(adoption, operation_id="op2", person_key="k2")
    accepted(book, adoption, replace(operation(3), person_key="k3"))
    book.plan([planned])
    assert book.adopted(AT, contacts=["C1"]) == {"k1": "C1"}
    assert book.adopted(AT, person_keys=["k1", "k2", "k3"]) == {"k1": "C1"}
    assert book.adopted(AT, contacts=["C2"], person_keys=["k2"]) == {}
    assert book.adopted(AT + timedelta(seconds=1), contacts=["C1"]) == {}


def test_a_cursor_is_where_it_was_moved_to_last(book: RealtimeBook) -> None:
    assert book.cursor("x") is None
    book.move_cursor("x", "1")
    book.move_cursor("x", "2")
    book.move_cursor("y", "3")
    assert (book.cursor("x"), book.cursor("y")) == ("2", "3")
