"""The base: the last state both sides were seen to agree on, as a reconcile reads it.

A base made by hand is a file, or a folder with `persons.parquet`, in the columns of the persons
input. The base that the daily job makes is a folder of two files, see `next_base`: `origin.json`
names landed persons, which as a rule are what both sides agreed on, and `exceptions.parquet` has
the rows that are otherwise. `person_row` is the landed row that an exception replaces, if any, and
its `external_person_id` the key of the contact that agreed; `unknown` are the fields on which both
sides never agreed, and `mdn` where no number was seen; `has_matched` says whether the contact met
the conditions. `mdn`, `carrier_code` and `number_since` tell whose number it was, by which carrier,
and when that last changed. An exception without identifiers only takes the landed row away. The
metadata tells the mapping of each field.
"""

# ruff: noqa: S608  (SQL is composed here on purpose: names and texts go through reconcile.sql)

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import duckdb

from vibes_pipelines.reconcile.errors import ReconcileError
from vibes_pipelines.reconcile.sources import ROW, Source, open_source
from vibes_pipelines.reconcile.sql import ident, literal
from vibes_pipelines.reconcile.values import RULES, as_text, platform_text
from vibes_pipelines.sync_config import MappedField, SyncConfig

ORIGIN = "origin.json"
EXCEPTIONS = "exceptions.parquet"
FIELDS = "fields"
"""The key of the Parquet metadata that holds the meaning of each field, as JSON."""

_MADE_ANEW = "move its folder away, and the base is made anew"

IDENTIFIERS = ("person_key", "external_person_id")
CARRIER = "carrier_code"
"""The column of persons with the carrier of their number, where the share has one."""
NUMBER = ("mdn", CARRIER, "number_since")
"""The columns of exceptions that tell whose number it is, by which carrier, and since when."""


@dataclass(frozen=True)
class Base:
    """An opened base: persons as they stand, and the exceptions of a base of the daily job.

    A row of it is told by its number: of `persons` from 0 up, of `exceptions` from -1 down.
    """

    persons: Source
    exceptions: Source | None = None

    @property
    def is_recorded(self) -> bool:
        """Whether the daily job made it."""
        return self.exceptions is not None

    def rows_sql(self) -> str:
        """SQL for base_row, person_key, external_person_id of every row."""
        names = ", ".join(f"{_identifier(self.persons, name)} AS {name}" for name in IDENTIFIERS)
        rows = f"SELECT {ROW} AS base_row, {names} FROM {self.persons.relation}"
        if self.exceptions is None:
            return rows
        others = self.exceptions.relation
        return f"""
            SELECT * FROM ({rows}) ANTI JOIN {others} e ON e.person_row = base_row
            UNION ALL
            SELECT -1 - {ROW}, {", ".join(IDENTIFIERS)} FROM {others}
            WHERE {" OR ".join(f"{name} IS NOT NULL" for name in IDENTIFIERS)}"""

    def numbers_sql(self) -> str:
        """SQL for row, key, external_person_id, mdn, carrier and since of every row.

        `key` is what a person is known by over the days; `since` when its number last changed.
        """
        key = "coalesce(person_key, '=' || external_person_id) AS key"
        names = ", ".join(f"{_identifier(self.persons, name)} AS {name}" for name in IDENTIFIERS)
        mdn, carrier = (clean_or_null(self.persons, name) for name in ("mdn", CARRIER))
        whole = f"""
            SELECT row, {key}, external_person_id, mdn, carrier, NULL::TIMESTAMP AS since
            FROM (SELECT {ROW} AS row, {names}, {mdn} AS mdn, {carrier} AS carrier
                  FROM {self.persons.relation})"""
        if self.exceptions is None:
            return whole
        others = self.exceptions.relation
        return f"""
            SELECT * FROM ({whole}) ANTI JOIN {others} e ON e.person_row = row
            UNION ALL
            SELECT -1 - {ROW}, {key}, external_person_id, {self._number_of_exceptions()}
            FROM {others} WHERE NOT list_contains(unknown, 'mdn')"""

    def _number_of_exceptions(self) -> str:
        """Bases that were made before numbers were watched do not have them."""
        if self.exceptions is not None and self.exceptions.has(CARRIER):
            return ", ".join(NUMBER)
        return "NULL::VARCHAR, NULL::VARCHAR, NULL::TIMESTAMP"

    def values_sql(self, config: SyncConfig, rows_sql: str) -> str:
        """SQL for base_row, unknown, has_matched, `NUMBER` and `value_i` of the rows of `rows_sql`.

        Both parts are read by semi-joins: only these rows are decoded.
        """
        known = fields_of(config, self)
        whole = "".join(
            f", {_text(self.persons, f) if f.to in known else 'NULL::VARCHAR'} AS value_{index}"
            for index, f in enumerate(config.fields)
        )
        never = ", ".join(literal(f.to) for f in config.fields if f.to not in known)
        matched = "true" if self.is_recorded else "false"
        rows = f"""
            SELECT {ROW} AS base_row, [{never}]::VARCHAR[] AS unknown,
                   {matched} AS has_matched, {clean_or_null(self.persons, "mdn")} AS mdn,
                   {clean_or_null(self.persons, CARRIER)} AS {CARRIER},
                   NULL::TIMESTAMP AS number_since{whole}
            FROM {self.persons.relation} WHERE {ROW} IN ({rows_sql})"""
        if self.exceptions is None:
            return rows
        cells = "".join(
            f", {ident(f.to) if f.to in known else 'NULL::VARCHAR'}" for f in config.fields
        )
        return f"""{rows}
            UNION ALL
            SELECT -1 - {ROW}, list_concat(unknown, [{never}]::VARCHAR[]), has_matched,
                   {self._number_of_exceptions()}{cells}
            FROM {self.exceptions.relation} WHERE -1 - {ROW} IN ({rows_sql})"""


