"""Broken sources: each is stopped by its guard, does no harm, and leaves nothing behind."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from vibes_pipelines_tests.slow.bench import (
    Bench,
    Outcome,
    State,
    crm_state,
    live,
    platform_state,
    running_bench,
    unjustified,
)
from vibes_pipelines_tests.slow.disasters import DISASTERS, Disaster
from vibes_pipelines_tests.support.loop import edited_sync_config

# These run with every test run, all of them with `make slow`.
ALWAYS = {
    "names in a wrong encoding",
    "no subscriptions",
}


def _marks(name: str) -> list[pytest.MarkDecorator]:
    return [] if name in ALWAYS else [pytest.mark.slow]


CASES = [pytest.param(name, marks=_marks(name)) for name in DISASTERS]


class Healthy:
    """That morning as it should have gone: what it made of both sides, and the quiet day after."""

    def __init__(self, bench: Bench, folder: Path) -> None:
        folder.mkdir()
        with bench.morning(folder) as morning:
            self.before = platform_state(morning.loop)
            self.outcome = live(morning.loop)
            self.after = platform_state(morning.loop)
            self.next_day = bench.mended(morning)
            self.end = settled(platform_state(morning.loop)), settled(crm_state(morning.loop))


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with running_bench(tmp_path_factory.mktemp("bench") / "loop") as running:
        yield running


@pytest.fixture(scope="module")
def healthy(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Healthy:
    return Healthy(bench, tmp_path_factory.mktemp("healthy") / "day")


def settled(state: State) -> State:
    """Without what differs from run to run: the keys of persons who were added."""
    return {
        name: {cell: value for cell, value in row.items() if cell != "person_key"}
        for name, row in state.items()
    }


def test_the_day_is_healthy_when_nothing_is_broken(healthy: Healthy) -> None:
    for outcome in (healthy.outcome, healthy.next_day):
        assert outcome.error is None
        assert outcome.guards == set(), outcome.told
    assert healthy.outcome.summary
    assert healthy.outcome.summary.opt_outs_to_platform > 0
    assert healthy.outcome.summary.opt_outs_to_crm > 0
    assert healthy.outcome.summary.updated > 0
    assert healthy.outcome.summary.added > 0


@pytest.mark.parametrize("name", CASES)
def test_a_disaster_is_stopped_and_both_sides_recover(
    bench: Bench, healthy: Healthy, tmp_path: Path, name: str
) -> None:
    disaster = DISASTERS[name]
    with bench.morning(tmp_path) as morning:
        disaster.spoil(morning)
        changes = {"VIBES_HOME": tmp_path / "data"}
        if disaster.edit:
            changes["VIBES_SYNC_CONFIG"] = edited_sync_config(tmp_path, disaster.edit)
        with bench.loop.changed(**changes) as loop:
            outcome = live(loop)
        after = platform_state(morning.loop)
        mended = bench.mended(morning)
        end = settled(platform_state(morning.loop)), settled(crm_state(morning.loop))
    assert_stopped(disaster, outcome)
    assert unjustified(healthy.before, healthy.after, after) == {}
    assert outcome.contacts_written <= healthy.outcome.contacts_written
    assert mended.error is None
    assert mended.guards == set(), mended.told
    assert end == healthy.end


def assert_stopped(disaster: Disaster, outcome: Outcome) -> None:
    """By the error, the guards or the quarantine that the disaster names."""
    if disaster.error:
        assert isinstance(outcome.error, disaster.error), outcome.told
        assert disaster.words in str(outcome.error)
        return
    assert outcome.error is None, outcome.told
    assert outcome.summary
    assert disaster.guards <= outcome.guards, outcome.told
    assert bool(outcome.guards) == bool(disaster.guards), outcome.told
    if disaster.quarantine:
        assert outcome.summary.quarantine_kinds.get(disaster.quarantine, 0) > 0
