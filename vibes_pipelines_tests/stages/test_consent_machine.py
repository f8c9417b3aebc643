"""Law 1 as a machine: whatever people do, whatever the roads do, and wherever a process dies.

Opted out never becomes opted in without newer first-hand evidence, and an opt-out is on the other
side in real time while the roads are up, and by the daily job once they are up again.

That the witness catches broken rules is shown by scripted histories; the machine's own search would
need far more steps for most of them (see `test_consent_search`).
"""

import shutil
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from vibes_pipelines_tests.support.consent_breakages import BREAKAGES, broken_by
from vibes_pipelines_tests.support.deliveries import Killed
from vibes_pipelines_tests.support.two_sides import empty_ledger, two_sides
from vibes_pipelines_tests.support.two_sides_platform import Violation
from vibes_pipelines_tests.support.two_sides_world import NEWCOMERS, PEOPLE, STRANGERS

QUIET_STEPS = 5
"""Cheap steps before one that compares both sides: it takes a hundred times as long."""

LIGHT = ("drain", "deliver", "files_are_imported")
HEAVY = ("carry", "carry", "carry_opt_outs", "carry_opt_outs", "land_and_plan", "daily_job")

people = st.sampled_from((*PEOPLE, *NEWCOMERS, *STRANGERS))
strangers = st.sampled_from(STRANGERS)
numbers = st.integers(0, 5)
fuses = st.none() | st.integers(0, 3)


class ConsentMachine(RuleBasedStateMachine):
    """Steps in any order; `folder` and `template` are set by whoever runs it."""

    folder: Path
    template: Path
    made: "count[int]"
    names = count()

    def __init__(self) -> None:
        super().__init__()
        self.place = self.folder / f"world{next(self.names)}"
        self.opened = two_sides(self.place, self.template)
        self.world = self.opened.__enter__()
        self.quiet = 0

    def teardown(self) -> None:
        try:
            self.world.roads_up()
            self.world.check()
        finally:
            self.opened.__exit__(None, None, None)
            shutil.rmtree(self.place)

    def here(self, key: str) -> str:
        """Somebody whom the platform has by now: a newcomer may still have to come."""
        return key if key in self.world.persons else PEOPLE[0]

    def entered(self, key: str) -> str:
        """Somebody whom the CRM has by now."""
        return key if key in self.world.entered else PEOPLE[0]

    @rule(key=people, yes=st.booleans())
    def crm_user_says(self, key: str, yes: bool) -> None:
        self.world.crm_user_says(self.entered(key), yes=yes)
        self.quiet += 1

    @rule(key=people)
    def crm_user_renames(self, key: str) -> None:
        self.world.crm_user_renames(self.entered(key))
        self.quiet += 1

    @rule(key=strangers)
    def stranger_is_entered(self, key: str) -> None:
        self.world.stranger_is_entered(key)
        self.quiet += 1

    @rule(key=strangers)
    def stranger_joins(self, key: str) -> None:
        """Somebody whom the platform may have by the number alone."""
        self.world.stranger_joins(key)
        self.quiet += 1

    @rule(keys=st.sets(people, min_size=1))
    def list_is_onboarded(self, keys: set[str]) -> None:
        self.world.list_is_onboarded({self.here(key) for key in keys})
        self.quiet += 1

    @rule(key=people, old_body=st.booleans())
    def person_joins(self, key: str, old_body: bool) -> None:
        self.world.person_joins(self.here(key), old_body=old_body)
        self.quiet += 1

    @rule(key=st.sampled_from(NEWCOMERS), old_body=st.booleans())
    def newcomer_joins(self, key: str, old_body: bool) -> None:
        """Somebody whom no share shows yet."""
        self.world.newcomer(key)
        self.world.person_joins(key, old_body=old_body)
        self.quiet += 1

    @rule(key=people, old_body=st.booleans())
    def person_stops(self, key: str, old_body: bool) -> None:
        self.world.person_stops(self.here(key), old_body=old_body)
        self.quiet += 1

    @rule(keys=st.sets(people, min_size=1))
    def opt_outs_are_imported(self, keys: set[str]) -> None:
        self.world.opt_outs_imported({self.here(key) for key in keys})
        self.quiet += 1

    @rule(by_file=st.booleans())
    def opt_outs_and_persons_of_the_next_day_go_by(self, by_file: bool) -> None:
        self.world.by_file = by_file
        self.quiet += 1

    @rule(key=people, joins_last=st.booleans())
    def person_says_both(self, key: str, joins_last: bool) -> None:
        """And every callback arrives."""
        says = [self.world.person_joins, self.world.person_stops]
        for say in reversed(says) if joins_last else says:
            say(self.here(key))
        self.everything_arrives()

    @precondition(lambda self: self.world.on_the_way)
    @rule()
    def everything_arrives(self) -> None:
        while self.world.on_the_way:
            self.world.callback_arrives(0)
        self.quiet += 1

    @rule(minutes=st.integers(1, 2_000))
    def time_passes(self, minutes: int) -> None:
        self.world.pass_time(minutes)
        self.quiet += 1

    @precondition(lambda self: self.world.on_the_way)
    @rule(index=numbers, again=st.booleans())
    def callback_arrives(self, index: int, again: bool) -> None:
        self.world.callback_arrives(index, again=again)
        self.quiet += 1

    @precondition(lambda self: self.world.on_the_way)
    @rule(index=numbers)
    def callback_is_lost(self, index: int) -> None:
        """Not each time: of what is lost, real time knows nothing."""
        if index == 0:
            self.world.callback_is_lost(index)
        self.quiet += 1

    @rule()
    def platform_stops_answering(self) -> None:
        self.world.refusals = 1
        self.quiet += 1

    @rule(step=st.sampled_from(LIGHT), fuse=fuses)
    def project_works(self, step: str, fuse: int | None) -> None:
        self.world.fuse = fuse
        try:
            getattr(self.world, step)()
        except Killed:
            return
        finally:
            self.world.fuse = None

    @precondition(lambda self: self.quiet >= QUIET_STEPS)
    @rule(key=people)
    def both_sides_know_that_a_person_joined(self, key: str) -> None:
        self.quiet = 0
        self.world.person_joins(self.here(key))
        self.everything_arrives()
        self.world.drain()
        self.world.daily_job()

    @precondition(lambda self: self.quiet >= QUIET_STEPS)
    @rule(step=st.sampled_from(HEAVY), fuse=fuses)
    def project_works_hard(self, step: str, fuse: int | None) -> None:
        self.quiet = 0
        self.project_works(step, fuse)

    @invariant()
    def law_one_holds(self) -> None:
        next(self.made)
        self.world.check()


