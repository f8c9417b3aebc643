"""Looking: what columns the CRM has and what is in them, and what the platform calls its fields.

Values are looked at to guess with, and go no further than this process and the guessed options.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from vibes_pipelines.crm.arrow_columns import as_text
from vibes_pipelines.crm.database import crm_engine, reflect_table
from vibes_pipelines.settings import ApiSettings
from vibes_pipelines.stages.api import vibes_api_of
from vibes_pipelines.stages.interrupts import run_until_interrupted
from vibes_pipelines.stages.landing import Connect
from vibes_pipelines.vibes.share_catalogue import (
    ObjectName,
    columns_of,
    objects_of,
    values_in_use,
    written,
)
from vibes_pipelines.vibes.share_errors import share_errors

if TYPE_CHECKING:
    from snowflake.connector import SnowflakeConnection

ROWS_LOOKED_AT = 1_000
VALUES_LOOKED_AT = 1_000
_NAME_WORDS = ("contact", "customer", "person", "member", "client", "subscriber", "user", "klant")


class InitError(RuntimeError):
    """Nothing can be written; the message says why and what to do."""


@dataclass(frozen=True)
class Column:
    """One column of the CRM: its kind (`text`, `number`, `date`, `time`, `truth`), a sample."""

    name: str
    kind: str = "text"
    values: tuple[str, ...] = ()
    rows: int = 0

    @property
    def different(self) -> frozenset[str]:
        """The different values of the sample."""
        return frozenset(self.values)

    @property
    def is_unique(self) -> bool:
        """Whether every row looked at has a value of its own."""
        return self.rows > 0 and len(self.values) == self.rows == len(self.different)


@dataclass(frozen=True)
class CrmSeen:
    """A table of the CRM. `keys` are its columns that the database keeps unique."""

    table: str
    columns: tuple[Column, ...]
    keys: tuple[str, ...] = ()
    other_tables: tuple[str, ...] = ()


@dataclass(frozen=True)
class PlatformField:
    """A custom field as the share shows it; `values` where there are few enough to be seen."""

    name: str
    values: frozenset[str] = frozenset()


@dataclass(frozen=True)
class PlatformSeen:
    """What the platform showed. `objects`: feed to object; `lists`: id to name and campaigns."""

    fields: tuple[PlatformField, ...] = ()
    objects: Mapping[str, str] = field(default_factory=dict)
    lists: Mapping[str, tuple[str, tuple[str, ...]]] = field(default_factory=dict)
    has_share: bool = False
    has_lists: bool = False


def look_at_crm(crm_url: str, table: str | None) -> CrmSeen:
    """The columns of `table`, or of the table that looks most like one of contacts.

    Raises:
        CrmError: no connection, or no such table.
        InitError: the database shows no table.
    """
    with crm_engine(crm_url) as engine, engine.connect() as connection:
        inspector = sa.inspect(connection)
        tables = sorted([*inspector.get_table_names(), *inspector.get_view_names()])
        if not tables and table is None:
            msg = "the CRM shows this user no table; grant it one, or name it with --table"
            raise InitError(msg)
        chosen = table or max(tables, key=lambda name: (_looks_like_contacts(name), -len(name)))
        reflected = reflect_table(connection, chosen, "--table")
        query = sa.select(*(_as_is(connection, c) for c in reflected.columns)).select_from(
            reflected
        )
        rows = connection.execute(query.limit(ROWS_LOOKED_AT)).all()
        return CrmSeen(
            chosen,
            tuple(_column(c, i, rows) for i, c in enumerate(reflected.columns)),
            tuple(_keys(inspector, reflected)),
            tuple(name for name in tables if name != chosen),
        )


def _looks_like_contacts(name: str) -> int:
    return sum(word in name.lower() for word in _NAME_WORDS)


def _as_is(connection: sa.Connection, column: sa.Column[object]) -> sa.ColumnElement[object]:
    """Without SQLAlchemy's types where a database promises nothing about its values."""
    if connection.dialect.name != "sqlite":
        return column
    return sa.literal_column(connection.dialect.identifier_preparer.quote(column.name))


