"""The agreement of real days; each rule of it by itself is in test_agreement_tables."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vibes_pipelines.reconcile.agreement import AGREEMENT, compared_persons
from vibes_pipelines_tests.reconcile.conftest import Row, build_config
from vibes_pipelines_tests.reconcile.test_reconcile_next_base import Days

FIELDS = [
    {"from": "name", "to": "name", "type": "string"},
    {"from": "city", "to": "city", "type": "string"},
    {"from": "club", "to": "club", "type": "string", "authority": "platform"},
]
CONTACTS = {"key": "id", "conditions": [{"column": "type", "equals": "A"}]}
ALL = ["name", "city", "club"]
VALUES = {"name": "a", "city": "b", "club": "c"}


def contact(number: int, kind: str = "A", **cells: Any) -> Row:
    return {"id": f"C{number}", "type": kind, **VALUES, **cells}


def person(number: int, **cells: Any) -> Row:
    return {"person_key": f"K{number}", "external_person_id": f"C{number}", **VALUES, **cells}


def start(folder: Path, policy: str = "keep") -> Days:
    contacts = CONTACTS | {"when_unmatched": policy}
    consents = [{"from": "sms", "list": "77"}]
    return Days(folder, build_config(contacts=contacts, fields=FIELDS, consents=consents))


def listed(out: Path) -> dict[int, tuple[Any, ...]]:
    """By row of the persons: contact, agreed fields, is it judged, does it pass, is it settled."""
    names = ("contact_key", "fields", "is_judged", "passes", "is_settled")
    rows = pq.read_table(out / AGREEMENT).to_pylist()
    assert [row["person_row"] for row in rows] == sorted(row["person_row"] for row in rows)
    return {row["person_row"]: tuple(row[name] for name in names) for row in rows}


def test_a_day_lists_whoever_does_not_simply_agree(tmp_path: Path) -> None:
    contacts = [
        contact(1),
        contact(2, name="x"),
        contact(3, city=None, club="x"),
        contact(4),
        contact(5, "B"),
        contact(6, "B", name="x"),
    ]
    persons = [person(1), person(2), person(3, city=""), person(4), person(5), person(6)]
    doubtful, alone = person(7, external_person_id="C4"), person(8)
    out = start(tmp_path).day(contacts, [*persons, doubtful, alone])
    nothing_new = (None, [], False, False, False)
    assert listed(out) == {
        1: ("C2", ["city", "club"], True, True, False),
        2: ("C3", ["name", "city"], True, True, False),
        3: nothing_new,
        4: (None, ALL, True, False, False),
        5: (None, [], True, False, False),
        6: nothing_new,
        7: nothing_new,
    }


def test_what_was_cleared_of_an_unmatched_contact_is_agreed_and_then_settled(
    tmp_path: Path,
) -> None:
    days = start(tmp_path, "clear")
    days.day([contact(1)], [person(1)])
    out = days.day([contact(1, "B", name="x")], [person(1)])
    assert listed(out) == {0: (None, [], True, False, False)}
    out = days.day([contact(1, "B")], [person(1, name=None)])
    assert listed(out) == {0: (None, ["name"], True, False, False)}
    out = days.day([contact(1, "B")], [person(1, name=None, city=None)])
    assert listed(out) == {0: (None, ["name", "city"], True, False, True)}


SUBSCRIBED = {"person_key": "K1", "subscription_list_id": "77", "opt_in_date": "2025-01-01"}


def test_an_unmatched_contact_is_settled_when_nobody_is_left_to_opt_out(tmp_path: Path) -> None:
    days = start(tmp_path, "opt_out")
    days.day([contact(1)], [person(1)], subscriptions=[SUBSCRIBED])
    out = days.day([contact(1, "B")], [person(1)], subscriptions=[SUBSCRIBED])
    assert listed(out) == {0: (None, ALL, True, False, False)}
    ended = SUBSCRIBED | {"opt_out_date": "2026-01-01"}
    out = days.day([contact(1, "B")], [person(1)], subscriptions=[ended])
    assert listed(out) == {0: (None, ALL, True, False, True)}


def test_it_says_which_persons_it_is_about(tmp_path: Path) -> None:
    out = start(tmp_path).day([contact(1)], [person(1)])
    manifest = json.loads((tmp_path / "1" / "persons" / "manifest.json").read_text())
    assert compared_persons(out) == manifest["content_hash"]


def test_without_the_file_or_its_mark_nobody_knows(tmp_path: Path) -> None:
    assert compared_persons(tmp_path) is None
    pq.write_table(pa.table({"person_row": [1]}), tmp_path / AGREEMENT)
    assert compared_persons(tmp_path) is None
