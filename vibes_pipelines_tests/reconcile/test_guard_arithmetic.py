"""Guards in numbers: where each limit lies, and what a breach tells the person who looks at it."""

import pytest

from vibes_pipelines.reconcile.guards import SMALL, Breach, Workload, check_guards, check_quarantine
from vibes_pipelines.sync_config import Guards

LOOSE = {"max_rows": None, "max_share": None}
CAPS = ("updates", "adds", "clears", "opt_outs", "invites")


def guards(**caps):
    loose = dict.fromkeys(CAPS, LOOSE)
    return Guards.model_validate(
        loose | {n: LOOSE | c if n in CAPS else c for n, c in caps.items()}
    )


def found(judged, accepted=None, **rows):
    idle = dict.fromkeys(Workload.__dataclass_fields__, 0) | {"contacts": 100, "persons": 200}
    return check_guards(judged, Workload(**(idle | rows)), accepted, relative=True)


@pytest.mark.parametrize(
    ("guard", "rows", "whole"),
    [
        ("adds", {"adds": 30}, "100 contacts"),
        ("updates", {"updates": 60}, "200 persons"),
        ("clears", {"clears": 60}, "200 persons"),
        ("opt_outs", {"opt_outs_to_platform": 60}, "200 persons"),
        ("invites", {"invites": 60}, "200 persons"),
    ],
)
def test_a_share_is_told_with_its_whole(guard, rows, whole):
    [breach] = found(guards(**{guard: {"max_share": 0.25}}), **rows)
    assert (breach.value, breach.limit) == (0.30, 0.25)
    [number] = rows.values()
    assert f"{guard}: {number} rows are 30.00% of {whole}, more than" in breach.message
    assert f"guards.{guard}.max_share" in breach.message


def test_a_share_of_nobody_is_told_as_all():
    [breach] = found(guards(updates={"max_share": 0.5}), persons=0, updates=1)
    assert breach.value == 1


def test_a_cap_of_rows_is_told_with_its_entry():
    [breach] = found(guards(adds={"max_rows": 4}), adds=5)
    assert (breach.value, breach.limit) == (5, 4)
    assert "adds: 5 rows are more than guards.adds.max_rows" in breach.message


def test_invites_have_a_lane_of_their_own():
    [breach] = found(guards(invites={"max_rows": 0}), invites=1)
    assert (breach.guard, breach.lane) == ("invites.max_rows", "invites")


def test_without_a_count_of_invites_there_are_none():
    counted = dict.fromkeys(Workload.__dataclass_fields__, 1)
    del counted["invites"]
    assert Workload(**counted).invites == 0


def test_an_input_may_shrink_to_its_least_share_and_no_further():
    judged = guards(min_input_share=0.5)
    assert found(judged, {"contacts": 200, "persons": 400}) == ()
    [held, also_held] = found(judged, {"contacts": 201})
    assert {held.lane, also_held.lane} == {"persons", "opt_outs"}
    assert (held.value, held.limit) == (100 / 201, 0.5)
    assert "contacts: 100 rows are fewer than 50% of the 201 last accepted" in held.message


def test_an_empty_input_is_told_as_none_of_at_least_one():
    [breach, _] = found(guards(), contacts=0)
    assert (breach.guard, breach.value, breach.limit) == ("contacts.not_empty", 0, 1)


def test_persons_may_be_none_until_one_was_accepted():
    assert found(guards(), {"contacts": 100}, persons=0) == ()
    assert {b.guard for b in found(guards(), {"persons": 1}, persons=0)} == {"persons.not_empty"}


def risen(contacts, rows, of_identity=0, **limits):
    return list(check_quarantine(guards(**limits), contacts, rows, of_identity))


def test_twenty_rows_in_quarantine_are_chance_and_one_more_is_not():
    assert SMALL == 20
    assert risen(30, 20, max_quarantine_rise=0.05) == []
    [breach] = risen(30, 21, max_quarantine_rise=0.05)
    assert breach == Breach("quarantine.rise", "persons", 21 / 30, 0.05, breach.message)
    assert "quarantine: 21 more than on the last accepted day, of 30 contacts" in breach.message


def test_of_many_contacts_a_share_may_go_into_quarantine():
    assert risen(1_000, 100, max_quarantine_rise=0.1) == []
    assert [b.lane for b in risen(1_000, 101, max_quarantine_rise=0.1)] == ["persons"]


def test_doubt_about_who_is_who_holds_the_opt_outs_too():
    breaches = risen(1_000, 102, 101, max_quarantine_rise=0.1)
    assert [(b.lane, b.value) for b in breaches] == [("persons", 0.102), ("opt_outs", 0.101)]


def test_a_rise_that_is_not_to_be_judged_is_not():
    assert risen(30, 30, 30, max_quarantine_rise=None) == []
    assert risen(0, 30, 30) == []
