"""A delivery in Dagster: plan, send, account, and what each of them does when it runs alone."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partialmethod
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.reconstruct import ReconstructableJob, ReconstructableRepository

from vibes_pipelines.orchestration.assets.delivery import DELIVERY_ASSETS
from vibes_pipelines.orchestration.build import build_defs
from vibes_pipelines.orchestration.delivery_ops import DeliveryConfig
from vibes_pipelines.orchestration.jobs import DELIVERIES, delivery_run_config
from vibes_pipelines.orchestration.keys import API_PUSH
from vibes_pipelines.orchestration.resources import ProjectResource
from vibes_pipelines.sandbox.population import build_world
from vibes_pipelines.stages import delivering, planning
from vibes_pipelines.stages.alert_texts import ADVICE, DEFAULT, advice_for
from vibes_pipelines.stages.delivering import Delivered, Options
from vibes_pipelines.stages.planning import Planned
from vibes_pipelines.stages.project import Project
from vibes_pipelines.stages.reconciling import NotReconciledError
from vibes_pipelines.vibes.person_api import PersonApi
from vibes_pipelines_tests.support.loop import EXAMPLE, Loop, agreed_keys
from vibes_pipelines_tests.support.second_morning import running_second_morning

POPULATION = (150, 3)  # people and seed
EDITED = agreed_keys(build_world(*POPULATION))[:6]
DAY, NEXT_DAY = "2026-01-02", "2026-01-03"
PUSH = "__".join(API_PUSH.path)
QUIET = {"console": {"config": {"log_level": "CRITICAL"}}}
RANGE = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")
POOLS = {
    "delivery__opt_outs": "vibes_opt_outs",
    "delivery__crm_write_back": "crm",
    "delivery__person_import": "vibes_sftp",
    "delivery__api_push": "vibes_api",
    "delivery__invites": "vibes_api",
}


@pytest.fixture(scope="module")
def repository() -> dg.RepositoryDefinition:
    return build_defs().get_repository_def()


def _graph(repository: dg.RepositoryDefinition, key: dg.AssetKey) -> dg.GraphDefinition:
    graph = repository.assets_defs_by_key[key].node_def
    assert isinstance(graph, dg.GraphDefinition)
    return graph


def _ops(repository: dg.RepositoryDefinition, key: dg.AssetKey) -> dict[str, dg.OpDefinition]:
    found = {node.name: node.definition for node in _graph(repository, key).nodes}
    return {name: op for name, op in found.items() if isinstance(op, dg.OpDefinition)}


class TestTheSteps:
    """One code of three ops, in five assets."""

    def test_every_delivery_is_made_of_the_same_three(
        self, repository: dg.RepositoryDefinition
    ) -> None:
        made_of = [_ops(repository, key) for key in DELIVERIES]
        assert all(list(ops) == ["account", "plan", "send"] for ops in map(_sorted, made_of))
        assert len({id(ops["plan"]) for ops in made_of}) == 1
        assert len({id(ops["account"]) for ops in made_of}) == 1
        assert {op.tags["vibes/effect"] for ops in made_of for op in ops.values()} == {"delivery"}

    def test_only_the_one_that_talks_to_the_outside_holds_a_pool(
        self, repository: dg.RepositoryDefinition
    ) -> None:
        for key in DELIVERIES:
            pools = {name: op.pool for name, op in _ops(repository, key).items()}
            assert pools == {"plan": None, "send": POOLS["__".join(key.path)], "account": None}

    @pytest.mark.parametrize("name", POOLS)
    def test_each_is_known_to_the_stages_and_to_the_alerts(self, name: str) -> None:
        delivery = name.removeprefix("delivery__")
        assert delivery in delivering.SENDS.keys() & planning.DELIVERIES.keys()
        for step in ("plan", "send", "account"):
            assert advice_for((f"{name}.{step}",)) is ADVICE[name] is not DEFAULT


def _sorted(ops: dict[str, dg.OpDefinition]) -> dict[str, dg.OpDefinition]:
    return dict(sorted(ops.items()))


@pytest.fixture
def pushes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A project without data, in which a push by API plans and sends nothing; which calls it got.

    The day of `NEXT_DAY` has no diff set.
    """
    asked: list[str] = []

    def plan(project: Project, day: str, name: str, options: Options) -> Planned:
        asked.append(f"plan {day} {options.dry_run} {options.force_reason}")
        _only_one(day)
        return Planned(f"diff set of {day}", {}, {}, "a test", "allowed", 0.0)

    def send(project: Project, day: str, options: Options) -> Delivered:
        asked.append(f"send {day} {options.dry_run} {options.force_reason}")
        _only_one(day)
        return Delivered(f"diff set of {day}", options.dry_run, counts={}, why="a test")

    monkeypatch.setattr(planning, "plan_delivery", plan)
    monkeypatch.setitem(delivering.SENDS, "api_push", send)
    for name, value in {"HOME": str(tmp_path / "data"), "SYNC_CONFIG": str(EXAMPLE)}.items():
        monkeypatch.setenv(f"VIBES_{name}", value)
    monkeypatch.setenv("VIBES_LEDGER_URL", "")
    return asked