def open_base(connection: duckdb.DuckDBPyConnection, path: Path, workspace: Path) -> Base:
    """Opens a base made by hand or by the daily job.

    Raises:
        ReconcileError: for a path that is missing or unreadable, or a base whose landed persons are
            not there as they were.
    """
    if not (path / ORIGIN).is_file():
        given = open_source(connection, "base persons", path, workspace)
        if not (given.has("person_key") or given.has("external_person_id")):
            msg = f"base {path}: has neither person_key nor external_person_id; give persons"
            raise ReconcileError(msg)
        return Base(given)
    persons = landed_persons(path)
    if persons is None:
        msg = f"base {path}: the landed persons it was made from are not there as they were"
        raise ReconcileError(f"{msg}; {_MADE_ANEW}")
    return Base(
        open_source(connection, "base persons", persons, workspace),
        open_source(connection, "base exceptions", path / EXCEPTIONS, workspace),
    )


def landed_persons(path: Path) -> Path | None:
    """The landed persons of a recorded base; None when they are gone or landed anew.

    Raises:
        ReconcileError: what the base says of itself cannot be read.
    """
    try:
        origin = json.loads((path / ORIGIN).read_text(encoding="utf-8"))
        if origin["persons"] is None:
            return None
        folder, content = path / origin["persons"], origin["content_hash"]
    except (ValueError, KeyError, TypeError) as half:
        raise ReconcileError(_unreadable(path / ORIGIN)) from half
    return folder if content_hash(folder) == content else None


def content_hash(snapshot: Path) -> str | None:
    """The content hash of a landed snapshot; None when there is none."""
    manifest = snapshot / "manifest.json"
    if not manifest.is_file():
        return None
    return str(json.loads(manifest.read_text(encoding="utf-8"))["content_hash"])


def agreed_meanings(file: Path) -> Mapping[str, str]:
    """Per field the rules and the mapping under which a file of agreement was made.

    Raises:
        ReconcileError: the file cannot be read.
    """
    meanings: dict[str, str] = json.loads(metadata_of(file, _unreadable(file))[FIELDS.encode()])
    return meanings


def _unreadable(file: Path) -> str:
    return f"{file} cannot be read; {_MADE_ANEW}"


def metadata_of(file: Path, unreadable: str) -> Mapping[bytes, bytes]:
    """What a Parquet file says of itself.

    Raises:
        ReconcileError: the file cannot be read; its text is `unreadable`.
    """
    # Slow to import, and a reconcile without a base does without it.
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    try:
        return pq.read_metadata(file).metadata or {}
    except pa.ArrowInvalid as half:
        raise ReconcileError(unreadable) from half


