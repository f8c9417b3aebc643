"""A plan gives each change its lane, its road and its place in a file, and says why."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vibes_pipelines.delivery import plan as planning
from vibes_pipelines.delivery.deferrals import EXHAUSTED, NOT_YET_VISIBLE
from vibes_pipelines.delivery.intents import PlanError
from vibes_pipelines.delivery.plan import plan, preview
from vibes_pipelines.delivery.release import register_diff_set
from vibes_pipelines.delivery.routes import Estimates, RoadChoice, choose_roads
from vibes_pipelines.store.ledger import Ledger
from vibes_pipelines.store.records import Lane, Operation, Receipt, Route
from vibes_pipelines_tests.support.deliveries import (
    BY_API,
    BY_FILE,
    CONFIG,
    DAY,
    DIFF_SET,
    NEXT_DAY,
    SNAPSHOTS,
    FakeSummary,
    add,
    change,
    invite,
    noon,
    opt_out,
    planned,
    update,
    write_diff_set,
)


def by_file(ledger: Ledger) -> list[Operation]:
    batches = ledger.batches(diff_set=DIFF_SET)
    return [op for batch in batches for op in ledger.batch_operations(batch.batch_id)]


def by_api(ledger: Ledger) -> list[Operation]:
    return list(ledger.open_operations(DIFF_SET, "persons", "api"))


class TestRoads:
    @pytest.mark.parametrize(
        ("row", "reason"),
        [
            (update("C1", change("first_name", None, "Ada")), "cannot clear a string"),
            (update("C1", change("birthdate", None, "2000-01-01")), "cannot clear a date"),
            (update("C1", change("external_person_id", "C1")), "adopting"),
            (update("C1", change("mdn", "+13125550142")), "number of an existing person"),
            (add("[null]", change("first_name", "Ada")), "external_person_id"),
            (add("C\0001", change("first_name", "Ada")), "external_person_id"),
            (update("C1", change("first_name", "A\0da")), "cannot set a string field"),
        ],
    )
    def test_what_a_file_cannot_say_safely_goes_by_api(
        self, ledger: Ledger, tmp_path: Path, row: dict[str, object], reason: str
    ) -> None:
        planned(ledger, tmp_path / "out", persons=[row], estimates=BY_FILE)
        (operation,) = by_api(ledger)
        assert reason in operation.route_reason

    @pytest.mark.parametrize(
        "row",
        [
            add("C1", change("first_name", "Ada"), mdn="+13125550142"),
            update("C1", change("first_name", "Ada", "Eda")),
            update("C1", change("tier", None, "gold")),
            update("C1", change("interests", None, "golf")),
        ],
    )
    def test_what_a_file_can_say_goes_by_the_faster_road(
        self, tmp_path: Path, row: dict[str, object]
    ) -> None:
        roads = []
        for name, estimates in (("file", BY_FILE), ("api", BY_API)):
            with Ledger(f"sqlite:///{tmp_path / name}.db") as ledger:
                planned(ledger, tmp_path / name, persons=[row], estimates=estimates)
                roads.append((len(by_file(ledger)), len(by_api(ledger))))
        assert roads == [(1, 0), (0, 1)]

    def test_an_invitation_needs_a_consent_that_invites(
        self, ledger: Ledger, tmp_path: Path
    ) -> None:
        with pytest.raises(PlanError, match="list 1234, which no consents entry"):
            planned(ledger, tmp_path / "out", subscriptions=[invite("C1")])
        assert ledger.plan(DIFF_SET) is None

    def test_a_number_in_place_of_another_is_an_operation_of_its_own(
        self, ledger: Ledger, tmp_path: Path
    ) -> None:
        number = change("mdn", "+13125550143", "+13125550142")
        rows = [update("C1", change("first_name", "Ada"), number), update("C2", number)]
        planned(ledger, tmp_path / "out", persons=rows, estimates=BY_FILE)
        assert [(o.external_person_id, o.kind, o.route) for o in by_file(ledger)] == [
            ("C1", "update", "file")
        ]
        replaced = {op.external_person_id: op for op in by_api(ledger)}
        assert {op.kind for op in replaced.values()} == {"mdn_replace"}
        assert sorted(replaced) == ["C1", "C2"]
        assert [c.field for c in replaced["C1"].changes] == ["mdn"]


class TestTheFasterRoads:
    ESTIMATES = Estimates(rate_per_s=100, gap_s=300, pickup_s=300, rows_per_s=1_000, file_cost_s=1)

    def choose(self, groups: dict[str, int], only_by_api: int = 0) -> RoadChoice:
        by_columns = {(name,): rows for name, rows in groups.items()}
        return choose_roads(by_columns, only_by_api, self.ESTIMATES, 100_000)

    def test_few_rows_go_by_api(self) -> None:
        few = self.choose({"a": 1_000})
        assert few.by_file == frozenset()
        assert few.reason == "api alone ends after 10 s; no file would make that sooner"

    def test_the_largest_groups_go_by_file_and_the_small_ones_meanwhile_by_api(self) -> None:
        chosen = self.choose({"large": 400_000, "middle": 190_000, "small": 3_000, "tiny": 5})
        assert chosen.by_file == {("large",), ("middle",)}
        assert (chosen.file_s, chosen.api_s) == (600 + 6 + 590, pytest.approx(30.05))
        assert chosen.reason == "file ends after 1196 s, api after 30 s; by api alone 5930 s"

    def test_a_road_that_would_wait_for_the_other_takes_more(self) -> None:
        """The API is busy for 1000 s anyway: a second group by file costs nothing."""
        assert self.choose({"a": 70_000}, only_by_api=100_000).by_file == {("a",)}
        assert self.choose({"a": 20_000}, only_by_api=0).by_file == frozenset()

    def test_many_tiny_groups_are_not_worth_their_files(self) -> None:
        tiny = {f"t{n:04}": 50 for n in range(2_000)}
        chosen = self.choose({"large": 100_000, **tiny})
        assert ("large",) in chosen.by_file
        assert len(chosen.by_file) < 200  # each costs a second of the file road, half one by API

    @given(
        groups=st.dictionaries(st.text("ab", min_size=1), st.integers(1, 300_000), max_size=8),
        only_by_api=st.integers(0, 200_000),
    )
    def test_no_number_of_largest_groups_by_file_ends_sooner(
        self, groups: dict[str, int], only_by_api: int
    ) -> None:
        chosen = self.choose(groups, only_by_api)
        sizes = sorted(groups.values(), reverse=True)
        ends = []
        for taken in range(len(sizes) + 1):
            files = sum(-(-rows // 100_000) for rows in sizes[:taken])
            rows = sum(sizes[:taken])
            by_file = 600 + files + rows / 1_000 if taken else 0.0
            ends.append(max(by_file, (sum(sizes[taken:]) + only_by_api) / 100))
        assert max(chosen.file_s, chosen.api_s) == pytest.approx(min(ends))


class TestOptOutFiles:
    def test_many_opt_outs_go_by_file_one_per_list(self, ledger: Ledger, tmp_path: Path) -> None:
        rows = [opt_out(f"C{n}") | {"subscription_list_id": f"12{n % 2}"} for n in range(4)]
        result = planned(ledger, tmp_path / "out", subscriptions=rows, estimates=BY_FILE)
        stem = f"{DAY}_dddddddddddd_out_"
        assert [(b.name, b.rows) for b in result.batches] == [
            (f"{stem}01.opt_outs", 2),
            (f"{stem}02.opt_outs", 2),
        ]
        lists = [
            {o.subscription_list_id for o in ledger.batch_operations(b.batch_id)}
            for b in result.batches
        ]
        assert lists == [{"120"}, {"121"}]
        assert dict(result.operations) == {"opt_outs/file/opt_out": 4}

    def test_what_the_file_cannot_name_goes_by_api(self, ledger: Ledger, tmp_path: Path) -> None:
        odd = opt_out("C1") | {"person_key": None, "external_person_id": "[null]"}
        planned(ledger, tmp_path / "out", subscriptions=[odd], estimates=BY_FILE)
        (operation,) = ledger.open_operations(DIFF_SET, "opt_outs", "api")
        assert "no external_person_id" in operation.route_reason

    def test_a_deferred_opt_out_has_no_row_in_a_file(self, ledger: Ledger, tmp_path: Path) -> None:
        planned(ledger, tmp_path / "a", diff_set="a" * 64, subscriptions=[opt_out("C1")])
        (sent,) = ledger.open_operations("a" * 64, "opt_outs", "api")
        ledger.mark_sent([sent.operation_id])
        ledger.record([Receipt(sent.operation_id, "accepted")], DAY)
        rows = [opt_out("C1"), opt_out("C2")]
        result = planned(
            ledger, tmp_path / "b", day=NEXT_DAY, subscriptions=rows, estimates=BY_FILE
        )
        assert [batch.rows for batch in result.batches] == [1]


class TestFiles:
    def test_one_file_per_set_of_changed_columns(self, ledger: Ledger, tmp_path: Path) -> None:
        """Law: nothing unintended is cleared; no row has a cell that it does not change."""
        result = planned(
            ledger,
            tmp_path / "out",
            estimates=BY_FILE,
            persons=[
                add("C1", change("first_name", "Ada"), mdn="+13125550142"),
                add("C2", change("first_name", "Bob")),
                update("C3", change("first_name", "Cy", "Si")),
                update("C4", change("first_name", "Di", "Dy"), change("tier", "gold")),
                update("C5", change("tier", "gold"), change("first_name", "Ed", "Et")),
            ],
        )
        seats = {op.external_person_id: (op.batch_id, op.row_number) for op in by_file(ledger)}
        first = DAY + "_dddddddddddd_"
        assert seats == {
            "C2": (first + "01", 1),
            "C3": (first + "01", 2),
            "C4": (first + "02", 1),
            "C5": (first + "02", 2),
            "C1": (first + "03", 1),
        }
        assert [(b.name, b.rows) for b in result.batches] == [
            (f"{first}01.persons", 2),
            (f"{first}02.persons", 2),
            (f"{first}03.persons", 1),
        ]

    def test_a_long_group_is_cut_into_files(
        self, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(planning, "MAX_FILE_ROWS", 2)
        rows = [add(f"C{n}", change("first_name", "Ada")) for n in range(5)]
        result = planned(ledger, tmp_path / "out", persons=rows, estimates=BY_FILE)
        assert [batch.rows for batch in result.batches] == [2, 2, 1]
        assert [op.row_number for op in by_file(ledger)] == [1, 2, 1, 2, 1]


class TestLanes:
    def test_opt_outs_have_their_own_lane_and_each_side_its_road(
        self, ledger: Ledger, tmp_path: Path
    ) -> None:
        result = planned(
            ledger,
            tmp_path / "out",
            subscriptions=[
                opt_out("C1"),
                opt_out("C2", side="crm", evidence_at=datetime(2026, 1, 1, 10, tzinfo=UTC)),
            ],
            crm=[
                {"contact_id": "C3", "field": "first_name", "before": "a", "after": "b"},
                {"contact_id": "C3", "field": "tier", "before": "x", "after": None},
            ],
            persons=[update("C4", change("first_name", "Di"))],
        )
        assert dict(result.operations) == {
            "crm/crm/crm_update": 1,
            "opt_outs/api/opt_out": 1,
            "opt_outs/crm/crm_opt_out": 1,
            "persons/api/update": 1,
        }
        (write_back,) = ledger.open_operations(DIFF_SET, "crm", "crm")
        assert [(c.field, c.action, c.after) for c in write_back.changes] == [
            ("first_name", "set", "b"),
            ("tier", "clear", None),
        ]
        (crm_opt_out,) = ledger.open_operations(DIFF_SET, "opt_outs", "crm")
        assert crm_opt_out.after("evidence_at") == "2026-01-01T10:00:00+00:00"

    def test_what_no_delivery_carries_is_refused(self, ledger: Ledger, tmp_path: Path) -> None:
        unknown = opt_out("C1") | {"action": "transfer"}
        with pytest.raises(PlanError, match="no delivery for action 'transfer'"):
            planned(ledger, tmp_path / "out", subscriptions=[unknown])
        assert ledger.plan(DIFF_SET) is None

    def test_a_missing_file_is_named(self, ledger: Ledger, tmp_path: Path) -> None:
        register_diff_set(ledger, DAY, FakeSummary(DIFF_SET, noon(DAY)), SNAPSHOTS)
        with pytest.raises(PlanError, match=r"person_changes\.parquet is missing"):
            plan(DIFF_SET, tmp_path, CONFIG, ledger)

    def test_an_unregistered_diff_set_is_refused(self, ledger: Ledger, tmp_path: Path) -> None:
        with pytest.raises(PlanError, match="not registered"):
            plan(DIFF_SET, tmp_path, CONFIG, ledger)


class TestPlanningAgain:
    def test_changes_nothing_even_with_other_estimates(
        self, ledger: Ledger, tmp_path: Path
    ) -> None:
        rows = [update(f"C{n}", change("first_name", "Ada")) for n in range(3)]
        first = planned(ledger, tmp_path / "out", persons=rows, estimates=BY_FILE)
        operations = by_file(ledger)
        again = plan(DIFF_SET, tmp_path / "out", CONFIG, ledger, BY_API)
        assert again == first
        assert by_file(ledger) == operations
        assert by_api(ledger) == []

    def test_equal_diff_sets_make_equal_plans(self, tmp_path: Path) -> None:
        rows = [
            add(f"C{n}", change("first_name", "Ada"), mdn="+1312555014" + str(n)) for n in (3, 1)
        ]
        seen = []
        for name in ("one", "two"):
            with Ledger(f"sqlite:///{tmp_path / name}.db") as ledger:
                planned(ledger, tmp_path / name, persons=rows, estimates=BY_FILE)
                seen.append(by_file(ledger))
        assert seen[0] == seen[1]

    def test_works_on_postgresql_too(self, ledger_url: str, tmp_path: Path) -> None:
        with Ledger(ledger_url) as ledger:
            planned(
                ledger,
                tmp_path / "out",
                persons=[update("C1", change("first_name", "Ada"))],
                subscriptions=[opt_out("C1")],
            )
            plan(DIFF_SET, tmp_path / "out", CONFIG, ledger)
            assert sum(ledger.status_counts(DIFF_SET).values()) == 2


class TestPreview:
    def test_says_what_a_plan_would_say_and_records_nothing(
        self, ledger: Ledger, tmp_path: Path
    ) -> None:
        folder = write_diff_set(
            tmp_path / "out",
            persons=[add("C1", change("first_name", "Ada"))],
            subscriptions=[opt_out("C1")],
        )
        register_diff_set(ledger, DAY, FakeSummary(DIFF_SET, noon(DAY)), SNAPSHOTS)
        previewed = preview(DIFF_SET, folder, CONFIG, ledger, BY_FILE)
        assert ledger.status_counts(DIFF_SET) == {}
        assert plan(DIFF_SET, folder, CONFIG, ledger, BY_FILE) == previewed
        assert preview(DIFF_SET, folder, CONFIG, ledger, BY_API) == previewed


class TestDeferrals:
    """What is under way is not sent again; write-backs are given up in the end, opt-outs never."""

    DAYS = tuple(f"2026-01-0{n}" for n in range(2, 8))

    ROADS: ClassVar[dict[str, tuple[Lane, Route]]] = {
        "opt_out": ("opt_outs", "api"),
        "crm_opt_out": ("opt_outs", "crm"),
        "crm_update": ("crm", "crm"),
    }
    ROWS: ClassVar[dict[str, dict[str, Any]]] = {
        "opt_out": {"subscriptions": [opt_out("C1")]},
        "crm_opt_out": {"subscriptions": [opt_out("C1", side="crm")]},
        "crm_update": {"crm": [{"contact_id": "C1", "field": "tier", "after": "gold"}]},
    }

    def send(
        self,
        ledger: Ledger,
        folder: Path,
        day: str,
        receipt: Receipt,
        outcome: str | None,
        kind: str = "opt_out",
    ) -> dict[str, int]:
        rows = self.ROWS[kind]
        result = planned(ledger, folder / day, diff_set=day, day=day, **rows)
        for operation in list(ledger.open_operations(day, *self.ROADS[kind])):
            ledger.mark_sent([operation.operation_id])
            ledger.record([replace(receipt, operation_id=operation.operation_id)], day)
            if outcome is not None:
                ledger.record_outcomes([(operation.operation_id, outcome, "")], day)  # type: ignore[list-item]
        return dict(result.deferred)

    def test_an_accepted_one_waits_for_the_visibility_lag(
        self, ledger: Ledger, tmp_path: Path
    ) -> None:
        accepted = Receipt("", "accepted")
        deferred = [self.send(ledger, tmp_path, day, accepted, None) for day in self.DAYS[:3]]
        assert deferred == [{}, {f"opt_out: {NOT_YET_VISIBLE}": 1}, {}]

    def test_a_refused_write_back_is_sent_on_three_days_and_then_shown(
        self, ledger: Ledger, tmp_path: Path
    ) -> None:
        refused = Receipt("", "rejected", "ValueDoesNotFit")
        deferred = [
            self.send(ledger, tmp_path, day, refused, "rejected", "crm_update")
            for day in self.DAYS[:5]
        ]
        shown = {f"crm_update: {EXHAUSTED}": 1}
        assert deferred == [{}, {}, {}, shown, shown]

    @pytest.mark.parametrize("kind", ["opt_out", "crm_opt_out"])
    @pytest.mark.parametrize(
        ("receipt", "outcome"),
        [
            (Receipt("", "rejected", "HTTP 422"), "rejected"),
            (Receipt("", "unknown", "Timeout"), "unexplained"),
        ],
    )
    def test_an_opt_out_is_sent_every_day_until_it_is_effective(
        self, ledger: Ledger, tmp_path: Path, kind: str, receipt: Receipt, outcome: str
    ) -> None:
        deferred = [
            self.send(ledger, tmp_path, day, receipt, outcome, kind) for day in self.DAYS[:5]
        ]
        assert deferred == [{}] * 5

    @pytest.mark.parametrize("kind", ["opt_out", "crm_opt_out", "crm_update"])
    def test_a_changed_config_does_not_send_again_what_was_accepted_today(
        self, ledger: Ledger, tmp_path: Path, kind: str
    ) -> None:
        today = self.DAYS[0]
        self.send(ledger, tmp_path, today, Receipt("", "accepted"), None, kind)
        deferred = {
            name: planned(
                ledger,
                tmp_path / name,
                diff_set=name,
                day=today,
                config_hash=name,
                **self.ROWS[kind],
            ).deferred
            for name in ("config-1", "config-2")
        }
        assert deferred == {"config-1": {}, "config-2": {f"{kind}: {NOT_YET_VISIBLE}": 1}}

    def test_a_busy_platform_does_not_use_up_the_days(self, ledger: Ledger, tmp_path: Path) -> None:
        busy = Receipt("", "rejected", "HTTP 429", retry_later=True)
        deferred = [self.send(ledger, tmp_path, day, busy, "rejected") for day in self.DAYS[:5]]
        assert deferred == [{}] * 5

    def test_new_evidence_is_sent_at_once(self, ledger: Ledger, tmp_path: Path) -> None:
        self.send(ledger, tmp_path, self.DAYS[0], Receipt("", "accepted"), None)
        newer = opt_out("C1", evidence_at=datetime(2026, 1, 3, 1, tzinfo=UTC))
        result = planned(
            ledger, tmp_path / "new", diff_set="new", day=self.DAYS[1], subscriptions=[newer]
        )
        assert dict(result.deferred) == {}
