"""The code location as a whole: what it holds, what it costs to load, what every part carries."""

import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.assets.graph.base_asset_graph import BaseAssetNode

from vibes_pipelines.orchestration.alerts import DRY_UNLESS_TOLD
from vibes_pipelines.orchestration.build import build_defs
from vibes_pipelines.orchestration.delivery_ops import DeliveryConfig
from vibes_pipelines.orchestration.jobs import DELIVERIES
from vibes_pipelines.orchestration.ops import EffectConfig
from vibes_pipelines.orchestration.partitions import DAILY

ROOT = Path(__file__).parents[2]

# group: asset <- what it is made from
ASSETS = """
apsis: apsis/changes <- apsis/contacts, apsis/profiles
apsis: apsis/contacts <- outside/crm_contacts
apsis: apsis/delivery <- apsis/changes
apsis: apsis/profiles <- outside/apsis_profiles
convergence: convergence/certificate <- crm/contacts, extract/subscriptions, share/persons, share/subscriptions
crm: crm/contacts <- outside/crm_contacts
delivery: delivery/api_push <- delivery/opt_outs, reconcile/person_changes
delivery: delivery/crm_write_back <- reconcile/crm_changes, reconcile/subscription_changes
delivery: delivery/invites <- delivery/opt_outs, reconcile/subscription_changes
delivery: delivery/opt_outs <- reconcile/subscription_changes
delivery: delivery/person_import <- delivery/opt_outs, reconcile/person_changes
delivery: delivery/rejected <- delivery/api_push, delivery/crm_write_back, delivery/invites, delivery/opt_outs, delivery/person_import
extract: extract/current_subscribers <- outside/sftp_current_subscribers
extract: extract/subscriptions <- outside/sftp_subscriptions
outside: outside/apsis_profiles <- nothing
outside: outside/crm_contacts <- nothing
outside: outside/sftp_current_subscribers <- nothing
outside: outside/sftp_subscriptions <- nothing
outside: outside/share_persons <- nothing
outside: outside/share_subscriptions <- nothing
reconcile: reconcile/crm_changes <- crm/contacts, share/persons
reconcile: reconcile/person_changes <- convergence/certificate, crm/contacts, share/persons
reconcile: reconcile/quarantine <- crm/contacts, share/persons
reconcile: reconcile/subscription_changes <- crm/contacts, extract/subscriptions, share/persons, share/subscriptions
report: report/day <- convergence/certificate, delivery/api_push, delivery/crm_write_back, delivery/invites, delivery/opt_outs, delivery/person_import, delivery/rejected, reconcile/crm_changes, reconcile/person_changes, reconcile/quarantine, reconcile/subscription_changes, report/draft
report: report/draft <- convergence/certificate, reconcile/crm_changes, reconcile/quarantine
share: share/persons <- outside/share_persons
share: share/subscriptions <- outside/share_subscriptions
"""  # noqa: E501

CHECKS = """
apsis/delivery no_full_sync_needed
convergence/certificate nothing_is_unexplained
crm/contacts columns_as_mapped blocking
delivery/opt_outs opt_outs_arrive_in_time
extract/current_subscribers columns_as_mapped blocking
extract/current_subscribers primary_key_unique blocking
extract/current_subscribers subscribers_agree_with_share
extract/subscriptions columns_as_mapped blocking
reconcile/person_changes every_contact_is_accounted_for blocking
reconcile/person_changes person_changes_within_guards blocking
reconcile/subscription_changes opt_outs_within_guards blocking
report/day newest_day_is_made
share/persons columns_as_mapped blocking
share/persons primary_key_unique blocking
share/subscriptions columns_as_mapped blocking
share/subscriptions input_share_within_guard blocking
share/subscriptions primary_key_unique blocking
"""

# What starts runs -> the job it starts
AUTOMATION = """
apsis_overviews_schedule -> apsis_overviews
callback_inbox_sensor -> callback_inbox
check_alert_sensor -> nothing
crm_change_sensor -> crm_changes
diff_set_sensor -> repush
extract_arrival_sensor -> reconcile_daily
import_report_sensor -> import_reports
late_opt_outs_schedule -> look_for_late_opt_outs
newest_day_schedule -> look_for_newest_day
opt_out_sensor -> opt_outs
reconcile_daily_schedule -> reconcile_daily
run_failure_sensor -> nothing
tribe_full_sync_schedule -> tribe_full_sync
tribe_message_sensor -> tribe_messages
"""

