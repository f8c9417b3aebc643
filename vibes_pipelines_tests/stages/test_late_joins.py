"""A no of the CRM and the callback of an older join, in whichever order they come.

Both who looks at all changes and the lane of opt-outs, which runs beside other jobs, are asked.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from vibes_pipelines.stages import changes, opt_out_lane
from vibes_pipelines.stages.changes import changes_waiting
from vibes_pipelines.stages.opt_out_lane import opt_outs_waiting
from vibes_pipelines_tests.support.two_sides import TwoSides, empty_ledger, two_sides
from vibes_pipelines_tests.support.two_sides_world import NEWCOMERS, PEOPLE, STRANGERS


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TwoSides]:
    for stage in (changes, opt_out_lane):
        monkeypatch.setattr(stage, "held", lambda _: None)
    with two_sides(tmp_path / "world", empty_ledger(tmp_path / "empty.db")) as opened:
        opened.daily_job()
        yield opened


@pytest.mark.parametrize("key", [PEOPLE[0], NEWCOMERS[0]], ids=["landed", "newcomer"])
def test_who_said_no_before_the_join_was_told_is_looked_at_again(world: TwoSides, key: str) -> None:
    world.newcomer(key)
    world.person_joins(key)
    world.crm_user_says(key, yes=False)
    world.carry()
    assert world.persons[key].is_active  # nobody here knew of the join
    assert changes_waiting(world.project) is None
    world.callback_arrives(0)
    assert changes_waiting(world.project) is not None
    world.carry()
    assert not world.persons[key].is_active
    assert changes_waiting(world.project) is None


def test_a_join_of_somebody_who_said_no_such_thing_asks_for_no_look(world: TwoSides) -> None:
    world.person_joins(PEOPLE[0])
    world.callback_arrives(0)
    assert changes_waiting(world.project) is None
    world.crm_user_says(PEOPLE[0], yes=False)
    world.carry()
    assert not world.persons[PEOPLE[0]].is_active


def test_a_join_after_the_no_stands(world: TwoSides) -> None:
    world.crm_user_says(PEOPLE[0], yes=False)
    world.carry()
    world.person_joins(PEOPLE[0])
    world.callback_arrives(0)
    world.carry()
    assert world.persons[PEOPLE[0]].is_active
    assert changes_waiting(world.project) is None


def waits(world: TwoSides) -> bool:
    """Whether the lane has an opt-out for the platform."""
    return opt_outs_waiting(world.project).to_platform is not None


@pytest.mark.parametrize("looked", ["at all changes", "by the lane"])
@pytest.mark.parametrize("key", [PEOPLE[0], NEWCOMERS[0]], ids=["landed", "newcomer"])
def test_the_lane_carries_it_while_another_job_runs(world: TwoSides, key: str, looked: str) -> None:
    world.newcomer(key)
    world.person_joins(key)
    world.crm_user_says(key, yes=False)
    assert waits(world)
    (world.carry if looked == "at all changes" else world.carry_opt_outs)()
    assert world.persons[key].is_active  # nobody here knew of the join
    assert not waits(world)
    world.callback_arrives(0)
    assert waits(world)
    world.carry_opt_outs()
    assert not world.persons[key].is_active
    assert not waits(world)


def test_the_next_look_at_all_changes_sends_nothing_a_second_time(world: TwoSides) -> None:
    world.person_joins(PEOPLE[0])
    world.crm_user_says(PEOPLE[0], yes=False)
    world.carry()
    world.callback_arrives(0)
    world.carry_opt_outs()
    assert changes_waiting(world.project) is not None  # it has not looked itself
    world.refusals = 1  # would be the answer to a request
    world.carry()
    assert world.refusals == 1
    assert changes_waiting(world.project) is None


def test_every_further_join_is_looked_at_by_the_lane(world: TwoSides) -> None:
    person = world.persons[PEOPLE[0]]
    for _ in range(2):
        world.person_joins(PEOPLE[0])
        world.crm_user_says(PEOPLE[0], yes=False)
        world.carry_opt_outs()
        assert person.is_active
        world.callback_arrives(0)
        world.carry_opt_outs()
        assert not person.is_active
        world.callback_arrives(0)  # of its end


@pytest.mark.parametrize("way", ["carry", "carry_opt_outs"])
def test_who_is_known_by_number_alone_is_found_by_the_landed_contacts(
    world: TwoSides, way: str
) -> None:
    """Somebody texts a keyword before the contact was delivered: no callback has its id."""
    world.stranger_is_entered(STRANGERS[0])
    world.land_and_plan()
    world.stranger_joins(STRANGERS[0])
    world.crm_user_says(STRANGERS[0], yes=False)
    getattr(world, way)()
    assert world.persons[STRANGERS[0]].is_active
    world.callback_arrives(0)
    getattr(world, way)()
    assert not world.persons[STRANGERS[0]].is_active


def test_a_join_after_the_no_is_nothing_that_the_lane_ends(world: TwoSides) -> None:
    world.crm_user_says(PEOPLE[0], yes=False)
    world.carry_opt_outs()
    world.person_joins(PEOPLE[0])
    world.callback_arrives(0)
    world.carry_opt_outs()
    assert world.persons[PEOPLE[0]].is_active
    assert not waits(world)
