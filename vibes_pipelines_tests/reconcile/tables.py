"""Hand-made tables: what the phases before a rule would have left, as far as the rule reads it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb

from vibes_pipelines.reconcile.changes import CHANGES
from vibes_pipelines.reconcile.sources import ROW, Source

TEXT = "row_number BIGINT, key VARCHAR, person_key VARCHAR, mdn VARCHAR, bad_mdn BOOLEAN"
PROPOSAL = (
    "contact_row BIGINT, contact_key VARCHAR, person_key VARCHAR, mdn VARCHAR, matched_by VARCHAR,"
    f" is_add BOOLEAN, is_unmatched BOOLEAN, changes {CHANGES}, crm_changes {CHANGES}"
)


class Tables:
    """A DuckDB in UTC, and the tables and inputs that a test puts into it."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self.connection = connection
        connection.execute("SET TimeZone = 'UTC'")

    def create(self, name: str, columns: str, rows: Sequence[Sequence[object]] = ()) -> None:
        """Creates a table of these columns, as SQL has them."""
        self.connection.execute(f"CREATE TEMP TABLE {name} ({columns})")
        for row in rows:
            marks = ", ".join("?" * len(row))
            self.connection.execute(f"INSERT INTO {name} VALUES ({marks})", list(row))

    def source(
        self, role: str, columns: Mapping[str, str], rows: Sequence[Sequence[object]] = ()
    ) -> Source:
        """An input of these columns and types; its rows are numbered from 0."""
        described = ", ".join(f'"{name}" {kind}' for name, kind in columns.items())
        numbered = [(*row, number) for number, row in enumerate(rows)]
        self.create(f'"{role}"', f"{described}, {ROW} BIGINT", numbered)
        known = {name: (f'"{name}"', kind) for name, kind in columns.items()}
        return Source(role, Path(f"{role}.parquet"), f'"{role}"', known, None)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """The rows of a query."""
        rows: list[tuple[Any, ...]] = self.connection.execute(sql).fetchall()
        return rows
