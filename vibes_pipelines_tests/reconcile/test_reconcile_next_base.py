"""The base from day to day: per person and field the last value both sides agreed on."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vibes_pipelines.reconcile import base
from vibes_pipelines.reconcile.base import EXCEPTIONS, ORIGIN, open_base
from vibes_pipelines.reconcile.engine import Limits, engine
from vibes_pipelines.reconcile.next_base import LastDay, write_exceptions
from vibes_pipelines.reconcile.run import Inputs, reconcile
from vibes_pipelines.reconcile.summary import Summary
from vibes_pipelines.sync_config import SyncConfig
from vibes_pipelines_tests.reconcile.conftest import (
    PERSON,
    SUBSCRIPTION,
    build_config,
    contact_columns,
    write_parquet,
)
from vibes_pipelines_tests.support.examples import examples

Row = Mapping[str, Any]
ONE_THREAD = Limits(threads=1)
PHONE = "+13125550100"
NAME = {"from": "name", "to": "name", "type": "string"}
CITY = {"from": "city", "to": "city", "type": "string"}
SENT = ("external_person_id", "field", "value", "accepted_at")
NEVER = "never agreed"


@dataclass
class Days:
    """Reconciles day after day, each with the base that the days before it left."""

    folder: Path
    config: SyncConfig
    base: Path | None = None
    number: int = 0
    summary: Summary = field(init=False)
    person_columns: ClassVar[Sequence[str]] = ()

    def day(
        self,
        contacts: Sequence[Row],
        persons: Sequence[Row],
        *,
        pending: Sequence[Row] = (),
        subscriptions: Sequence[Row] = (),
    ) -> Path:
        """One day; returns the folder of its diff set. Afterwards `base` is that of the next."""
        self.number += 1
        folder = self.folder / str(self.number)
        folder.mkdir()
        columns = [
            *PERSON,
            *self.person_columns,
            "updated_at",
            *(one.to for one in self.config.fields),
        ]
        inputs = Inputs(
            contacts=write_parquet(
                folder / "contacts.parquet", contacts, contact_columns(self.config)
            ),
            persons=land(folder / "persons", persons, columns),
            subscriptions=(
                write_parquet(folder / "subscriptions.parquet", subscriptions, SUBSCRIPTION),
            ),
            base=self.base,
            pending=write_parquet(folder / "pending.parquet", pending, SENT),
            as_of=datetime(2026, 1, self.number % 28 + 1, tzinfo=UTC),
            relative_guards=False,
            for_next_base=True,
        )
        out = folder / "out"
        self.summary = reconcile(self.config, inputs, out, ONE_THREAD)
        last = LastDay(inputs.persons, out, self.base, inputs.pending)
        self.base = record(self.config, last, folder / "next")
        return out

    def known(self) -> dict[str, dict[str, str | None]]:
        """The base by person_key: every field that both sides once agreed on, and its value."""
        assert self.base is not None
        with engine(ONE_THREAD, self.folder) as connection:
            base = open_base(connection, self.base, self.folder)
            rows = connection.execute(f"SELECT base_row, person_key FROM ({base.rows_sql()})")
            keys = dict(rows.fetchall())
            values = base.values_sql(self.config, ", ".join(map(str, keys)) or "NULL")
            found = connection.execute(
                f"SELECT base_row, unknown, COLUMNS('value_') FROM ({values})"
            )
            told = found.fetchall()
        assert sorted(row for row, *_ in told) == sorted(keys)
        assert len(set(keys.values())) == len(keys)
        names = [one.to for one in self.config.fields]
        return {
            keys[row]: {n: v for n, v in zip(names, cells, strict=True) if n not in unknown}
            for row, unknown, *cells in told
        }

    def changed(self, mapping: SyncConfig) -> None:
        self.config = mapping


def record(config: SyncConfig, last: LastDay, base: Path, limits: Limits = ONE_THREAD) -> Path:
    """Makes the base that follows a day, as the daily job does."""
    base.mkdir()
    write_exceptions(config, last, base, limits)
    manifest = last.persons / "manifest.json"
    content = json.loads(manifest.read_text())["content_hash"]
    origin = {"persons": os.path.relpath(last.persons, base), "content_hash": content}
    (base / ORIGIN).write_text(json.dumps(origin))
    return base


def land(folder: Path, rows: Sequence[Row], columns: Sequence[str]) -> Path:
    """A snapshot folder as the landing makes it."""
    folder.mkdir()
    data = write_parquet(folder / "data.parquet", rows, columns)
    content = hashlib.sha256(data.read_bytes()).hexdigest()
    manifest = {"content_hash": content, "as_of": "2026-01-01T00:00:00Z"}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.fixture
def days(tmp_path: Path) -> Days:
    return Days(tmp_path, build_config(fields=[NAME, CITY]))


def contact(name: str | None, city: str | None = None, key: str = "C1", **more: Any) -> Row:
    return {"id": key, "name": name, "city": city, **more}


def person(name: str | None, city: str | None = None, key: str = "C1", **more: Any) -> Row:
    return {
        "person_key": f"K{key}",
        "external_person_id": key,
        "name": name,
        "city": city,
        **more,
    }


def reasons(out: Path) -> dict[str, tuple[str, str | None]]:
    """Per field of C1 the reason of its change at Vibes and its new value."""
    rows = pq.read_table(out / "person_changes.parquet").to_pylist()
    return {
        c["field"]: (c["reason"], c["after"])
        for row in rows
        if row["external_person_id"] == "C1"
        for c in row["changes"]
    }


def written_back(out: Path) -> dict[str, tuple[str, str | None]]:
    rows = pq.read_table(out / "crm_changes.parquet").to_pylist()
    return {row["field"]: (row["reason"], row["after"]) for row in rows}


def test_the_first_day_has_no_base(days: Days) -> None:
    assert reasons(days.day([contact("a")], [person("b")])) == {"name": ("no_base", "a")}


def test_what_both_agreed_on_yesterday_tells_who_changed_today(days: Days) -> None:
    days.day([contact("a")], [person("a")])
    assert days.known() == {"kc1": {"name": "a", "city": None}}
    assert reasons(days.day([contact("b")], [person("a")])) == {"name": ("crm_changed", "b")}
    assert reasons(days.day([contact("a")], [person("c")])) == {"name": ("platform_changed", "a")}
    assert reasons(days.day([contact("b")], [person("c")])) == {"name": ("both_changed", "b")}
    assert days.summary.drift == {"name": {"both_changed": 1}}


def test_each_field_keeps_its_own_last_agreement(days: Days) -> None:
    days.day([contact("a", "x")], [person("a", "x")])
    days.day([contact("b", "y")], [person("a", "y")])
    assert days.known() == {"kc1": {"name": "a", "city": "y"}}
    days.day([contact("b", "z")], [person("b", "y")])
    assert days.known() == {"kc1": {"name": "b", "city": "y"}}


def test_a_field_that_never_agreed_has_no_base_and_a_blank_that_agreed_has_one(days: Days) -> None:
    days.day([contact("a")], [person("b")])
    assert days.known() == {"kc1": {"city": None}}
    out = days.day([contact("a", "x")], [person("b")])
    assert reasons(out) == {"name": ("no_base", "a"), "city": ("crm_changed", "x")}


def test_the_base_of_a_person_in_doubt_or_gone_is_carried_on(days: Days) -> None:
    both = [contact("a"), contact("m", key="C2")], [person("a"), person("m", key="C2")]
    days.day(*both)
    known = days.known()
    days.day([contact("b"), contact("c"), contact("m", key="C2")], both[1])  # a doubled key
    assert days.known() == known
    days.day([contact("z", phone="12"), both[0][1]], [person("y"), both[1][1]])  # no number
    assert days.known() == known
    days.day(both[0], [person("m", key="C2")])  # the person is not in the share
    assert days.known() == known
    days.day([contact("m", key="C2")], both[1])  # the contact is not in the CRM
    assert days.known() == known
    assert reasons(days.day([contact("b")], [person("a")])) == {"name": ("crm_changed", "b")}


def test_doubled_persons_never_multiply_in_the_base(days: Days) -> None:
    days.day([contact("a")], [person("a")])
    for _ in range(3):
        days.day([contact("b")], [person("a"), person("a")])
    assert days.known() == {"kc1": {"name": "a", "city": None}}


def test_what_was_agreed_with_another_contact_is_no_base(days: Days) -> None:
    days.day([contact("a")], [person("a")])
    moved = {**person("a"), "external_person_id": "C2"}
    out = days.day([contact("b", key="C2")], [moved])
    [row] = pq.read_table(out / "person_changes.parquet").to_pylist()
    assert [c["reason"] for c in row["changes"]] == ["no_base"]
    assert days.known() == {"kc1": {"city": None}}


def test_a_person_matched_by_its_number_gets_a_base_under_the_key_it_adopts(days: Days) -> None:
    days.day([contact("a", phone=PHONE)], [{"person_key": "Kc1", "mdn": PHONE, "name": "a"}])
    out = days.day([contact("b", phone=PHONE)], [person("a", mdn=PHONE)])
    assert reasons(out) == {"name": ("crm_changed", "b")}


def test_no_custom_field_has_the_name_of_a_column_of_the_base(days: Days) -> None:
    """It would be read in place of the field, and tell who changed it wrongly."""
    days.day([contact("a")], [person("b")])
    assert days.base is not None
    columns = set(pq.read_schema(days.base / EXCEPTIONS).names)
    for own in columns - {one.to for one in days.config.fields}:
        with pytest.raises(ValueError, match=f"'{own}' is "):
            build_config(fields=[NAME | {"to": own}])


def test_without_person_keys_the_external_id_names_a_person(tmp_path: Path) -> None:
    days = Days(tmp_path, build_config(fields=[NAME], contacts={"key": "id"}))
    columns = ("external_person_id", "name")
    for number, (mine, theirs, expected) in enumerate(
        [("a", "a", {}), ("b", "a", {"name": ("crm_changed", "b")})]
    ):
        folder = tmp_path / f"n{number}"
        folder.mkdir()
        persons = land(folder / "persons", [person(theirs)], columns)
        contacts = write_parquet(folder / "c.parquet", [contact(mine)], ("id", "name"))
        inputs = Inputs(contacts, persons, base=days.base, for_next_base=True)
        reconcile(days.config, inputs, folder, ONE_THREAD)
        assert reasons(folder) == expected
        days.base = record(days.config, LastDay(persons, folder, days.base, None), folder / "next")
    assert days.known() == {None: {"name": "a"}}


def test_what_was_agreed_under_other_rules_is_no_base(
    days: Days, monkeypatch: pytest.MonkeyPatch
) -> None:
    days.day([contact("a", "q")], [person("a", "q")])
    monkeypatch.setattr(base, "RULES", base.RULES + 1)
    out = days.day([contact("b", "q")], [person("a", "q")])
    assert reasons(out) == {"name": ("rules_changed", "b")}


@pytest.mark.parametrize(
    "mapping",
    [NAME | {"from": "city"}, NAME | {"type": "single_select"}],
)
def test_a_field_mapped_anew_starts_without_a_base(days: Days, mapping: dict[str, str]) -> None:
    days.day([contact("a", "q")], [person("a", "q")])
    days.changed(build_config(fields=[mapping, CITY | {"authority": "platform"}]))
    out = days.day([contact("b", "q")], [person("c", "q")])
    assert {reason for reason, _ in reasons(out).values()} == {"mapping_changed"}
    assert days.known() == {"kc1": {"city": "q"}}


def test_options_written_in_another_order_are_the_same_mapping(days: Days) -> None:
    tier = {"from": "name", "to": "name", "type": "single_select"}
    days.changed(build_config(fields=[tier | {"options": {"A": "a", "B": "b"}}]))
    days.day([contact("A")], [person("a")])
    days.changed(build_config(fields=[tier | {"options": {"B": "b", "A": "a"}}]))
    assert reasons(days.day([contact("B")], [person("a")])) == {"name": ("crm_changed", "b")}


def sent(value: str | None, name: str = "name") -> Row:
    return {
        "external_person_id": "C1",
        "field": name,
        "value": value,
        "accepted_at": "2026-01-02 00:00:00",
    }


def test_what_we_sent_does_not_pass_for_a_change_of_the_platform(days: Days) -> None:
    days.changed(build_config(fields=[NAME | {"authority": "platform"}]))
    days.day([contact("a")], [person("a")])
    days.day([contact("b")], [person("a")])  # b is sent
    out = days.day([contact("a")], [person("a")], pending=[sent("b")])  # the CRM takes it back
    assert reasons(out) == {}
    out = days.day([contact("a")], [person("b")])  # only now the platform shows b
    assert reasons(out) == {"name": ("crm_changed", "a")}
    assert written_back(out) == {}


def test_an_edit_of_the_crm_to_a_platform_field_goes_out_and_a_platform_edit_comes_back(
    days: Days,
) -> None:
    days.changed(build_config(fields=[NAME | {"authority": "platform"}]))
    days.day([contact("a")], [person("a")])
    out = days.day([contact("b")], [person("a")])
    assert (reasons(out), written_back(out)) == ({"name": ("crm_changed", "b")}, {})
    out = days.day([contact("b")], [person("b")])
    assert (reasons(out), written_back(out)) == ({}, {})
    out = days.day([contact("b")], [person("c")])
    assert (reasons(out), written_back(out)) == ({}, {"name": ("platform_changed", "c")})
    assert days.summary.drift == {"name": {"platform_changed": 1}}
    out = days.day([contact("d")], [person("c")])
    assert (reasons(out), written_back(out)) == ({}, {"name": ("both_changed", "c")})


names = st.sampled_from(["a", "b", None])
a_day = st.tuples(
    st.dictionaries(st.sampled_from(["C1", "C2", "C3"]), st.tuples(names, names), max_size=3),
    st.dictionaries(st.sampled_from(["C1", "C2", "C3"]), st.tuples(names, names), max_size=3),
)


@given(st.lists(a_day, min_size=2, max_size=5))
@settings(
    max_examples=examples(10),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_the_base_is_the_last_agreement_of_each_field(
    tmp_path_factory: pytest.TempPathFactory,
    history: Sequence[tuple[dict[str, tuple[Any, Any]], dict[str, tuple[Any, Any]]]],
) -> None:
    days = Days(tmp_path_factory.mktemp("days"), build_config(fields=[NAME, CITY]))
    agreed: dict[tuple[str, str], str | None] = {}
    for mine, theirs in history:
        out = days.day(
            [contact(*values, key=key) for key, values in mine.items()],
            [person(*values, key=key) for key, values in theirs.items()],
        )
        for row in pq.read_table(out / "person_changes.parquet").to_pylist():
            key = row["external_person_id"]
            for change in row["changes"] if row["operation"] == "update" else ():
                index = ("name", "city").index(change["field"])
                base = agreed.get((key, change["field"]), NEVER)
                assert change["reason"] == reason(base, mine[key][index], theirs[key][index])
        for key in mine.keys() & theirs.keys():
            for index, name in enumerate(("name", "city")):
                if mine[key][index] == theirs[key][index]:
                    agreed[key, name] = mine[key][index]
        assert {
            (key.removeprefix("k").upper(), name): value
            for key, values in days.known().items()
            for name, value in values.items()
        } == agreed


def reason(base: str | None, crm: str | None, platform: str | None) -> str:
    """Who changed, by the words of docs/reconcile.md."""
    if base == NEVER:
        return "no_base"
    if platform == base:
        return "crm_changed"
    return "platform_changed" if crm == base else "both_changed"


def test_a_base_is_the_same_whatever_the_threads(days: Days, tmp_path: Path) -> None:
    keys = [f"C{number}" for number in range(5000)]
    contacts = [contact(key[-1], key[-2:], key) for key in keys]
    persons = [
        person(key[-1], key[-2:] if number % 3 else "z", key) for number, key in enumerate(keys)
    ]
    days.day(contacts, persons)
    days.day(contacts, persons[100:])
    assert days.base is not None
    folder = days.base.parent
    last = LastDay(
        folder / "persons", folder / "out", days.folder / "1" / "next", folder / "pending.parquet"
    )
    limits = Limits(threads=4, memory_limit="200MB")
    again = record(days.config, last, tmp_path / "again", limits)
    rows = [
        sorted(pq.read_table(base / EXCEPTIONS).to_pylist(), key=str) for base in (days.base, again)
    ]
    assert rows[0] == rows[1]
    assert len(rows[0]) == len(keys) // 3 + 1 + 66


def test_a_base_made_while_a_field_was_mapped_otherwise_has_no_values_of_it(days: Days) -> None:
    right = days.config
    out = days.day([contact("a", "q")], [person("a", "q")])
    days.changed(build_config(fields=[NAME | {"from": "city"}, CITY | {"authority": "platform"}]))
    last = LastDay(out.parent / "persons", out, None, None)
    days.base = record(days.config, last, out.parent / "made otherwise")
    days.changed(right)
    assert reasons(days.day([contact("b", "q")], [person("a", "q")])) == {"name": ("no_base", "b")}
