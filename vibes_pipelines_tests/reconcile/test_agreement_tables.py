"""What a day saw of agreement, on tables made by hand: who is listed, and with what."""

import dataclasses
import json
from datetime import datetime

import pyarrow.parquet as pq
import pytest

from vibes_pipelines.reconcile.agreement import compared_persons, write_agreement
from vibes_pipelines.reconcile.base import FIELDS, current_meanings
from vibes_pipelines.reconcile.findings import create_finding
from vibes_pipelines_tests.reconcile.conftest import build_config

MAPPED = [
    {"from": "name", "to": "name", "type": "string"},
    {"from": "club", "to": "club", "type": "string", "authority": "platform"},
    {"from": "city", "to": "city", "type": "string"},
]
ALL = ["name", "club", "city"]
PERSON, CONTACT = 5, 15
SINCE = datetime(2026, 1, 3)  # noqa: DTZ001 - as DuckDB has it, in UTC
COLUMNS = {
    "person": "row_number BIGINT, key VARCHAR",
    "contact_text": "row_number BIGINT, key VARCHAR",
    "match": "contact_row BIGINT, person_row BIGINT, passes BOOLEAN, differs BOOLEAN,"
    " is_odd BOOLEAN",
    "difference": "person_row BIGINT, contact_key VARCHAR, cells STRUCT(field VARCHAR)[]",
    "unmatched": "contact_row BIGINT, person_row BIGINT",
    "unmatched_value": "row_number BIGINT, value_0 VARCHAR, value_1 VARCHAR, value_2 VARCHAR",
    "opt_out": "person_row BIGINT, side VARCHAR",
    "number_period": "person_row BIGINT, since TIMESTAMP",
}
DEFAULTS = {"person": [(PERSON, "C1")], "contact_text": [(CONTACT, "C1")]}


@pytest.fixture
def listed(tables, tmp_path):
    """By person: contact, fields, is judged, passes, is settled, and since when it has its number.

    Tables that are not named are empty but for one person and the text of one contact.
    """

    def listed(policy="keep", fields=MAPPED, persons_path=tmp_path, **rows):
        contacts = {"key": "id", "when_unmatched": policy}
        consents = [{"from": "sms", "list": "77"}]
        config = build_config(contacts=contacts, fields=fields, consents=consents)
        create_finding(tables.connection)
        for source, number, kind in rows.pop("finding", ()):
            tables.connection.execute(
                f"INSERT INTO finding VALUES ('{source}', {number}, '{kind}', '')"
            )
        for name, columns in COLUMNS.items():
            tables.create(name, columns, rows.pop(name, DEFAULTS.get(name, ())))
        assert not rows
        persons = dataclasses.replace(
            tables.source("persons", {"mdn": "VARCHAR"}), path=persons_path
        )
        write_agreement(tables.connection, config, persons, tmp_path)
        written = pq.read_table(tmp_path / "agreement.parquet").to_pylist()
        names = ("contact_key", "fields", "is_judged", "passes", "is_settled", "number_since")
        return [(row["person_row"], *(row[name] for name in names)) for row in written]

    return listed


def pair(person=PERSON, *, passes=True, differs=False, is_odd=False):
    return person + 10, person, passes, differs, is_odd


def differing(*fields, person=PERSON):
    return person, "C1", [{"field": name} for name in fields]


NOTHING = (PERSON, None, [], False, False, False, None)


def test_who_agrees_is_not_listed(listed):
    assert listed(match=[pair()]) == []


def test_who_differs_is_listed_with_its_contact_and_the_fields_that_are_equal(listed):
    new_contact = differing("name", person=None)
    assert listed(match=[pair(differs=True)], difference=[differing("name"), new_contact]) == [
        (PERSON, "C1", ["club", "city"], True, True, False, None)
    ]


def test_the_fields_of_no_agreement_are_none(listed):
    [row] = listed(match=[pair(differs=True)], difference=[differing(*ALL)])
    assert row[2] == []


def test_an_identifier_that_differs_is_no_field(listed):
    [row] = listed(match=[pair()], difference=[differing("mdn")])
    assert row[2] == ALL


def test_of_whom_no_contact_is_sure_nothing_new_is_known(listed):
    assert listed() == [NOTHING]


@pytest.mark.parametrize("passes", [True, False])
def test_of_a_contact_in_doubt_nothing_new_is_known(listed, passes):
    assert listed(match=[pair(is_odd=True, passes=passes)]) == [NOTHING]


@pytest.mark.parametrize(
    ("source", "row", "kind", "expected"),
    [
        ("contact", CONTACT, "invalid_value", [NOTHING]),
        ("contact", CONTACT, "unknown_option", []),
        ("contact", PERSON, "invalid_value", []),
        ("person", CONTACT, "invalid_value", []),
    ],
)
def test_a_value_that_cannot_be_read_is_such_a_doubt(listed, source, row, kind, expected):
    assert listed(match=[pair()], finding=[(source, row, kind)]) == expected


