"""Only the newest diff set leaves, and only when no guard holds it or a person released it."""

from pathlib import Path

import pytest

from vibes_pipelines.delivery.release import (
    ApprovalError,
    accept_if_delivered,
    accepted_rows,
    approve,
    may_deliver,
    register_diff_set,
)
from vibes_pipelines.store.ledger import Ledger
from vibes_pipelines.store.records import Receipt
from vibes_pipelines_tests.support.deliveries import (
    DAY,
    NEXT_DAY,
    SNAPSHOTS,
    FakeSummary,
    change,
    noon,
    planned,
    update,
)


def register(
    ledger: Ledger, name: str, day: str = DAY, mapping: str = "m", breach: str | None = None
) -> None:
    breaches = ({"lane": breach, "message": f"{breach} over the cap"},) if breach else ()
    summary = FakeSummary(name, noon(day), mapping_hash=mapping, breaches=breaches)
    register_diff_set(ledger, day, summary, SNAPSHOTS)


@pytest.fixture
def running(ledger: Ledger) -> Ledger:
    """A ledger with one delivered day."""
    register(ledger, "first", "2026-01-01")
    ledger.mark_delivered("first")
    return ledger


@pytest.mark.parametrize("lane", ["opt_outs", "persons", "crm"])
class TestAnyLane:
    def test_a_first_run_needs_an_approval(self, ledger: Ledger, lane: str) -> None:
        register(ledger, "one")
        verdict = may_deliver(ledger, "one", lane)  # type: ignore[arg-type]
        assert (verdict.status, verdict.reasons) == (
            "held",
            ("first run: nothing was delivered before",),
        )
        assert verdict.cure == "vibes-pipelines approve one --reason TEXT"
        approve(ledger, "one", "looked at every change")
        assert may_deliver(ledger, "one", lane).allowed  # type: ignore[arg-type]

    def test_later_runs_need_none(self, running: Ledger, lane: str) -> None:
        register(running, "one")
        assert may_deliver(running, "one", lane).allowed  # type: ignore[arg-type]

    def test_a_changed_mapping_needs_one(self, running: Ledger, lane: str) -> None:
        register(running, "one", mapping="other")
        assert "mapping changed" in may_deliver(running, "one", lane).reasons[0]  # type: ignore[arg-type]

    def test_a_newer_diff_set_refuses_the_older(self, running: Ledger, lane: str) -> None:
        register(running, "one")
        register(running, "two", NEXT_DAY)
        verdict = may_deliver(running, "one", lane)  # type: ignore[arg-type]
        assert (verdict.status, verdict.reasons) == (
            "refused",
            (f"a newer diff set is there: two of {NEXT_DAY}",),
        )

    def test_a_past_day_rebuilt_is_refused(self, running: Ledger, lane: str) -> None:
        """Law: a past day can do no harm."""
        register(running, "two", NEXT_DAY)
        register(running, "rebuilt", DAY)
        assert may_deliver(running, "rebuilt", lane).status == "refused"  # type: ignore[arg-type]

    def test_force_with_a_reason_lifts_that_and_no_guard(self, running: Ledger, lane: str) -> None:
        register(running, "one", mapping="other")
        register(running, "two", NEXT_DAY)
        verdict = may_deliver(running, "one", lane, force_reason="why not")  # type: ignore[arg-type]
        assert verdict.status == "held"

    def test_an_unknown_diff_set_is_refused(self, ledger: Ledger, lane: str) -> None:
        assert may_deliver(ledger, "nobody", lane).status == "refused"  # type: ignore[arg-type]


class TestGuards:
    def test_a_cap_holds_its_own_lane(self, running: Ledger) -> None:
        """Law: opt-outs are never held by another lane's cap."""
        register(running, "one", breach="persons")
        assert may_deliver(running, "one", "opt_outs").allowed
        assert may_deliver(running, "one", "persons").reasons == ("persons over the cap",)
        assert may_deliver(running, "one", "crm").status == "held"

    def test_the_cap_on_opt_outs_holds_opt_outs(self, running: Ledger) -> None:
        register(running, "one", breach="opt_outs")
        assert may_deliver(running, "one", "opt_outs").status == "held"
        assert may_deliver(running, "one", "persons").allowed


class TestApproval:
    def test_only_the_newest_can_be_approved(self, ledger: Ledger) -> None:
        register(ledger, "one")
        register(ledger, "two", NEXT_DAY)
        with pytest.raises(ApprovalError, match=f"which is two of {NEXT_DAY}"):
            approve(ledger, "one", "because")

    def test_it_needs_a_reason(self, ledger: Ledger) -> None:
        register(ledger, "one")
        with pytest.raises(ApprovalError, match="needs a reason"):
            approve(ledger, "one", "  ")

    def test_it_needs_a_diff_set(self, ledger: Ledger) -> None:
        with pytest.raises(ApprovalError, match="run the reconcile first"):
            approve(ledger, "one", "because")

    def test_it_does_not_carry_over_to_the_next_diff_set(self, ledger: Ledger) -> None:
        register(ledger, "one")
        approve(ledger, "one", "because")
        register(ledger, "two", NEXT_DAY)
        assert may_deliver(ledger, "two", "persons").status == "held"


class TestAcceptance:
    def test_a_diff_set_is_delivered_when_nothing_waits_to_be_sent(
        self, ledger: Ledger, tmp_path: Path
    ) -> None:
        planned(
            ledger, tmp_path, diff_set="one", persons=[update("C1", change("first_name", "Ada"))]
        )
        assert not accept_if_delivered(ledger, "one")
        (operation,) = ledger.open_operations("one", "persons", "api")
        ledger.mark_sent([operation.operation_id])
        ledger.record([Receipt(operation.operation_id, "unknown", "Timeout")], DAY)
        assert accept_if_delivered(ledger, "one")
        assert accepted_rows(ledger, NEXT_DAY) == {"contacts": 10, "persons": 8}

    def test_an_empty_plan_is_delivered_at_once(self, ledger: Ledger, tmp_path: Path) -> None:
        planned(ledger, tmp_path, diff_set="one")
        assert accept_if_delivered(ledger, "one")

    def test_one_that_was_not_planned_is_not(self, ledger: Ledger) -> None:
        register(ledger, "one")
        assert not accept_if_delivered(ledger, "one")
        assert accepted_rows(ledger, NEXT_DAY) is None
