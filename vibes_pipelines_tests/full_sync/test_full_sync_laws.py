"""Law 1 over any interleaving of acts on both sides: both converge, and no opt-out is overridden.

The model knows the true time of every act; the product only what it could see.
"""

import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vibes_pipelines.sandbox.apsis_saved import SavedApsis
from vibes_pipelines.sandbox.tribe_saved import SavedTribe
from vibes_pipelines.stages.apsis_sync import ApsisSync
from vibes_pipelines.stages.full_sync import NothingToResume, full_sync
from vibes_pipelines.stages.tribe_messages import apply_messages
from vibes_pipelines.sync_config.guards import Cap
from vibes_pipelines_tests.full_sync.sync_parts import NEWS_LABEL, World, deliver_message, world_at

PEOPLE = 2
ACTS = (
    *("label", "unlabel", "opt_out", "sign_up", "message", "edit", "next_day"),
    *("full_sync", "held", "resumed", "unlabelled_while_written"),
)
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

    def was_asked_for(self, person: str, world: World) -> bool:
        """Whether an opt-in of this moment is Tribe's word of this moment, or the person's own."""
        return NEWS_LABEL in world.labels(person) or self.signed_up_at.get(person) == self.now


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
            before = {person: world.consent(person) for person in people}
            do(world, truth, act, people[number])
            for person in people:
                is_new = before[person] != "opt-in" and world.consent(person) == "opt-in"
                assert not is_new or truth.was_asked_for(person, world), acts
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
        case "held" | "resumed" | "unlabelled_while_written":
            sync_in_parts(world, act, person)
        case "edit":
            world.edit(person, FirstName=f"n{truth.now}")
        case "next_day":
            world.clock.next_day()


def sync_in_parts(world: World, act: str, person: str) -> None:
    if act == "resumed":
        resume(world)
        return
    with world.open() as sync:
        if act == "held":
            full_sync(holding_opt_ins(sync))
        else:
            full_sync(sync, tell=lambda line: unlabel_at_write(world, person, line))


def holding_opt_ins(sync: ApsisSync) -> ApsisSync:
    """The same, with every opt-in to be approved."""
    guards = sync.project.config.guards.model_copy(update={"invites": Cap(max_rows=0)})
    config = sync.project.config.model_copy(update={"guards": guards})
    return replace(sync, project=replace(sync.project, config=config))


def resume(world: World) -> None:
    """Somebody approves what waits, and takes it up; nothing where nothing of today waits."""
    with world.open() as sync, suppress(NothingToResume):
        newest = sync.project.ledger.newest_diff_set()
        if newest and newest.status == "open":
            world.approve(sync)
        full_sync(sync, resume=True)


def unlabel_at_write(world: World, person: str, line: str) -> None:
    """What a user of Tribe does when a full sync begins to write."""
    if line.endswith(": write") and NEWS_LABEL in world.labels(person):
        world.unlabel(person)


acts = st.lists(st.tuples(st.sampled_from(ACTS), st.integers(0, PEOPLE - 1)), max_size=8)
CHECKS = [HealthCheck.too_slow, HealthCheck.data_too_large]


@pytest.mark.slow
def test_who_is_unlabelled_while_it_was_held_is_not_opted_in_by_what_is_resumed(
    begun: Begun,
) -> None:
    acts = [("label", 1), ("held", 0), ("unlabel", 1), ("resumed", 0)]
    play(begun, acts, in_one_process=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    "acts",
    [
        pytest.param(
            [("label", 1), ("unlabelled_while_written", 1)],
            id="a label that goes while it is written",
        ),
        pytest.param(
            [("label", 1), ("held", 0), ("unlabel", 1), ("message", 1), ("resumed", 0)],
            id="held, unlabelled, told by a message, approved",
        ),
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
