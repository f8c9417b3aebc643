"""Phase one from landed snapshots: narrow rows that were made once, when the snapshot was landed.

`hashes.parquet` stands beside `data.parquet`. It is private to this engine, bound to its version,
to the mapping and to the snapshot's content, and safe to delete: without it the data is scanned.
A large one is sorted by key, so that both sides can be joined range by range, in little memory.
"""

# ruff: noqa: S608  (SQL is composed here on purpose: names and texts go through reconcile.sql)

import hashlib
import itertools
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import duckdb
import phonenumbers

from vibes_pipelines.data_files import exact, parquet
from vibes_pipelines.reconcile.engine import Limits, engine
from vibes_pipelines.reconcile.identifiers import (
    IDENTIFIERS,
    contact_identifiers,
    person_identifiers,
)
from vibes_pipelines.reconcile.narrow import (
    StandIn,
    ask_the_library,
    contact_rows_sql,
    name_odd_numbers,
    person_rows_sql,
    quick_name,
    region_of,
)
from vibes_pipelines.reconcile.sources import ROW, Source, open_source, told_encoding
from vibes_pipelines.reconcile.sql import literal
from vibes_pipelines.reconcile.values import RULES, as_text, quick_contact, quick_person
from vibes_pipelines.store.placing import put
from vibes_pipelines.sync_config import SyncConfig

HASHES = "hashes.parquet"
_ROWS_AT_ONCE = 6_000_000
"""Rows of a side that are joined at once: the persons' hash table takes some 300 MB."""
_LAYOUT = f"v2, by key beyond {_ROWS_AT_ONCE}"
"""How the file is laid out; others are written anew."""
_KEYS = 2**64
"""Keys are hashes: evenly spread below this."""


def write_contact_hashes(config: SyncConfig, snapshot: Path, limits: Limits = Limits()) -> None:
    """Writes the hashes of a landed snapshot of contacts, unless they are there.

    Raises:
        ReconcileError: for a column that the sync config maps and the contacts do not have.
    """

    def rows_sql(contacts: Source) -> str:
        stand_ins = []
        for index, field in enumerate(config.fields):
            column = contacts.column(field.from_, f"fields.from: {field.from_}")
            stand_ins.append(StandIn(*quick_contact(field, *column, quick_name(index))))
        ids = contact_identifiers(config, contacts)
        return contact_rows_sql(config, contacts, ids, stand_ins, salt=0)

    _write(config, "contacts", snapshot, rows_sql, limits)


def write_person_hashes(config: SyncConfig, snapshot: Path, limits: Limits = Limits()) -> None:
    """Writes the hashes of a landed snapshot of persons, unless they are there.

    Raises:
        ReconcileError: for a custom field or identifier that the persons do not have.
    """

    def rows_sql(persons: Source) -> str:
        stand_ins = [
            StandIn(quick_person(f.type, *persons.column(f.to, f"fields.to: {f.to}")))
            for f in config.fields
        ]
        return person_rows_sql(persons, person_identifiers(config, persons), stand_ins, salt=0)

    _write(config, "persons", snapshot, rows_sql, limits)


def are_hashed(connection: duckdb.DuckDBPyConnection, config: SyncConfig, *sources: Source) -> bool:
    """Whether each source is a landed snapshot with hashes of this engine, mapping and content."""
    return all(
        source.path.is_dir() and _is_current(connection, config, source.role, source.path)
        for source in sources
    )


def join_hashes(
    connection: duckdb.DuckDBPyConnection, config: SyncConfig, contacts: Source, persons: Source
) -> None:
    """Creates what `scan.scan_sides` creates, from the hashes of both sides."""
    for side, source in (("contact", contacts), ("person", persons)):
        hashes = parquet(source.path / HASHES)
        connection.execute(f"CREATE TEMP VIEW {side} AS SELECT * FROM {hashes}")
    for side, sql in (
        ("contact", _texts_sql("contact", config, contacts)),
        ("person", _texts_sql("person", config, persons)),
    ):
        connection.execute(f"CREATE TEMP VIEW {side}_text AS {sql}")
    agrees = "coalesce(c.mdn = p.mdn, c.mdn IS NULL)"
    if config.contacts.person_key is not None:
        agrees += " AND coalesce(c.person_key = p.person_key, c.person_key IS NULL)"
    [(rows,)] = connection.execute("SELECT count(*) FROM person").fetchall()
    makes = "CREATE TEMP TABLE joined AS"
    for keys in _key_ranges(rows):
        connection.execute(f"""
            {makes}
            SELECT c.row_number AS contact_row, p.row_number AS person_row, c.passes,
                   c.has_issue OR c.bad_mdn AS is_odd, c.person_key IS NOT NULL AS by_person_key,
                   c.fingerprint <> p.fingerprint AS differs,
                   c.row_number IS NOT NULL AND p.row_number IS NOT NULL AND {agrees} AS agrees
            FROM (FROM contact WHERE {keys}) c FULL JOIN (FROM person WHERE {keys}) p
              ON c.key = p.key""")
        makes = "INSERT INTO joined"
    connection.execute(
        "CREATE TEMP VIEW linked AS SELECT * FROM joined WHERE contact_row IS NOT NULL"
    )
    connection.execute("""
        CREATE TEMP VIEW unlinked_person AS
        SELECT person_row AS row_number FROM joined WHERE contact_row IS NULL""")


