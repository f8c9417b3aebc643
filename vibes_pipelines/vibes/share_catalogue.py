"""What the share holds, for people who set it up: its objects, their columns, values in use.

Only what INFORMATION_SCHEMA and small queries tell belongs here; landing is in `share`.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vibes_pipelines.vibes.share import quoted
from vibes_pipelines.vibes.share_errors import ShareError, share_errors

if TYPE_CHECKING:
    from snowflake.connector import SnowflakeConnection

ObjectName = tuple[str, str, str]
"""Database, schema and table or view, as Snowflake holds them: no quotes."""


def written(name: str) -> str:
    """A name as sync.yaml takes it: in double quotes unless it is plain upper case."""
    plain = name.replace("_", "A").replace("$", "A")
    is_plain = plain.isascii() and plain.isalnum() and name.isupper() and not name[0].isdigit()
    return name if is_plain else '"' + name.replace('"', '""') + '"'


def objects_of(connection: "SnowflakeConnection", database: str) -> list[ObjectName]:
    """The tables and views of a database that the role may see, by schema and name.

    Raises:
        ShareError: the database is not there, or not granted.
    """
    statement = (
        "SELECT TABLE_CATALOG, TABLE_SCHEMA, TABLE_NAME "  # noqa: S608 - quoted
        f"FROM {quoted(written(database))}.INFORMATION_SCHEMA.TABLES "
        "WHERE TABLE_SCHEMA <> 'INFORMATION_SCHEMA' ORDER BY TABLE_SCHEMA, TABLE_NAME"
    )
    with share_errors(f"listing {database}"), connection.cursor() as cursor:
        cursor.execute(statement)
        return [(str(row[0]), str(row[1]), str(row[2])) for row in cursor.fetchall()]


def columns_of(connection: "SnowflakeConnection", name: ObjectName) -> dict[str, str]:
    """The columns of an object, in their order, each with its type.

    Raises:
        ShareError: the database is not there, or not granted.
    """
    statement = (
        "SELECT COLUMN_NAME, DATA_TYPE "  # noqa: S608 - quoted
        f"FROM {quoted(written(name[0]))}.INFORMATION_SCHEMA.COLUMNS "
        "WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s ORDER BY ORDINAL_POSITION"
    )
    with share_errors(f"describing {name[2]}"), connection.cursor() as cursor:
        cursor.execute(statement, name[1:])
        return {str(row[0]): str(row[1]) for row in cursor.fetchall()}


def values_in_use(
    connection: "SnowflakeConnection", sql_name: str, column: str, most: int
) -> list[str] | None:
    """The different texts of a column; None when there are more than `most`.

    `sql_name` and `column` are written as sync.yaml writes them.

    Raises:
        ShareError: they cannot be read.
    """
    parts: Sequence[str] = sql_name.split(".")
    if len(parts) != 3:
        msg = f"share: {sql_name} is not DATABASE.SCHEMA.TABLE; correct it in feeds of sync.yaml"
        raise ShareError(msg)
    table = ".".join(quoted(part) for part in parts)
    statement = (
        f"SELECT DISTINCT {quoted(column)} FROM {table} "  # noqa: S608 - quoted
        f"WHERE {quoted(column)} IS NOT NULL LIMIT {most + 1:d}"
    )
    with share_errors(f"reading {sql_name}"), connection.cursor() as cursor:
        cursor.execute(statement)
        values = sorted(str(row[0]) for row in cursor.fetchall())
    return values if len(values) <= most else None