def _only_one(day: str) -> None:
    if day == NEXT_DAY:
        raise NotReconciledError(f"the day {day} has no diff set")


def _deliver(
    config: DeliveryConfig | None = None,
    *,
    days: tuple[str, str] | None = None,
) -> dg.ExecuteInProcessResult:
    ends = dict(zip(RANGE, days, strict=True)) if days else {}
    ops = {PUSH: config} if config else {}
    with dg.DagsterInstance.ephemeral() as instance:
        return dg.materialize(
            [asset for asset in DELIVERY_ASSETS if asset.key == API_PUSH],
            instance=instance,
            partition_key=None if days else DAY,
            tags=ends,
            resources={"project": ProjectResource()},
            run_config=dg.RunConfig(ops=ops, loggers=QUIET),
            raise_on_error=False,
        )


def _failure(result: dg.ExecuteInProcessResult) -> tuple[str, str]:
    """Which step failed, and what it says."""
    [failed] = [event for event in result.all_events if event.is_step_failure]
    error = failed.step_failure_data.error
    assert error is not None
    return str(failed.step_key), (error.cause or error).message


def _shown(result: dg.ExecuteInProcessResult) -> dict[str, dict[str, dg.MetadataValue[Any]]]:
    made = result.asset_materializations_for_node(f"{PUSH}.account")
    return {str(one.partition): dict(one.metadata) for one in made}


class TestItsConfig:
    """One config for the delivery, which each of its ops is given."""

    def test_without_a_config_it_is_a_dry_run(self, pushes_nothing: list[str]) -> None:
        result = _deliver()
        assert pushes_nothing == [f"plan {DAY} True None", f"send {DAY} True None"]
        assert _shown(result)[DAY]["dry_run"].value is True

    def test_a_forced_delivery_shows_why(self, pushes_nothing: list[str]) -> None:
        given = DeliveryConfig(dry_run=False, force_reason="the newer day waits")
        shown = _shown(_deliver(given))[DAY]
        assert shown["forced"].value == "the newer day waits"
        assert pushes_nothing[-1] == f"send {DAY} False the newer day waits"
        assert "forced" not in _shown(_deliver(DeliveryConfig(dry_run=False)))[DAY]

    def test_a_blank_reason_forces_nothing(self, pushes_nothing: list[str]) -> None:
        result = _deliver(DeliveryConfig(dry_run=False, force_reason="  "))
        assert _failure(result)[0] == f"{PUSH}.plan"
        assert pushes_nothing == []


