"""Sync conditions that compare: as numbers or as dates, never as text."""

import pytest
from pydantic import ValidationError

from vibes_pipelines_tests.reconcile.conftest import build_config


def added(run, cells, **operator):
    """The contacts, by their cell, that meet one condition on the column `x`."""
    contacts = {"key": "id", "conditions": [{"column": "x"} | operator]}
    rows = [{"id": f"C{number}", "x": cell} for number, cell in enumerate(cells)]
    done = run(build_config(contacts=contacts), rows, [])
    told = {row["external_person_id"] for row in done.person_changes}
    return [cell for number, cell in enumerate(cells) if f"C{number}" in told], done.summary


@pytest.mark.parametrize(
    ("operator", "expected"),
    [
        ("less_than", ["9", "-10"]),
        ("at_most", ["9", "10.0", "1e1", "-10"]),
        ("greater_than", ["100", "10.5"]),
        ("at_least", ["10.0", "1e1", "100", "10.5"]),
    ],
)
def test_numbers_compare_as_numbers_in_any_spelling(run, operator, expected):
    cells = ["9", "10.0", "1e1", "100", "10.5", "-10"]
    met, summary = added(run, cells, **{operator: 10})
    assert met == expected
    assert summary.filtered == len(cells) - len(met)


@pytest.mark.parametrize(
    ("operator", "limit", "expected"),
    [
        ("at_most", "2026-01-31", ["2026-01-30", "2026-01-31", "2026-01-31T14:00Z"]),
        ("less_than", "2026-01-31", ["2026-01-30"]),
        ("greater_than", "2026-01-31", ["2026-02-01 00:00:00 -0600"]),
        ("at_least", "2026-01-31T08:00:00Z", ["2026-01-31T14:00Z", "2026-02-01 00:00:00 -0600"]),
    ],
)
def test_a_limit_that_is_a_day_compares_days_and_one_with_a_time_instants(
    run, operator, limit, expected
):
    cells = ["2026-01-30", "2026-01-31", "2026-01-31T14:00Z", "2026-02-01 00:00:00 -0600"]
    assert added(run, cells, **{operator: limit})[0] == expected


def test_a_cell_that_compares_with_nothing_does_not_hold_and_is_counted(run):
    met, summary = added(run, ["5", "five", None, " ", "1e999"], at_least=0)
    assert met == ["5"]
    assert summary.unreadable_conditions == {"x": 2}
    assert added(run, ["2026-01-01", "31/01/2026"], at_least="2026-01-01")[1].filtered == 1


def test_without_comparisons_nothing_is_counted(run):
    assert added(run, ["A", "B"], equals="A")[1].unreadable_conditions == {}


def test_two_conditions_make_a_range(run):
    contacts = {
        "key": "id",
        "conditions": [{"column": "x", "at_least": 18}, {"column": "x", "less_than": 65}],
    }
    rows = [{"id": f"C{age}", "x": str(age)} for age in (17, 18, 64, 65)]
    done = run(build_config(contacts=contacts), rows, [])
    assert [row["external_person_id"] for row in done.person_changes] == ["C18", "C64"]


@pytest.mark.parametrize(
    ("condition", "told"),
    [
        ({"less_than": "soon"}, "less_than 'soon' is no number or date"),
        ({"less_than": "2026-02-30"}, "is no number or date"),
        ({"at_most": "10", "type": "date"}, "at_most '10' is no date"),
        ({"at_most": "2026-01-31", "type": "number"}, "is no number"),
        ({"equals": "10", "type": "number"}, "type belongs to less_than, at_most"),
        ({"at_most": "1", "at_least": "0"}, "exactly one operator"),
    ],
)
def test_what_cannot_be_compared_is_refused(condition, told):
    with pytest.raises(ValidationError, match=told):
        build_config(contacts={"key": "id", "conditions": [{"column": "x"} | condition]})
