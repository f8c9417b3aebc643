"""Decisions as an input of the reconcile: whatever they say, nobody is merged with anybody."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vibes_pipelines.reconcile.decisions import COLUMNS
from vibes_pipelines.reconcile.engine import Limits
from vibes_pipelines.reconcile.run import Inputs, reconcile
from vibes_pipelines_tests.reconcile.conftest import (
    PERSON,
    build_config,
    contact_columns,
    write_parquet,
)

CONFIG = build_config(
    contacts={
        "key": "id",
        "person_key": "pk",
        "mdn": {"column": "phone", "default_region": "US"},
    }
)
NUMBERS = [f"+1312555{n:04}" for n in range(2670, 2674)]
KEYS = ["A", "B", "C", "D"]
PERSON_KEYS = ["k1", "k2", "k3", "k4"]

Rows = list[dict[str, Any]]


def optional(values: list[str]) -> st.SearchStrategy[str | None]:
    return st.none() | st.sampled_from(values)


contacts = st.lists(
    st.fixed_dictionaries(
        {
            "id": st.sampled_from(KEYS),
            "phone": optional([*NUMBERS, "12"]),
            "pk": st.none() | st.none() | optional(PERSON_KEYS),
        }
    ),
    max_size=5,
)
persons = st.lists(
    st.fixed_dictionaries(
        {
            "person_key": st.sampled_from(PERSON_KEYS),
            "external_person_id": optional(KEYS),
            "mdn": optional(NUMBERS),
        }
    ),
    max_size=4,
)
decided = st.lists(
    st.fixed_dictionaries(
        {
            "action": st.sampled_from(["link", "link", "new-person", "ignore"]),
            "key": st.sampled_from(KEYS),
            "target": st.sampled_from(PERSON_KEYS),
        }
    ),
    min_size=1,
    max_size=5,
)


def reconciled(folder: Path, contacts: Rows, persons: Rows, decided: Rows) -> dict[str, Rows]:
    """The files of a diff set. Every contact has another name than its person."""
    folder.mkdir()
    inputs = Inputs(
        contacts=write_parquet(
            folder / "contacts.parquet",
            [row | {"name": "new"} for row in contacts],
            contact_columns(CONFIG),
        ),
        persons=write_parquet(folder / "persons.parquet", persons, [*PERSON, "name"]),
        relative_guards=False,
        for_next_base=True,
    )
    first = reconcile(CONFIG, inputs, folder / "first", Limits(threads=1))
    own = {
        row["record"]: row["own"]
        for row in pq.read_table(folder / "first" / "cases.parquet").to_pylist()
        if row["source"] == "contact"
    }
    rows = [
        {
            "action": one["action"],
            "kind": "shared_mdn",
            "source": "contact",
            "record": f"key {one['key']}",
            "target": one["target"] if one["action"] == "link" else None,
            "evidence": own.get(f"key {one['key']}"),
            "since": "2026-01-01",
            "reason": "said so",
        }
        for one in decided
    ]
    inputs = Inputs(
        contacts=inputs.contacts,
        persons=inputs.persons,
        decisions=write_parquet(folder / "decisions.parquet", rows, COLUMNS),
        relative_guards=False,
        for_next_base=True,
    )
    summary = reconcile(CONFIG, inputs, folder / "out", Limits(threads=1))
    assert summary.contacts == first.contacts
    names = ("person_changes", "quarantine", "cases")
    return {n: pq.read_table(folder / "out" / f"{n}.parquet").to_pylist() for n in names}


def assert_nobody_is_merged(changes: Rows, persons: Rows) -> None:
    """Each person gets one contact, each contact one person, and no add meets anybody."""
    assert all(n == 1 for n in Counter(row["external_person_id"] for row in changes).values())
    updates = [row for row in changes if row["operation"] == "update"]
    assert all(n == 1 for n in Counter(row["person_key"] for row in updates).values())
    for row in updates:
        [person] = [one for one in persons if one["person_key"] == row["person_key"]]
        assert person["external_person_id"] in {None, row["external_person_id"]}
        given = {change["field"]: change["after"] for change in row["changes"]}
        assert given.get("mdn") not in {one["mdn"] for one in persons} - {None}
        # What gives the person this contact's key must not leave another one with it.
        assert [
            one
            for one in persons
            if one["external_person_id"] == row["external_person_id"] and one is not person
        ] == []
    adds = [row for row in changes if row["operation"] == "add"]
    assert all(n == 1 for n in Counter(r["mdn"] for r in adds if r["mdn"]).values())
    for row in adds:
        assert row["external_person_id"] not in {one["external_person_id"] for one in persons}
        assert row["mdn"] is None or row["mdn"] not in {one["mdn"] for one in persons}


@pytest.mark.parametrize(
    "examples", [8, pytest.param(60, marks=[pytest.mark.slow, pytest.mark.timeout(900)])]
)
def test_no_decisions_merge_anybody(
    tmp_path_factory: pytest.TempPathFactory, examples: int
) -> None:
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=examples < 100,
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(contacts, persons, decided)
    def law(contacts: Rows, persons: Rows, decided: Rows) -> None:
        folder = tmp_path_factory.mktemp("law") / "day"
        written = reconciled(folder, contacts, persons, decided)
        assert_nobody_is_merged(written["person_changes"], persons)

    law()


@pytest.fixture
def day(tmp_path: Path) -> Callable[[Rows, Rows, Rows], dict[str, Rows]]:
    return lambda contacts, persons, decided: reconciled(
        tmp_path / "day", contacts, persons, decided
    )


def link(key: str, target: str) -> dict[str, Any]:
    return {"action": "link", "key": key, "target": target}


SPLIT = (
    [{"id": "A", "phone": NUMBERS[1]}],
    [
        {"person_key": "k1", "external_person_id": "A", "mdn": NUMBERS[0]},
        {"person_key": "k2", "mdn": NUMBERS[1]},
    ],
)


def test_a_link_ends_a_split_and_touches_no_number(day: Callable[..., dict[str, Rows]]) -> None:
    written = day(*SPLIT, [link("A", "k1")])
    [row] = written["person_changes"]
    assert (row["person_key"], row["matched_by"]) == ("k1", "link")
    assert [change["field"] for change in row["changes"]] == ["name"]
    assert [row["kind"] for row in written["quarantine"] if row["source"] == "contact"] == []


def test_a_link_takes_nobodys_person_away(day: Callable[..., dict[str, Rows]]) -> None:
    """k2 has no external id, but k1 has the contact's."""
    written = day(*SPLIT, [link("A", "k2")])
    assert written["person_changes"] == []
    details = {r["detail"] for r in written["quarantine"] if r["source"] == "contact"}
    assert details == {
        "the identifiers of one contact point to different persons; the link of 2026-01-01 does"
        " not hold: another person has the key of the contact as external_person_id"
    }


