"""Counting: what each number of the summary counts, on tables made by hand."""

import pytest

from vibes_pipelines.reconcile.changes import CHANGES
from vibes_pipelines.reconcile.counts import read_counts
from vibes_pipelines.reconcile.findings import create_finding

COLUMNS = {
    "contact": "row_number BIGINT, passes BOOLEAN",
    "person": "row_number BIGINT",
    "unlinked_person": "row_number BIGINT",
    "claim": "person_row BIGINT",
    "match": "contact_row BIGINT, passes BOOLEAN, differs BOOLEAN",
    "outcome": "contact_row BIGINT, status VARCHAR, is_unmatched BOOLEAN,"
    f" changes {CHANGES}, crm_changes {CHANGES}",
    "subscription_change": "side VARCHAR, action VARCHAR",
    "candidate": "contact_row BIGINT",
    "drift": "field VARCHAR, kind VARCHAR, contacts BIGINT",
    "unreadable_condition": "name VARCHAR, contacts BIGINT",
}


@pytest.fixture
def counted(tables):
    """The counts of these tables; those that are not named are empty."""

    def counted(**rows):
        create_finding(tables.connection)
        for row in rows.pop("finding", ()):
            tables.connection.execute("INSERT INTO finding VALUES (?, ?, ?, NULL)", list(row))
        for name, columns in COLUMNS.items():
            tables.create(name, columns, rows.pop(name, ()))
        assert not rows
        return read_counts(tables.connection)

    return counted


def change(action="set", after="x"):
    return {"field": "name", "action": action, "before": "y", "after": after, "reason": "r"}


CLEAR = change("clear", None)


def outcome(contact, status="updated", changes=(), crm_changes=(), is_unmatched=False):
    return contact, status, is_unmatched, list(changes), list(crm_changes)


def test_of_nothing_everything_is_none(counted):
    counts = counted()
    assert sum(counts.statuses.values()) == 0
    assert (counts.contacts, counts.persons, counts.crm_changes) == (0, 0, 0)
    assert (counts.quarantine_kinds, counts.drift, counts.unreadable_conditions) == ({}, {}, {})


def test_contacts_persons_and_candidates_are_counted_by_row(counted):
    counts = counted(
        contact=[(number, True) for number in range(3)],
        person=[(number,) for number in range(5)],
        candidate=[(number,) for number in range(2)],
    )
    assert (counts.contacts, counts.persons, counts.candidates) == (3, 5, 2)


def test_a_contact_has_the_status_of_its_outcome_or_is_unchanged_if_it_was_paired(counted):
    counts = counted(
        contact=[(number, True) for number in range(6)],
        outcome=[outcome(0, "added"), outcome(1), outcome(2), outcome(3, "pending")],
        match=[(1, True, True), (2, True, True), (4, True, False), (5, True, True)],
    )
    known = {"added": 1, "updated": 2, "pending": 1, "unchanged": 1, "blocked": 0}
    assert {name: counts.status(name) for name in known} == known


def test_quarantined_goes_before_every_other_status(counted):
    counts = counted(
        contact=[(0, True), (1, False), (2, True), (3, True), (4, False)],
        finding=[("contact", number, "shared_mdn") for number in range(3)],
        outcome=[outcome(0), outcome(3)],
        match=[(0, True, True), (2, True, False)],
    )
    assert {name: rows for name, rows in counts.statuses.items() if rows} == {
        "quarantined": 3,
        "filtered": 1,
        "updated": 1,
    }


def test_a_contact_in_several_doubts_is_quarantined_once(counted):
    doubts = [("contact", 0, "shared_mdn"), ("contact", 0, "identity_split")]
    counts = counted(contact=[(0, True)], finding=doubts)
    assert counts.status("quarantined") == 1


def test_the_doubt_about_one_contact_is_that_of_no_other(counted):
    counts = counted(
        contact=[(0, True), (1, True), (2, True)],
        finding=[("contact", 0, "shared_mdn")],
        outcome=[outcome(number) for number in range(3)],
    )
    assert (counts.status("quarantined"), counts.status("updated")) == (1, 2)


