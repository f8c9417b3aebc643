"""What the ledger tells a reconcile: pending and blocked values, as of a day."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from vibes_pipelines.store.ledger import Ledger
from vibes_pipelines.store.records import Change, DiffSet, Operation, Receipt

FIRST, SECOND, THIRD, FOURTH = "2026-01-01", "2026-01-02", "2026-01-03", "2026-01-04"


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ledger]:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    if request.param == "postgresql":
        url = str(request.getfixturevalue("postgresql_url"))
    with Ledger(url) as opened:
        yield opened


def as_of(day: str) -> datetime:
    return datetime.fromisoformat(day).replace(tzinfo=UTC) + timedelta(hours=6)


def sent(
    ledger: Ledger,
    day: str,
    *values: tuple[str, str | None],
    receipt: Receipt | None = None,
    **more: Any,
) -> str:
    """One update of C1, sent on `day`; returns its id."""
    name = f"op-{day}"
    changes = tuple(
        Change(field, "clear" if after is None else "set", None, after, "crm_changed")
        for field, after in values
    )
    ledger.register(DiffSet(day, 0, day, as_of(day), "m", "c", "open", {}, {}))
    plain = Operation(
        name, day, day, as_of(day), "persons", "api", "", "update", "C1", "k1", None, None, changes
    )
    ledger.write_plan(day, (), [replace(plain, **more)], dict)
    ledger.mark_sent([name])
    if receipt is not None:
        ledger.record([replace(receipt, operation_id=name)], day)
    return name


ACCEPTED = Receipt("", "accepted")
UNKNOWN = Receipt("", "unknown", "Timeout")
REFUSED = Receipt("", "rejected", "PersonErrors::InvalidSelectCustomFieldValue")
BUSY = Receipt("", "rejected", "CarrierLookupService::Transient", retry_later=True)


def pending(ledger: Ledger, day: str) -> list[tuple[str, str | None]]:
    return [(row["field"], row["value"]) for row in ledger.pending(day).to_pylist()]


def blocked(ledger: Ledger, day: str) -> list[tuple[str, str | None]]:
    return [(row["field"], row["value"]) for row in ledger.blocked(day).to_pylist()]


@pytest.mark.parametrize("receipt", [None, ACCEPTED, UNKNOWN])
def test_what_was_sent_is_pending_from_the_next_day_on(
    ledger: Ledger, receipt: Receipt | None
) -> None:
    sent(ledger, FIRST, ("tier", "gold"), receipt=receipt)
    assert pending(ledger, FIRST) == []
    assert pending(ledger, SECOND) == [("tier", "gold")]


def test_pending_carries_the_logical_time_of_the_diff_set(ledger: Ledger) -> None:
    sent(ledger, FIRST, ("tier", "gold"), receipt=ACCEPTED)
    assert ledger.pending(SECOND).to_pylist() == [
        {
            "external_person_id": "C1",
            "field": "tier",
            "value": "gold",
            "accepted_at": as_of(FIRST).replace(tzinfo=None),
        }
    ]


def test_what_was_only_planned_is_neither_pending_nor_blocked(ledger: Ledger) -> None:
    ledger.take_back([sent(ledger, FIRST, ("tier", "gold"))])
    assert pending(ledger, SECOND) == blocked(ledger, SECOND) == []


def test_an_add_stands_with_its_identifiers(ledger: Ledger) -> None:
    sent(ledger, FIRST, ("tier", "gold"), receipt=ACCEPTED, kind="add", mdn="+13125550142")
    assert pending(ledger, SECOND) == [
        ("external_person_id", "C1"),
        ("mdn", "+13125550142"),
        ("tier", "gold"),
    ]


def test_a_clear_is_pending_as_null(ledger: Ledger) -> None:
    sent(ledger, FIRST, ("tier", None), receipt=ACCEPTED)
    assert pending(ledger, SECOND) == [("tier", None)]


def test_a_refused_value_is_blocked(ledger: Ledger) -> None:
    sent(ledger, FIRST, ("tier", "plat"), receipt=REFUSED)
    assert pending(ledger, SECOND) == []
    assert ledger.blocked(SECOND).to_pylist() == [
        {
            "external_person_id": "C1",
            "field": "tier",
            "value": "plat",
            "error_class": REFUSED.error_class,
            "before": None,
            "was_accepted": False,
        }
    ]


def test_a_refusal_that_passes_is_not_blocked(ledger: Ledger) -> None:
    sent(ledger, FIRST, ("tier", "gold"), receipt=BUSY)
    assert pending(ledger, SECOND) == blocked(ledger, SECOND) == []


def test_the_latest_send_of_a_field_decides(ledger: Ledger) -> None:
    sent(ledger, FIRST, ("tier", "plat"), ("first_name", "Ada"), receipt=REFUSED)
    sent(ledger, SECOND, ("tier", "gold"), receipt=UNKNOWN)
    assert pending(ledger, THIRD) == [("tier", "gold")]
    assert blocked(ledger, THIRD) == [("first_name", "Ada")]


def test_values_refused_together_are_tried_again_once_the_person_accepts_anything(
    ledger: Ledger,
) -> None:
    sent(ledger, FIRST, ("tier", "plat"), ("first_name", "Ada"), receipt=REFUSED)
    sent(ledger, SECOND, ("tier", "gold"), receipt=ACCEPTED)
    assert blocked(ledger, SECOND) == [("first_name", "Ada"), ("tier", "plat")]
    assert blocked(ledger, THIRD) == []
    sent(ledger, THIRD, ("first_name", "Ada"), receipt=REFUSED)
    assert blocked(ledger, FOURTH) == [("first_name", "Ada")]


@pytest.mark.parametrize("outcome", ["confirmed", "superseded", "unexplained"])
def test_a_final_verdict_ends_pending(ledger: Ledger, outcome: Any) -> None:
    name = sent(ledger, FIRST, ("tier", "gold"), receipt=ACCEPTED)
    ledger.record_outcomes([(name, outcome, "share")], THIRD)
    assert pending(ledger, THIRD) == []


def test_a_pending_verdict_does_not(ledger: Ledger) -> None:
    name = sent(ledger, FIRST, ("tier", "gold"), receipt=ACCEPTED)
    ledger.record_outcomes([(name, "pending", "receipt")], SECOND)
    assert pending(ledger, SECOND) == pending(ledger, THIRD) == [("tier", "gold")]


def test_a_past_day_is_answered_as_it_was(ledger: Ledger) -> None:
    """Law: a rebuilt day depends on the ledger as of that day only."""
    name = sent(ledger, FIRST, ("tier", "gold"), receipt=None)
    before = (pending(ledger, SECOND), blocked(ledger, SECOND))
    ledger.record([replace(REFUSED, operation_id=name)], SECOND)
    ledger.record_outcomes([(name, "rejected", "receipt")], THIRD)
    sent(ledger, THIRD, ("tier", "silver"), receipt=ACCEPTED)
    assert (pending(ledger, SECOND), blocked(ledger, SECOND)) == before
    assert blocked(ledger, THIRD) == [("tier", "gold")]
    assert pending(ledger, FOURTH) == [("tier", "silver")]


@pytest.mark.parametrize(
    ("receipt", "is_pending", "is_blocked"),
    [(None, True, False), (ACCEPTED, True, False), (REFUSED, False, True), (BUSY, False, False)],
)
def test_what_the_day_sent_under_another_config_counts_at_once(
    ledger: Ledger, receipt: Receipt | None, is_pending: bool, is_blocked: bool
) -> None:
    """Law: a config changed after a delivery does not send the same again on the same day."""
    sent(ledger, FIRST, ("tier", "gold"), receipt=receipt)
    own, other = "c", "another config"
    assert ledger.pending(FIRST, other).num_rows == is_pending
    assert ledger.blocked(FIRST, other).num_rows == is_blocked
    assert ledger.pending(FIRST, own).num_rows == ledger.blocked(FIRST, own).num_rows == 0
    assert ledger.pending(SECOND, own) == ledger.pending(SECOND)
    assert ledger.blocked(SECOND, other) == ledger.blocked(SECOND)


def test_an_answer_that_came_today_does_not_change_what_an_earlier_day_sent(
    ledger: Ledger,
) -> None:
    name = sent(ledger, FIRST, ("tier", "gold"))
    ledger.record([replace(REFUSED, operation_id=name)], SECOND)
    assert ledger.pending(SECOND, "another config").num_rows == 1
    assert ledger.blocked(SECOND, "another config").num_rows == 0


def test_a_later_certificate_is_not_replaced_by_an_earlier_day(ledger: Ledger) -> None:
    name = sent(ledger, FIRST, ("tier", "gold"), receipt=ACCEPTED)
    ledger.record_outcomes([(name, "confirmed", "share")], THIRD)
    ledger.record_outcomes([(name, "pending", "receipt")], SECOND)
    operation = ledger.operation(name)
    assert operation is not None
    assert operation.outcome == "confirmed"
