"""Law 1 over any interleaving of acts on both sides: both converge, and no opt-out is overridden.

The model knows the true time of every act; the product only what it could see.
"""

import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vibes_pipelines.sandbox.apsis_saved import SavedApsis
from vibes_pipelines.sandbox.tribe_saved import SavedTribe
from vibes_pipelines.stages.tribe_messages import apply_messages
from vibes_pipelines_tests.full_sync.sync_parts import NEWS_LABEL, World, deliver_message, world_at

PEOPLE = 2
ACTS = ("label", "unlabel", "opt_out", "sign_up", "message", "full_sync", "edit", "next_day")
Act = tuple[str, int]


@dataclass
class Truth:
    """When each person's label last appeared, and when the person last acted at APSIS One."""

    now: int = 0
    labelled_at: dict[str, int] = field(default_factory=dict)
    opted_out_at: dict[str, int] = field(default_factory=dict)
    signed_up_at: dict[str, int] = field(default_factory=dict)

    def may_be_in(self, person: str) -> bool:
        """Whether an opt-in is backed by evidence newer than the person's own opt-out."""
        if person not in self.opted_out_at:
            return True
        return (
            max(self.labelled_at.get(person, -1), self.signed_up_at.get(person, -1))
            > self.opted_out_at[person]
        )


@dataclass(frozen=True)
class Begun:
    """Two stand-ins and a home after a first full sync, to which every example goes back.

    Starting and agreeing for the first time is the same for all of them, and takes longest.
    """

    world: World
    people: list[str]
    states: list[tuple[SavedTribe | SavedApsis, dict[str, Any]]]

    @contextmanager
    def again(self, *, in_one_process: bool) -> Iterator[World]:
        """The world as it was, with a home and a clock of its own."""
        for account, state in self.states:
            account.restore(state)
        with TemporaryDirectory() as folder, ExitStack() as opened:
            home = Path(shutil.copytree(self.world.home, Path(folder) / "home"))
            world = World(self.world.tribe, self.world.apsis, home)
            if in_one_process:
                opened.enter_context(world.kept_open())
            yield world


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Begun]:
    with world_at(tmp_path_factory.mktemp("begun") / "home") as world:
        people = [world.person("A", NEWS_LABEL), world.person("B")]
        world.sync()
        accounts = SavedTribe(world.tribe), SavedApsis(world.apsis.account)
        yield Begun(world, people, [(one, json.loads(json.dumps(one.saved()))) for one in accounts])


def play(begun: Begun, acts: list[Act], *, in_one_process: bool) -> None:
    people = begun.people
    with begun.again(in_one_process=in_one_process) as world:
        truth = Truth()
        for act, number in acts:
            truth.now += 1
            do(world, truth, act, people[number])
            for person in people:
                assert world.consent(person) != "opt-in" or truth.may_be_in(person), acts
        world.sync()
        world.sync()
        for person in people:
            is_in = NEWS_LABEL in world.labels(person)
            # A person's own opt-in there is not Tribe's to end.
            assert is_in or world.consent(person) != "opt-in" or person in truth.signed_up_at
            assert not is_in or world.consent(person) == "opt-in", acts
            assert not is_in or truth.may_be_in(person), acts
        writes = world.writes()
        world.sync()
        assert world.writes() == writes, acts


def do(world: World, truth: Truth, act: str, person: str) -> None:
    is_in = NEWS_LABEL in world.labels(person)
    match act:
        case "label" if not is_in:
            truth.labelled_at[person] = truth.now
            world.label(person)
        case "unlabel" if is_in:
            world.unlabel(person)
        case "opt_out" if world.consent(person) == "opt-in":
            truth.opted_out_at[person] = truth.now
            world.at_apsis(person, "opt-out")
        case "sign_up" if world.consent(person) != "opt-in":
            truth.signed_up_at[person] = truth.now
            world.at_apsis(person, "opt-in")
        case "message":
            deliver_message(world, person)
            with world.open() as sync:
                apply_messages(sync)
        case "full_sync":
            world.sync()
        case "edit":
            world.edit(person, FirstName=f"n{truth.now}")
        case "next_day":
            world.clock.next_day()


acts = st.lists(st.tuples(st.sampled_from(ACTS), st.integers(0, PEOPLE - 1)), max_size=8)
CHECKS = [HealthCheck.too_slow, HealthCheck.data_too_large]


@pytest.mark.slow
@pytest.mark.parametrize(
    "acts",
    [
        pytest.param(
            [("opt_out", 0), ("full_sync", 0)],
            id="a label of before says nothing",
        ),
        pytest.param(
            [("sign_up", 1), ("full_sync", 0), ("label", 1), ("opt_out", 1), ("full_sync", 0)],
            id="a label and then an opt-out between two looks",
        ),
        pytest.param(
            [("opt_out", 0), ("message", 0), ("label", 0), ("message", 0), ("unlabel", 0)],
            id="a label of later is newer, and its end an end",
        ),
    ],
)
def test_no_opt_out_is_overridden(begun: Begun, acts: list[Act]) -> None:
    play(begun, acts, in_one_process=False)


@pytest.mark.slow
@pytest.mark.timeout(3000)
@settings(max_examples=40, deadline=None, suppress_health_check=CHECKS)
@given(acts, st.booleans())
def test_any_interleaving_converges_and_overrides_no_opt_out(
    begun: Begun, acts: list[Act], in_one_process: bool
) -> None:
    play(begun, acts, in_one_process=in_one_process)
