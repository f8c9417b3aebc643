"""A no of the CRM and the callback of an older join, in whichever order they come."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from vibes_pipelines.stages import changes
from vibes_pipelines.stages.changes import changes_waiting
from vibes_pipelines_tests.support.two_sides import TwoSides, empty_ledger, two_sides
from vibes_pipelines_tests.support.two_sides_world import NEWCOMERS, PEOPLE


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TwoSides]:
    monkeypatch.setattr(changes, "held", lambda _: None)
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
