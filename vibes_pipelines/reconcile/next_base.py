"""Making the next base: what one day agreed on, laid over the base of that day.

Per person and field the last agreed value stays. What a day agreed on is read from its landed
persons, its agreement.parquet and what was under way; nothing is compared again here. Almost every
landed person stands for itself, so that only the others are written.
"""

# ruff: noqa: S608  (SQL is composed here on purpose: names and texts go through reconcile.sql)

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb

from vibes_pipelines.data_files import parquet
from vibes_pipelines.reconcile.agreement import AGREEMENT
from vibes_pipelines.reconcile.base import (
    CARRIER,
    EXCEPTIONS,
    FIELDS,
    IDENTIFIERS,
    Base,
    agreed_meanings,
    clean_or_null,
    create_base_row,
    create_base_value,
    current_meanings,
    open_base,
)
from vibes_pipelines.reconcile.engine import Limits, engine
from vibes_pipelines.reconcile.invites import INVITE
from vibes_pipelines.reconcile.sources import ROW, Source, open_source
from vibes_pipelines.reconcile.sql import ident, literal, text_list
from vibes_pipelines.reconcile.values import platform_text
from vibes_pipelines.sync_config import MappedField, SyncConfig

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class LastDay:
    """The last day that was reconciled: its landed persons and the folder of its diff set.

    `base` is the base of that day; `pending` what was sent before it and was not yet visible.
    Of the day that the next base is for, `shown` are its landed persons, and `sends` what they may
    show for the first time (`SentChanges.values`).
    """

    persons: Path
    diff_set: Path
    base: Path | None
    pending: Path | None
    sends: "pa.Table | None" = None
    shown: Path | None = None


def write_exceptions(
    config: SyncConfig, last: LastDay, out: Path, limits: Limits = Limits()
) -> None:
    """Writes `exceptions.parquet` of the base that follows `last` into the folder `out`.

    Raises:
        ReconcileError: the landed persons, or the base of the last day, cannot be read.
    """
    with (
        tempfile.TemporaryDirectory(prefix="base-", dir=limits.temp_dir) as workspace,
        engine(limits, Path(workspace)) as connection,
    ):
        persons = open_source(connection, "persons", last.persons, Path(workspace))
        older = open_base(connection, last.base, Path(workspace)) if last.base else None
        fields = _compared_fields(config, last, persons)
        _read_hidden(connection, persons, older)
        _read_arrived(connection, fields, last, Path(workspace))
        _read_day(connection, last, persons)
        _read_values(connection, config, persons)
        _read_older(connection, config, older)
        parts = (
            _looked_at_sql(config, fields),
            _carried_sql(config, fields),
            _added_sql(fields),
            _masks_sql(fields),
        )
        # Also of a field that was mapped otherwise: the reasons then say so.
        meanings = json.dumps(dict(agreed_meanings(last.diff_set / AGREEMENT)), sort_keys=True)
        connection.execute(
            f"COPY ({' UNION ALL '.join(parts)}) TO {literal(str(out / EXCEPTIONS))}"
            " (FORMAT parquet, COMPRESSION zstd,"
            f" KV_METADATA {{{FIELDS}: {literal(meanings)}}})"
        )


def _compared_fields(config: SyncConfig, last: LastDay, persons: Source) -> list[MappedField]:
    """The fields that the last day compared under the mapping they have now."""
    agreed, now = agreed_meanings(last.diff_set / AGREEMENT), current_meanings(config)
    return [
        field
        for field in config.fields
        if agreed.get(field.to) == now[field.to] and persons.has(field.to)
    ]


def _read_hidden(
    connection: duckdb.DuckDBPyConnection, persons: Source, older: Base | None
) -> None:
    """Creates `hidden`: persons without a carrier today, and the last one known of their number.

    Without it a number that comes back with another carrier would pass for unchanged.
    """
    nothing = f"SELECT 0::BIGINT AS person_row, ''::VARCHAR AS {CARRIER} WHERE false"
    found = nothing
    if older is not None and persons.has(CARRIER):
        found = f"""
            SELECT now.row AS person_row, any_value(before.carrier) AS {CARRIER}
            FROM (SELECT * FROM ({Base(persons).numbers_sql()}) WHERE carrier IS NULL) now
            JOIN (SELECT * FROM ({older.numbers_sql()}) WHERE carrier IS NOT NULL) before
              ON before.key = now.key AND before.mdn = now.mdn
            GROUP BY now.row"""
    connection.execute(f"CREATE TEMP TABLE hidden AS {found}")


