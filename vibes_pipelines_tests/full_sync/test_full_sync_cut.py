"""A full sync that is killed, cancelled or both, anywhere, and taken up again: as if never cut."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from vibes_pipelines.sandbox.apsis_records import SECTION
from vibes_pipelines.stages import full_sync as module
from vibes_pipelines.stages.apsis_delivering import NewerWatch
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


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, ...]:
    with world_at(tmp_path_factory.mktemp("whole")) as world:
        populate(world)
        world.sync()
        return state_of(world)


def run_cut(home: Path, step: int, how: str) -> tuple[Any, ...]:
    """One world whose second sync is cut, then taken up; a third one then has no effect."""
    with world_at(home) as world:
        populate(world)

        def cut() -> None:
            if how == "killed":
                raise Killed
            with world.open() as other:
                cancel(other, "cut")

        with cut_at(step, cut), suppress(Killed):
            world.sync()
        # The step may lie beyond its end.
        with world.open() as sync, suppress(NothingToResume):
            full_sync(sync, resume=True)
        after = state_of(world)
        writes = world.writes()
        world.sync()
        assert world.writes() == writes, "everything was done, and once"
        return after


def test_killed_while_it_writes_and_taken_up_everything_is_written_once(tmp_path: Path) -> None:
    profiles, persons = run_cut(tmp_path / "cut", 8, "killed")
    consents = {name: {kind for _, kind in states} for name, states in profiles}
    assert consents == {
        **{name: set() for name in ("Changed", "P4")},
        **{name: {"opt-out"} for name in ("P1", "P3")},
        **{name: {"opt-in"} for name in ("P2", "P5", "New")},
    }
    assert {name for name, labels in persons if labels} == {"P2", "P5", "New"}


@pytest.mark.slow
@pytest.mark.parametrize(("step", "how"), [(2, "killed"), (8, "killed"), (6, "cancelled")])
def test_cut_and_taken_up_it_ends_as_if_it_never_was(
    tmp_path: Path, uninterrupted: tuple[Any, ...], step: int, how: str
) -> None:
    assert run_cut(tmp_path / "cut", step, how) == uninterrupted


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_cut_at_fifty_random_points(tmp_path: Path, uninterrupted: tuple[Any, ...]) -> None:
    draw = random.Random(20)
    for number in range(50):
        step, how = draw.randint(1, 24), draw.choice(("killed", "cancelled"))
        assert run_cut(tmp_path / str(number), step, how) == uninterrupted, (step, how)
