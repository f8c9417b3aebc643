"""A night of edits: how many, when, on which side, and nothing twice."""

import sqlite3
from contextlib import closing
from copy import deepcopy
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from vibes_pipelines.sandbox.clock import SandboxClock, midnight
from vibes_pipelines.sandbox.crm import Crm
from vibes_pipelines.sandbox.drift import SHARES, drift
from vibes_pipelines.sandbox.platform import Person, Platform, Subscription
from vibes_pipelines.sandbox.population import build_world
from vibes_pipelines.sandbox.world import ContactRow

PEOPLE = 2_000
DAY = date(2026, 1, 2)


@dataclass
class Sides:
    platform: Platform
    crm: Crm
    clock: SandboxClock

    def night(self, day: date = DAY, seed: int = 1) -> dict[str, int]:
        return drift(self.platform, self.crm, self.clock, day, seed)

    def state(self) -> tuple[list[ContactRow], dict[str, Person], list[Subscription]]:
        return deepcopy((self.crm.rows(), self.platform.persons, self.platform.subscriptions))


def build_sides(folder: Path, people: int = PEOPLE) -> Sides:
    world = build_world(people, seed=4)
    clock = SandboxClock(midnight(date(2026, 1, 1)))
    platform = Platform("A1b2C3", world.custom_fields, world.lists, clock)
    platform.load(world.persons, world.subscriptions)
    folder.mkdir(exist_ok=True)
    crm = Crm(folder / "crm.db")
    crm.create(world.contacts_schema, world.contacts)
    return Sides(platform, crm, clock)


@pytest.fixture
def sides(tmp_path: Path) -> Sides:
    return build_sides(tmp_path / "sides")


@pytest.fixture(scope="module")
def after_ten_nights(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[ContactRow], Sides]:
    """The contacts as they were, and both sides as they are."""
    sides = build_sides(tmp_path_factory.mktemp("ten"))
    before = sides.crm.rows()
    for number in range(10):
        sides.night(DAY + timedelta(days=number))
    return before, sides


def changed_rows(before: list[ContactRow], after: list[ContactRow]) -> list[ContactRow]:
    known = {tuple(row.items()) for row in before}
    return [row for row in after if tuple(row.items()) not in known]


def test_about_one_and_a_half_percent_of_people_are_touched(sides: Sides) -> None:
    done = sides.night()
    assert all(done.values())
    assert 0.010 * PEOPLE < sum(done.values()) < 0.020 * PEOPLE


@pytest.mark.parametrize("factor", [1, 100])
def test_the_counts_are_what_happened_and_nobody_is_touched_twice(
    sides: Sides, factor: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "vibes_pipelines.sandbox.drift.SHARES",
        {kind: min(0.3, share * factor) for kind, share in SHARES.items()},
    )
    rows, persons, subscriptions = sides.state()
    done = sides.night()
    new_rows, new_persons, new_subscriptions = sides.state()

    known = {row["contact_id"] for row in rows}
    edited = changed_rows(rows, new_rows)
    entered = [row for row in edited if row["contact_id"] not in known]
    assert len(entered) == done["new_contact"]
    removed = len(rows) + len(entered) - len(new_rows)
    on_the_crm = ("crm_edit", "crm_opt_out", "moved_number", "fixed_data", "new_contact")
    assert len(edited) + removed == sum(done[kind] for kind in on_the_crm)
    differing = [key for key, person in new_persons.items() if person != persons[key]]
    assert len(differing) == done["platform_edit"]
    ended = [new for old, new in zip(subscriptions, new_subscriptions, strict=True) if old != new]
    assert len(ended) == done["platform_opt_out"]
    assert {row.opt_out_reason for row in ended} == {"user_opt_out"}


def test_edits_happen_in_the_night_on_distinct_minutes_of_the_two_sides(sides: Sides) -> None:
    rows, persons, subscriptions = sides.state()
    sides.night()
    new_rows, new_persons, new_subscriptions = sides.state()

    at_crm = {
        datetime.fromisoformat(str(row["updated_at"])).replace(tzinfo=UTC)
        for row in changed_rows(rows, new_rows)
    }
    at_platform = {
        person.updated_at for key, person in new_persons.items() if person != persons[key]
    } | {
        new.opt_out_date
        for old, new in zip(subscriptions, new_subscriptions, strict=True)
        if old != new and new.opt_out_date
    }
    assert at_crm
    assert at_platform
    assert {instant.minute % 2 for instant in at_crm} == {0}
    assert {instant.minute % 2 for instant in at_platform} == {1}
    night = (midnight(DAY), midnight(DAY) + timedelta(hours=6))
    assert all(night[0] <= instant < night[1] for instant in at_crm | at_platform)
    assert sides.clock.now() < night[1]


def test_an_opt_out_at_the_crm_is_stamped_now_and_later_than_any_opt_in(sides: Sides) -> None:
    rows = sides.crm.rows()
    done = sides.night()
    consents = {row["contact_id"]: row for row in rows}
    opted_out = [
        row
        for row in changed_rows(rows, sides.crm.rows())
        if row["contact_id"] in consents
        and row["sms_opt_in"] != consents[row["contact_id"]]["sms_opt_in"]
    ]
    assert len(opted_out) == done["crm_opt_out"]
    for row in opted_out:
        assert row["sms_opt_in"] == "false"
        assert str(row["sms_opt_in_at"]) == str(row["updated_at"]) > "2026-01-02"


def test_the_same_seed_and_day_repeat_and_others_differ(tmp_path: Path) -> None:
    def after(name: str, day: date, seed: int) -> object:
        sides = build_sides(tmp_path / name, people=400)
        sides.night(day, seed)
        return sides.state()

    once = after("a", DAY, 1)
    assert once == after("b", DAY, 1)
    assert once != after("c", DAY, 2)
    assert once != after("d", DAY + timedelta(days=1), 1)


def test_many_nights_never_give_two_contacts_one_fresh_number(
    after_ten_nights: tuple[list[ContactRow], Sides],
) -> None:
    before, sides = after_ten_nights
    known = {row["mobile"] for row in before}
    fresh = [
        "".join(filter(str.isdigit, str(row["mobile"])))[-10:]
        for row in sides.crm.rows()
        if row["mobile"] and row["mobile"] not in known
    ]
    assert len(fresh) > 40
    assert len(set(fresh)) == len(fresh)


def test_bad_data_is_mended_in_the_course_of_time(
    after_ten_nights: tuple[list[ContactRow], Sides],
) -> None:
    _, sides = after_ten_nights
    with closing(sqlite3.connect(sides.crm.path)) as connection:
        platinum, repeated = connection.execute(
            "SELECT count(*) FILTER (WHERE tier = 'Platinum'),"
            " count(*) - count(DISTINCT contact_id) FROM contacts"
        ).fetchone()
    assert (platinum, repeated) == (0, 0)


def test_the_audit_does_not_take_edits_for_the_products_doing(
    after_ten_nights: tuple[list[ContactRow], Sides],
) -> None:
    _, sides = after_ten_nights
    assert sides.platform.audit.effects() == 0


@pytest.mark.parametrize("people", [0, 1, 20])
def test_a_tiny_world_survives_its_nights(tmp_path: Path, people: int) -> None:
    sides = build_sides(tmp_path / "tiny", people)
    for number in range(3):
        sides.night(DAY + timedelta(days=number))
    assert len(sides.platform.persons) <= people