class TestSeveralDays:
    """A backfill is one run over its days."""

    def test_it_delivers_none_of_them(self, pushes_nothing: list[str]) -> None:
        result = _deliver(DeliveryConfig(dry_run=False), days=("2026-01-01", DAY))
        step, said = _failure(result)
        assert step == f"{PUSH}.plan"
        assert "a delivery carries one day, not 2" in said
        assert pushes_nothing == []

    def test_a_dry_run_shows_each_with_its_own_metadata(self, pushes_nothing: list[str]) -> None:
        shown = _shown(_deliver(days=("2026-01-01", DAY)))
        assert len(pushes_nothing) == 4
        assert {day: str(one["diff_set"].value) for day, one in shown.items()} == {
            "2026-01-01": "diff set of 2026-01-01",
            DAY: f"diff set of {DAY}",
        }

    @pytest.mark.usefixtures("pushes_nothing")
    def test_one_that_is_missing_stops_no_other_and_is_named_at_the_end(self) -> None:
        result = _deliver(days=("2026-01-01", NEXT_DAY))
        assert set(_shown(result)) == {"2026-01-01", DAY}
        step, said = _failure(result)
        assert step == f"{PUSH}.account"
        assert f"1 of 3 days are missing, all others were made. {NEXT_DAY}: the day" in said

    @pytest.mark.usefixtures("pushes_nothing")
    def test_one_alone_that_is_missing_says_so_itself(self) -> None:
        result = _deliver(days=(NEXT_DAY, NEXT_DAY))
        step, said = _failure(result)
        assert step == f"{PUSH}.plan"
        assert f"NotReconciledError: the day {NEXT_DAY} has no diff set" in said


class TestPlanning:
    """What the first op asks of the stages."""

    def test_what_is_held_is_told_or_refused_and_never_written(self, loop: Loop) -> None:
        summary, send = loop.reconcile(), Options(dry_run=False)
        looked = planning.plan_delivery(loop.project, loop.today, "api_push", Options())
        assert looked.diff_set == summary.diff_set
        assert looked.release.startswith("held; first run")
        assert looked.counts == looked.left
        assert sum(looked.counts.values()) == summary.added + summary.updated
        with pytest.raises(planning.NotReleasedError, match=r"persons: held: .*first run"):
            planning.plan_delivery(loop.project, loop.today, "api_push", send)
        invited = planning.plan_delivery(loop.project, loop.today, "invites", send)
        assert invited.release.startswith("held; first run")
        assert loop.project.ledger.plan(summary.diff_set) is None

    def test_the_intents_are_written_and_after_the_send_nothing_is_left(self, loop: Loop) -> None:
        summary, send = loop.reconcile(), Options(dry_run=False)
        loop.approve(summary)
        planned = planning.plan_delivery(loop.project, loop.today, "api_push", send)
        assert planned.release == "allowed"
        written = loop.project.ledger.status_counts(summary.diff_set)
        assert written["persons", "api", "planned"] == sum(planned.counts.values()) > 0
        assert planned.estimated_s > 0
        delivering.push_persons(loop.project, loop.today, send)
        again = planning.plan_delivery(loop.project, loop.today, "api_push", send)
        assert (again.counts, again.left, again.estimated_s) == (planned.counts, {}, 0.0)
        assert again.sentence.startswith("to be sent: nothing")


@dataclass
class Failed:
    """A push by the job `api_push` of which some got no answer, on an instance that keeps it."""

    loop: Loop
    instance: dg.DagsterInstance
    run_id: str

    def again_from_failure(self, day: str) -> dg.DagsterRun:
        """What "Re-execute from failure" in the UI starts."""
        options = dg.ReexecutionOptions.from_failure(self.run_id, self.instance)
        return _run(self.instance, day, options)

    def steps(self, run_id: str) -> dict[str, str]:
        """The steps of the delivery that ran, and how they ended."""
        stats = self.instance.get_run_step_stats(run_id)
        return {
            one.step_key.removeprefix(f"{PUSH}."): str(one.status.value)
            for one in stats
            if one.step_key.startswith(PUSH) and one.status is not None
        }

    def made(self, run_id: str) -> dict[str, dg.MetadataValue[Any]] | None:
        """What the asset shows of the day, if the run made it."""
        entries = self.instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
        events = [one.dagster_event for one in entries if one.dagster_event]
        return next(
            (
                dict(event.step_materialization_data.materialization.metadata)
                for event in events
                if event.asset_key == API_PUSH
            ),
            None,
        )

    def effects(self) -> int:
        """Changes of persons by API at the platform."""
        return self.loop.sandbox.platform.audit.effects("api_update")