def _column(column: sa.Column[Any], index: int, rows: Sequence[Sequence[Any]]) -> Column:
    texts = (as_text(row[index]) for row in rows)
    values = tuple(text for text in texts if text is not None and text.strip())
    return Column(column.name, _kind(column.type), values, len(rows))


def _kind(declared: "sa.types.TypeEngine[object]") -> str:
    match declared:
        case sa.Boolean():
            return "truth"
        case sa.DateTime():
            return "time"
        case sa.Date():
            return "date"
        case sa.Integer() | sa.Numeric():
            return "number"
    return "text"


def _keys(inspector: sa.Inspector, table: sa.Table) -> list[str]:
    primary = [column.name for column in table.primary_key.columns]
    found = [primary] if len(primary) == 1 else []
    if inspector.has_table(table.name, table.schema):
        unique = inspector.get_unique_constraints(table.name, table.schema)
        found += [one["column_names"] for one in unique]
    return [names[0] for names in found if len(names) == 1 and names[0]]


def look_at_share(connect: Connect, database: str) -> PlatformSeen:
    """The custom fields that the share's table of persons has, and its objects by feed.

    Raises:
        ShareError: the share cannot be read.
    """
    with share_errors("logging in"), connect() as connection:
        names = objects_of(connection, database)
        found = {feed: _object(names, word) for feed, word in _WORDS.items()}
        persons = found["share/persons"]
        columns = columns_of(connection, persons) if persons else {}
        fields = [
            PlatformField(column.lower(), _values(connection, persons, column))
            for column in columns
            if persons and written(column) == column and column not in _NOT_FIELDS
        ]
    objects = {feed: sql_name(name) for feed, name in found.items() if name}
    return PlatformSeen(tuple(fields), objects, has_share=bool(fields))


# The feeds, with the word by which an object is taken for theirs.
_WORDS = {
    "share/persons": "PERSON",
    "share/subscriptions": "SUBSCRIPTION",
    "share/refreshes": "REFRESH",
}
_NOT_FIELDS = frozenset({
    "PERSON_ID", "PERSON_KEY", "EXTERNAL_PERSON_ID", "MDN", "CARRIER_CODE", "COMPANY_ID",
    "CREATED_AT", "UPDATED_AT", "DELETED_AT",
})  # fmt: skip


def sql_name(name: ObjectName) -> str:
    """An object as sync.yaml names it."""
    return ".".join(written(part) for part in name)


def _object(names: list[ObjectName], word: str) -> ObjectName | None:
    fitting = [name for name in names if word in name[2].upper()]
    return min(fitting, key=lambda name: (len(name[2]), name), default=None)


def _values(connection: "SnowflakeConnection", name: ObjectName, column: str) -> frozenset[str]:
    found = values_in_use(connection, sql_name(name), column, VALUES_LOOKED_AT)
    return frozenset(found or ())


def look_at_lists(
    account: ApiSettings, company_key: str
) -> Mapping[str, tuple[str, tuple[str, ...]]]:
    """The company's lists: id to name and campaigns.

    Raises:
        VibesApiError: the API refuses, or does not answer.
    """
    return run_until_interrupted(_lists(account, company_key))


async def _lists(
    account: ApiSettings, company_key: str
) -> Mapping[str, tuple[str, tuple[str, ...]]]:
    from vibes_pipelines.vibes.api_calls import text_of  # noqa: PLC0415 - the HTTP client is slow
    from vibes_pipelines.vibes.campaign_api import campaign_id_of  # noqa: PLC0415 - as above

    found = {}
    async with vibes_api_of(account, company_key, timeout_s=15, max_attempts=2) as api:
        for record in await api.subscriptions.lists():
            name = text_of(record, "id", "list_id") or ""
            feeding = await api.subscriptions.campaigns_of(name)
            campaigns = tuple(filter(None, map(campaign_id_of, feeding)))
            found[name] = (text_of(record, "name") or "", campaigns)
    return found
