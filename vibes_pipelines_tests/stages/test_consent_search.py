"""A random walk over both sides looks for broken rules of consent by itself, without a history.

Its world and witness are those of the machine in `test_consent_machine`; it draws steps with
weights, for many short lives instead of a few long ones. It finds only a few of the breakages
within its time (4 of 18 in some 300 steps each): most take six to nine steps in one order. That
each of them is caught is shown by the scripted histories there, not by this search; here is
printed how far the search comes.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import pytest

from vibes_pipelines_tests.support.consent_breakages import BREAKAGES, broken_by
from vibes_pipelines_tests.support.deliveries import Killed
from vibes_pipelines_tests.support.two_sides import TwoSides, empty_ledger, two_sides
from vibes_pipelines_tests.support.two_sides_platform import Violation
from vibes_pipelines_tests.support.two_sides_world import NEWCOMERS, PEOPLE

STEPS_OF_A_LIFE = 12
MOST_STEPS = 3_000
LEAST_STEPS = 150
MOST_S = 20
"""For each breakage: seconds, after which it counts as not found, once it had its least steps."""

FOUND_SOON = {
    "the daily job forgets the opt-outs of the CRM",
    "the drain ignores opt-outs",
    "an older opt-out overwrites a newer yes",
}
"""Each is found within a hundred steps; what else is found depends on how fast the machine is."""


Step = Callable[[TwoSides, Random], Any]


def somebody(world: TwoSides, dice: Random) -> str:
    """Mostly the same person: what goes wrong takes several steps of one."""
    return dice.choice([*[PEOPLE[0]] * 10, *world.persons])


def newcomer(world: TwoSides, dice: Random) -> None:
    key = dice.choice(NEWCOMERS)
    world.newcomer(key)
    world.person_joins(key, old_body=dice.random() < 0.5)


def everything_arrives(world: TwoSides, _: Random) -> None:
    while world.on_the_way:
        world.callback_arrives(0)


def says_both(world: TwoSides, dice: Random) -> None:
    """What somebody said last counts."""
    key = somebody(world, dice)
    first, last = dice.sample([world.person_joins, world.person_stops], 2)
    first(key)
    last(key)
    everything_arrives(world, dice)


def both_sides_know(world: TwoSides, dice: Random) -> None:
    world.person_joins(somebody(world, dice))
    everything_arrives(world, dice)
    world.drain()
    world.daily_job()


def stops_answering(world: TwoSides, _: Random) -> None:
    world.refusals = 1


def next_day_by_file(world: TwoSides, dice: Random) -> None:
    world.by_file = dice.random() < 0.5


def works(name: str) -> Step:
    """A step of the project, during which its process may die."""

    def step(world: TwoSides, dice: Random) -> None:
        world.fuse = dice.randrange(3) if dice.random() < 0.3 else None
        with suppress(Killed):
            getattr(world, name)()
        world.fuse = None

    return step


WEIGHTS: dict[Step, int] = {
    lambda world, dice: world.crm_user_says(somebody(world, dice), yes=True): 4,
    lambda world, dice: world.crm_user_says(somebody(world, dice), yes=False): 4,
    lambda world, dice: world.person_joins(somebody(world, dice)): 4,
    lambda world, dice: world.person_stops(somebody(world, dice)): 4,
    lambda world, dice: world.callback_arrives(dice.randrange(6), again=dice.random() < 0.2): 3,
    lambda world, dice: world.callback_is_lost(dice.randrange(6)): 1,
    lambda world, dice: world.opt_outs_imported({somebody(world, dice)}): 1,
    lambda world, dice: world.pass_time(dice.randrange(1, 2_000)): 1,
    everything_arrives: 4,
    says_both: 4,
    newcomer: 1,
    both_sides_know: 3,
    stops_answering: 1,
    next_day_by_file: 1,
    works("drain"): 4,
    works("carry"): 7,
    works("land_and_plan"): 3,
    works("deliver"): 3,
    works("daily_job"): 2,
    works("files_are_imported"): 1,
}


def live(folder: Path, template: Path, number: int, done: list[Step]) -> None:
    """One short life, each of its steps judged; some end when the roads are up again."""
    dice = Random(number)
    steps = dice.choices(list(WEIGHTS), list(WEIGHTS.values()), k=STEPS_OF_A_LIFE)
    if dice.random() < 0.5:
        steps[0] = both_sides_know
    with two_sides(folder, template) as world:
        for step in steps:
            done.append(step)
            step(world, dice)
            world.check()
        if dice.random() < 0.4:
            world.roads_up()
            world.check()


@dataclass(frozen=True)
class Search:
    """How many steps were made, in which life the last, and which law it broke; None: none."""

    steps: int
    life: int
    found: str | None


def search(folder: Path, most_steps: int, most_s: float, first: int = 0) -> Search:
    """Lives, from a first number on, until a law is broken, or for so many steps or seconds."""
    template = empty_ledger(folder / "empty.db")
    began = time.monotonic()
    done: list[Step] = []
    for number in count(first):
        is_late = time.monotonic() - began >= most_s and len(done) >= LEAST_STEPS
        if len(done) >= most_steps or is_late:
            break
        try:
            live(folder / "world", template, number, done)
        except (Violation, ExceptionGroup) as broken:
            return Search(len(done), number, str(broken))
    return Search(len(done), number, None)


@pytest.mark.slow
@pytest.mark.timeout(1_200)
def test_the_search_finds_some_broken_rules_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = set()
    for name in sorted(BREAKAGES):
        with monkeypatch.context() as patch:
            broken_by(patch, name)
            ended = search(tmp_path, MOST_STEPS, MOST_S)
        if ended.found:
            found.add(name)
        print(f"{name}: {ended.found or 'not found'}, {ended.steps} steps")  # noqa: T201
    print(f"{len(found)} of {len(BREAKAGES)} found by search")  # noqa: T201
    assert found >= FOUND_SOON


def test_the_search_finds_nothing_where_no_rule_is_broken(tmp_path: Path) -> None:
    assert search(tmp_path, 60, 60).found is None