def _read_arrived(
    connection: duckdb.DuckDBPyConnection,
    fields: Sequence[MappedField],
    last: LastDay,
    workspace: Path,
) -> None:
    """Creates `arrived`: per contact its person, and the values sent that this shows by now.

    Of two persons with one external id nothing is told.
    """
    connection.execute("""
        CREATE TEMP TABLE arrived
        (contact VARCHAR, person_key VARCHAR, changes STRUCT(field VARCHAR, value VARCHAR)[])""")
    if last.sends is None or last.shown is None or not fields:
        return
    folder = workspace / "shown"
    folder.mkdir()
    shown = open_source(connection, "persons", last.shown, folder)
    told = [field for field in fields if shown.has(field.to)]
    if not told or not shown.has("external_person_id"):
        return
    contact, key = (clean_or_null(shown, name) for name in IDENTIFIERS[::-1])
    values = "".join(
        f", {platform_text(field.type, *shown.column(field.to, 'persons'))} AS value_{index}"
        for index, field in enumerate(told)
    )
    cases = " ".join(
        f"WHEN {literal(field.to)} THEN value_{index}" for index, field in enumerate(told)
    )
    connection.register("sends", last.sends)
    connection.execute(f"""
        INSERT INTO arrived
        WITH one AS (
            SELECT external_person_id AS contact, unnest(changes) AS change FROM sends),
        person AS (
            SELECT {contact} AS contact, lower({key}) AS person_key{values} FROM {shown.relation}
            WHERE {contact} IN (SELECT contact FROM one)
            QUALIFY count(*) OVER (PARTITION BY contact) = 1)
        SELECT contact, any_value(person_key),
               list(DISTINCT {{'field': change.field, 'value': change.after}})
        FROM one JOIN person USING (contact)
        WHERE change.field IN {text_list(field.to for field in told)}
          AND change.after IS NOT DISTINCT FROM CASE change.field {cases} END
        GROUP BY contact""")


def _read_day(connection: duckdb.DuckDBPyConnection, last: LastDay, persons: Source) -> None:
    """Creates `listed` (the agreement), `last_person` and `looked_at`.

    `looked_at` are persons that agree in some fields only, whose contact is filtered, to whom
    something is under way or has arrived since, or whose carrier is hidden; `fields` is NULL where
    all values agree.
    """
    connection.execute(f"CREATE TEMP TABLE listed AS {_listed_sql(connection, last)}")
    pending = "SELECT ''::VARCHAR AS external_person_id, '' AS field, '' AS value WHERE false"
    if last.pending is not None:
        pending = f"SELECT * FROM {parquet(last.pending)}"
    connection.execute(f"""
        CREATE TEMP TABLE sent AS
        SELECT external_person_id AS contact, list({{'field': field, 'value': value}}) AS changes
        FROM ({pending})
        WHERE external_person_id IS NOT NULL AND NOT starts_with(field, {literal(INVITE)})
        GROUP BY external_person_id""")
    connection.execute(f"""
        CREATE TEMP VIEW last_person AS
        SELECT base_row AS person_row, person_key, external_person_id
        FROM ({Base(persons).rows_sql()})""")
    connection.execute("""
        CREATE TEMP TABLE looked_at AS
        SELECT p.*, coalesce(l.contact_key, p.external_person_id) AS contact, l.fields,
               coalesce(l.passes, true) AS passes, coalesce(l.is_settled, false) AS is_settled,
               l.number_since, sent.changes AS sent, arrived.changes AS arrived
        FROM last_person p
        LEFT JOIN listed l USING (person_row)
        LEFT JOIN sent ON sent.contact = coalesce(l.contact_key, p.external_person_id)
        LEFT JOIN arrived ON arrived.contact = coalesce(l.contact_key, p.external_person_id)
        LEFT JOIN hidden USING (person_row)
        WHERE coalesce(l.is_judged, sent.contact IS NOT NULL OR arrived.contact IS NOT NULL
                                    OR hidden.person_row IS NOT NULL)""")


