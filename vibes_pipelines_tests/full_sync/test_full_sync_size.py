"""A full sync of many persons at the stand-ins' limits: the pages come as fast as is allowed."""

import time
from pathlib import Path

import pytest

from vibes_pipelines.sandbox.apsis_clock import RunningClock
from vibes_pipelines.sandbox.apsis_service import ApsisSandbox
from vibes_pipelines.sandbox.tribe_sandbox import TribeSandbox
from vibes_pipelines.stages.full_sync import full_sync
from vibes_pipelines_tests.full_sync.sync_parts import World

FAST = 400.0
PAGE_ROWS = 100
CALLS_PER_MIN = 1000


def answered(world: World, status: int) -> int:
    """Calls that one of the two answered with a status."""
    requests = [
        *world.tribe.audit.as_dict()["requests"],  # type: ignore[misc]
        *world.apsis.control.audit()["requests"],
    ]
    return sum(int(one["count"]) for one in requests if one["status"] == status)


def seconds_of_download(world: World) -> float:
    """A full sync, approved and taken up; returns how long the contacts took."""
    marks: dict[str, float] = {}

    def tell(line: str) -> None:
        marks.setdefault(line.rpartition(": ")[2], time.monotonic())

    with world.open() as sync:
        assert full_sync(sync, tell=tell).state == "held"
        world.approve(sync)
        ended = full_sync(sync, resume=True)
    people = len(list(world.tribe.world.persons()))
    assert ended.state == "finished"
    assert ended.results.created + sum(ended.results.failed.values()) == people
    return marks["read_back"] - marks["download"]


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_twenty_thousand_persons_are_synced_at_the_page_rate_without_one_refusal(
    tmp_path: Path,
) -> None:
    persons = 20_000
    tribe = TribeSandbox.of_people(persons)
    with tribe, ApsisSandbox(clock=RunningClock(FAST)) as apsis:
        limited = {"TRIBE_CALLS_PER_MIN": str(CALLS_PER_MIN)}
        world = World(tribe, apsis, tmp_path / "home", speed=FAST, overrides=limited)
        took = seconds_of_download(world)
        pages = -(-len(list(tribe.world.persons())) // PAGE_ROWS)
        assert pages / took >= 0.95 * CALLS_PER_MIN / 60, f"{pages} pages in {took:.1f} s"
        before = world.writes()
        assert world.sync().state == "finished"
        assert world.writes() == before, "the second sync writes nothing"
        assert answered(world, 200) > persons / PAGE_ROWS
        assert answered(world, 429) == 0


def test_some_persons_are_synced_without_one_refusal_and_then_nothing_is_written(
    tmp_path: Path,
) -> None:
    with TribeSandbox.of_people(60) as tribe, ApsisSandbox(clock=RunningClock(FAST)) as apsis:
        world = World(tribe, apsis, tmp_path / "home", speed=FAST)
        assert world.sync().state == "finished"
        before = world.writes()
        assert world.sync().state == "finished"
        assert (world.writes(), answered(world, 429)) == (before, 0)