def test_the_doubt_about_a_person_is_not_that_of_the_contact_of_the_same_row(counted):
    counts = counted(
        contact=[(0, True)], finding=[("person", 0, "shared_mdn")], outcome=[outcome(0)]
    )
    assert (counts.status("quarantined"), counts.status("updated")) == (0, 1)


def test_filtered_is_who_does_not_meet_the_conditions_whatever_was_done_about_it(counted):
    cleared = outcome(1, changes=[CLEAR], is_unmatched=True)
    under_way = [outcome(number, "pending", is_unmatched=True) for number in (2, 4)]
    others = [*under_way, outcome(3)]
    counts = counted(
        contact=[(0, False), (1, False), (2, False), (3, True), (4, False)],
        match=[(0, False, False)],
        outcome=[cleared, *others],
    )
    assert {name: rows for name, rows in counts.statuses.items() if rows} == {
        "filtered": 4,
        "updated": 1,
    }
    assert (counts.filtered_updated, counts.clears) == (1, 1)


def test_a_contact_that_came_out_twice_counts_twice_so_that_the_sum_tells(counted):
    counts = counted(contact=[(0, True)], match=[(0, True, False)] * 2)
    assert counts.status("unchanged") == 2


def test_persons_only_are_without_contact_claim_and_doubt(counted):
    counts = counted(
        unlinked_person=[(number,) for number in range(6)],
        claim=[(1,), (1,)],
        finding=[("person", 2, "shared_mdn"), ("person", 4, "erased"), ("contact", 3, "erased")],
    )
    assert counts.persons_only == 3


def test_quarantined_persons_are_counted_once_each(counted):
    kinds = ("shared_mdn", "identity_split")
    doubts = [("person", 7, kind) for kind in kinds] + [
        ("contact", row, "invalid_mdn") for row in (8, 9)
    ]
    assert counted(finding=doubts).quarantined_persons == 1


def test_kinds_of_the_quarantine_are_counted_by_row_in_the_order_of_their_names(counted):
    doubts = [("person", 1, "shared_mdn"), ("contact", 1, "shared_mdn"), ("contact", 1, "a_kind")]
    counts = counted(finding=doubts)
    assert list(counts.quarantine_kinds.items()) == [("a_kind", 1), ("shared_mdn", 2)]


def test_clears_are_updated_contacts_of_which_a_field_is_cleared(counted):
    counts = counted(
        outcome=[
            outcome(0, changes=[change(), CLEAR, CLEAR]),
            outcome(1, changes=[change()]),
            outcome(2, "pending", changes=[CLEAR]),
        ]
    )
    assert counts.clears == 1


def test_what_goes_to_the_crm_is_counted_by_field_and_by_contact(counted):
    counts = counted(
        outcome=[
            outcome(0, crm_changes=[change(), change(after=None)]),
            outcome(1, "unchanged", crm_changes=[change()]),
            outcome(2),
        ]
    )
    assert (counts.crm_changes, counts.crm_updates, counts.crm_clears) == (3, 2, 1)


def test_opt_outs_are_counted_by_the_side_that_learns_of_them_and_opt_ins_apart(counted):
    counts = counted(
        subscription_change=[
            *[("platform", "opt_out")] * 3,
            *[("crm", "opt_out")] * 4,
            ("platform", "invite"),
            ("platform", "opt_in"),
        ]
    )
    assert (counts.opt_outs_to_platform, counts.opt_outs_to_crm, counts.invites) == (3, 4, 2)


def test_drift_is_told_by_field_and_kind_where_there_is_any(counted):
    counts = counted(
        drift=[
            ("name", "platform_changed", 2),
            ("city", "platform_changed", 0),
            ("name", "both_changed", 1),
            ("city", "both_changed", 1),
        ]
    )
    assert counts.drift == {
        "city": {"both_changed": 1},
        "name": {"both_changed": 1, "platform_changed": 2},
    }
    assert [list(counts.drift), list(counts.drift["name"])] == [
        ["city", "name"],
        ["both_changed", "platform_changed"],
    ]


def test_of_several_conditions_on_a_column_the_most_unreadable_cells_count(counted):
    counts = counted(unreadable_condition=[("x", 1), ("x", 3), ("z", 0), ("a", 1)])
    assert list(counts.unreadable_conditions.items()) == [("a", 1), ("x", 3)]