def current_meanings(config: SyncConfig) -> dict[str, str]:
    """Per field the rules of canonical texts and the hash of its mapping, as they are now."""
    return {field.to: f"{RULES} {field.meaning_hash}" for field in config.fields}


def fields_of(config: SyncConfig, base: Base | None) -> frozenset[str]:
    """The mapped fields that this base can tell of: agreed under the mapping they have now."""
    without = without_base(config, base)
    return frozenset(field.to for field in config.fields if field.to not in without)


def without_base(config: SyncConfig, base: Base | None) -> dict[str, str]:
    """Why a base cannot tell of a mapped field, for each of which that is so: as a reason says.

    A base that was made while a field was mapped otherwise has no values of it, also once the
    mapping is what it was when both sides agreed.
    """
    now = current_meanings(config)
    if base is None:
        return dict.fromkeys(now, "no_base")
    agreed = agreed_meanings(base.exceptions.path) if base.exceptions else now
    parts = [part for part in (base.persons, base.exceptions) if part is not None]
    return {
        name: _why_not(agreed.get(name), meaning)
        for name, meaning in now.items()
        if agreed.get(name) != meaning or not all(part.has(name) for part in parts)
    }


def _why_not(agreed: str | None, now: str) -> str:
    if agreed is None or agreed == now:
        return "no_base"
    is_same_mapping = agreed.rpartition(" ")[2] == now.rpartition(" ")[2]
    return "rules_changed" if is_same_mapping else "mapping_changed"


def build_base_value(connection: duckdb.DuckDBPyConnection, config: SyncConfig, base: Base) -> None:
    """Creates `base_value` from `identified`: row_number of the person, unknown, `value_i`."""
    create_base_row(
        connection,
        base,
        """
        SELECT person_row AS row_number, p.person_key, p.key AS external_person_id,
               c.key AS contact_key
        FROM candidate JOIN contact_raw c ON c.row_number = contact_row
        JOIN person_raw p ON p.row_number = person_row""",
    )
    create_base_value(connection, config, base)


def create_base_value(
    connection: duckdb.DuckDBPyConnection, config: SyncConfig, base: Base
) -> None:
    """Creates `base_value` from `base_row`."""
    values = base.values_sql(config, "SELECT base_row FROM base_row")
    connection.execute(f"""
        CREATE TEMP TABLE base_value AS
        SELECT base_row.row_number, v.* EXCLUDE (base_row)
        FROM ({values}) v JOIN base_row USING (base_row)""")


def create_base_row(connection: duckdb.DuckDBPyConnection, base: Base, wanted_sql: str) -> None:
    """Creates `base_row`: row_number of a person and the base's row of it, one or none.

    `wanted_sql` yields row_number, person_key, external_person_id and contact_key. The row is found
    by person_key, else by external_person_id; what was agreed with another contact is no base.
    """
    connection.execute(f"""
        CREATE OR REPLACE TEMP TABLE base_row AS
        WITH b AS ({base.rows_sql()}),
        wanted AS ({wanted_sql}),
        found AS (
            SELECT w.row_number, w.contact_key, 1 AS rank, b.*
            FROM b JOIN wanted w USING (person_key)
            UNION ALL
            SELECT w.row_number, w.contact_key, 2 AS rank, b.*
            FROM b JOIN wanted w USING (external_person_id)
            WHERE w.person_key IS NULL OR b.person_key IS NULL),
        nearest AS (
            SELECT * FROM found
            QUALIFY count(*) OVER (PARTITION BY row_number, rank) = 1
                AND rank = min(rank) OVER (PARTITION BY row_number))
        SELECT row_number, base_row FROM nearest
        WHERE coalesce(external_person_id = contact_key, true)""")


def _identifier(persons: Source, name: str) -> str:
    if not persons.has(name):
        return "NULL::VARCHAR"
    text = as_text(*persons.column(name, "the base"))
    return f"lower({text})" if name == "person_key" else text


def clean_or_null(persons: Source, name: str) -> str:
    """SQL for the clean text of a column that persons may lack."""
    return as_text(*persons.column(name, "the base")) if persons.has(name) else "NULL::VARCHAR"


def _text(persons: Source, field: MappedField) -> str:
    return platform_text(field.type, *persons.column(field.to, "the base"))
