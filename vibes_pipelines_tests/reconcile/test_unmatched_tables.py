"""Who stopped meeting the conditions, and what that leaves to do, on tables made by hand."""

import dataclasses
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vibes_pipelines.reconcile.base import FIELDS, Base, current_meanings
from vibes_pipelines.reconcile.errors import ReconcileError
from vibes_pipelines.reconcile.identifiers import HashCollision, Identifiers
from vibes_pipelines.reconcile.scan import Sides
from vibes_pipelines.reconcile.unmatched import build_unmatched
from vibes_pipelines_tests.reconcile.conftest import build_config
from vibes_pipelines_tests.reconcile.tables import TEXT

AUTHORITIES = {"name": "crm", "club": "platform", "score": "fill", "mood": "newest"}
MAPPED = [
    {"from": n, "to": n, "type": "string", "authority": a}
    | ({"changed_at": "at"} if a == "newest" else {})
    for n, a in AUTHORITIES.items()
]
PERSON = dict.fromkeys(("person_key", "external_person_id", "mdn", *AUTHORITIES), "VARCHAR")
EXCEPTION = {
    "person_row": "BIGINT",
    "person_key": "VARCHAR",
    "external_person_id": "VARCHAR",
    "unknown": "VARCHAR[]",
    "has_matched": "BOOLEAN",
    "mdn": "VARCHAR",
    "carrier_code": "VARCHAR",
    "number_since": "TIMESTAMP",
} | dict.fromkeys(AUTHORITIES, "VARCHAR")
MATCH = "contact_row BIGINT, person_row BIGINT, matched_by VARCHAR, passes BOOLEAN, is_odd BOOLEAN"
VALUES = ("Ann", "chess", "5", "glad")


def filtered(number, *, passes=False, is_odd=False):
    return 10 + number, number, "external_person_id", passes, is_odd


FILTERED = (filtered(0),)


@pytest.fixture
def left(tables, tmp_path):
    """Builds the tables for persons k0, k1 ... that are contacts C0, C1 ..., today and before."""

    def left(
        policy,
        match=FILTERED,
        *,
        values=(VALUES,),
        exceptions=(),
        contact_texts=None,
        mdns=("+1", "+9"),
        person_key=lambda number: f"k{number}",
        external=lambda number: f"C{number}",
        base="recorded",
        **more,
    ):
        contacts = {"key": "id", "when_unmatched": policy}
        consents = [{"from": "sms", "list": "77"}]
        config = build_config(contacts=contacts, fields=MAPPED, consents=consents)
        numbers = range(len(values))
        rows = [(f"K{n}", f"C{n}", None, *values[n]) for n in numbers]
        persons, before = (tables.source(name, PERSON, rows) for name in ("persons", "before"))
        known = tables.source("exceptions", EXCEPTION, exceptions)
        file = tmp_path / "exceptions.parquet"
        meanings = {FIELDS: json.dumps(current_meanings(config))}
        pq.write_table(pa.table({"x": [1]}).replace_schema_metadata(meanings), file)
        bases = {
            "recorded": Base(before, dataclasses.replace(known, path=file)),
            "made by hand": Base(before),
            "none": None,
        }
        tables.create("match", MATCH, match)
        texts = [(10 + n, f"C{n}", None, mdns[1], False) for n in numbers]
        tables.create("contact_text", TEXT, contact_texts or texts)
        people = [(n, external(n), person_key(n), mdns[0], False) for n in numbers]
        tables.create("person_text", TEXT, people)
        none = Identifiers("NULL", "NULL", None)
        sides = Sides(persons, persons, none, none)
        build_unmatched(tables.connection, config, sides, bases[base], **more)
        return tables.rows("SELECT * FROM unmatched ORDER BY ALL")

    return left


FOUND = [(10, 0, "C0", "k0", "+1", "external_person_id")]
"""Both rows, keys of both, the number, and by what they were matched."""


@pytest.mark.parametrize(
    ("policy", "expected"), [("keep", []), ("clear", FOUND), ("opt_out", FOUND)]
)
def test_who_met_the_conditions_and_does_not_any_more_is_found_where_that_matters(
    left, policy, expected
):
    assert left(policy) == expected