def _listed_sql(connection: duckdb.DuckDBPyConnection, last: LastDay) -> str:
    """An agreement that was made before numbers were watched does not tell since when."""
    file = parquet(last.diff_set / AGREEMENT)
    names = [row[0] for row in connection.execute(f"DESCRIBE SELECT * FROM {file}").fetchall()]
    since = "" if "number_since" in names else ", NULL::TIMESTAMP AS number_since"
    return f"SELECT *{since} FROM {file}"


def _read_values(
    connection: duckdb.DuckDBPyConnection, config: SyncConfig, persons: Source
) -> None:
    values = "".join(
        f", {platform_text(field.type, *persons.column(field.to, 'persons'))} AS value_{index}"
        for index, field in enumerate(config.fields)
        if persons.has(field.to)
    )
    connection.execute(f"""
        CREATE TEMP TABLE last_value AS
        SELECT {ROW} AS person_row, {clean_or_null(persons, "mdn")} AS mdn,
               {clean_or_null(persons, CARRIER)} AS {CARRIER}{values} FROM {persons.relation}
        WHERE {ROW} IN (SELECT person_row FROM looked_at)""")


def _read_older(
    connection: duckdb.DuckDBPyConnection, config: SyncConfig, older: Base | None
) -> None:
    """Creates `base_value` of the persons looked at, and `carried` with `carried_value`.

    `carried` are rows of the older base whose person was in doubt, without a contact, or not there.
    """
    if older is None:
        values = "".join(f", ''::VARCHAR AS value_{i}" for i in range(len(config.fields)))
        number = f"''::VARCHAR AS mdn, ''::VARCHAR AS {CARRIER}, NULL::TIMESTAMP AS number_since"
        known = f"[]::VARCHAR[] AS unknown, false AS has_matched, {number}{values} WHERE false"
        connection.execute(f"CREATE TEMP TABLE base_value AS SELECT 0 AS row_number, {known}")
        connection.execute(f"CREATE TEMP TABLE carried_value AS SELECT 0 AS base_row, {known}")
        connection.execute(
            "CREATE TEMP TABLE carried"
            " (base_row BIGINT, person_key VARCHAR, external_person_id VARCHAR)"
        )
        return
    create_base_row(
        connection,
        older,
        """
        SELECT person_row AS row_number, person_key, external_person_id, contact AS contact_key
        FROM looked_at""",
    )
    create_base_value(connection, config, older)
    connection.execute(f"""
        CREATE TEMP TABLE carried AS
        WITH judged AS (
            SELECT {_KEY.format(side="p")} AS key FROM last_person p
            ANTI JOIN (SELECT person_row FROM listed WHERE NOT is_judged) l USING (person_row))
        SELECT o.* FROM ({older.rows_sql()}) o
        ANTI JOIN judged ON {_KEY.format(side="o")} = judged.key""")
    values = older.values_sql(config, "SELECT base_row FROM carried")
    connection.execute(f"CREATE TEMP TABLE carried_value AS {values}")


# A person is known by its person_key; where a side has none, by its external_person_id. Hashes are
# several times cheaper here, and a collision only loses the base of somebody in doubt.
_KEY = "hash(coalesce({side}.person_key, '=' || {side}.external_person_id))"


