"""A no of the CRM and the callback of an older join, in whichever order they come.

Both who looks at all changes and the lane of opt-outs, which runs beside other jobs, are asked.
"""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from vibes_pipelines.callbacks.intake import posted, read_arrival
from vibes_pipelines.stages import changes, late_joins, opt_out_lane
from vibes_pipelines.stages.changes import changes_waiting
from vibes_pipelines.stages.opt_out_lane import opt_outs_waiting
from vibes_pipelines.stages.parked import retry_parked
from vibes_pipelines.store.inbox import Finished, Inbox
from vibes_pipelines_tests.support.callbacks import (
    ADDED,
    REMOVED,
    as_bytes,
    subscription_body,
)
from vibes_pipelines_tests.support.two_sides import TwoSides, empty_ledger, two_sides
from vibes_pipelines_tests.support.two_sides_world import NEWCOMERS, PEOPLE, STRANGERS, text_of


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


def receive(world: TwoSides, *bodies: dict[str, Any]) -> None:
    arrivals = [read_arrival(posted("127.0.0.1", "/callbacks", as_bytes(one))) for one in bodies]
    with closing(Inbox(world.url)) as inbox:
        inbox.store(arrivals)


def others_arrive(world: TwoSides) -> None:
    """More callbacks of another kind than a look reads again."""
    kind = {"callback_type": "person_updated", "person": {"external_person_id": PEOPLE[1]}}
    receive(world, *({**kind, "event_id": f"other {n}"} for n in range(late_joins.OVERLAP + 1)))


def a_late_join(world: TwoSides) -> None:
    world.person_joins(PEOPLE[0])
    world.crm_user_says(PEOPLE[0], yes=False)
    world.carry()
    world.callback_arrives(0)


@pytest.mark.parametrize("looked_before", [False, True])
@pytest.mark.parametrize("way", ["carry", "carry_opt_outs"])
def test_the_first_join_ever_is_found_under_however_many_callbacks(
    world: TwoSides, looked_before: bool, way: str
) -> None:
    if looked_before:
        assert changes_waiting(world.project) is None
    a_late_join(world)
    others_arrive(world)
    getattr(world, way)()
    assert not world.persons[PEOPLE[0]].is_active


def test_a_look_that_reads_no_further_is_followed_by_one_that_does(
    world: TwoSides, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(late_joins, "LOOK_ROWS", 2)
    monkeypatch.setattr(late_joins, "OVERLAP", 1)
    joins = (
        subscription_body(ADDED, f"J{n}", text_of(world.now), external_person_id=f"X{n}")
        for n in range(5)
    )
    receive(world, *joins)
    a_late_join(world)
    for _ in range(6):
        if changes_waiting(world.project) is not None:
            break
    world.carry()
    assert not world.persons[PEOPLE[0]].is_active


def test_a_parked_join_that_is_let_wait_again_is_looked_at(world: TwoSides) -> None:
    a_late_join(world)
    with closing(Inbox(world.url)) as inbox:
        [joined] = inbox.events(ADDED, None, {"external_person_id": [PEOPLE[0]]})
        inbox.finish([Finished(joined.id, "parked", "other_company")])
    others_arrive(world)
    assert changes_waiting(world.project) is None
    assert retry_parked(world.project, [joined.id], "it is ours") == [joined.id]
    assert changes_waiting(world.project) is not None


@pytest.mark.parametrize("kind", [ADDED, REMOVED])
@pytest.mark.parametrize("way", ["carry", "carry_opt_outs"])
def test_a_callback_of_another_company_keeps_no_opt_out(
    world: TwoSides, kind: str, way: str
) -> None:
    world.person_joins(PEOPLE[0])
    world.callback_arrives(0)
    world.crm_user_says(PEOPLE[0], yes=False)
    world.pass_time(1)
    body = subscription_body(kind, "theirs", text_of(world.now), external_person_id=PEOPLE[0])
    body["subscription"]["subscription_list"]["url"] = "/companies/OTHER99/lists/1234"
    receive(world, body)
    getattr(world, way)()
    assert not world.persons[PEOPLE[0]].is_active