def test_of_two_that_share_a_number_one_is_linked_and_the_other_stays(
    day: Callable[..., dict[str, Rows]],
) -> None:
    both = [{"id": key, "phone": NUMBERS[0]} for key in "AB"]
    persons = [{"person_key": "k1", "mdn": NUMBERS[0]}]
    written = day(both, persons, [link("A", "k1")])
    [row] = written["person_changes"]
    assert row["external_person_id"] == "A"
    given = {change["field"]: change["after"] for change in row["changes"]}
    assert given == {"external_person_id": "A", "name": "new"}
    assert {r["external_person_id"] for r in written["quarantine"] if r["source"] == "contact"} == {
        "B"
    }


def test_a_new_person_is_added_with_its_number_once(day: Callable[..., dict[str, Rows]]) -> None:
    both = [{"id": key, "phone": NUMBERS[0]} for key in "AB"]
    new = [{"action": "new-person", "key": "A", "target": ""}]
    [row] = day(both, [], new)["person_changes"]
    assert (row["operation"], row["external_person_id"], row["mdn"]) == ("add", "A", NUMBERS[0])


def test_two_new_persons_of_one_number_are_not_added(
    day: Callable[..., dict[str, Rows]],
) -> None:
    both = [{"id": key, "phone": NUMBERS[0]} for key in "AB"]
    new = [{"action": "new-person", "key": key, "target": ""} for key in "AB"]
    written = day(both, [], new)
    assert written["person_changes"] == []
    assert all("another new person has the same mdn" in r["detail"] for r in written["quarantine"])


@pytest.mark.parametrize("placeholder", ["0000000000", "unknown"])
def test_new_persons_may_share_what_is_no_number(
    day: Callable[..., dict[str, Rows]], placeholder: str
) -> None:
    both = [{"id": key, "phone": placeholder} for key in "AB"]
    new = [{"action": "new-person", "key": key, "target": ""} for key in "AB"]
    added = day(both, [], new)["person_changes"]
    assert [(row["external_person_id"], row["mdn"]) for row in added] == [("A", None), ("B", None)]


def test_a_contact_that_claims_nobody_by_itself_is_linked_and_not_added(
    day: Callable[..., dict[str, Rows]],
) -> None:
    landline = [{"id": "A", "phone": "0000000000"}]
    written = day(landline, [{"person_key": "k1"}], [link("A", "k1")])
    assert [(row["operation"], row["person_key"]) for row in written["person_changes"]] == [
        ("update", "k1")
    ]
