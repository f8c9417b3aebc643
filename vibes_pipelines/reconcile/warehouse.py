"""The first phase where the share is: which persons have just the values of a landed contact.

With `engine: snowflake` the contacts are staged beside the share's table and one SELECT compares
the columns there. A person whose values all equal those of the contact with its key comes back as
its identifiers and the contact's row; every other person comes back whole. `complete` then writes
the same rows that reading the whole table would have landed. No rule of the reconcile is here:
what equal values mean is decided where it always is, on the landed snapshots.

The SELECT is written once, in what DuckDB and Snowflake have in common; `share_staging` in the
room `vibes` carries it to Snowflake.
"""

# ruff: noqa: S608  (SQL is composed here on purpose: names and texts go through reconcile.sql)

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import duckdb

from vibes_pipelines.data_files import parquet
from vibes_pipelines.reconcile.engine import Limits, engine
from vibes_pipelines.reconcile.errors import ReconcileError
from vibes_pipelines.reconcile.identifiers import contact_identifiers
from vibes_pipelines.reconcile.sources import ROW, Source, open_source
from vibes_pipelines.reconcile.sql import any_of, ident, literal
from vibes_pipelines.reconcile.values import can_be_marked, contact_text, is_marked
from vibes_pipelines.sync_config import SyncConfig

CONTACT_ROW = "CONTACT_ROW_AT_HAND"
KEY = "external_person_id"
VALUES_LEFT = "values_left"
"""The key of the landed file's metadata with the number of persons whose values stayed away."""

_DATETIME = "DATETIME"
_EXACT = ("VARCHAR", _DATETIME, "DATE", "BOOLEAN")
_NUL = "chr(0)"


def is_comparable(column_type: str) -> bool:
    """Whether both dialects read a text as the same value of this type, and never by rounding."""
    return column_type in _EXACT or column_type.startswith("DECIMAL(")


def staged_columns(count: int) -> list[str]:
    """The names of the staged texts: plain, so that no dialect needs quotes for them."""
    return [f"VALUE_{index}" for index in range(count)]


def comparing_select(
    persons: str, staged: str, columns: Mapping[str, str], compared: Mapping[str, str]
) -> str:
    """One SELECT over the share's table and the staged contacts, for DuckDB and Snowflake alike.

    Args:
        persons: The table of persons as it stands in SQL.
        staged: The table of staged contacts as it stands in SQL.
        columns: The quoted column per logical name, in the order of the result.
        compared: The type per compared logical name, in the order of the staged texts; the key is
            one of them, and text.

    Returns:
        SQL for `CONTACT_ROW`, NULL where the values differ, and all columns; the compared ones are
        NULL where `CONTACT_ROW` is not.
    """
    texts = dict(zip(compared, staged_columns(len(compared)), strict=True))
    agrees = [
        _is_equal(f"p.{columns[name]}", f"c.{text}", compared[name])
        for name, text in texts.items()
        if name != KEY
    ]
    shown = [
        f"CASE WHEN c.{CONTACT_ROW} IS NULL THEN p.{column} END AS {ident(name)}"
        if name in compared
        else f"p.{column} AS {ident(name)}"
        for name, column in columns.items()
    ]
    return (
        f"SELECT c.{CONTACT_ROW} AS {CONTACT_ROW}, {', '.join(shown)} FROM {persons} p"
        f" LEFT JOIN {staged} c ON {' AND '.join([f'p.{columns[KEY]} = c.{texts[KEY]}', *agrees])}"
    )


def _is_equal(column: str, text: str, column_type: str) -> str:
    """Never by IS NOT DISTINCT FROM: a text that cannot be read is not the same as no text."""
    value = text if column_type == "VARCHAR" else f"TRY_CAST({text} AS {column_type})"
    return f"({column} = {value} OR ({column} IS NULL AND {text} IS NULL))"


