"""Law 1 as a machine: whatever people do, whatever the roads do, and wherever a process dies.

Opted out never becomes opted in without newer first-hand evidence, and an opt-out is on the other
side in real time while the roads are up, and by the daily job once they are up again.
"""

import shutil
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

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

from vibes_pipelines.crm import write_back
from vibes_pipelines.delivery import consent_watch, deferrals
from vibes_pipelines.reconcile import consent, invites
from vibes_pipelines.stages import changes, inbox, inbox_opt_outs, last_look, slices
from vibes_pipelines.store.inbox import Finished, Inbox
from vibes_pipelines.store.realtime import RealtimeBook
from vibes_pipelines_tests.support.deliveries import Killed
from vibes_pipelines_tests.support.two_sides import PEOPLE, empty_ledger, two_sides
from vibes_pipelines_tests.support.two_sides_platform import Violation

QUIET_STEPS = 5
"""Cheap steps before one that compares both sides: it takes a hundred times as long."""

LIGHT = ("drain", "deliver")
HEAVY = ("carry", "carry", "land_and_plan", "daily_job")

people = st.sampled_from(PEOPLE)
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

    @rule(key=people, yes=st.booleans())
    def crm_user_says(self, key: str, yes: bool) -> None:
        self.world.crm_user_says(key, yes=yes)
        self.quiet += 1

    @rule(key=people)
    def person_joins(self, key: str) -> None:
        self.world.person_joins(key)
        self.quiet += 1

    @rule(key=people)
    def person_stops(self, key: str) -> None:
        self.world.person_stops(key)
        self.quiet += 1

    @rule(key=people)
    def person_joins_and_stops_at_once(self, key: str) -> None:
        """And every callback arrives."""
        self.world.person_joins(key)
        self.world.person_stops(key)
        while self.world.on_the_way:
            self.world.callback_arrives(0)
        self.quiet += 2

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
            marks=[pytest.mark.slow, pytest.mark.timeout(1_800)],
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
    print(f"{done:,} steps")  # noqa: T201 - the report of a long run


def without(text: str, instead: str) -> Callable[[Any], Any]:
    """A rule whose SQL has something else in place of a text that must be there."""

    def broken(rule_sql: Any) -> Any:
        def sql(*arguments: Any) -> str:
            found: str = rule_sql(*arguments)
            assert text in found, text
            return found.replace(text, instead)

        return sql

    return broken


def always(answer: Any) -> Callable[[Any], Any]:
    return lambda _: lambda *_, **__: answer


def marked_first(settle: Any) -> Any:
    """Ends callbacks before their effect."""

    def settled(project: Any, inbox: Inbox, page: Any, **how: Any) -> Any:
        inbox.finish([Finished(one.id, "applied", "opted_out") for one in page])
        return settle(project, inbox, page, **how)

    return settled


def sent_blindly(_: Any) -> Any:
    """Sends again what a cut look left, whatever was said meanwhile."""
    return lambda carrier: carrier._send(carrier._book.unfinished())


def whoever_it_is(_: Any) -> Any:
    return lambda operation: (operation.external_person_id, operation.subscription_list_id)


CHANGED = "c.changed_at_0"
BREAKAGES: dict[str, tuple[Any, str, Callable[[Any], Any]]] = {
    "the daily job forgets the opt-outs of the platform": (
        consent, "_change_sql", without("ELSE m.is_sure AND", "ELSE false AND"),
    ),
    "the daily job forgets the opt-outs of the CRM": (
        consent, "_change_sql", without("THEN c.state_0 = -1 AND", "THEN false AND"),
    ),
    "any opt-in of the CRM stands against an opt-out": (
        consent, "_change_sql", without(f"coalesce({CHANGED} >", f"coalesce(true OR {CHANGED} >"),
    ),
    "an invitation needs no newer opt-in": (
        invites, "_wanted_sql", without(f"coalesce({CHANGED} >", f"coalesce(true OR {CHANGED} >"),
    ),
    "nobody looks before an invitation leaves": (last_look.LastLook, "withdrawn", always({})),
    "a callback withdraws no invitation": (consent_watch, "_is_newer", always(answer=False)),
    "the drain ignores opt-outs": (inbox_opt_outs, "_find_contacts", always(([], []))),
    "a callback is ended before its effect": (inbox, "settle_subscriptions", marked_first),
    "an older opt-out overwrites a newer yes": (
        write_back._Contacts, "_refuse_older", always(None),
    ),
    "a look that was cut is forgotten": (RealtimeBook, "unfinished", always([])),
    "what a cut look left is sent blindly": (changes._Carrier, "take_up", sent_blindly),
    "one opt-out of a person is enough for ever": (changes, "_same_opt_out", whoever_it_is),
    "opt-outs are put off for ever": (deferrals.Deferrals, "why_deferred", always("later")),
    "real time does not hear the callbacks": (slices, "_heard_subscriptions", always([])),
}  # fmt: skip
B = "callback_arrives"
JOINS, STOPS, LOST = "person_joins", "person_stops", "callback_is_lost"
KNOWN = (JOINS, B, "drain", "daily_job")
"""A person joins, and both sides know of it."""

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
}  # fmt: skip


def live(folder: Path, history: tuple[str, ...]) -> None:
    """The steps of one history, each judged by the witness."""
    person = PEOPLE[0]
    with two_sides(folder / "world", empty_ledger(folder / "empty.db")) as world:
        for step in history:
            *dying, name = step.split(":")
            world.fuse = int(dying[1]) if dying else None
            with suppress(Killed):
                if name in {"yes", "no"}:
                    world.crm_user_says(person, yes=name == "yes")
                elif name in {JOINS, STOPS}:
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
    owner, attribute, broken = BREAKAGES[name]
    monkeypatch.setattr(owner, attribute, broken(getattr(owner, attribute)))
    with pytest.raises((Violation, ExceptionGroup)):
        live(tmp_path, HISTORIES[name])
