"""Reads the landed rows of one person: which row, of which snapshot, holds which value.

Days whose snapshots have the same columns are read by one query, with the filter on the identifier
pushed into the scan. Values are made canonical by the reconcile's own expressions. Nothing is
concluded here.
"""

# ruff: noqa: S608  (composed of the reconcile's own expressions; values are bound)

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb

from vibes_pipelines.reconcile.conditions import condition
from vibes_pipelines.reconcile.consent import (
    OPTED_IN,
    OPTED_OUT,
    UNKNOWN,
    changed_at_columns,
    state_column,
)
from vibes_pipelines.reconcile.destinations import VIBES, Feeds
from vibes_pipelines.reconcile.moments import moment_of
from vibes_pipelines.reconcile.phone import to_e164
from vibes_pipelines.reconcile.sources import ROW, Source, numbered_rows, open_source
from vibes_pipelines.reconcile.values import (
    INVALID_VALUE,
    UNKNOWN_OPTION,
    as_text,
    contact_text,
    platform_text,
)
from vibes_pipelines.report.explain_facts import Cell, Place
from vibes_pipelines.report.explain_texts import condition_text, instant_text
from vibes_pipelines.store.snapshots import Snapshot, SnapshotStore
from vibes_pipelines.sync_config import SyncConfig
from vibes_pipelines.sync_config.conditions import Condition

FILE = "landed_file"
_NUMBER_TAIL = 6
_STATES = {OPTED_IN: "in", OPTED_OUT: "out", UNKNOWN: "unknown"}
_FAULTS = {
    UNKNOWN_OPTION: "is not among the options",
    INVALID_VALUE: "cannot be read as the field's type",
}


@dataclass(frozen=True)
class ConsentCell:
    """A contact's consent cell: `state` is in, out, unknown or unreadable; the time is UTC."""

    state: str
    raw: str | None
    changed_at: datetime | None


@dataclass(frozen=True)
class ContactRow:
    """One landed contact. `mdn` is E.164 or None, `unmet` the conditions that it does not meet."""

    place: Place
    key: str | None
    person_key: str | None
    mdn: str | None
    mdn_text: str | None
    cells: Mapping[str, Cell]
    unmet: tuple[str, ...]
    consents: Mapping[str, ConsentCell]


@dataclass(frozen=True)
class PersonRow:
    """One landed person of the share."""

    place: Place
    external_person_id: str | None
    person_key: str | None
    mdn: str | None
    cells: Mapping[str, Cell]


@dataclass(frozen=True)
class Stay:
    """One landed subscription row; instants are UTC."""

    place: Place
    person_key: str
    list: str
    opt_in: datetime | None
    opt_out: datetime | None
    opt_out_reason: str | None


@dataclass(frozen=True)
class Query:
    """One scan over snapshots of equal columns: its SQL and the values bound to it."""

    sql: str
    values: tuple[str, ...]
    snapshots: Mapping[str, Snapshot]