@dataclass(frozen=True)
class ContactsAtHand:
    """The landed contacts of a day, whose values need not come from the share again."""

    row: ClassVar[str] = CONTACT_ROW

    config: SyncConfig
    contacts: Path
    limits: Limits = Limits()

    def comparable(self, types: Mapping[str, str]) -> dict[str, str]:
        """Of the share's columns those that the contacts have values for; none without the key.

        A key that is no text has many spellings, and one person could equal several contacts.
        """
        if types.get(KEY) != "VARCHAR":
            return {}
        names = (KEY, *(field.to for field in self.config.fields))
        return {name: types[name] for name in names if is_comparable(types.get(name, ""))}

    def stage(self, compared: Mapping[str, str], path: Path) -> None:
        """Writes the contacts' values as texts of these types, columns as in `staged_columns`.

        Left out are contacts of a repeated key, and of values that are in doubt or no values of
        these types: their persons come back whole.

        Raises:
            ReconcileError: for a column that the sync config maps and the contacts do not have.
        """

        def write(connection: duckdb.DuckDBPyConnection, folder: Path) -> None:
            contacts = open_source(connection, "contacts", self.contacts, folder)
            connection.execute(f"""
                COPY ({self._staged_sql(contacts, compared)})
                TO {literal(str(path))} (FORMAT parquet, COMPRESSION zstd)""")

        self._run(write)

    def select(
        self, persons: str, staged: str, columns: Mapping[str, str], compared: Mapping[str, str]
    ) -> str:
        """The SQL of `comparing_select`."""
        return comparing_select(persons, staged, columns, compared)

    def _staged_sql(self, contacts: Source, compared: Mapping[str, str]) -> str:
        key = contact_identifiers(self.config, contacts).key
        fields = {field.to: field for field in self.config.fields}
        texts, marks = {KEY: key}, []
        for name in compared:
            if name in fields:
                field = fields[name]
                column = contacts.column(field.from_, f"fields.from: {field.from_}")
                texts[name] = contact_text(field, *column)
                if can_be_marked(field):
                    marks.append(is_marked(_canonical(name)))
        canonical = ", ".join(f"{texts[name]} AS {_canonical(name)}" for name in compared)
        typed = ", ".join(
            f"{_typed_text(_canonical(name), column_type)} AS {text}"
            for text, (name, column_type) in zip(
                staged_columns(len(compared)), compared.items(), strict=True
            )
        )
        unusable = [
            f"{_canonical(name)} IS NOT NULL AND ({text} IS NULL OR contains({text}, {_NUL}))"
            for text, name in zip(staged_columns(len(compared)), compared, strict=True)
        ]
        return f"""
            WITH canonical AS (
                SELECT {ROW} AS {CONTACT_ROW}, {canonical} FROM {contacts.relation}),
            repeated AS (
                SELECT {_canonical(KEY)} FROM canonical GROUP BY ALL HAVING count(*) > 1),
            typed AS (
                SELECT *, {typed} FROM canonical ANTI JOIN repeated USING ({_canonical(KEY)})
                WHERE {_canonical(KEY)} IS NOT NULL AND NOT {any_of(marks)})
            SELECT {CONTACT_ROW}, {", ".join(staged_columns(len(compared)))}
            FROM typed WHERE NOT {any_of(unusable)}"""

    def complete(
        self, came_back: Path, staged: Path, compared: Mapping[str, str], out: Path
    ) -> int:
        """Writes the persons as the share has them, sorted; returns how many values stayed there.

        The order is that of the values, so that equal shares land as equal files.

        Raises:
            ReconcileError: what came back names a contact that was not staged.
        """
        left: list[int] = []

        def write(connection: duckdb.DuckDBPyConnection, _: Path) -> None:
            rows = parquet(came_back)
            described = connection.execute(f"DESCRIBE SELECT * FROM {rows}").fetchall()
            columns = {str(name): str(kind) for name, kind, *_ in described if name != CONTACT_ROW}
            left.append(_count_references(connection, rows, staged))
            connection.execute("SET preserve_insertion_order = true")
            # Otherwise the writer declares columns without any NULL as such.
            connection.execute("SET disabled_optimizers = 'statistics_propagation'")
            connection.execute(f"""
                COPY ({_whole_sql(rows, staged, columns, list(compared))})
                TO {literal(str(out))} (FORMAT parquet, COMPRESSION zstd,
                    KV_METADATA {{{VALUES_LEFT}: {literal(str(left[0]))}}})""")

        self._run(write)
        return left[0]

    def _run(self, write: Callable[[duckdb.DuckDBPyConnection, Path], None]) -> None:
        with (
            tempfile.TemporaryDirectory(prefix="warehouse-", dir=self.limits.temp_dir) as folder,
            engine(self.limits, Path(folder)) as connection,
        ):
            write(connection, Path(folder))


def _canonical(name: str) -> str:
    """A name of a column of this module's own, which no logical name can meet."""
    return ident(f"canonical {name}")


def _typed_text(text: str, column_type: str) -> str:
    """SQL for the value of this type that the text means, written as both dialects read it."""
    if column_type == "VARCHAR":
        return text
    value = f"TRY_CAST({text} AS {column_type})"
    if column_type == _DATETIME:
        return f"strftime({value}, '%Y-%m-%d %H:%M:%S.%f')"
    return f"CAST({value} AS VARCHAR)"


def _count_references(connection: duckdb.DuckDBPyConnection, rows: str, staged: Path) -> int:
    [(named, known)] = connection.execute(f"""
        SELECT count(b.{CONTACT_ROW}), count(c.{CONTACT_ROW})
        FROM {rows} b LEFT JOIN {parquet(staged)} c USING ({CONTACT_ROW})
        """).fetchall()
    if named != known:
        msg = (
            f"share/persons: the warehouse names {named - known} contacts that were not staged;"
            " nothing was landed. Land it again, or set engine: duckdb in sync.yaml"
        )
        raise ReconcileError(msg)
    return int(named)


def _whole_sql(rows: str, staged: Path, columns: Mapping[str, str], compared: Sequence[str]) -> str:
    texts = dict(zip(compared, staged_columns(len(compared)), strict=True))
    whole = [
        f"CASE WHEN b.{CONTACT_ROW} IS NULL THEN b.{ident(name)}"
        f" ELSE CAST(c.{texts[name]} AS {column_type}) END AS {ident(name)}"
        if name in texts
        else f"b.{ident(name)} AS {ident(name)}"
        for name, column_type in columns.items()
    ]
    return f"""
        SELECT {", ".join(whole)}
        FROM {rows} b LEFT JOIN {parquet(staged)} c USING ({CONTACT_ROW})
        ORDER BY ALL"""
