"""Release in detail: what a verdict says, what an approval keeps, and what a day is measured by."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest

from vibes_pipelines.delivery.plan import plan
from vibes_pipelines.delivery.release import (
    ApprovalError,
    accept_if_delivered,
    accepted_rows,
    approve,
    may_deliver,
    register_diff_set,
)
from vibes_pipelines.store.ledger import Ledger
from vibes_pipelines_tests.support.deliveries import (
    CONFIG,
    DAY,
    NEXT_DAY,
    SNAPSHOTS,
    FakeManifest,
    FakeSnapshot,
    FakeSummary,
    noon,
    write_diff_set,
)

LONG = "0123456789abcdef"


def register(ledger: Ledger, name: str, day: str = DAY, **more: Any) -> None:
    register_diff_set(ledger, day, FakeSummary(name, noon(day), **more), SNAPSHOTS)


def breach(lane: str) -> dict[str, Any]:
    return {"breaches": ({"lane": lane, "message": f"{lane} over the cap"},)}


@pytest.fixture
def running(ledger: Ledger) -> Ledger:
    """A ledger with one delivered day."""
    register(ledger, "first", "2026-01-01")
    ledger.mark_delivered("first")
    return ledger


def test_a_diff_set_is_recorded_with_what_it_was_made_from(ledger: Ledger) -> None:
    register(ledger, "one", mapping_hash="m", config_hash="c")
    record = ledger.diff_set("one")
    assert record is not None
    assert (record.day, record.as_of, record.status) == (DAY, noon(DAY), "open")
    assert (record.mapping_hash, record.config_hash, record.summary) == ("m", "c", {"breaches": []})
    rows = {feed: (one.rows, one.content_hash) for feed, one in record.snapshots.items()}
    assert rows == {"crm/contacts": (10, "hash"), "share/persons": (8, "hash")}


def test_without_a_time_of_its_own_it_is_as_of_the_begin_of_its_day(ledger: Ledger) -> None:
    timeless = FakeSummary("one", cast("datetime", None))
    record = register_diff_set(ledger, DAY, timeless, SNAPSHOTS)
    assert record.as_of == datetime(2026, 1, 2, tzinfo=UTC)


def test_what_nobody_registered_is_refused_with_a_cure(ledger: Ledger) -> None:
    verdict = may_deliver(ledger, "nobody", "persons")
    assert (verdict.status, verdict.cure) == ("refused", "rebuild its day")
    assert verdict.reasons == ("diff set nobody is not registered",)
    assert not verdict.allowed


def test_a_held_one_is_approved_by_the_begin_of_its_hash(ledger: Ledger) -> None:
    register(ledger, LONG)
    told = "vibes-pipelines approve 0123456789ab --reason TEXT"
    assert may_deliver(ledger, LONG, "persons").cure == told


def test_an_older_one_is_refused_with_both_cures(running: Ledger) -> None:
    register(running, "one")
    register(running, "two", NEXT_DAY)
    told = may_deliver(running, "one", "persons").cure
    assert told == "deliver the newest, or force with a reason"
    assert may_deliver(running, "one", "persons", force_reason="it was lost").allowed


@pytest.mark.parametrize("lane", ["persons", "opt_outs", "crm"])
def test_an_approval_lifts_every_guard(running: Ledger, lane: Any) -> None:
    register(running, "one", **breach("persons" if lane == "crm" else lane))
    assert not may_deliver(running, "one", lane).allowed
    approve(running, "one", "  a campaign  ")
    assert may_deliver(running, "one", lane).allowed
    record = running.diff_set("one")
    assert record is not None
    assert record.approved_reason == "a campaign"


def test_an_approval_of_an_older_one_is_told_the_newest(ledger: Ledger) -> None:
    register(ledger, "one")
    register(ledger, LONG, NEXT_DAY)
    with pytest.raises(ApprovalError, match=f"one is not .* which is 0123456789ab of {NEXT_DAY}"):
        approve(ledger, "one", "because")


def test_what_is_delivered_needs_no_approval(running: Ledger) -> None:
    with pytest.raises(ApprovalError, match="diff set first of 2026-01-01 is delivered already"):
        approve(running, "first", "because")


def test_what_a_guard_holds_is_accepted_only_after_an_approval(
    running: Ledger, tmp_path: Path
) -> None:
    register(running, "one", **breach("persons"))
    plan("one", write_diff_set(tmp_path), CONFIG, running)
    assert not accept_if_delivered(running, "one")
    approve(running, "one", "because")
    assert accept_if_delivered(running, "one")
    assert not accept_if_delivered(running, "nobody")


def test_a_day_is_measured_by_the_day_before_it(running: Ledger) -> None:
    assert accepted_rows(running, DAY) == {"contacts": 10, "persons": 8}
    assert accepted_rows(running, "2026-01-01") is None


@pytest.mark.parametrize(
    ("feeds", "rows"),
    [
        ({"crm/contacts": 5}, {"contacts": 5}),
        ({"share/persons": 6, "share/other": 7}, {"persons": 6}),
        ({"share/other": 7}, None),
    ],
)
def test_only_contacts_and_persons_are_measured(
    ledger: Ledger, feeds: dict[str, int], rows: dict[str, int] | None
) -> None:
    snapshots = [FakeSnapshot(FakeManifest(feed, size)) for feed, size in feeds.items()]
    register_diff_set(ledger, "2026-01-01", FakeSummary("first", noon(DAY)), snapshots)
    ledger.mark_delivered("first")
    assert accepted_rows(ledger, DAY) == rows
