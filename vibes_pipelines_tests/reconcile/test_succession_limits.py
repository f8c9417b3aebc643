"""Succession in numbers: where each limit lies, what a breach tells, and what is not compared."""

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vibes_pipelines.reconcile import succession
from vibes_pipelines.reconcile.guards import Breach
from vibes_pipelines.reconcile.succession import Sources, check_succession
from vibes_pipelines.sync_config import SyncConfig

ROWS = 100
DAWN = datetime(2026, 1, 1)  # noqa: DTZ001 - as a CRM holds it
CONFIG = SyncConfig.model_validate(
    {
        "version": 1,
        "company_key": "A1b2C3",
        "contacts": {
            "key": "id",
            "person_key": "pk",
            "mdn": {"column": "phone", "default_region": "US"},
            "conditions": [{"column": "kind", "equals": "A"}],
        },
        "fields": [
            {"from": "first", "to": "first_name", "type": "string", "authority": "fill"},
            {"from": "level", "to": "tier", "type": "string", "authority": "platform"},
        ],
        "consents": [{"from": "sms", "list": " 77 ", "changed_at": "sms_at"}],
        "guards": {"min_input_share": 0.5, "max_rewritten_share": 0.3},
    }
)
BOTH = {"persons", "opt_outs"}

Row = dict[str, Any]


def contact(number: int, **cells: object) -> Row:
    said = DAWN + timedelta(hours=number)
    row = {"id": f"C{number}", "pk": f"k{number}", "phone": f"+1312556{number:04}", "kind": "A"}
    return row | {"first": "Ada", "level": "gold", "sms": "yes", "sms_at": str(said)} | cells


def person(number: int, **cells: object) -> Row:
    row = {"person_key": f"k{number}", "external_person_id": f"C{number}"}
    return row | {"mdn": f"+1312556{number:04}", "first_name": "Ada", "tier": "gold"} | cells


def stay(number: int, **cells: object) -> Row:
    since, until = DAWN + timedelta(hours=number), DAWN + timedelta(days=30)
    row = {"person_key": f"k{number}", "subscription_list_id": "77", "opt_in_date": str(since)}
    return row | {"opt_out_date": str(until) if number % 2 else None} | cells


