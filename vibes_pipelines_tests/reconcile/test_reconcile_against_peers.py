"""The changes of a reconcile are those that datacompy and plain pandas find in the same frames.

The peers know neither identity nor blanks: keys are theirs to pair alone, and what is blank, or
stands between blanks, is made equal for them before. A contact's null keeps the person's value.
"""

import unicodedata

import datacompy
import pandas as pd
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vibes_pipelines.blanks import BLANKS
from vibes_pipelines_tests.support.examples import examples

_FIELDS = ("name", "city", "note")
_KEYS = st.sampled_from(["C1", "C2", "C3", "c3", "C-4", "\u00c55", "A\u030a5", "0006"])
_CELLS = st.one_of(
    st.none(),
    st.sampled_from(
        [
            "",
            " ",
            "Ann",
            " Ann ",
            "ann",
            "\u00e9",
            "e\u0301",
            "a\nb",
            "0012",
            "12",
            "=1+1",
            "'x'",
            ",",
        ]
    ),
    st.text(st.characters(codec="utf-8", exclude_categories=("C",)), max_size=4),
)


def frames(key):
    return st.lists(
        st.fixed_dictionaries({key: _KEYS, **dict.fromkeys(_FIELDS, _CELLS)}), max_size=10
    )


def canonical(text):
    """NFC, and nothing at either end that is no letter; blank is null."""
    return (unicodedata.normalize("NFC", text).strip(BLANKS) if text else "") or None


def table(rows, key):
    """The peers' frame: canonical texts, and no key that two rows have."""
    frame = pd.DataFrame(
        [{name: canonical(text) for name, text in row.items()} for row in rows],
        columns=[key, *_FIELDS],
        dtype=object,
    ).rename(columns={key: "key"})
    return frame[~frame["key"].duplicated(keep=False)]


def what_pandas_finds(contacts, persons):
    """By key, field -> (before, after), `None` before for an add."""
    merged = contacts.merge(persons, "left", on="key", suffixes=("", "_before"), indicator=True)
    found = {}
    for row in merged.to_dict("records"):
        changes = {
            name: (_known(row[f"{name}_before"]), row[name])
            for name in _FIELDS
            if _known(row[name]) and row[name] != row[f"{name}_before"]
        }
        if changes or row["_merge"] == "left_only":
            found[row["key"]] = changes
    return found


def what_datacompy_finds(contacts, persons):
    """Keys of contacts that differ in a field that the contact has, or have no person."""
    if contacts.empty or persons.empty:
        return set(contacts["key"])
    compared = datacompy.PandasCompare(contacts, persons, join_columns="key")
    found = set(compared.df1_unq_rows["key"])
    both = compared.intersect_rows
    for name in _FIELDS:
        differs = ~both[f"{name}_match"] & both[f"{name}_df1"].notna()
        found |= set(both.loc[differs, "key"])
    return found


def _known(value):
    return None if pd.isna(value) else value


@settings(
    max_examples=examples(30),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(frames("id"), frames("external_person_id"))
def test_changes_are_those_that_peers_find(run, make_config, contacts, persons):
    config = make_config(
        contacts={"key": "id"},
        fields=[{"from": name, "to": name, "type": "string"} for name in _FIELDS],
    )
    persons = [row | {"person_key": f"k{number}"} for number, row in enumerate(persons)]
    done = run(config, contacts, persons)

    ours = {
        row["external_person_id"]: {c["field"]: (c["before"], c["after"]) for c in row["changes"]}
        for row in done.person_changes
    }
    theirs = table(persons, "external_person_id")
    doubted = {canonical(row["external_person_id"]) for row in persons} - set(theirs["key"])
    crm = table(contacts, "id")
    crm = crm[~crm["key"].isin(doubted)]
    assert ours == what_pandas_finds(crm, theirs)
    assert set(ours) == what_datacompy_finds(crm, theirs)