def run(folder: Path, examples: int, steps: int, number: int = 0) -> int:
    """Lives so many worlds of at most so many steps each; returns the steps that were made."""
    template = folder / "empty.db"
    if not template.exists():
        empty_ledger(template)
    made = count()
    fields = {"folder": folder, "template": template, "made": made}
    machine = seed(number)(type("Machine", (ConsentMachine,), fields))
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            phases=(Phase.generate,),
            suppress_health_check=list(HealthCheck),
            print_blob=False,
            report_multiple_bugs=False,
        ),
    )
    return next(made)


@pytest.mark.parametrize(
    ("wanted", "worlds", "steps"),
    [
        pytest.param(200, 3, 100, id="few"),
        pytest.param(
            100_000,
            20,
            400,
            id="hundred-thousand",
            marks=[pytest.mark.slow, pytest.mark.timeout(5_400)],
        ),
    ],
)
def test_no_opt_out_is_undone_lost_or_late(
    tmp_path: Path, wanted: int, worlds: int, steps: int
) -> None:
    done, number = 0, 0
    while done < wanted:
        number += 1
        done += run(tmp_path, worlds, steps, number)
        print(f"{done:,} steps", flush=True)  # noqa: T201 - the report of a long run


@pytest.mark.parametrize("by_file", [False, True], ids=["by API", "by file"])
def test_a_delivery_names_who_joined_meanwhile_and_leaves_consent_alone(
    tmp_path: Path, by_file: bool
) -> None:
    """The file was made before: for it there was nobody at the platform."""
    key = STRANGERS[0]
    with two_sides(tmp_path / "world", empty_ledger(tmp_path / "empty.db")) as world:
        world.by_file = by_file
        world.stranger_is_entered(key)
        world.land_and_plan()
        world.stranger_joins(key)
        world.deliver()
        world.files_are_imported()
        assert {Path(name).suffix for name in world.files.imported} == (
            {".persons"} if by_file else set()
        )
        assert world.persons[key].is_named
        assert world.persons[key].is_active
        assert world.crm_of(key) == (None, None)
        world.person_stops(key)
        world.roads_up()
        assert world.crm_of(key)[0] == "no"