class World:
    """The accepted day and today; each side is the healthy one unless it is given."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.types: dict[str, pa.DataType] = {}
        self.as_of: str | None = None
        self.config = CONFIG

    def write(self, name: str, **given: list[Row]) -> Sources:
        healthy = {
            "contacts": [contact(number) for number in range(ROWS)],
            "persons": [person(number) for number in range(ROWS)],
            "subscriptions": [stay(number) for number in range(ROWS)],
            "events": [stay(1)],
        }
        paths = {}
        for side, rows in (healthy | given).items():
            names = rows[0] if rows else healthy[side][0]
            schema = pa.schema([(column, self._type(side, column)) for column in names])
            paths[side] = self.folder / name / side
            paths[side].mkdir(parents=True)
            pq.write_table(pa.Table.from_pylist(rows, schema), paths[side] / "data.parquet")
            if self.as_of:
                (paths[side] / "manifest.json").write_text(json.dumps({"as_of": self.as_of}))
        return Sources(**paths)

    def _type(self, side: str, column: str) -> pa.DataType:
        return self.types.get(f"{side}.{column}", self.types.get(column, pa.string()))

    def breaches(
        self, accepted: dict[str, list[Row]] | None = None, **today: list[Row]
    ) -> list[Breach]:
        before = self.write("accepted", **accepted or {})
        return list(check_succession(self.config, self.write("today", **today), before))

    def told(
        self, accepted: dict[str, list[Row]] | None = None, **today: list[Row]
    ) -> dict[str, set[str]]:
        lanes: dict[str, set[str]] = {}
        for breach in self.breaches(accepted, **today):
            lanes.setdefault(breach.guard, set()).add(breach.lane)
        return lanes


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def edited(count: int, **cells: object) -> list[Row]:
    return [contact(n, **(cells if n < count else {})) for n in range(ROWS)]


def test_half_of_the_keys_may_go(world: World) -> None:
    before = {"contacts": [contact(0, id=" "), *(contact(n) for n in range(ROWS))]}
    assert world.told(before, contacts=[contact(n) for n in range(50, ROWS)]) == {}


def test_lost_keys_are_told_with_their_share(world: World) -> None:
    left = [contact(n) for n in range(51, ROWS)]
    breaches = world.breaches(contacts=left, persons=[person(n) for n in range(10)])
    told = {(b.guard, b.lane): (b.value, b.limit) for b in breaches}
    assert told == {
        (f"{side}.known_keys", lane): (share, 0.5)
        for side, share in (("contacts", 0.49), ("persons", 0.10))
        for lane in BOTH
    }


def test_a_key_is_the_same_in_any_spelling_and_none_is_no_key(world: World) -> None:
    blank = [contact(n, id=" ") for n in range(30)]
    accepted = {"contacts": [contact(n) for n in range(70)] + [contact(n, id="") for n in range(9)]}
    today = [contact(n, id=f" C{n}\t") for n in range(70)] + blank
    assert world.told(accepted, contacts=today) == {}


@pytest.mark.parametrize(
    ("column", "lanes"),
    [("phone", BOTH), ("pk", BOTH), ("kind", {"persons"}), ("first", {"persons"})],
)
def test_a_column_may_differ_in_three_of_ten_rows(
    world: World, column: str, lanes: set[str]
) -> None:
    assert world.told(contacts=edited(31, **{column: "x"})) == {
        f"contacts.{column}.rewritten": lanes
    }


def test_three_of_ten_rows_are_no_breach_and_other_spelling_no_difference(world: World) -> None:
    rows = [r | {"first": f" {r['first']} "} for r in edited(30, kind="B", pk="x", phone=None)]
    assert world.told(contacts=rows) == {}


def test_a_rewritten_column_is_told_with_its_share(world: World) -> None:
    [breach] = world.breaches(contacts=edited(40, first="Ida"))
    assert (breach.value, breach.limit) == (0.40, 0.30)
    assert "contacts: first differs in 40.0% of the rows" in breach.message


def test_of_few_rows_twenty_may_differ(world: World) -> None:
    few = {"contacts": [contact(n) for n in range(25)]}
    rows = [contact(n, **({"first": "Ida"} if n < 20 else {})) for n in range(25)]
    assert world.told(few, contacts=rows) == {}


def test_of_few_rows_twenty_one_may_not(world: World) -> None:
    few = {"contacts": [contact(n) for n in range(25)]}
    rows = [contact(n, **({"first": "Ida"} if n < 21 else {})) for n in range(25)]
    assert set(world.told(few, contacts=rows)) == {"contacts.first.rewritten"}


def test_keys_that_stand_twice_are_not_compared(world: World) -> None:
    twice = [contact(n) for n in range(ROWS)] + [contact(n, first="Ida") for n in range(60)]
    assert world.told(contacts=twice) == {}


def test_a_rewriting_that_is_not_to_be_judged_is_not(world: World) -> None:
    guards = CONFIG.guards.model_copy(update={"max_rewritten_share": None})
    world.config = CONFIG.model_copy(update={"guards": guards})
    assert world.told(contacts=edited(ROWS, first="Ida")) == {}


def test_of_many_rows_some_keys_stand_for_all(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(succession, "_SAMPLE_ROWS", 25)
    [breach] = world.breaches(contacts=edited(ROWS, first="Ida"))
    assert (breach.guard, breach.value) == ("contacts.first.rewritten", 1)


@pytest.mark.parametrize(
    ("column", "lanes"),
    [
        ("sms", {"opt_outs"}),
        ("sms_at", {"opt_outs"}),
        ("level", {"persons"}),
    ],
)
def test_a_column_may_go_blank_in_half_of_its_cells(
    world: World, column: str, lanes: set[str]
) -> None:
    assert world.told(contacts=edited(51, **{column: "\t"})) == {f"contacts.{column}.filled": lanes}


def test_half_of_the_cells_gone_is_no_breach(world: World) -> None:
    assert world.told(contacts=edited(50, level=None, sms=" ")) == {}


def test_a_blank_column_is_told_with_what_is_kept_of_it(world: World) -> None:
    before = {"persons": [person(n, tier="gold" if n < 80 else None) for n in range(ROWS)]}
    today = [person(n, tier="gold" if n < 20 else " ") for n in range(ROWS * 2)]
    [breach] = world.breaches(before, persons=today)
    assert (breach.guard, breach.lane) == ("persons.tier.filled", "persons")
    assert (breach.value, breach.limit) == (0.125, 0.5)
    assert "tier is filled in 10.0% of the rows, in 80.0% when last accepted" in breach.message


def test_twenty_blank_cells_are_chance(world: World) -> None:
    few = {"persons": [person(n) for n in range(20)]}
    assert world.told(few, persons=[person(n, tier=None) for n in range(20)]) == {}


def test_a_typed_column_is_blank_where_it_is_null(world: World) -> None:
    world.types["level"] = pa.int64()
    before = {"contacts": [contact(n, level=0) for n in range(ROWS)]}
    today = [contact(n, level=None) for n in range(ROWS)]
    assert world.told(before, contacts=today) == {"contacts.level.filled": {"persons"}}


def test_columns_that_only_one_day_has_are_not_compared(world: World) -> None:
    bare = [{"id": f"C{n}", "phone": f"+1312556{n:04}"} for n in range(ROWS)]
    assert world.told(contacts=bare) == {}


def test_an_old_copy_is_told_with_its_age_in_hours(world: World) -> None:
    found = world.breaches(contacts=[contact(n) for n in range(ROWS - 6)])
    assert {(b.guard, b.lane, b.value, b.limit) for b in found} == {
        ("contacts.sms_at.newest", lane, 6, 0) for lane in BOTH
    }
    assert "2026-01-04 21:00 UTC; what was last accepted had one of 2026-01-05 03:00" in (
        found[0].message
    )


def test_what_lies_in_the_future_of_its_source_is_not_its_newest(world: World) -> None:
    world.as_of = "2026-01-10T00:00:00Z"
    wrong = contact(ROWS, sms_at="2026-01-10 00:00:01")
    last = contact(ROWS, sms_at="2026-01-10 00:00:00")
    before = {"contacts": [*(contact(n) for n in range(ROWS)), wrong]}
    assert world.told(before, contacts=[*(contact(n) for n in range(ROWS)), last]) == {}


def test_instants_are_compared_and_not_their_spelling(world: World) -> None:
    before = {"contacts": [contact(n, sms_at="2026-01-04 23:30:00 -0200") for n in range(ROWS)]}
    today = [contact(n, sms_at="2026-01-05 01:00:00") for n in range(ROWS)]
    [breach, _] = world.breaches(before, contacts=today)
    assert (breach.guard, breach.value) == ("contacts.sms_at.newest", 0.5)


def test_a_typed_column_has_a_newest_instant_too(world: World) -> None:
    world.types["sms_at"] = pa.timestamp("us")
    before = {"contacts": [contact(n, sms_at=DAWN) for n in range(ROWS)]}
    today = [contact(n, sms_at=DAWN - timedelta(hours=2)) for n in range(ROWS)]
    assert {(b.guard, b.value) for b in world.breaches(before, contacts=today)} == {
        ("contacts.sms_at.newest", 2)
    }


def test_the_newest_event_of_the_lists_is_an_opt_in_or_an_opt_out(world: World) -> None:
    before = {"subscriptions": [stay(n, opt_out_date=str(DAWN)) for n in range(ROWS)]}
    today = [stay(n, opt_in_date=str(DAWN), opt_out_date=str(DAWN)) for n in range(ROWS)]
    found = world.breaches(before, subscriptions=today)
    assert {(b.guard, b.lane, b.value) for b in found} == {
        ("subscriptions.opt_in_date.newest", "opt_outs", 99)
    }
    assert "the newest opt_in_date and opt_out_date is of 2026-01-01 00:00" in found[0].message


def test_half_of_the_stays_may_go(world: World) -> None:
    assert world.told(subscriptions=[stay(n) for n in range(50, ROWS)]) == {}


def test_fewer_stays_are_told_with_their_share(world: World) -> None:
    found = world.breaches(subscriptions=[stay(n) for n in range(60, ROWS)])
    assert {(b.guard, b.lane, b.value, b.limit) for b in found} == {
        ("subscriptions.min_input_share", "opt_outs", 0.4, 0.5),
        ("subscriptions.opt_out_date.filled", "opt_outs", 0.4, 0.5),
    }


def test_ended_stays_are_counted_apart(world: World) -> None:
    today = [stay(n, opt_out_date=" " if n < 70 else str(DAWN)) for n in range(ROWS)]
    accepted = {"subscriptions": [stay(n, opt_out_date=str(DAWN)) for n in range(ROWS)]}
    assert set(world.told(accepted, subscriptions=today)) == {"subscriptions.opt_out_date.filled"}


def test_a_list_is_known_by_the_share_or_by_the_sync_config(world: World) -> None:
    of_the_share = [stay(n, subscription_list_id="9") for n in range(3)]
    today = [stay(n) for n in range(ROWS)] + of_the_share
    events = [stay(1, subscription_list_id=" 9"), stay(2, subscription_list_id="8")]
    assert world.told(subscriptions=today, events=events) == {}


def test_the_sync_config_knows_its_lists_without_the_share(world: World) -> None:
    nobody = {"subscriptions": [stay(n, subscription_list_id="9") for n in range(3)]}
    assert world.told(nobody, **nobody, events=[stay(1)]) == {}


def test_events_of_strangers_are_told(world: World) -> None:
    found = world.breaches(events=[stay(n, subscription_list_id="8") for n in range(3)])
    assert [(b.guard, b.lane, b.value, b.limit) for b in found] == [
        ("extract/subscriptions.known_lists", "opt_outs", 0, 1)
    ]
    assert "none of 3 events" in found[0].message
