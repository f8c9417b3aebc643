"""Succession in detail: sides and columns that one day lacks, spellings, and what is sampled."""

import dataclasses

import duckdb
import pyarrow as pa
import pytest

from vibes_pipelines.reconcile import succession
from vibes_pipelines.reconcile.succession import check_succession
from vibes_pipelines_tests.reconcile.test_succession_limits import (
    BOTH,
    CONFIG,
    ROWS,
    World,
    contact,
    person,
    stay,
)


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


@pytest.mark.parametrize(
    ("lacking", "side"),
    [
        ("accepted", "persons"),
        ("accepted", "subscriptions"),
        ("today", "persons"),
        ("today", "subscriptions"),
        ("today", "events"),
    ],
)
def test_a_side_that_one_day_lacks_is_not_compared(world, lacking, side):
    days = {name: world.write(name) for name in ("accepted", "today")}
    days[lacking] = dataclasses.replace(days[lacking], **{side: None})
    assert check_succession(CONFIG, **days) == ()


@pytest.mark.parametrize("lacking", ["accepted", "today"])
def test_keys_that_one_day_lacks_are_not_compared(world, lacking):
    bare = [
        {name: cell for name, cell in person(n).items() if name != "person_key"}
        for n in range(ROWS)
    ]
    given = {"accepted": {"persons": bare}} if lacking == "accepted" else {"persons": bare}
    assert world.told(**given) == {}


def test_lost_keys_are_told_in_percent(world):
    found = world.breaches(contacts=[contact(n) for n in range(51, ROWS)])
    assert "contacts: 49.0% of the keys last accepted are still there" in found[0].message


def test_a_key_that_stood_often_is_one_key(world):
    before = [contact(0)] * 60 + [contact(n) for n in range(1, 41)]
    today = [contact(n) for n in range(1, 41)]
    assert world.told({"contacts": before}, contacts=today) == {}


@pytest.mark.parametrize("column", ["external_person_id", "mdn"])
def test_identifiers_of_persons_that_go_blank_hold_both_lanes(world, column):
    blank = [person(n, **{column: None}) for n in range(ROWS)]
    assert world.told(persons=blank) == {f"persons.{column}.filled": BOTH}


def test_twenty_cells_that_went_blank_beside_others_are_chance(world):
    few = {"persons": [person(n) for n in range(25)]}
    today = [person(n, **({"tier": None} if n < 20 else {})) for n in range(25)]
    assert world.told(few, persons=today) == {}


def test_a_stay_that_stands_twice_is_one(world):
    found = world.breaches(subscriptions=[stay(n) for n in range(70, ROWS)] * 2)
    assert {(breach.guard, breach.value) for breach in found} == {
        ("subscriptions.min_input_share", 0.3),
        ("subscriptions.opt_out_date.filled", 0.3),
    }


def test_every_mapped_list_is_known(world):
    other = CONFIG.consents[0].model_copy(update={"list": "78"})
    world.config = CONFIG.model_copy(update={"consents": (*CONFIG.consents, other)})
    assert world.told(events=[stay(1, subscription_list_id="78")]) == {}


def test_a_list_may_be_a_number_in_the_share_and_a_text_in_the_extract(world):
    world.types["subscriptions.subscription_list_id"] = pa.int64()
    numbered = [stay(n, subscription_list_id=9) for n in range(ROWS)]
    events = [stay(1, subscription_list_id="9")]
    assert world.told({"subscriptions": numbered}, subscriptions=numbered, events=events) == {}


def said_at(world, before, today):
    """Hours that the newest consent is older than before, where one cell says when it was."""
    days = [[contact(n, sms_at=None) for n in range(ROWS)] for _ in range(2)]
    for rows, cells in zip(days, (before, today), strict=True):
        rows[: len(cells)] = [contact(n, sms_at=cell) for n, cell in enumerate(cells)]
    found = world.breaches({"contacts": days[0]}, contacts=days[1])
    return {breach.value for breach in found if breach.guard == "contacts.sms_at.newest"}


@pytest.mark.parametrize(
    "spelling", ["2026-01-05T03:00:00Z", "2026-01-05 03:00\t", "2026-01-05 03:00"]
)
def test_an_instant_is_read_in_each_spelling(world, spelling):
    assert said_at(world, [spelling], ["2026-01-05T02:00:00Z"]) == {1}


def test_the_newest_instant_may_be_written_as_the_day_before(world):
    before = ["2026-01-05 00:10:00", "2026-01-04 23:30:00 -0200"]
    assert said_at(world, before, ["2026-01-05 01:00:00"]) == {0.5}


def test_what_was_said_as_the_snapshot_was_taken_is_its_newest(world):
    world.as_of = "2026-01-10T00:00:00Z"
    assert said_at(world, ["2026-01-10 00:00:00"], ["2026-01-09 23:00:00"]) == {1}


def test_only_the_sampled_keys_are_looked_at(world, monkeypatch):
    monkeypatch.setattr(succession, "_SAMPLE_ROWS", 25)
    keys = [f"C{number}" for number in range(ROWS)]
    with duckdb.connect() as connection:
        sampled = connection.execute(
            "SELECT key FROM (SELECT unnest(?::VARCHAR[]) AS key) WHERE hash(key) % 4 = 0", [keys]
        ).fetchall()
    assert 0 < len(sampled) < ROWS / 2
    others = [
        contact(n, **({} if (f"C{n}",) in sampled else {"first": "Ida"})) for n in range(ROWS)
    ]
    assert world.told(contacts=others) == {}


LISTS = [(["b", " a"], {}), (["c"], {"contacts.first.rewritten": {"persons"}})]
LISTS += [(blank, {"contacts.first.filled": {"persons"}}) for blank in (None, [], [" "])]


@pytest.mark.parametrize(("today", "told"), LISTS)
def test_lists_are_compared_as_the_sets_they_are(world, today, told):
    world.types["contacts.first"] = pa.list_(pa.string())
    before, now = ([contact(n, first=cell) for n in range(ROWS)] for cell in (["a", "b"], today))
    found = world.told({"contacts": before}, contacts=now)
    assert {name: found.get(name) for name in told} == told
    assert found.keys() <= {"contacts.first.rewritten", *told}
    assert bool(found) == bool(told)
