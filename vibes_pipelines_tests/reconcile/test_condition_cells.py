"""Conditions cell by cell: which contents of a contact's column meet each operator."""

import pytest

from vibes_pipelines.reconcile.conditions import condition, count_unreadable, is_unreadable
from vibes_pipelines.reconcile.errors import ReconcileError
from vibes_pipelines.sync_config.conditions import Condition
from vibes_pipelines_tests.reconcile.conftest import build_config

BLANKS = ["", " \t", None]
TEXTS = ["A", " A ", "a", "B"]


def build_condition(**operator):
    return Condition.model_validate({"column": "x"} | operator)


def meeting(tables, cells, sql_of=condition, column_type="VARCHAR", **operator):
    """The cells, in their order, for which the SQL of the condition is true."""
    contacts = tables.source("contacts", {"x": column_type}, [[cell] for cell in cells])
    sql = sql_of(build_condition(**operator), contacts)
    met = tables.rows(f"SELECT ({sql}) FROM contacts ORDER BY file_row_number")
    return [cell for cell, (holds,) in zip(cells, met, strict=True) if holds]


@pytest.mark.parametrize(
    ("operator", "expected"),
    [
        ({"is_null": True}, BLANKS),
        ({"not_null": True}, TEXTS),
        ({"equals": "A"}, ["A", " A "]),
        ({"equals": "\tA"}, ["A", " A "]),
        ({"equals": ""}, BLANKS),
        ({"not_equals": "A "}, ["a", "B", *BLANKS]),
        ({"not_equals": ""}, TEXTS),
        ({"in": ["a", " B "]}, ["a", "B"]),
        ({"in": ["B", " "]}, ["B"]),
        ({"in": [" "]}, []),
    ],
)
def test_texts_are_met_as_they_are_without_blanks_around_them(tables, operator, expected):
    assert meeting(tables, [*TEXTS, *BLANKS], **operator) == expected


def test_a_column_of_another_type_is_compared_by_its_text(tables):
    assert meeting(tables, [1, 2, None], column_type="BIGINT", **{"in": [1]}) == [1]


@pytest.mark.parametrize(
    ("operator", "expected"),
    [
        ("less_than", ["9"]),
        ("at_most", ["9", "10"]),
        ("greater_than", ["11"]),
        ("at_least", ["10", "11"]),
    ],
)
def test_a_limit_belongs_to_at_most_and_at_least_only(tables, operator, expected):
    assert meeting(tables, ["9", "10", "11", None], **{operator: "10"}) == expected


@pytest.mark.parametrize(
    ("operator", "limit", "expected"),
    [
        ("at_least", "2026-01-31", ["2026-01-31", "2026-01-31T14:00Z"]),
        ("at_least", "2026-01-31T14:00:00Z", ["2026-01-31T14:00Z"]),
        ("at_most", "2026-01-31", ["2026-01-30T23:59Z", "2026-01-31", "2026-01-31T14:00Z"]),
        ("at_most", "2026-01-31T08:00:00Z", ["2026-01-30T23:59Z", "2026-01-31"]),
    ],
)
def test_a_limit_of_a_day_is_all_of_it_and_one_with_a_time_is_that_instant(
    tables, operator, limit, expected
):
    cells = ["2026-01-30T23:59Z", "2026-01-31", "2026-01-31T14:00Z"]
    assert meeting(tables, cells, **{operator: limit}) == expected


@pytest.mark.parametrize(
    ("cells", "limit", "expected"),
    [
        (["5", "five", "1e999", *BLANKS, "2026-01-31"], "0", ["five", "1e999", "2026-01-31"]),
        (["2026-01-31", "31/01/2026", *BLANKS, "5"], "2026-01-01", ["31/01/2026", "5"]),
    ],
)
def test_what_is_neither_blank_nor_comparable_is_unreadable(tables, cells, limit, expected):
    assert meeting(tables, cells, is_unreadable, at_least=limit) == expected


def test_the_unreadable_are_counted_per_comparison(tables):
    contacts = tables.source(
        "contacts", {"age": "VARCHAR", "kind": "VARCHAR"}, [["old", "A"], ["5", "A"], ["?", None]]
    )
    conditions = [{"column": "kind", "equals": "B"}, {"column": "age", "at_most": 99}]
    config = build_config(contacts={"key": "id", "conditions": conditions})
    count_unreadable(tables.connection, config, contacts)
    assert tables.rows("SELECT name, contacts FROM unreadable_condition") == [("age", 2)]


def test_a_missing_column_is_told_by_the_condition_that_wants_it(tables):
    with pytest.raises(ReconcileError, match=r"no column 'x', wanted by contacts.conditions: x"):
        condition(build_condition(is_null=True), tables.source("contacts", {"y": "VARCHAR"}))