# job: what it makes, and the checks it looks at when it is not all of them
JOBS = """
api_push: delivery/api_push, delivery/rejected, report/day; checks: none
apply_retention: nothing; checks: none
approve: nothing; checks: none
apsis_overviews: nothing; checks: none
apsis_push: apsis/changes, apsis/contacts, apsis/delivery, apsis/profiles; checks: none
callback_inbox: nothing; checks: none
crm_changes: nothing; checks: none
crm_write_back: delivery/crm_write_back, delivery/rejected, report/day; checks: none
import_reports: delivery/rejected, report/day; checks: none
look_for_late_opt_outs: nothing; checks: opt_outs_arrive_in_time
look_for_newest_day: nothing; checks: newest_day_is_made
opt_outs: nothing; checks: none
person_import: delivery/person_import, delivery/rejected, report/day; checks: none
reconcile_daily: every asset of a day; checks: all but newest_day_is_made, no_full_sync_needed
repush: delivery/api_push, delivery/crm_write_back, delivery/invites, delivery/opt_outs, delivery/person_import, delivery/rejected, report/day; checks: opt_outs_within_guards, person_changes_within_guards
send_events: nothing; checks: none
tribe_full_sync: apsis/changes, apsis/contacts, apsis/delivery, apsis/profiles; checks: no_full_sync_needed
tribe_messages: nothing; checks: none
"""  # noqa: E501

# Loading has to stay near what Dagster itself costs: every run and every daemon pays for it.
# It is 1.2 times; `dagster_snowflake` alone would make it ten times as much.
MOST_TIMES_DAGSTER = 2.0
# fmt: off
TOUCHES_DATA = {
    "dagster_snowflake", "duckdb", "numpy", "pandas", "paramiko", "phonenumbers", "pyarrow",
    "snowflake.connector", "sqlalchemy",
}
# fmt: on
BEHIND_DOORS = tuple(
    f"vibes_pipelines.{door}." for door in ("crm", "delivery", "report", "stages", "store")
)


@pytest.fixture(scope="module")
def repository() -> dg.RepositoryDefinition:
    return build_defs().get_repository_def()


@pytest.fixture(scope="module")
def nodes(repository: dg.RepositoryDefinition) -> list[BaseAssetNode]:
    return list(repository.asset_graph.asset_nodes)


def test_the_assets_and_what_they_are_made_from(nodes: list[BaseAssetNode]) -> None:
    found = [f"{n.group_name}: {_name(n.key)} <- {_names(n.parent_keys)}" for n in nodes]
    assert _text(found) == ASSETS


def test_the_checks_and_which_of_them_block(repository: dg.RepositoryDefinition) -> None:
    graph = repository.asset_graph
    specs = [graph.get_check_spec(key) for key in graph.asset_check_keys]
    found = [f"{_name(s.asset_key)} {s.name}{' blocking' if s.blocking else ''}" for s in specs]
    assert _text(found) == CHECKS
    assert all(spec.description for spec in specs)


def test_the_jobs(repository: dg.RepositoryDefinition) -> None:
    jobs = [job for job in repository.get_all_jobs() if not job.name.startswith("__")]
    assert _text([_job(job, repository) for job in jobs]) == JOBS
    assert all(isinstance(job, dg.JobDefinition) and job.description for job in jobs)
    without_effect = {job.name for job in jobs if job.tags.get("vibes/effect") != "delivery"}
    # The lane of opt-outs is held up by no delivery.
    assert without_effect == {"look_for_late_opt_outs", "look_for_newest_day", "opt_outs"}


def test_what_starts_runs_is_described_and_stopped(repository: dg.RepositoryDefinition) -> None:
    sensors, schedules = repository.sensor_defs, repository.schedule_defs
    found = [
        f"{s.name} -> {', '.join(t.job_name for t in s.targets) or 'nothing'}" for s in sensors
    ]
    found += [f"{schedule.name} -> {schedule.job_name}" for schedule in schedules]
    assert _text(found) == AUTOMATION
    assert all(sensor.description for sensor in sensors)
    assert all(schedule.description for schedule in schedules)
    assert {sensor.default_status for sensor in sensors} == {dg.DefaultSensorStatus.STOPPED}
    assert {part.default_status for part in schedules} == {dg.DefaultScheduleStatus.STOPPED}