def _run(
    instance: dg.DagsterInstance, day: str, again: dg.ReexecutionOptions | None = None
) -> dg.DagsterRun:
    """The job as its own process would run it."""
    job = ReconstructableJob(
        ReconstructableRepository.for_module("vibes_pipelines.definitions", "defs"), "api_push"
    )
    ops = delivery_run_config(dry_run=False, deliveries=(API_PUSH,)).ops
    with dg.execute_job(
        job,
        instance,
        run_config={"ops": ops, "loggers": QUIET},
        tags={"dagster/partition": day},
        reexecution_options=again,
    ) as result:
        return result.dagster_run


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Failed]:
    home = tmp_path_factory.mktemp("send-failed")
    impatient = partialmethod(PersonApi.__init__, backoff_s=0.02)
    with (
        pytest.MonkeyPatch.context() as patch,
        running_second_morning(home, POPULATION) as loop,
        dg.instance_for_test(temp_dir=str(home)) as instance,
    ):
        patch.setattr(PersonApi, "__init__", impatient)
        loop.edit_contacts("last_name = 'Second Day'", EDITED)
        loop.reconcile()
        silent = {"match": {"path_regex": f"external/({'|'.join(EDITED[:2])})$"}}
        loop.sandbox.set_faults([{**silent, "action": "status", "status": 503}])
        run_id = _run(instance, loop.today).run_id
        loop.sandbox.set_faults(None)
        yield Failed(loop, instance, run_id)


class TestAgainFromFailure:
    """A run that failed at `send` goes on there, from what the ledger says."""

    def test_the_plan_stands_and_nothing_is_recorded(self, failed: Failed) -> None:
        assert failed.steps(failed.run_id) == {"plan": "SUCCESS", "send": "FAILURE"}
        assert failed.made(failed.run_id) is None
        assert failed.effects() == len(EDITED) - 2

    def test_it_sends_what_is_open_and_that_alone(self, failed: Failed) -> None:
        again = failed.again_from_failure(failed.loop.today)
        assert again.status is dg.DagsterRunStatus.SUCCESS
        assert failed.steps(again.run_id) == {"send": "SUCCESS", "account": "SUCCESS"}
        assert failed.effects() == len(EDITED)
        shown = failed.made(again.run_id)
        assert shown is not None
        assert (shown["planned"].value, shown["accepted"].value) == (2, 2)
        assert f"| accepted | {len(EDITED)} |" in str(shown["ledger"].value)
        options = dg.ReexecutionOptions(again.run_id, [f"{PUSH}.account"])
        recorded = _run(failed.instance, failed.loop.today, options)
        assert failed.steps(recorded.run_id) == {"account": "SUCCESS"}
        assert failed.made(recorded.run_id) is not None
        assert failed.effects() == len(EDITED)

    @pytest.mark.slow
    def test_after_a_newer_diff_set_it_is_refused_and_sends_nothing(self, failed: Failed) -> None:
        day, before = failed.loop.today, failed.effects()
        failed.loop.sandbox.next_day(edits=False)
        failed.loop.edit_contacts("last_name = 'Third Day'", EDITED)
        failed.loop.reconcile()
        again = failed.again_from_failure(day)
        assert failed.steps(again.run_id) == {"send": "FAILURE"}
        [entry] = failed.instance.all_logs(again.run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
        assert entry.dagster_event is not None
        error = entry.dagster_event.step_failure_data.error
        assert error is not None
        assert "a newer diff set is there" in (error.cause or error).message
        assert failed.effects() == before