B = "callback_arrives"
JOINS, STOPS, LOST = "person_joins", "person_stops", "callback_is_lost"
LANE = "carry_opt_outs"
KNOWN = (JOINS, B, "drain", "daily_job")
"""A person joins, and both sides know of it."""

LATE = ("daily_job", JOINS, "no")
"""The no of a person whose join nobody here knows of yet."""

HISTORIES: dict[str, tuple[str, ...]] = {
    "the daily job forgets the opt-outs of the platform": (JOINS, STOPS, LOST, LOST, "roads_up"),
    "the daily job forgets the opt-outs of the CRM": (JOINS, LOST, "no", "roads_up"),
    "any opt-in of the CRM stands against an opt-out": (
        "yes", JOINS, STOPS, LOST, LOST, "roads_up",
    ),
    "an invitation needs no newer opt-in": ("yes", JOINS, STOPS, LOST, LOST, "daily_job"),
    "nobody looks before an invitation leaves": ("yes", "land_and_plan", "no", "deliver"),
    "a callback withdraws no invitation": (
        "yes", "land_and_plan", JOINS, STOPS, B, B, "deliver",
    ),
    "the drain ignores opt-outs": (JOINS, STOPS, B, B, "drain"),
    "a callback is ended before its effect": (JOINS, STOPS, B, B, "dying:1:drain", "drain"),
    "an older opt-out overwrites a newer yes": (JOINS, STOPS, B, B, "yes", "drain"),
    "a look that was cut is forgotten": (*KNOWN, "no", "dying:0:carry", "carry"),
    "what a cut look left is sent blindly": (
        *KNOWN, "no", "dying:0:carry", STOPS, JOINS, B, B, "carry",
    ),
    "one opt-out of a person is enough for ever": (
        *KNOWN, "no", "carry", B, "yes", JOINS, B, "no", "carry",
    ),
    "opt-outs are put off for ever": (JOINS, STOPS, LOST, LOST, "roads_up"),
    "real time does not hear the callbacks": (*KNOWN, "no", STOPS, JOINS, B, B, "carry"),
    "the lane of opt-outs forgets the CRM": (JOINS, LOST, "daily_job", "no", LANE),
    "the lane of opt-outs forgets late joins": (*LATE, "carry", B, LANE),
    "what the lane looked at once is done for ever": (*LATE, LANE, B, LANE),
    "nobody is sought by number": (
        "stranger_is_entered", "land_and_plan", "stranger_joins", "no", "carry", B, "carry",
    ),
}  # fmt: skip


def live(folder: Path, history: tuple[str, ...]) -> None:
    """The steps of one history, each judged by the witness."""
    with two_sides(folder / "world", empty_ledger(folder / "empty.db")) as world:
        person = PEOPLE[0]
        for step in history:
            *dying, name = step.split(":")
            world.fuse = int(dying[1]) if dying else None
            with suppress(Killed):
                if name in {"yes", "no"}:
                    world.crm_user_says(person, yes=name == "yes")
                elif name in {JOINS, STOPS, "stranger_is_entered", "stranger_joins"}:
                    person = STRANGERS[0] if name.startswith("stranger") else person
                    getattr(world, name)(person)
                elif name in {B, LOST}:
                    getattr(world, name)(0)
                else:
                    getattr(world, name)()
            world.fuse = None
            world.check()


@pytest.mark.parametrize("name", sorted(BREAKAGES))
def test_a_broken_rule_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    live(tmp_path, HISTORIES[name])
    broken_by(monkeypatch, name)
    with pytest.raises((Violation, ExceptionGroup)):
        live(tmp_path, HISTORIES[name])