def test_every_asset_says_what_it_is_whose_it_is_and_where_it_stands(
    nodes: list[BaseAssetNode],
) -> None:
    for node in nodes:
        assert node.description, node.key
        assert node.owners == ["team:data-engineering"], node.key
        assert node.group_name == node.key.path[0]
        assert any(tag.startswith("dagster/kind/") for tag in node.tags), node.key
        assert node.is_external == (node.group_name == "outside")


def test_everything_made_is_of_a_day_and_a_backfill_is_one_run(nodes: list[BaseAssetNode]) -> None:
    made = [node for node in nodes if node.is_materializable and node.group_name != "apsis"]
    assert {node.partitions_def for node in made} == {DAILY}
    assert {node.backfill_policy for node in made} == {dg.BackfillPolicy.single_run()}


def test_a_delivery_is_a_dry_run_unless_told(repository: dg.RepositoryDefinition) -> None:
    assert DeliveryConfig().dry_run is True
    assert EffectConfig().dry_run is True
    for key in DELIVERIES:
        description = repository.asset_graph.get(key).description
        assert description is not None
        assert "dry_run" in description


def test_alerts_know_all_that_may_run_dry(repository: dg.RepositoryDefinition) -> None:
    """A dry run ends no alert."""
    dry = set()
    for job in repository.get_all_jobs():
        assert isinstance(job, dg.JobDefinition)
        for name, node in job.run_config_schema.config_type.fields[
            "ops"
        ].config_type.fields.items():
            config = node.config_type.fields.get("config")
            if config and "dry_run" in getattr(config.config_type, "fields", {}):
                dry.add(name)
    assert dry == DRY_UNLESS_TOLD


def test_loading_needs_names_only_and_nothing_that_touches_data() -> None:
    """What the steps do is loaded when they run; see `vibes_pipelines.loading`."""
    [found] = _fresh_interpreter(
        "from vibes_pipelines.definitions import defs\n"
        "defs().get_repository_def()\n"
        "print(*sorted(sys.modules))"
    ).splitlines()[:-1]
    loaded = found.split()
    assert "vibes_pipelines.stages" in loaded
    assert set(loaded) & TOUCHES_DATA == set()
    assert [name for name in loaded if name.startswith(BEHIND_DOORS)] == []


def test_loading_costs_little() -> None:
    alone, loaded = [], []
    for _ in range(3):  # in turns, so that a busy machine slows both down
        alone.append(float(_fresh_interpreter("import dagster")))
        loaded.append(
            float(
                _fresh_interpreter(
                    "from vibes_pipelines.definitions import defs\ndefs().get_repository_def()"
                )
            )
        )
    assert statistics.median(loaded) <= MOST_TIMES_DAGSTER * statistics.median(alone)


@pytest.mark.slow
def test_dagster_validates_the_location_that_the_workspace_names(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dagster", "definitions", "validate", "-w", "workspace.yaml"],
        cwd=ROOT,
        env={**os.environ, "DAGSTER_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "successful for code location vibes_pipelines" in done.stdout + done.stderr


def _fresh_interpreter(statements: str) -> str:
    """What the statements print, and then the CPU seconds of the whole process."""
    code = f"import sys, time\n{statements}\nprint(time.process_time())"
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout


def _text(lines: Sequence[str]) -> str:
    return "\n".join(["", *sorted(lines), ""])


def _name(key: dg.AssetKey) -> str:
    return key.to_user_string()


def _names(keys: object) -> str:
    assert isinstance(keys, set | frozenset)
    return ", ".join(sorted(_name(key) for key in keys)) or "nothing"


def _job(job: dg.JobDefinition, repository: dg.RepositoryDefinition) -> str:
    everything, layer = repository.asset_graph, job.asset_layer
    made = set(layer.selected_asset_keys)
    of_a_day = {
        key
        for key in everything.materializable_asset_keys
        if everything.get(key).partitions_def is not None
    }
    assets = "every asset of a day" if made == of_a_day else _names(made)
    looked_at = layer.asset_graph.asset_check_keys
    checks = ", ".join(sorted(key.name for key in looked_at)) or "none"
    if len(looked_at) > len(everything.asset_check_keys) / 2:
        left_out = sorted(key.name for key in everything.asset_check_keys - looked_at)
        checks = f"all but {', '.join(left_out)}" if left_out else "all"
    return f"{job.name}: {assets}; checks: {checks}"