@pytest.mark.parametrize(
    "match",
    [filtered(0, passes=True), filtered(0, is_odd=True), filtered(0, passes=True, is_odd=True)],
)
def test_who_meets_them_or_is_in_doubt_is_not(left, match):
    assert left("clear", [match]) == []


@pytest.mark.parametrize("base", ["made by hand", "none"])
def test_only_a_base_of_the_daily_job_knows_who_met_them(left, base):
    assert left("clear", base=base) == []


@pytest.mark.parametrize(("has_matched", "expected"), [(False, []), (True, FOUND)])
def test_an_exception_tells_it_in_place_of_the_landed_person(left, has_matched, expected):
    instead = (0, "k0", "C0", [], has_matched, None, None, None, *VALUES)
    assert left("clear", exceptions=[instead]) == expected


def test_what_was_agreed_with_another_contact_is_not_about_this_one(left):
    other = (0, "k0", "C9", [], True, None, None, None, *VALUES)
    assert left("clear", exceptions=[other]) == []


def test_a_pair_of_two_keys_with_one_hash_is_a_collision(left):
    with pytest.raises(HashCollision):
        left("clear", contact_texts=[(10, "C0 with the same hash", None, None, False)])


def test_a_person_without_the_key_is_no_collision(left):
    assert left("clear", external=lambda _: None) == FOUND


def change(field, before):
    return {
        "field": field,
        "action": "clear",
        "before": before,
        "after": None,
        "reason": "unmatched",
    }


def test_clear_proposes_to_empty_what_is_the_crms(left, tables):
    left("clear")
    proposed = tables.rows("SELECT * FROM unmatched_proposal")
    assert proposed == [
        (
            *(10, "C0", "k0", "+1", "external_person_id", False, True),
            [change("mood", "glad"), change("name", "Ann")],
            [],
        )
    ]


def test_what_is_empty_already_is_not_cleared(left, tables):
    left("clear", values=[(" ", "chess", "5", "glad")])
    assert tables.rows("SELECT changes FROM unmatched_proposal") == [([change("mood", "glad")],)]


def test_the_number_is_the_contacts_where_the_person_has_none(left, tables):
    left("clear", mdns=(None, "+9"))
    assert tables.rows("SELECT mdn FROM unmatched_proposal") == [("+9",)]


def test_each_contact_is_proposed_with_its_own_person(left, tables):
    other = ("Bob", None, None, None)
    left("clear", [filtered(1), filtered(2, passes=True)], values=[VALUES, other, VALUES])
    assert tables.rows(
        "SELECT contact_row, contact_key, person_key, changes FROM unmatched_proposal"
    ) == [(11, "C1", "k1", [change("name", "Bob")])]
    assert tables.rows("SELECT * FROM unmatched_value") == [(1, *other)]


def test_opt_out_and_keep_propose_nothing(left, tables):
    left("opt_out")
    assert tables.rows("SELECT * FROM unmatched_proposal") == []


@pytest.mark.parametrize("policy", ["keep", "opt_out"])
def test_where_the_destination_deletes_it_is_told_whom(left, tables, policy):
    left(policy, deletes=True)
    assert tables.rows("SELECT * FROM deletion") == [("C0", "k0", "external_person_id")]


def test_nobody_is_deleted_where_the_destination_does_not(left, tables):
    left("clear")
    assert tables.rows("SELECT * FROM deletion") == []


def test_nobody_is_deleted_without_a_base(left, tables):
    left("keep", deletes=True, base="made by hand")
    assert tables.rows("SELECT * FROM deletion") == []


def test_a_missing_column_is_told_by_the_field_that_wants_it(tables):
    config = build_config(contacts={"key": "id", "when_unmatched": "clear"})
    persons = tables.source("persons", {"person_key": "VARCHAR"})
    none = Identifiers("NULL", "NULL", None)
    with pytest.raises(ReconcileError, match=r"no column 'name', wanted by fields.to: name"):
        build_unmatched(tables.connection, config, Sides(persons, persons, none, none), None)
