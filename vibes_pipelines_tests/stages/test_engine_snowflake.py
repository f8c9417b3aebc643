"""`engine: snowflake` in the daily job: other work in other places, the same diff sets."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from vibes_pipelines.reconcile.summary import Summary
from vibes_pipelines.reconcile.warehouse import VALUES_LEFT
from vibes_pipelines.sandbox.population import build_world
from vibes_pipelines.sandbox.share_staging import WORK
from vibes_pipelines.stages.landing import CONTACTS, PERSONS
from vibes_pipelines.stages.reconciling import reconcile_day
from vibes_pipelines.sync_config import load_sync_config
from vibes_pipelines_tests.support.loop import EXAMPLE, Loop, edited_sync_config, running_loop

FILES = ("person_changes", "subscription_changes", "crm_changes", "quarantine")


@pytest.fixture(params=[300, pytest.param(3_000, marks=pytest.mark.slow)])
def people(request: pytest.FixtureRequest) -> int:
    """How many people there are; a few thousand take half a minute."""
    return int(request.param)


@pytest.fixture
def loops(tmp_path: Path, people: int) -> Iterator[tuple[Loop, Loop]]:
    """One sandbox and two projects, which differ in their engine only."""
    config = edited_sync_config(tmp_path, ("version: 1\n", "version: 1\nengine: snowflake\n"))
    with (
        running_loop(tmp_path, build_world(people, seed=77)) as loop,
        loop.changed(
            VIBES_HOME=tmp_path / "compared",
            VIBES_SYNC_CONFIG=config,
            SNOWFLAKE_DATABASE=WORK[0],
            SNOWFLAKE_SCHEMA=WORK[1],
        ) as compared,
    ):
        yield loop, compared


def reconciled(loop: Loop) -> Summary:
    with loop.changed():  # its environment, for the connection to the share
        return loop.reconcile()


def test_both_engines_make_the_same_diff_sets_day_after_day(loops: tuple[Loop, Loop]) -> None:
    plain, compared = loops
    for _ in range(2):
        told, same = reconciled(plain), reconciled(compared)
        assert same == told
        assert same.updated > 0
        for name in FILES:
            files = [loop.project.diff_set_folder(loop.today) / f"{name}.parquet" for loop in loops]
            assert files[0].read_bytes() == files[1].read_bytes(), name
        plain.sandbox.next_day()


def test_most_values_stay_in_the_share_and_a_rebuild_asks_nobody(loops: tuple[Loop, Loop]) -> None:
    _, compared = loops
    with compared.changed():
        compared.land_share(PERSONS)
    assert compared.project.snapshots.days(CONTACTS) == [compared.today]
    told = reconciled(compared)
    landed = compared.project.snapshots.find(PERSONS, compared.today)
    assert landed is not None
    metadata = pq.read_metadata(landed.data).metadata
    assert int(metadata[VALUES_LEFT.encode()]) > 0.5 * landed.manifest.rows
    day, folder = compared.today, compared.project.diff_set_folder(compared.today)
    before = {name: (folder / f"{name}.parquet").read_bytes() for name in FILES}
    compared.sandbox.next_day()
    with compared.changed(SNOWFLAKE_PORT=1) as cut_off:
        assert reconcile_day(cut_off.project, day) == told
    assert {name: (folder / f"{name}.parquet").read_bytes() for name in FILES} == before


def test_the_engine_is_no_part_of_what_a_diff_set_depends_on(tmp_path: Path) -> None:
    other = edited_sync_config(tmp_path, ("version: 1\n", "version: 1\nengine: snowflake\n"))
    configs = load_sync_config(EXAMPLE), load_sync_config(other)
    assert configs[0].engine != configs[1].engine
    assert configs[0].config_hash == configs[1].config_hash
