"""Findings: which kinds there are, what they are about, and the sentence that each has."""

import pytest

from vibes_pipelines.reconcile.findings import (
    DECIDABLE,
    NOT_OF_IDENTITY,
    OF_FIELDS,
    OF_NUMBERS,
    REFUSED_MDNS,
    add_findings,
    create_finding,
    tell_why_mdns_are_refused,
)
from vibes_pipelines.reconcile.phone import Refusal
from vibes_pipelines_tests.reconcile.tables import TEXT

OF_ROWS = (
    "missing_contact_key",
    "invalid_contact_key",
    "duplicate_contact_key",
    "duplicate_person_key",
    "duplicate_external_id",
    "shared_mdn",
    "identity_split",
    "shared_person",
    "mdn_change",
    "invalid_mdn",
    "erased",
    "erased_number",
)


@pytest.fixture
def findings(tables):
    create_finding(tables.connection)
    return lambda: tables.rows("SELECT source, row_number, kind, detail FROM finding ORDER BY ALL")


@pytest.mark.parametrize("kind", OF_ROWS)
def test_every_kind_of_row_has_a_sentence(tables, findings, kind):
    add_findings(tables.connection, kind, "contact", "SELECT 7")
    [(source, row, found, detail)] = findings()
    assert (source, row, found) == ("contact", 7, kind)
    assert len(detail.split()) > 3


def test_a_row_is_found_once_per_kind_and_side(tables, findings):
    rows = "SELECT unnest([3, 3, 4]) WHERE ? = 'y'"
    add_findings(tables.connection, "shared_mdn", "person", rows, ["y"])
    add_findings(tables.connection, "shared_mdn", "contact", "SELECT 3")
    assert [row[:2] for row in findings()] == [("contact", 3), ("person", 3), ("person", 4)]


def test_what_is_about_numbers_or_values_leaves_no_doubt_who_it_is():
    assert set(OF_NUMBERS) == {"mdn_change", "mdn_recycled"}
    assert set(OF_FIELDS) == {"unknown_option", "invalid_value"}
    assert set(NOT_OF_IDENTITY) == {*OF_NUMBERS, "invalid_mdn", *OF_FIELDS}


def test_a_person_can_end_a_doubt_by_saying_who_it_is_where_that_is_the_doubt():
    assert set(DECIDABLE) == {
        "duplicate_external_id",
        "duplicate_person_key",
        "erased_number",
        "identity_split",
        "invalid_mdn",
        "mdn_change",
        "shared_mdn",
        "shared_person",
    }


def test_every_refusal_of_a_number_has_a_sentence_of_its_own():
    assert set(REFUSED_MDNS) == set(Refusal)
    assert len(set(REFUSED_MDNS.values())) == len(Refusal)


def test_a_number_in_doubt_is_shown_with_the_reason(tables, findings):
    texts = ["n/a", "020 7946 0958", "n/a", None, "12"]
    rows = [(number, None, None, text, True) for number, text in enumerate(texts)]
    tables.create("contact_name", TEXT, rows)
    add_findings(tables.connection, "invalid_mdn", "contact", "SELECT unnest([0, 1, 2])")
    add_findings(tables.connection, "mdn_change", "contact", "SELECT unnest([0, 4])")
    add_findings(tables.connection, "invalid_mdn", "person", "SELECT 1")
    others = {row for row in findings() if (row[0], row[2]) != ("contact", "invalid_mdn")}
    tell_why_mdns_are_refused(tables.connection, "GB")
    assert set(findings()) == others | {
        ("contact", 0, "invalid_mdn", "the mdn is not a phone number"),
        ("contact", 1, "invalid_mdn", "the mdn is a landline"),
        ("contact", 2, "invalid_mdn", "the mdn is not a phone number"),
    }
    judged = tables.rows("SELECT phone FROM judged_phone ORDER BY phone")
    assert judged == [("020 7946 0958",), ("n/a",)]


def test_the_reason_is_told_where_nothing_else_is_in_doubt(tables, findings):
    tables.create("contact_name", TEXT, [(0, None, None, "12", True)])
    add_findings(tables.connection, "invalid_mdn", "contact", "SELECT 0")
    tell_why_mdns_are_refused(tables.connection, "GB")
    assert findings() == [("contact", 0, "invalid_mdn", REFUSED_MDNS[Refusal.TOO_SHORT])]


def test_nothing_is_judged_where_no_number_is_in_doubt(tables, findings):
    add_findings(tables.connection, "mdn_change", "contact", "SELECT 0")
    before = findings()
    tell_why_mdns_are_refused(tables.connection, "GB")
    assert findings() == before
