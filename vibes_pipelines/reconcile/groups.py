"""Groups: the landed contacts and persons that share an identifier with some contacts.

Directly or through one another: who sees a part of a group does not see its doubts. Identifiers are
those of the narrow rows, by which the reconcile of a whole day tells who is who; where two texts
have one hash the group is only larger than it had to be.
"""

# ruff: noqa: S608  (SQL is composed here on purpose: names and texts go through reconcile.sql)

from collections.abc import Collection
from dataclasses import dataclass

import duckdb

from vibes_pipelines.data_files import parquet
from vibes_pipelines.reconcile.identifiers import (
    Identifiers,
    contact_identifiers,
    hashed,
    person_identifiers,
)
from vibes_pipelines.reconcile.landed import HASHES, are_hashed
from vibes_pipelines.reconcile.narrow import (
    StandIn,
    ask_the_library,
    contact_rows_sql,
    name_odd_numbers,
    person_rows_sql,
    region_of,
)
from vibes_pipelines.reconcile.phone import e164_number
from vibes_pipelines.reconcile.sources import Source
from vibes_pipelines.reconcile.sql import clean
from vibes_pipelines.sync_config import SyncConfig

_NO_VALUES = [StandIn("NULL")]


@dataclass(frozen=True)
class Sought:
    """Contacts as they are now, and what else names them or their persons.

    `keys` are those of contacts that are gone, too; `mdns` have the form of E.164.
    """

    contacts: Source
    keys: Collection[str]
    person_keys: Collection[str] = ()
    mdns: Collection[str] = ()


def gather_group(
    connection: duckdb.DuckDBPyConnection,
    config: SyncConfig,
    sought: Sought,
    contacts: Source,
    persons: Source,
    most: int,
) -> bool:
    """Creates `group_contact` and `group_person`: row_number of each landed row of the group.

    What was landed of the contacts that are sought is out of date, and left out. Returns whether
    the group is whole: beyond `most` rows it is cut, and those that a key names come first.

    Raises:
        ReconcileError: for a column that the sync config maps and a side does not have.
    """
    sides = {
        "contact": _identifiers(connection, config, contacts, "landed_contact"),
        "person": _identifiers(connection, config, persons, "landed_person"),
    }
    _start(connection, _identifiers(connection, config, sought.contacts, "changed"), sought)
    connection.execute(f"""
        CREATE TEMP VIEW other AS
        SELECT 'person' AS side, * FROM ({sides["person"]})
        UNION ALL
        SELECT 'contact', c.* FROM ({sides["contact"]}) c
        ANTI JOIN (SELECT key FROM sought_key) s ON c.key = s.key""")
    left, found, hop = most, 1, 0
    while found and left >= 0:
        hop += 1
        [(found,)] = connection.execute(_REACH, {"hop": hop, "most": left + 1}).fetchall()
        left -= found
    for side in sides:
        connection.execute(f"""
            CREATE TEMP VIEW group_{side} AS
            SELECT row_number FROM reached WHERE side = '{side}'""")
    return left >= 0


def _identifiers(
    connection: duckdb.DuckDBPyConnection, config: SyncConfig, source: Source, name: str
) -> str:
    """SQL for row_number, key, person_key and mdn of one side: as they were landed, else read."""
    columns = "row_number, key, person_key, mdn"
    if are_hashed(connection, config, source):
        return f"SELECT {columns} FROM {parquet(source.path / HASHES)}"
    is_contacts = source.role == "contacts"
    rows = _contact_rows(config, source) if is_contacts else _person_rows(config, source)
    connection.execute(f"CREATE TEMP TABLE {name} AS SELECT {columns}, phone FROM ({rows})")
    ask_the_library(connection, name, region_of(config))
    if not is_contacts:
        name_odd_numbers(connection, name)
    return f"SELECT {columns} FROM {name}"


def _contact_rows(config: SyncConfig, contacts: Source) -> str:
    ids: Identifiers = contact_identifiers(config, contacts)
    return contact_rows_sql(config, contacts, ids, _NO_VALUES, salt=0)


def _person_rows(config: SyncConfig, persons: Source) -> str:
    return person_rows_sql(persons, person_identifiers(config, persons), _NO_VALUES, salt=0)


def _start(connection: duckdb.DuckDBPyConnection, changed_sql: str, sought: Sought) -> None:
    """Creates `reached`, with the identifiers of the contacts that are sought, and `sought_key`."""
    connection.execute(f"""
        CREATE TEMP TABLE reached AS
        SELECT 'sought' AS side, *, 0 AS hop FROM ({changed_sql})""")
    given = {
        "key": (hashed("text", 0), sought.keys),
        "person_key": (hashed("lower(text)", 0), sought.person_keys),
        "mdn": (e164_number("text"), sought.mdns),
    }
    for column, (value, texts) in given.items():
        connection.execute(
            f"INSERT INTO reached BY NAME SELECT 'sought' AS side, {value} AS {column}, 0 AS hop"
            f" FROM (SELECT {clean('given')} AS text FROM (SELECT unnest($1::VARCHAR[]) AS given))",
            [list(texts)],
        )
    connection.execute(
        "CREATE TEMP TABLE sought_key AS SELECT DISTINCT key FROM reached WHERE key IS NOT NULL"
    )


def _is_near(column: str) -> str:
    """SQL for: somebody whom the last hop reached has this identifier."""
    near = f"SELECT {column} FROM reached WHERE hop = $hop - 1 AND {column} IS NOT NULL"
    return f"coalesce({column} IN ({near}), false)"


_REACH = f"""
    INSERT INTO reached
    WITH near AS (
        SELECT *, {_is_near("key")} OR {_is_near("person_key")} AS by_key,
               {_is_near("mdn")} AS by_mdn
        FROM other)
    SELECT side, row_number, key, person_key, mdn, $hop FROM near
    ANTI JOIN reached USING (side, row_number)
    WHERE by_key OR by_mdn ORDER BY by_key DESC, side DESC, row_number LIMIT $most"""
