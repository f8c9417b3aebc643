"""A guard check shows its last evaluation: a run over an older day may not hide what is held."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from vibes_pipelines.orchestration.build import build_defs
from vibes_pipelines.orchestration.keys import PERSON_CHANGES
from vibes_pipelines.stages.delivering import approve
from vibes_pipelines.stages.project import Project
from vibes_pipelines_tests.support.landed_days import landed_project, reconciled

FIRST, SECOND = "2026-01-01", "2026-01-02"
GUARD = dg.AssetCheckKey(PERSON_CHANGES, "person_changes_within_guards")
CONTACT = {"id": "C1", "phone": "+12015550123", "name": "Ada"}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """Two days that a guard holds, as a first run always is; only the second is the newest."""
    with landed_project(tmp_path, monkeypatch) as opened:
        for day in (FIRST, SECOND):
            reconciled(opened, day, [CONTACT], [])
        yield opened


def _reconcile(instance: dg.DagsterInstance, day: str) -> dg.AssetCheckEvaluation:
    """What the newest evaluation says after a run over the group of one day."""
    selected = dg.AssetSelection.assets(PERSON_CHANGES).required_multi_asset_neighbors()
    job = dg.define_asset_job("by_hand", selected | dg.AssetSelection.checks(GUARD))
    defs = dg.Definitions.merge(build_defs(), dg.Definitions(jobs=[job]))
    done = defs.resolve_job_def("by_hand").execute_in_process(instance=instance, partition_key=day)
    assert done.success or day == SECOND
    [newest] = instance.event_log_storage.get_latest_asset_check_execution_by_key([GUARD]).values()
    event = newest.event.dagster_event if newest.event else None
    assert event is not None
    assert newest.run_id == done.run_id
    return event.asset_check_evaluation_data


@pytest.mark.slow
def test_the_newest_held_day_stays_told_while_an_older_one_is_made(
    project: Project, instance: dg.DagsterInstance
) -> None:
    held = project.ledger.newest_diff_set()
    assert held is not None
    assert held.day == SECOND
    told = _reconcile(instance, FIRST)
    assert not told.passed
    assert f"{SECOND} is still held" in (told.description or "")
    assert "the job approve" in (told.description or "")
    assert told.metadata["held_day"].value == SECOND
    assert held.diff_set[:12] in str(told.metadata["to_release"].value)
    assert told.severity is dg.AssetCheckSeverity.WARN  # what is older goes on

    approve(project, held.diff_set, "looked at in a test")
    assert _reconcile(instance, FIRST).passed
