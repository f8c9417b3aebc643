"""Values that were sent on three days and never took effect, as a later day knows of them."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest

from vibes_pipelines.store.ledger import Ledger
from vibes_pipelines.store.records import PERSON_KINDS, Change, DiffSet, Operation, Receipt
from vibes_pipelines.store.without_effect import Ineffective
from vibes_pipelines_tests.support.deliveries import noon

TODAY = "2026-01-09"
ROUNDED = ("1.2346", "1.23456")
IN_VAIN: tuple[str, str] = ("accepted", "unexplained")
REFUSED: tuple[str, str] = ("rejected", "rejected")
Sent = tuple[tuple[str | None, str | None], tuple[str, str]]


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(f"sqlite:///{tmp_path / 'ledger.db'}") as opened:
        yield opened


def send(ledger: Ledger, days: Sequence[Sent], *, retry_later: bool = False, **more: Any) -> None:
    """One operation on C1 a day, from the first of the month, with its verdict of the next day."""
    for number, ((before, after), (status, outcome)) in enumerate(days, 1):
        day = f"2026-01-0{number}"
        changes = (Change("score", "set", before, after, "crm_changed"),)
        ledger.register(DiffSet(day, 0, day, noon(day), "m", "c", "open", {}, {}))
        given: dict[str, Any] = {"kind": "update", "changes": changes} | more
        operation = Operation(
            operation_id=day,
            diff_set=day,
            day=day,
            as_of=noon(day),
            lane="persons",
            route="api",
            route_reason="",
            external_person_id="C1",
            person_key="k1",
            mdn=None,
            subscription_list_id=None,
            **given,
        )
        ledger.write_plan(day, (), [operation], dict)
        ledger.mark_sent([day])
        answer = Receipt(day, status, "HTTP 422", retry_later=retry_later)  # type: ignore[arg-type]
        ledger.record([answer], day)
        verdict: Any = (day, outcome, "share")
        ledger.record_outcomes([verdict], f"2026-01-0{number + 1}")


def in_vain(ledger: Ledger, day: str = TODAY) -> list[tuple[str, str | None, str | None]]:
    found = ledger.without_effect(PERSON_KINDS, day)
    return [(one.field, one.before, one.after) for one in found]


def test_what_stays_unexplained_on_three_days_is_told_from_the_verdict_on(ledger: Ledger) -> None:
    send(ledger, [(ROUNDED, IN_VAIN)] * 3)
    assert in_vain(ledger, "2026-01-03") == []
    assert in_vain(ledger, "2026-01-31") == in_vain(ledger)
    assert in_vain(ledger, "2026-02-01") == []  # a month later it is tried again
    assert in_vain(ledger, "2026-01-04") == in_vain(ledger) == [("score", *ROUNDED)]
    assert ledger.blocked(TODAY).to_pylist() == [
        {
            "external_person_id": "C1",
            "field": "score",
            "value": "1.23456",
            "error_class": "KeptDifferently",
            "before": "1.2346",
            "was_accepted": True,
        }
    ]


@pytest.mark.parametrize(
    "between",
    [
        (ROUNDED, ("accepted", "confirmed")),
        (("1.2346", "2"), ("accepted", "confirmed")),
        (("1.2346", "2"), ("accepted", "superseded")),
        (("2", "1.23456"), IN_VAIN),
        ((None, None), ("accepted", "confirmed")),
    ],
    ids=["it was seen", "another value", "overtaken", "the platform's moved", "seen long ago"],
)
def test_whatever_came_between_begins_anew(ledger: Ledger, between: Sent) -> None:
    kept = (ROUNDED, IN_VAIN)
    send(ledger, [kept, kept, between, kept, kept])
    assert in_vain(ledger) == []


@pytest.mark.parametrize(
    "verdict",
    [
        ("accepted", "pending"),
        ("accepted", "superseded"),
        ("unknown", "unexplained"),
        REFUSED,
    ],
)
def test_only_what_was_accepted_and_never_explained_counts(
    ledger: Ledger, verdict: tuple[str, str]
) -> None:
    kept = (ROUNDED, IN_VAIN)
    send(ledger, [kept, kept, (ROUNDED, verdict)])
    assert in_vain(ledger) == []


def test_people_who_change_a_value_back_and_forth_are_not_held_up(ledger: Ledger) -> None:
    there, back = (("a", "b"), IN_VAIN), (("b", "a"), IN_VAIN)
    send(ledger, [there, back, there, back, there, back, there])
    assert in_vain(ledger) == []


def test_a_person_that_never_appears_counts_with_its_identifiers(ledger: Ledger) -> None:
    send(ledger, [((None, "1"), IN_VAIN)] * 3, kind="add")
    told = [("external_person_id", None, "C1"), ("score", None, "1")]
    assert sorted(in_vain(ledger), key=str) == told


@pytest.mark.parametrize("verdict", [IN_VAIN, REFUSED])
def test_of_a_write_back_refusals_count_too_and_it_blocks_nothing(
    ledger: Ledger, verdict: tuple[str, str]
) -> None:
    send(ledger, [(ROUNDED, verdict)] * 3, kind="crm_update")
    assert ledger.without_effect(("crm_update",), TODAY) == {Ineffective("C1", "score", *ROUNDED)}
    assert in_vain(ledger) == []
    assert ledger.blocked(TODAY).num_rows == 0


def test_a_refusal_that_passes_does_not_count(ledger: Ledger) -> None:
    send(ledger, [(ROUNDED, REFUSED)] * 4, kind="crm_update", retry_later=True)
    assert ledger.without_effect(("crm_update",), TODAY) == frozenset()


@pytest.mark.parametrize("kind", ["opt_out", "crm_opt_out", "invite", "delete"])
def test_nothing_else_is_ever_held_back(
    ledger: Ledger, kind: Literal["opt_out", "crm_opt_out", "invite", "delete"]
) -> None:
    send(ledger, [((None, "2026-01-01"), IN_VAIN)] * 4, kind=kind)
    assert in_vain(ledger) == []
    assert ledger.without_effect(("crm_update",), TODAY) == frozenset()