def _texts_sql(side: str, config: SyncConfig, source: Source) -> str:
    """The identifiers' texts, read from the data: for few rows only."""
    identifiers = contact_identifiers if side == "contact" else person_identifiers
    ids = identifiers(config, source)
    phone = as_text(*ids.phone) if ids.phone else "NULL::VARCHAR"
    return f"""
        SELECT text.row_number, text.key, text.person_key, {side}.bad_mdn,
               CASE WHEN {side}.mdn > 0 THEN '+' || {side}.mdn ELSE text.mdn END AS mdn
        FROM (SELECT {ROW} AS row_number, {ids.key} AS key, {ids.person_key} AS person_key,
                     {phone} AS mdn FROM {source.relation}) text
        JOIN {side} USING (row_number)"""


def _key_ranges(rows: int) -> list[str]:
    """SQL for ranges that together hold every key, and none."""
    parts = -(-rows // _ROWS_AT_ONCE)
    if parts <= 1:
        return ["true"]
    bounds = [_KEYS * part // parts for part in range(parts)]
    ranges = [f"key >= {low} AND key < {high}" for low, high in itertools.pairwise(bounds)]
    return [*ranges, f"key >= {bounds[-1]}", "key IS NULL"]


def _write(
    config: SyncConfig,
    role: str,
    snapshot: Path,
    rows_sql: Callable[[Source], str],
    limits: Limits,
) -> None:
    with (
        tempfile.TemporaryDirectory(prefix=".hashes-", dir=snapshot) as folder,
        engine(limits, Path(folder)) as connection,
        told_encoding(),
    ):
        if _is_current(connection, config, role, snapshot):
            return
        source = open_source(connection, role, snapshot, Path(folder))
        connection.execute(f"""
            CREATE TEMP TABLE narrow AS
            SELECT * EXCLUDE (key_text, person_key_text) FROM ({rows_sql(source)})""")
        ask_the_library(connection, "narrow", region_of(config))
        bad_mdn = "phone IS NOT NULL AS bad_mdn"
        if role == "persons":
            name_odd_numbers(connection, "narrow")
        [(rows,)] = connection.execute("SELECT count(*) FROM narrow").fetchall()
        order = "ORDER BY key, row_number" if rows > _ROWS_AT_ONCE else ""
        version = _version(config, role, snapshot)
        written = Path(folder) / HASHES
        connection.execute(f"""
            COPY (SELECT * EXCLUDE (phone), {bad_mdn}, {_repeats_sql(connection)}
                  FROM narrow {order})
            TO {literal(str(written))}
            (FORMAT parquet, PARQUET_VERSION v2, COMPRESSION zstd, COMPRESSION_LEVEL 1,
             KV_METADATA {{version: {literal(version)}}})""")
        put(written, snapshot / HASHES)


def _repeats_sql(connection: duckdb.DuckDBPyConnection) -> str:
    """SQL for `repeats_key` and so on: whether another row of this side has the identifier too."""
    columns = []
    for name in IDENTIFIERS:
        connection.execute(f"""
            CREATE TEMP TABLE repeated_{name} AS
            SELECT {name} FROM narrow WHERE {name} IS NOT NULL GROUP BY {name} HAVING count(*) > 1
            """)
        repeated = f"{name} IN (SELECT {name} FROM repeated_{name})"
        columns.append(f"coalesce({repeated}, false) AS repeats_{name}")
    return ", ".join(columns)


def _is_current(
    connection: duckdb.DuckDBPyConnection, config: SyncConfig, role: str, snapshot: Path
) -> bool:
    if not (snapshot / HASHES).is_file():
        return False
    try:
        found = connection.execute(
            "SELECT decode(value) FROM parquet_kv_metadata(?) WHERE decode(key) = 'version'",
            [exact(snapshot / HASHES)],
        ).fetchall()
    except duckdb.Error:
        return False
    return found == [(_version(config, role, snapshot),)]


def _version(config: SyncConfig, role: str, snapshot: Path) -> str:
    """What the hashes depend on. `hash()` may differ between versions of the engine."""
    manifest = json.loads((snapshot / "manifest.json").read_text(encoding="utf-8"))
    mapping = config.model_dump(mode="json", include={"contacts", "fields", "consents"})
    engines = [duckdb.__version__, phonenumbers.__version__]
    depends_on = [*engines, _LAYOUT, RULES, role, manifest["content_hash"], mapping]
    return hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()