@pytest.mark.parametrize(("differs", "fields"), [(False, ALL), (True, [])])
def test_a_filtered_contact_agrees_in_all_or_in_nothing_that_is_known(listed, differs, fields):
    assert listed(match=[pair(passes=False, differs=differs)]) == [
        (PERSON, None, fields, True, False, False, None)
    ]


@pytest.mark.parametrize(("key", "contact"), [(None, "C1"), ("C1", None)])
def test_a_filtered_contact_is_named_where_its_person_does_not_name_it(listed, key, contact):
    [row] = listed(match=[pair(passes=False)], person=[(PERSON, key)])
    assert row[1] == contact


UNMATCHED = {"match": [pair(passes=False, differs=True)], "unmatched": [(CONTACT, PERSON)]}


def judged(fields, *, is_settled):
    return [(PERSON, None, fields, True, False, is_settled, None)]


@pytest.mark.parametrize(
    ("cells", "fields", "is_settled"),
    [
        (("a", None, "c"), [], False),
        ((None, "b", "c"), ["name"], False),
        (("a", None, None), ["city"], False),
        ((None, "b", None), ["name", "city"], True),
    ],
)
def test_what_is_cleared_is_agreed_and_all_of_it_settles(listed, cells, fields, is_settled):
    told = listed("clear", unmatched_value=[(PERSON, *cells)], **UNMATCHED)
    assert told == judged(fields, is_settled=is_settled)


@pytest.mark.parametrize("value", [(PERSON, "b"), (PERSON, None)])
def test_who_has_nothing_to_clear_is_settled_at_once(listed, value):
    platforms = MAPPED[1:2]
    cells = (*value, None, None)
    told = listed("clear", platforms, unmatched_value=[cells], **UNMATCHED)
    assert told == judged([], is_settled=True)


def test_where_nothing_is_cleared_yet_nothing_is_agreed_or_settled(listed):
    assert listed("clear", **UNMATCHED) == judged([], is_settled=False)


def test_who_was_never_matched_is_not_settled_by_being_empty(listed):
    never = UNMATCHED | {"unmatched": []}
    told = listed("clear", unmatched_value=[(PERSON, None, None, None)], **never)
    assert told == judged([], is_settled=False)


@pytest.mark.parametrize(
    ("opt_outs", "is_settled"),
    [
        ([], True),
        ([(PERSON, "platform")], False),
        ([(PERSON, "crm")], True),
        ([(PERSON + 1, "platform")], True),
    ],
)
def test_who_has_nothing_left_to_opt_out_of_is_settled(listed, opt_outs, is_settled):
    assert listed("opt_out", opt_out=opt_outs, **UNMATCHED) == judged([], is_settled=is_settled)


def test_who_was_never_matched_is_not_settled_by_opt_outs_either(listed):
    assert listed("opt_out", **UNMATCHED | {"unmatched": []}) == judged([], is_settled=False)


def test_keep_settles_nothing(listed):
    assert listed("keep", **UNMATCHED) == judged([], is_settled=False)


def test_since_when_it_has_its_number_is_told_of_everybody(listed):
    people = [(PERSON + number, "C1") for number in range(3)]
    assert listed(
        person=people,
        match=[pair(), pair(PERSON + 2)],
        number_period=[(PERSON + 1, SINCE), (PERSON, SINCE)],
    ) == [
        (PERSON, None, None, True, True, False, SINCE),
        (PERSON + 1, None, [], False, False, False, SINCE),
    ]


def test_rows_are_in_the_order_of_the_persons(listed):
    numbers = [9, 3, 7, 1]
    told = listed(
        person=[(number, "C1") for number in numbers],
        match=[pair(3), pair(7, passes=False)],
        number_period=[(3, SINCE)],
    )
    assert [row[0] for row in told] == sorted(numbers)


def test_the_file_tells_the_meaning_of_each_field_by_name(listed, tmp_path):
    listed()
    meanings = current_meanings(build_config(fields=MAPPED))
    known = pq.read_metadata(tmp_path / "agreement.parquet").metadata[FIELDS.encode()].decode()
    assert known == json.dumps(dict(sorted(meanings.items())))


def test_the_file_tells_which_persons_it_is_about(listed, tmp_path):
    (tmp_path / "manifest.json").write_text(json.dumps({"content_hash": "abc"}))
    listed()
    assert compared_persons(tmp_path) == "abc"


def test_persons_that_were_not_landed_have_no_mark(listed, tmp_path):
    listed(persons_path=tmp_path / "persons.csv")
    assert compared_persons(tmp_path) is None
    assert compared_persons(tmp_path / "nowhere") is None
