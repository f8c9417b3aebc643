"""Succession: what in a source that is whole says that it does not follow the accepted one."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vibes_pipelines.reconcile.guards import SMALL, check_quarantine
from vibes_pipelines.reconcile.succession import Sources, check_succession
from vibes_pipelines.sync_config import Guards, SyncConfig

CONFIG = SyncConfig.model_validate(
    {
        "version": 1,
        "company_key": "A1b2C3",
        "contacts": {"key": "id", "mdn": {"column": "phone", "default_region": "US"}},
        "fields": [
            {"from": "first", "to": "first_name", "type": "string"},
            {"from": "level", "to": "tier", "type": "string", "authority": "platform"},
        ],
        "consents": [{"from": "sms", "list": "1234", "changed_at": "sms_at"}],
    }
)
ROWS = 1_000
BOTH = {"persons", "opt_outs"}

Row = dict[str, Any]


def contact(number: int, **cells: object) -> Row:
    row = {"id": f"C{number}", "phone": f"+1312556{number:04}", "first": f"Ada {number}"}
    said = datetime(2026, 1, 1) + timedelta(minutes=number)  # noqa: DTZ001 - as a CRM holds it
    return row | {"level": "gold", "sms": "yes", "sms_at": str(said)} | cells


def person(number: int, **cells: object) -> Row:
    row = {"person_key": f"k{number}", "external_person_id": f"C{number}"}
    return row | {"mdn": f"+1312556{number:04}", "first_name": "Ada", "tier": "gold"} | cells


def stay(number: int, **cells: object) -> Row:
    since = str(datetime(2026, 1, 1) + timedelta(minutes=number))  # noqa: DTZ001 - NTZ
    until = str(datetime(2026, 2, 1)) if number % 10 == 0 else None  # noqa: DTZ001 - NTZ
    row = {"person_key": f"k{number}", "subscription_list_id": "1234"}
    return row | {"opt_in_date": since, "opt_out_date": until} | cells


class Sides:
    """One day's sources; each side is the healthy one unless it is given."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, name: str, **given: list[Row]) -> Sources:
        healthy = {
            "contacts": [contact(number) for number in range(ROWS)],
            "persons": [person(number) for number in range(ROWS)],
            "subscriptions": [stay(number) for number in range(ROWS)],
            "events": [stay(1)],
        }
        (self.folder / name).mkdir()
        paths = {}
        for side, rows in (healthy | given).items():
            paths[side] = self.folder / name / f"{side}.parquet"
            columns = {column: pa.string() for column in healthy[side][0]}
            pq.write_table(pa.Table.from_pylist(rows, pa.schema(columns.items())), paths[side])
        return Sources(**paths)

    def breaches(self, **today: list[Row]) -> dict[str, set[str]]:
        """The lanes that each guard holds."""
        found = check_succession(CONFIG, self.write("today", **today), self.write("accepted"))
        lanes: dict[str, set[str]] = {}
        for breach in found:
            lanes.setdefault(breach.guard, set()).add(breach.lane)
        return lanes


@pytest.fixture
def sides(tmp_path: Path) -> Sides:
    return Sides(tmp_path)


def test_the_same_sources_again_follow(sides: Sides) -> None:
    assert sides.breaches() == {}


def test_ordinary_change_follows(sides: Sides) -> None:
    left, edited = range(150), {number: {"first": "Ida"} for number in range(150, 190)}
    today = [contact(number, **edited.get(number, {})) for number in range(len(left), ROWS + 100)]
    assert sides.breaches(contacts=today) == {}


@pytest.mark.parametrize(
    ("cells", "guards"),
    [
        ({"id": "{id}-X"}, {"contacts.known_keys": BOTH}),
        ({"phone": "0{phone}"}, {"contacts.phone.rewritten": BOTH}),
        ({"first": "{first}?"}, {"contacts.first.rewritten": {"persons"}}),
        ({"level": "other"}, {}),  # our own write-backs change it
    ],
)
def test_rewritten_columns_are_seen(
    sides: Sides, cells: dict[str, str], guards: dict[str, set[str]]
) -> None:
    rows = [contact(number) for number in range(ROWS)]
    spoilt = [r | {name: text.format(**r) for name, text in cells.items()} for r in rows]
    assert sides.breaches(contacts=spoilt) == guards


@pytest.mark.parametrize(("edited", "is_held"), [(50, False), (51, True)])
def test_a_column_may_differ_in_its_share(sides: Sides, edited: int, is_held: bool) -> None:
    today = [contact(n, **({"first": "Ida"} if n < edited else {})) for n in range(ROWS)]
    assert bool(sides.breaches(contacts=today)) == is_held


@pytest.mark.parametrize(
    ("side", "cells", "guards"),
    [
        ("contacts", {"sms": None}, {"contacts.sms.filled": {"opt_outs"}}),
        ("contacts", {"level": "  "}, {"contacts.level.filled": {"persons"}}),
        ("persons", {"mdn": None}, {"persons.mdn.filled": BOTH}),
        ("persons", {"tier": ""}, {"persons.tier.filled": {"persons"}}),
    ],
)
def test_a_column_that_went_blank_is_seen(
    sides: Sides, side: str, cells: Row, guards: dict[str, set[str]]
) -> None:
    make = {"contacts": contact, "persons": person}[side]
    assert sides.breaches(**{side: [make(number, **cells) for number in range(ROWS)]}) == guards


def test_an_old_copy_is_known_by_its_newest_consent(sides: Sides) -> None:
    today = [contact(number) for number in range(ROWS - 1)]
    assert sides.breaches(contacts=today) == {"contacts.sms_at.newest": BOTH}


def test_fewer_stays_hold_the_opt_outs_alone(sides: Sides) -> None:
    of_another_list = [stay(number, subscription_list_id="9") for number in range(ROWS)]
    found = sides.breaches(subscriptions=of_another_list)
    assert set(found) == {"subscriptions.min_input_share", "subscriptions.opt_out_date.filled"}
    assert found["subscriptions.min_input_share"] == {"opt_outs"}


def test_doubled_stays_are_no_more_stays(sides: Sides) -> None:
    doubled = [stay(number) for number in range(ROWS)] * 2
    assert sides.breaches(subscriptions=doubled) == {}


def test_events_of_unknown_lists_alone_are_not_believed(sides: Sides) -> None:
    strange = stay(2, subscription_list_id="777")
    assert sides.breaches(events=[strange]) == {"extract/subscriptions.known_lists": {"opt_outs"}}


def test_a_day_without_events_is_a_quiet_day(sides: Sides) -> None:
    assert sides.breaches(events=[]) == {}


@pytest.mark.parametrize(
    ("risen", "of_identity", "lanes"),
    [
        (50, 50, set()),
        (51, 0, {"persons"}),
        (51, 51, BOTH),
        (-400, -400, set()),
    ],
)
def test_a_rise_of_the_quarantine_holds(risen: int, of_identity: int, lanes: set[str]) -> None:
    found = check_quarantine(Guards(), 1_000, risen, of_identity)
    assert {breach.lane for breach in found} == lanes


def test_few_rows_in_quarantine_are_chance() -> None:
    assert list(check_quarantine(Guards(), 30, SMALL, SMALL)) == []