class LandedRows:
    """The landed rows of some days, asked by identifier; every answer is by day."""

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        config: SyncConfig,
        store: SnapshotStore,
        workspace: Path,
        feeds: Feeds = VIBES.feeds,
    ) -> None:
        self._feeds = feeds
        self._connection = connection
        self._config = config
        self._store = store
        self._workspace = workspace

    def contacts(
        self, days: Sequence[str], key: str | None, unkeyed_mdns: Sequence[str] = ()
    ) -> dict[str, list[ContactRow]]:
        """Contacts with this key; without a key, those whose number is written as one of these."""
        rows: dict[str, list[ContactRow]] = defaultdict(list)
        for query in self.contact_queries(days, key, unkeyed_mdns):
            for place, row in self._run(query):
                rows[place.day].append(self._contact(place, row))
        return rows

    def contact_queries(
        self, days: Sequence[str], key: str | None, unkeyed_mdns: Sequence[str] = ()
    ) -> Iterator[Query]:
        """The scans that `contacts` makes."""
        for source, snapshots in self._groups(self._feeds.contacts, days):
            columns = self._contact_columns(source)
            if "contact_key" not in columns:
                continue
            where, values = f"{columns['contact_key']} = ?", [key or ""]
            if key is None:
                if "mdn_text" not in columns or not unkeyed_mdns:
                    continue
                among, values = _among(columns["mdn_text"], unkeyed_mdns)
                where = f"{columns['contact_key']} IS NULL AND {among}"
            yield _query(source, columns, where, values, snapshots)

    def contacts_by_mdn(self, day: str, mdn: str) -> list[ContactRow]:
        """Contacts of one day whose number, however it is written, is this E.164 number."""
        found = []
        for source, snapshots in self._groups(self._feeds.contacts, [day]):
            columns = self._contact_columns(source)
            if "mdn_text" in columns:
                digits = f"regexp_replace({columns['mdn_text']}, '[^0-9]', '', 'g')"
                where, values = f"suffix({digits}, ?)", [mdn[-_NUMBER_TAIL:]]
                query = _query(source, columns, where, values, snapshots)
                found += [self._contact(place, row) for place, row in self._run(query)]
        return [contact for contact in found if contact.mdn == mdn]

    def persons(
        self,
        days: Sequence[str],
        external_person_id: str | None,
        person_keys: Sequence[str],
        mdns: Sequence[str],
    ) -> dict[str, list[PersonRow]]:
        """Persons that any of these identifiers names."""
        rows: dict[str, list[PersonRow]] = defaultdict(list)
        externals = [external_person_id] if external_person_id else []
        for query in self.person_queries(days, externals, person_keys, mdns):
            for place, row in self._run(query):
                rows[place.day].append(self._person(place, row))
        return rows

    def person_queries(
        self,
        days: Sequence[str],
        externals: Sequence[str],
        person_keys: Sequence[str],
        mdns: Sequence[str],
    ) -> Iterator[Query]:
        """The scans that `persons` makes."""
        wanted = {"external_person_id": externals, "person_key": person_keys, "mdn": mdns}
        for source, snapshots in self._groups(self._feeds.persons, days):
            columns = self._person_columns(source)
            tests, values = [], []
            for name, identifiers in wanted.items():
                if identifiers and name in columns:
                    test, bound = _among(columns[name], identifiers)
                    tests.append(test)
                    values += bound
            if tests:
                yield _query(source, columns, " OR ".join(tests), values, snapshots)

    def subscriptions(
        self, days: Sequence[str], person_keys: Sequence[str]
    ) -> dict[str, list[Stay]]:
        """Rows of the mapped lists for these persons, at the share and in the extract."""
        rows: dict[str, list[Stay]] = defaultdict(list)
        for query in self.subscription_queries(days, person_keys):
            for place, row in self._run(query):
                rows[place.day].append(Stay(place, **row))
        return rows

    def subscription_queries(
        self, days: Sequence[str], person_keys: Sequence[str]
    ) -> Iterator[Query]:
        """The scans that `subscriptions` makes."""
        lists = [consent.list.strip() for consent in self._config.consents]
        if not person_keys or not lists:
            return
        for feed in self._feeds.subscriptions:
            for source, snapshots in self._groups(feed, days):
                columns = _subscription_columns(source)
                of_person, keys = _among(columns["person_key"], person_keys)
                of_list, names = _among(columns["list"], lists)
                where = f"{of_person} AND {of_list}"
                yield _query(source, columns, where, [*keys, *names], snapshots)

    def has_landed(self, day: str) -> bool:
        """Whether contacts or persons are landed for the day."""
        feeds = (self._feeds.contacts, self._feeds.persons)
        return any(self._store.find(feed, day) for feed in feeds)

    def _groups(
        self, feed: str, days: Sequence[str]
    ) -> Iterator[tuple[Source, Mapping[str, Snapshot]]]:
        """The landed days of a feed, those of equal columns together as one relation."""
        groups: dict[str, dict[str, Snapshot]] = defaultdict(dict)
        for day in days:
            snapshot = self._store.find(feed, day)
            if snapshot is not None and snapshot.data.is_file():
                groups[repr(snapshot.manifest.columns)][str(snapshot.data)] = snapshot
        for snapshots in groups.values():
            first = next(iter(snapshots.values()))
            source = open_source(self._connection, feed, first.data, self._workspace)
            relation = numbered_rows(*snapshots, filename=FILE)
            yield replace(source, relation=relation), snapshots

    def _run(self, query: Query) -> Iterator[tuple[Place, dict[str, Any]]]:
        result = self._connection.execute(query.sql, list(query.values))
        names = [column[0] for column in result.description or ()]
        for values in result.fetchall():
            row = dict(zip(names, values, strict=True))
            yield _place(query.snapshots[row.pop(FILE)], row.pop(ROW) + 1), row

    def _contact_columns(self, source: Source) -> dict[str, str]:
        config = self._config
        wanted = {"contact_key": config.contacts.key, "person_key": config.contacts.person_key}
        if config.contacts.mdn is not None:
            wanted["mdn_text"] = config.contacts.mdn.column
        columns = {
            name: as_text(*source.column(column, name))
            for name, column in wanted.items()
            if column is not None and source.has(column)
        }
        for index, field in enumerate(config.fields):
            if source.has(field.from_):
                column = source.column(field.from_, field.to)
                columns[f"raw_{index}"] = _raw(column)
                columns[f"value_{index}"] = contact_text(field, *column)
        for index, one in enumerate(config.contacts.conditions):
            if source.has(one.column):
                columns[f"meets_{index}"] = condition(one, source)
                columns[f"tested_{index}"] = _raw(source.column(one.column, "conditions"))
        for index, consent in enumerate(config.consents):
            if source.has(consent.from_) and source.has(consent.changed_at or consent.from_):
                columns[f"consent_{index}"] = _raw(source.column(consent.from_, "consents"))
                columns[f"state_{index}"] = state_column(consent, source)
                columns[f"changed_at_{index}"] = changed_at_columns(consent, source)[0]
        return columns

    def _contact(self, place: Place, row: dict[str, Any]) -> ContactRow:
        config = self._config
        text, region = row.get("mdn_text"), config.contacts.mdn
        key = row.get("person_key")
        return ContactRow(
            place=place,
            key=row["contact_key"],
            person_key=key.lower() if key else None,
            mdn=to_e164(text, region.default_region) if text and region else None,
            mdn_text=text,
            cells=_cells([field.to for field in config.fields], place, row),
            unmet=tuple(_unmet(config.contacts.conditions, row)),
            consents={
                consent.list.strip(): ConsentCell(
                    _STATES.get(row[f"state_{index}"], "unreadable"),
                    row[f"consent_{index}"],
                    row[f"changed_at_{index}"],
                )
                for index, consent in enumerate(config.consents)
                if f"state_{index}" in row
            },
        )

    def _person_columns(self, source: Source) -> dict[str, str]:
        columns = {
            name: as_text(*source.column(name, "persons"))
            for name in ("external_person_id", "person_key", "mdn")
            if source.has(name)
        }
        if "person_key" in columns:
            columns["person_key"] = f"lower({columns['person_key']})"
        for index, field in enumerate(self._config.fields):
            if source.has(field.to):
                column = source.column(field.to, field.to)
                columns[f"raw_{index}"] = _raw(column)
                columns[f"value_{index}"] = platform_text(field.type, *column)
        return columns

    def _person(self, place: Place, row: dict[str, Any]) -> PersonRow:
        return PersonRow(
            place=place,
            external_person_id=row.get("external_person_id"),
            person_key=row.get("person_key"),
            mdn=row.get("mdn"),
            cells=_cells([field.to for field in self._config.fields], place, row),
        )


