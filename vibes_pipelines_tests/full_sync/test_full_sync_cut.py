"""A full sync that is killed, cancelled or both, anywhere, and taken up again: as if never cut."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from vibes_pipelines.sandbox.apsis_records import SECTION
from vibes_pipelines.stages import full_sync as module
from vibes_pipelines.stages.apsis_last_look import NewerWatch
from vibes_pipelines.stages.full_sync import NothingToResume, cancel, full_sync
from vibes_pipelines.store.ledger import Ledger
from vibes_pipelines_tests.full_sync.sync_parts import NEWS_LABEL, World, world_at

PEOPLE = 6


class Killed(BaseException):
    """The process is gone; nothing may catch it."""


def populate(world: World) -> list[str]:
    """Some to be created, updated, opted in, opted out and written back, after one whole sync."""
    people = [world.person(f"P{i}", *([NEWS_LABEL] if i % 2 else [])) for i in range(PEOPLE)]
    world.sync()
    world.edit(people[0], FirstName="Changed")
    world.label(people[2])
    world.unlabel(people[1])
    world.at_apsis(people[3], "opt-out")
    world.person("New", NEWS_LABEL)
    return people


def state_of(world: World) -> tuple[Any, ...]:
    """Both sides, without identifiers that differ from world to world."""
    profiles = sorted(
        (
            profile.values(SECTION).get("com.apsis1.attributes.firstname"),
            sorted((key[1:], state.type) for key, state in profile.consents.items()),
        )
        for profile in world.apsis.account.profiles()
    )
    persons = sorted(
        (record["FirstName"], sorted(label["Name"] for label in record["Labels"]))
        for record in world.tribe.world.persons()
    )
    return profiles, persons


@contextmanager
def cut_at(step: int, cut: Callable[[], None]) -> Iterator[list[int]]:
    """Calls `cut` at the n-th of the steps that every write and phase is made of."""
    steps = [0]

    def stepping(function: Callable[..., Any], *, after: bool) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            result = function(*args, **kwargs) if after else None
            steps[0] += 1
            if steps[0] == step:
                cut()
            return result if after else function(*args, **kwargs)

        return wrapped

    with pytest.MonkeyPatch.context() as patch:
        for owner, name, after in (
            (module, "land_contacts_of", True),
            (module, "land_profiles", True),
            (module, "certify_day", False),
            (module, "reconcile_day", True),
            (Ledger, "write_plan", True),
            (Ledger, "mark_sent", True),
            (Ledger, "record", False),
            (Ledger, "record", True),
            (NewerWatch, "withdrawn", False),
        ):
            patch.setattr(owner, name, stepping(getattr(owner, name), after=after))
        yield steps


@dataclass(frozen=True)
class Whole:
    """A second full sync that nobody cuts: how both sides end, and of how many steps it is made."""

    state: tuple[Any, ...]
    steps: int


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    with world_at(tmp_path_factory.mktemp("whole")) as world:
        populate(world)
        with cut_at(0, lambda: None) as steps:
            world.sync()
        return Whole(state_of(world), steps[0])


def run_cut(home: Path, *cuts: tuple[int, str]) -> tuple[Any, ...]:
    """One world whose second sync is cut, taken up, cut again; a whole one then has no effect.

    The first cut must come before the end; what is left for another one may have fewer steps.
    """
    with world_at(home) as world:
        populate(world)
        for number, (step, how) in enumerate(cuts):
            with cut_at(step, partial(cut, world, how)) as steps, suppress(Killed):
                if number == 0:
                    world.sync()
                else:
                    take_up(world)
            assert number > 0 or steps[0] >= step, "it was cut"
        take_up(world)
        after = state_of(world)
        writes = world.writes()
        world.sync()
        assert world.writes() == writes, "everything was done, and once"
        return after


def cut(world: World, how: str) -> None:
    if how == "killed":
        raise Killed
    with world.open() as other:
        cancel(other, "cut")


def take_up(world: World) -> None:
    """Nothing, where a wish to cancel came too late to be heard."""
    with world.open() as sync, suppress(NothingToResume):
        full_sync(sync, resume=True)


def test_killed_while_it_writes_and_taken_up_everything_is_written_once(tmp_path: Path) -> None:
    profiles, persons = run_cut(tmp_path / "cut", (8, "killed"))
    consents = {name: {kind for _, kind in states} for name, states in profiles}
    assert consents == {
        **{name: set() for name in ("Changed", "P4")},
        **{name: {"opt-out"} for name in ("P1", "P3")},
        **{name: {"opt-in"} for name in ("P2", "P5", "New")},
    }
    assert {name for name, labels in persons if labels} == {"P2", "P5", "New"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "cuts",
    [
        [(2, "killed")],
        [(8, "killed"), (3, "killed")],
        [(6, "cancelled"), (2, "killed")],
        [(2, "killed"), (5, "cancelled"), (4, "killed")],
    ],
)
def test_cut_and_taken_up_it_ends_as_if_it_never_was(
    tmp_path: Path, uninterrupted: Whole, cuts: list[tuple[int, str]]
) -> None:
    assert run_cut(tmp_path / "cut", *cuts) == uninterrupted.state


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_cut_at_fifty_random_points(tmp_path: Path, uninterrupted: Whole) -> None:
    """Every second one is cut again while it is taken up."""
    draw = random.Random(20)
    for number in range(50):
        step, how = draw.randint(1, uninterrupted.steps), draw.choice(("killed", "cancelled"))
        cuts = [(step, how)]
        if number % 2:
            left = max(1, uninterrupted.steps - step)
            cuts.append((draw.randint(1, left), draw.choice(("killed", "cancelled"))))
        assert run_cut(tmp_path / str(number), *cuts) == uninterrupted.state, cuts


@pytest.mark.slow
def test_a_process_that_is_killed_while_it_writes_is_taken_up(
    tmp_path: Path, uninterrupted: Whole
) -> None:
    """SIGKILL: nothing of ours runs any more, and its lease ends by itself."""
    with world_at(tmp_path / "home") as world:
        populate(world)
        world.write_config()
        before = sum(world.writes().values())
        process = subprocess.Popen(
            [Path(sys.executable).parent / "vibes-pipelines", "tribe", "full-sync"],
            env={**os.environ, **world.environment},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while process.poll() is None and sum(world.writes().values()) - before < 2:
            time.sleep(0.001)
        process.kill()
        assert process.wait() == -signal.SIGKILL, "it had not come to its end"
        world.clock.pass_minutes(2)
        take_up(world)
        assert state_of(world) == uninterrupted.state
        writes = world.writes()
        world.sync()
        assert world.writes() == writes
