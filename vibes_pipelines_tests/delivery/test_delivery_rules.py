"""The small rules of delivery, each alone: what waits, which road, what is counted and kept."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any, cast

import pytest

from vibes_pipelines.delivery.deferrals import (
    DEFERRABLE_KINDS,
    EXHAUSTED,
    NOT_YET_VISIBLE,
    Deferrals,
)
from vibes_pipelines.delivery.receipts import receipt
from vibes_pipelines.delivery.routes import (
    Estimates,
    RoadChoice,
    choose_roads,
    file_columns,
    why_not_by_file,
)
from vibes_pipelines.delivery.tally import Tally, tally
from vibes_pipelines.store.ledger import Ledger
from vibes_pipelines.store.records import Change, Operation, OperationCount, Receipt
from vibes_pipelines.store.without_effect import Ineffective
from vibes_pipelines.sync_config import FieldType
from vibes_pipelines_tests.support.operations import NOON, cleared, operation, set_to

LAG = timedelta(hours=24)
TYPES: dict[str, FieldType] = {
    "name": "string",
    "born": "date",
    "tier": "single_select",
    "likes": "multi_select",
    "score": "number",
}


def opt_out(**more: Any) -> Operation:
    return operation(**({"kind": "opt_out", "subscription_list_id": "77"} | more))


def write_back(*changes: Change, **more: Any) -> Operation:
    return operation(*(changes or (set_to("name", "a"),)), **({"kind": "crm_update"} | more))


def deferred(today: Operation, *attempts: Operation) -> str | None:
    return Deferrals(attempts, (), NOON, LAG).why_deferred(today)


class TestDeferrals:
    def test_they_are_of_opt_outs_and_write_backs(self) -> None:
        assert DEFERRABLE_KINDS == ("opt_out", "crm_opt_out", "crm_update")

    def test_what_was_never_tried_is_sent(self) -> None:
        assert deferred(opt_out()) is None

    @pytest.mark.parametrize(
        ("kind", "hours_ago", "waits"),
        [
            ("opt_out", 0, True),
            ("opt_out", 23, True),
            ("opt_out", 24, False),
            ("opt_out", -1, True),
            ("crm_opt_out", 0, True),
            ("crm_opt_out", -1, True),
            ("crm_opt_out", 1, False),
            ("crm_update", 0, True),
            ("crm_update", 1, False),
        ],
    )
    def test_an_accepted_one_waits_until_its_side_can_show_it(
        self, kind: str, hours_ago: int, waits: bool
    ) -> None:
        attempt = operation(kind=kind, as_of=NOON - timedelta(hours=hours_ago), status="accepted")
        told = deferred(operation(kind=kind), attempt)
        assert told == (NOT_YET_VISIBLE if waits else None)

    @pytest.mark.parametrize("status", ["planned", "sent", "rejected", "unknown"])
    def test_only_what_was_accepted_can_become_visible(self, status: str) -> None:
        assert deferred(opt_out(), opt_out(status=status)) is None

    @pytest.mark.parametrize(
        "other",
        [
            {"external_person_id": "C2"},
            {"person_key": "k2"},
            {"subscription_list_id": "78"},
            {"kind": "crm_opt_out"},
            {"changes": (set_to("evidence_at", "2026-01-04"),)},
        ],
    )
    def test_another_intent_does_not_wait_for_it(self, other: dict[str, Any]) -> None:
        assert deferred(opt_out(**other), opt_out(status="accepted")) is None

    def test_a_person_without_an_external_id_is_known_by_its_key(self) -> None:
        attempt = opt_out(external_person_id=None, status="accepted")
        assert deferred(opt_out(external_person_id=None), attempt) == NOT_YET_VISIBLE

    def test_the_order_and_the_former_values_of_changes_do_not_matter(self) -> None:
        attempt = write_back(set_to("name", "a", "y"), set_to("tier", "b"), status="accepted")
        today = write_back(set_to("tier", "b", "z"), set_to("name", "a"))
        assert deferred(today, attempt) == NOT_YET_VISIBLE

    @pytest.mark.parametrize(
        ("changes", "told"),
        [
            ([("name", "x", "a")], EXHAUSTED),
            ([("name", "x", "a"), ("tier", None, "gold")], EXHAUSTED),
            ([("name", "y", "a")], None),
            ([("name", "x", "b")], None),
            ([("name", "x", "a"), ("tier", "silver", "gold")], None),
        ],
    )
    def test_a_write_back_is_given_up_when_all_of_it_was_without_effect(
        self, changes: list[tuple[str, str | None, str]], told: str | None
    ) -> None:
        assert "3 days" in EXHAUSTED
        ineffective = {
            Ineffective("C1", "name", "x", "a"),
            Ineffective("C1", "tier", None, "gold"),
            Ineffective("C2", "name", "y", "a"),
        }
        deferrals = Deferrals((), ineffective, NOON, LAG)
        today = write_back(*(set_to(name, after, before) for name, before, after in changes))
        assert deferrals.why_deferred(today) == told

    def test_an_opt_out_is_never_given_up(self) -> None:
        days = [f"2026-01-0{day}" for day in range(1, 6)]
        refused = [opt_out(status="rejected", day=day) for day in days]
        told = {Ineffective("C1", c.field, c.before, c.after) for c in opt_out().changes}
        assert Deferrals(refused, told, NOON, LAG).why_deferred(opt_out()) is None


class TestRoutes:
    def test_the_documented_rate_and_the_assumptions(self) -> None:
        assert Estimates() == Estimates(rate_per_s=100, gap_s=300, pickup_s=300, rows_per_s=1_000)
        assert Estimates().api_s(1_000) == 10
        assert Estimates().file_s(1_000) == pytest.approx(601.2)
        assert Estimates().file_s(0, files=0) == 0

    @pytest.mark.parametrize(("rows", "by_file"), [(99, False), (100, False), (101, True)])
    def test_the_api_carries_what_a_file_carries_no_sooner(self, rows: int, by_file: bool) -> None:
        seconds = Estimates(2, gap_s=20, pickup_s=28, rows_per_s=100, file_cost_s=1)
        groups = {("external_person_id", "name"): rows}
        assert bool(choose_roads(groups, 0, seconds, 1_000).by_file) is by_file

    def test_the_choice_is_told_with_both_roads(self) -> None:
        columns = ("external_person_id", "name")
        few, many = (
            choose_roads({columns: rows}, 0, Estimates(), 100_000) for rows in (500, 100_000)
        )
        assert few == RoadChoice(frozenset(), 0.0, 5.0, 5.0)
        assert many == RoadChoice(frozenset({columns}), 600 + 0.2 + 100, 0.0, 1_000.0)

    def test_a_replaced_number_takes_two_steps_and_no_file(self) -> None:
        replaced = operation(set_to("tier", "gold"), kind="mdn_replace")
        assert why_not_by_file(replaced, TYPES) == "a number in place of another takes two steps"

    @pytest.mark.parametrize("external", [None, "", "[null]"])
    def test_a_row_needs_an_external_id_that_is_read_as_one(self, external: str | None) -> None:
        told = why_not_by_file(operation(external_person_id=external), TYPES)
        assert told is not None
        assert "external_person_id" in told

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            (set_to("external_person_id", "C1"), "adopting a person"),
            (set_to("mdn", "+13125550142"), "the number of an existing person"),
            (cleared("name"), "cannot clear a string"),
            (cleared("score"), "cannot clear a number"),
            (set_to("name", "[null]"), "cannot set a string field"),
        ],
    )
    def test_one_change_that_a_file_cannot_carry_sends_the_whole_by_api(
        self, change: Change, reason: str
    ) -> None:
        told = why_not_by_file(operation(set_to("tier", "gold"), change), TYPES)
        assert told is not None
        assert reason in told

    def test_a_file_carries_values_and_clears_of_selects(self) -> None:
        carried = operation(set_to("name", "Ada"), cleared("tier"), cleared("likes"))
        assert why_not_by_file(carried, TYPES) is None

    def test_a_file_has_the_columns_that_change_and_no_other(self) -> None:
        changes = (set_to("tier", "gold"), set_to("born", "2000-01-01"))
        columns = ("external_person_id", "born", "tier")
        assert file_columns(operation(*changes)) == columns
        assert file_columns(operation(*changes, mdn="+13125550142")) == columns
        assert file_columns(operation(*changes, kind="add")) == columns
        added = operation(*changes, kind="add", mdn="+13125550142")
        assert file_columns(added) == ("external_person_id", "mdn", "born", "tier")


class TestReceipts:
    def test_an_acceptance_says_nothing_else(self) -> None:
        assert receipt("op", "accepted", "Timeout", "hm") == Receipt("op", "accepted")

    def test_a_refusal_keeps_its_class_and_its_words_without_personal_data(self) -> None:
        told = receipt("op", "rejected", "HTTP 422", "bad +13125550142")
        assert told == Receipt("op", "rejected", "HTTP 422", "bad [removed]", retry_later=False)

    @pytest.mark.parametrize(
        ("error_class", "retry_later"), [("HTTP 429", True), ("HTTP 422", False), (None, False)]
    )
    def test_the_registry_says_what_may_be_tried_again(
        self, error_class: str | None, retry_later: bool
    ) -> None:
        assert receipt("op", "rejected", error_class).retry_later is retry_later

    def test_the_sender_may_know_better(self) -> None:
        assert receipt("op", "rejected", "HTTP 422", retry_later=True).retry_later
        assert not receipt("op", "unknown", "Timeout", retry_later=False).retry_later

    @pytest.mark.parametrize("message", [None, ""])
    def test_an_answer_without_class_or_words(self, message: str | None) -> None:
        assert receipt("op", "rejected", None, message) == Receipt(
            "op", "rejected", "NoErrorClass", None, retry_later=False
        )


class _Counts:
    """A ledger of which only the counts are asked."""

    def __init__(self, *counts: OperationCount) -> None:
        self.counts = counts

    def operation_counts(self, diff_set: str) -> tuple[OperationCount, ...]:
        return self.counts if diff_set == "one" else ()


@pytest.fixture
def counted() -> Callable[..., Tally]:
    def count(*rows: tuple[Any, ...]) -> Tally:
        counts = _Counts(*(OperationCount(*row) for row in rows))
        return tally(cast("Ledger", counts), "one")

    return count


class TestTally:
    def test_nothing_was_sent(self, counted: Callable[..., Tally]) -> None:
        waiting = ("persons", "api", "update", "planned", None, 5)
        assert counted(waiting) == Tally({"file": 0, "api": 0}, 0, 0, {})

    @pytest.mark.parametrize("status", ["sent", "accepted", "rejected", "unknown"])
    def test_what_left_is_counted_by_its_road(
        self, counted: Callable[..., Tally], status: str
    ) -> None:
        rows = [
            ("persons", "file", "update", status, "X", 2),
            ("persons", "file", "add", status, "X", 3),
            ("persons", "api", "update", status, "X", 7),
            ("crm", "crm", "crm_update", status, "X", 11),
            ("opt_outs", "api", "opt_out", status, "X", 13),
            ("opt_outs", "file", "opt_out", status, "X", 17),
            ("opt_outs", "crm", "crm_opt_out", status, "X", 19),
        ]
        told = counted(*rows)
        assert told.persons_by_route == {"file": 5, "api": 7}
        assert (told.opt_outs_to_platform, told.opt_outs_to_crm) == (30, 19)
        assert told.rejections == ({"X": 72} if status == "rejected" else {})

    def test_rejections_are_counted_by_class_in_its_order(
        self, counted: Callable[..., Tally]
    ) -> None:
        told = counted(
            ("persons", "file", "update", "rejected", "b", 1),
            ("opt_outs", "api", "opt_out", "rejected", None, 2),
            ("persons", "api", "add", "rejected", "a", 3),
        )
        assert list(told.rejections.items()) == [("a", 3), ("b", 1), ("unnamed", 2)]