def _query(
    source: Source,
    columns: Mapping[str, str],
    where: str,
    values: Iterable[str],
    snapshots: Mapping[str, Snapshot],
) -> Query:
    selected = ", ".join(f"{sql} AS {name}" for name, sql in columns.items())
    sql = f"SELECT {FILE}, {ROW}, {selected} FROM {source.relation} WHERE {where} ORDER BY ALL"
    return Query(sql, tuple(values), snapshots)


def _among(expression: str, values: Sequence[str]) -> tuple[str, list[str]]:
    """SQL for: the text is one of these, which are bound."""
    return f"({expression}) IN ({', '.join('?' for _ in values)})", list(values)


def _subscription_columns(source: Source) -> dict[str, str]:
    def text(name: str) -> str:
        return as_text(*source.column(name, "subscriptions"))

    reason = text("opt_out_reason") if source.has("opt_out_reason") else "NULL::VARCHAR"
    return {
        "person_key": f"lower({text('person_key')})",
        "list": text("subscription_list_id"),
        "opt_in": moment_of(*source.column("opt_in_date", "subscriptions")),
        "opt_out": moment_of(*source.column("opt_out_date", "subscriptions")),
        "opt_out_reason": reason,
    }


def _raw(column: tuple[str, str]) -> str:
    return f"CAST({column[0]} AS VARCHAR)"


def _cells(names: Iterable[str], place: Place, row: Mapping[str, Any]) -> dict[str, Cell]:
    return {
        name: _cell(place.row, row[f"raw_{index}"], row[f"value_{index}"])
        for index, name in enumerate(names)
        if f"value_{index}" in row
    }


def _cell(number: int, raw: str | None, value: str | None) -> Cell:
    fault = next((f for mark, f in _FAULTS.items() if value and value.startswith(mark)), None)
    return Cell(number, raw, None if fault else value, fault)


def _unmet(conditions: Sequence[Condition], row: Mapping[str, Any]) -> Iterator[str]:
    for index, one in enumerate(conditions):
        if f"meets_{index}" in row and row[f"meets_{index}"] is not True:
            yield condition_text(one, row[f"tested_{index}"])


def _place(snapshot: Snapshot, row: int) -> Place:
    manifest = snapshot.manifest
    as_of = instant_text(manifest.as_of)
    return Place(manifest.feed, manifest.day, manifest.source, as_of, manifest.content_hash, row)
