"""Settling: what is left of a proposal when what is pending and what is blocked is taken off."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from vibes_pipelines.reconcile.errors import ReconcileError
from vibes_pipelines.reconcile.settle import build_outcome
from vibes_pipelines_tests.reconcile.tables import PROPOSAL

NOON = datetime(2026, 1, 9, 12, tzinfo=UTC)
SENT = ("external_person_id", "field", "value", "accepted_at")
REFUSED = SENT[:3]
KEPT = (*REFUSED, "before", "was_accepted")


def change(field, after):
    action = "set" if after is not None else "clear"
    return {"field": field, "action": action, "before": "old", "after": after, "reason": "r"}


@pytest.fixture
def settled(tables):
    """Status, and the (field, value) that are left, of one proposal of contact C1."""

    def settled(
        changes, *, pending=None, blocked=None, kept=(), is_add=False, since=NOON, at="VARCHAR"
    ):
        tables.create(
            "proposal",
            PROPOSAL,
            [
                (7, "C1", "k1", "+1", "mdn", is_add, False, [change(*c) for c in changes], []),
            ],
        )
        held_back = [*((*row, None, None) for row in blocked or ()), *kept]
        inputs = [
            rows if rows is None else tables.source(role, columns, rows)
            for role, rows, columns in (
                ("pending", pending, dict.fromkeys(SENT, "VARCHAR") | {"accepted_at": at}),
                ("blocked", held_back or None, dict.fromkeys(KEPT, "VARCHAR")),
            )
        ]
        build_outcome(tables.connection, *inputs, since)
        told = "SELECT status, changes, is_refused FROM outcome"
        [(status, left, is_refused)] = tables.rows(told)
        assert is_refused == (status == "blocked" and not kept)
        return status, [(one["field"], one["after"]) for one in left]

    return settled


def sent(field="name", value="a", key="C1", at="2026-01-09 13:00:00"):
    return key, field, value, at


def refused(field="name", value="a", key="C1"):
    return key, field, value


def kept(field="name", value="a", key="C1", before="old"):
    return key, field, value, before, "true"


ONE = [("name", "a")]
TWO = [("city", "b"), ("name", "a")]


def test_nothing_under_way_leaves_everything(settled, tables):
    assert settled(TWO) == ("updated", TWO)
    told = (
        "contact_row, contact_key, person_key, mdn, matched_by, is_add, is_unmatched, crm_changes"
    )
    assert tables.rows(f"SELECT {told} FROM outcome") == [
        (7, "C1", "k1", "+1", "mdn", False, False, [])
    ]


def test_a_proposal_without_changes_is_unchanged(settled):
    assert settled([], pending=[sent()]) == ("unchanged", [])


def test_what_is_all_accepted_is_pending(settled):
    assert settled(ONE, pending=[sent()]) == ("pending", [])


def test_of_an_update_only_the_rest_is_left(settled):
    assert settled(TWO, pending=[sent()]) == ("updated", TWO[:1])


def test_what_was_refused_is_blocked_and_the_rest_is_left(settled):
    assert settled(TWO, blocked=[refused()]) == ("updated", TWO[:1])


@pytest.mark.parametrize("changes", [ONE, TWO])
def test_what_is_all_refused_is_blocked(settled, changes):
    assert settled(changes, blocked=[refused(), refused("city", "b")]) == ("blocked", [])


def test_what_is_partly_pending_and_else_refused_is_pending(settled):
    assert settled(TWO, pending=[sent()], blocked=[refused("city", "b")]) == ("pending", [])


def test_what_is_accepted_and_not_kept_is_blocked_and_refuses_nobody(settled):
    assert settled(TWO, kept=[kept(), kept("city", "b")]) == ("blocked", [])


def test_it_is_blocked_with_what_was_refused(settled):
    assert settled(TWO, kept=[kept()], blocked=[refused("city", "b")]) == ("blocked", [])


@pytest.mark.parametrize(
    "changed", [{"value": "b"}, {"field": "city"}, {"before": "new"}, {"before": None}]
)
def test_it_is_sent_again_when_either_side_has_another_value(settled, changed):
    assert settled(ONE, kept=[kept(**changed)]) == ("updated", ONE)


@pytest.mark.parametrize(
    "other", [{"value": "b"}, {"field": "city"}, {"key": "C2"}, {"key": None}, {"value": None}]
)
def test_only_the_same_value_of_the_same_field_and_contact_is_meant(settled, other):
    assert settled(ONE, pending=[sent(**other)], blocked=[refused(**other)]) == ("updated", ONE)


@pytest.mark.parametrize("value", ["", "a"])
def test_a_clear_is_no_value_be_it_empty(settled, value):
    clear = [("name", None)]
    assert settled(clear, pending=[sent(value=value)]) == ("updated", clear)


def test_a_pending_clear_is_pending(settled):
    assert settled([("name", None)], pending=[sent(value=None)]) == ("pending", [])


def test_a_field_and_its_value_are_kept_apart(settled):
    assert settled([("ab", "c")], pending=[sent("a", "bc")])[0] == "updated"


def test_the_key_of_what_was_sent_is_cleaned_and_its_value_is_not(settled):
    assert settled(ONE, pending=[sent(key=" C1 ")])[0] == "pending"


def test_so_is_not_the_value(settled):
    assert settled(ONE, pending=[sent(value="a ")])[0] == "updated"


@pytest.mark.parametrize(
    ("at", "status"),
    [
        ("2026-01-09 11:59:59", "updated"),
        ("2026-01-09 12:00:00", "updated"),
        ("2026-01-09 12:00:01", "pending"),
        ("2026-01-09T13:00:00+0200", "updated"),
        (None, "pending"),
        ("at noon", "pending"),
    ],
)
def test_what_should_be_visible_by_now_is_no_longer_pending(settled, at, status):
    assert settled(ONE, pending=[sent(at=at)])[0] == status


def test_times_may_stand_in_a_column_of_their_own_type(settled):
    assert (
        settled(ONE, pending=[sent(at=NOON.replace(tzinfo=None))], at="TIMESTAMP")[0] == "updated"
    )


def test_the_limit_may_be_told_in_any_zone(settled):
    here = NOON.astimezone(timezone(timedelta(hours=2)))
    assert settled(ONE, pending=[sent(at="2026-01-09 12:00:00")], since=here)[0] == "updated"


def test_without_a_limit_everything_accepted_is_pending(settled):
    assert settled(ONE, pending=[sent(at="2001-01-01")], since=None)[0] == "pending"


def test_a_value_that_was_overtaken_is_no_longer_under_way(settled):
    earlier = sent(at="2026-01-09 12:30:00")
    assert settled(ONE, pending=[earlier, sent(value="b")]) == ("updated", ONE)


def test_the_value_that_overtook_it_is(settled):
    earlier = sent(value="b", at="2026-01-09 12:30:00")
    assert settled(ONE, pending=[earlier, sent()]) == ("pending", [])


def test_values_of_other_fields_and_contacts_overtake_nothing(settled):
    later = [sent("city", "x", at="2026-01-10"), sent(key="C2", at="2026-01-10")]
    assert settled(ONE, pending=[sent(), *later]) == ("pending", [])


ADD = [("external_person_id", "C1"), ("mdn", "+1"), ("name", "a")]


def test_an_add_carries_all_its_fields_and_its_identifiers_apart(settled):
    assert settled(ADD, is_add=True) == ("added", [("name", "a")])


def test_an_add_goes_whole_when_anything_of_it_was_not_refused(settled):
    assert settled(ADD, is_add=True, blocked=[refused()]) == ("added", [("name", "a")])


def test_of_an_add_what_is_pending_is_not_sent_again(settled):
    assert settled(ADD, is_add=True, pending=[sent()]) == ("added", [])


def test_an_add_that_was_refused_whole_is_blocked(settled):
    every = [refused(*one) for one in ADD]
    assert settled(ADD, is_add=True, blocked=every)[0] == "blocked"


@pytest.mark.parametrize("column", SENT)
def test_a_missing_column_is_told_by_the_input_that_lacks_it(tables, column):
    pending = tables.source("pending", {name: "VARCHAR" for name in SENT if name != column})
    with pytest.raises(ReconcileError, match=f"no column '{column}', wanted by the pending input"):
        build_outcome(tables.connection, pending, None, None)


@pytest.mark.parametrize("column", REFUSED)
def test_blocked_needs_the_same_columns_but_a_time(tables, column):
    blocked = tables.source("blocked", {name: "VARCHAR" for name in REFUSED if name != column})
    with pytest.raises(ReconcileError, match=f"no column '{column}', wanted by the blocked input"):
        build_outcome(tables.connection, None, blocked, None)