def _looked_at_sql(config: SyncConfig, fields: Sequence[MappedField]) -> str:
    """In each field the value agreed on, else the base's older one.

    Where both sides agree although another value is under way, that value is what both will have
    agreed on: the platform shows it later, and must not pass for having changed it by itself. Nor
    must it where such a value has arrived by now, though the CRM may hold a newer one.
    """
    values, unknown = [], []
    for index, field in _numbered(config, fields):
        name = literal(field.to)
        agrees = f"(fields IS NULL OR list_contains(fields, {name}))"
        sent, arrived = (_of_field(changes, field) for changes in ("sent", "arrived"))
        values.append(f"""
            CASE WHEN len({arrived}) > 0 THEN ({arrived})[1].value
                 WHEN NOT {agrees} THEN o.value_{index}
                 WHEN coalesce(len({sent}), 0) = 0 THEN v.value_{index}
                 ELSE ({sent})[1].value END AS {ident(field.to)}, """)
        is_unknown = f"coalesce(list_contains(o.unknown, {name}), true)"
        is_unknown += f" AND coalesce(len({arrived}), 0) = 0"
        unknown.append(f"CASE WHEN NOT {agrees} AND {is_unknown} THEN {name} END")
    return f"""
        SELECT p.person_row, p.person_key, p.contact AS external_person_id, v.mdn,
               coalesce(v.{CARRIER}, hidden.{CARRIER}) AS {CARRIER},
               p.number_since, {"".join(values)}
               list_filter([{", ".join(unknown)}]::VARCHAR[], lambda one: one IS NOT NULL)
                   AS unknown,
               passes OR (coalesce(o.has_matched, false) AND NOT is_settled) AS has_matched
        FROM looked_at p
        JOIN last_value v USING (person_row)
        LEFT JOIN hidden USING (person_row)
        LEFT JOIN base_value o ON o.row_number = p.person_row"""


def _carried_sql(config: SyncConfig, fields: Sequence[MappedField]) -> str:
    """The older row; but a number that was seen elsewhere meanwhile has a new period once back."""
    values = "".join(f"v.value_{index}, " for index, _ in _numbered(config, fields))
    return f"""
        SELECT NULL, c.person_key, c.external_person_id, v.mdn, v.{CARRIER},
               coalesce(seen.number_since, v.number_since), {values} v.unknown, v.has_matched
        FROM carried c JOIN carried_value v USING (base_row)
        LEFT JOIN (
            SELECT {_KEY.format(side="p")} AS key, max(number_since) AS number_since
            FROM listed JOIN last_person p USING (person_row)
            WHERE NOT is_judged AND number_since IS NOT NULL GROUP BY ALL
        ) seen ON seen.key = {_KEY.format(side="c")}"""


def _added_sql(fields: Sequence[MappedField]) -> str:
    """Contacts whose person was added since: what has arrived of them.

    Not their numbers: that a person is new tells since when its number is its own.
    """
    values, unknown = [], [literal("mdn")]
    for field in fields:
        arrived = _of_field("changes", field)
        values.append(f"({arrived})[1].value, ")
        unknown.append(f"CASE WHEN len({arrived}) = 0 THEN {literal(field.to)} END")
    return f"""
        SELECT NULL, person_key, contact, NULL, NULL, NULL, {"".join(values)}
               list_filter([{", ".join(unknown)}]::VARCHAR[], lambda one: one IS NOT NULL), true
        FROM arrived
        WHERE NOT EXISTS (SELECT 1 FROM last_person p WHERE p.external_person_id = contact)
          AND NOT EXISTS (SELECT 1 FROM looked_at p WHERE p.contact = arrived.contact)
          AND NOT EXISTS (SELECT 1 FROM carried c WHERE c.external_person_id = contact)
          AND NOT EXISTS (SELECT 1 FROM carried c WHERE c.person_key = arrived.person_key)"""


def _of_field(changes: str, field: MappedField) -> str:
    """SQL for those of a list of changes that are of this field; NULL where there is no list."""
    return f"list_filter({changes}, lambda one: one.field = {literal(field.to)})"


def _masks_sql(fields: Sequence[MappedField]) -> str:
    """Landed persons of whom the day tells nothing."""
    blanks = "NULL, " * len(fields)
    return f"""
        SELECT person_row, NULL, NULL, NULL, NULL, NULL, {blanks} [], false
        FROM listed WHERE NOT is_judged"""


def _numbered(
    config: SyncConfig, fields: Sequence[MappedField]
) -> Sequence[tuple[int, MappedField]]:
    """The fields of the next base, with their numbers among all mapped fields."""
    return [(index, field) for index, field in enumerate(config.fields) if field in fields]
