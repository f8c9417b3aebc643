"""The CRM: one table `contacts` in an SQLite file, which its users edit and others read and write.

The table has no primary key, because real CRMs hold the same contact twice.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from vibes_pipelines.sandbox.world import ContactRow

_BUSY_TIMEOUT_S = 30.0


KEY = "contact_id"
"""The column by which contacts are looked up; another world's CRM may do without."""


class Crm:
    """The CRM's database file. Connections are opened for each use and closed after it."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()

    @property
    def url(self) -> str:
        """The SQLAlchemy URL under which the sandbox's users reach the CRM."""
        return f"sqlite:///{self.path}"

    def create(self, schema: Sequence[tuple[str, str]], rows: Iterable[ContactRow]) -> None:
        """Make the table anew and fill it."""
        columns = ", ".join(f"{quoted(name)} {sql_type}" for name, sql_type in schema)
        with self.edit() as editor:
            editor.connection.execute("DROP TABLE IF EXISTS contacts")
            editor.connection.execute(f"CREATE TABLE contacts ({columns})")
            editor.insert(rows)
            if KEY in dict(schema):
                editor.connection.execute(
                    f"CREATE INDEX contacts_by_key ON contacts ({quoted(KEY)})"
                )

    @contextmanager
    def edit(self) -> Iterator["CrmEditor"]:
        """One transaction: everything inside happens, or nothing."""
        with closing(sqlite3.connect(self.path, timeout=_BUSY_TIMEOUT_S)) as connection:
            connection.row_factory = sqlite3.Row
            with connection:
                yield CrmEditor(connection)

    def rows(self) -> list[ContactRow]:
        """Every row, in the order of entry."""
        with self.edit() as editor:
            found = editor.connection.execute("SELECT * FROM contacts ORDER BY rowid").fetchall()
        return [dict(row) for row in found]


class CrmEditor:
    """What the CRM's users do within one transaction; rows are addressed by SQLite's rowid."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection

    def insert(self, rows: Iterable[ContactRow]) -> None:
        """Enter rows; all of them name the same columns."""
        pending = iter(rows)
        first = next(pending, None)
        if first is None:
            return
        names = ", ".join(quoted(name) for name in first)
        marks = ", ".join(f":{name}" for name in first)
        statement = f"INSERT INTO contacts ({names}) VALUES ({marks})"  # noqa: S608 — names are quoted
        self.connection.execute(statement, first)
        self.connection.executemany(statement, pending)

    def update(self, rowid: int, values: ContactRow) -> None:
        """Overwrite some columns of one row."""
        assignments = ", ".join(f"{quoted(name)} = :{name}" for name in values)
        self.connection.execute(
            f"UPDATE contacts SET {assignments} WHERE rowid = :_rowid",  # noqa: S608 — names are quoted
            values | {"_rowid": rowid},
        )

    def delete(self, rowid: int) -> None:
        """Remove one row."""
        self.connection.execute("DELETE FROM contacts WHERE rowid = ?", (rowid,))

    def row(self, rowid: int) -> ContactRow:
        """One row; raises KeyError when it is not there."""
        found = self.connection.execute(
            "SELECT * FROM contacts WHERE rowid = ?", (rowid,)
        ).fetchone()
        if found is None:
            raise KeyError(f"the CRM has no row {rowid}")
        return dict(found)

    def rowids(self) -> list[int]:
        """All rows' ids, ascending."""
        return self._ids("SELECT rowid FROM contacts ORDER BY rowid")

    def opted_in(self) -> list[int]:
        """Ids of the rows whose consent is given."""
        return self._ids("SELECT rowid FROM contacts WHERE sms_opt_in = 'true' ORDER BY rowid")

    def with_tier(self, tier: str) -> list[int]:
        """Ids of the rows of this tier, spelled exactly so."""
        return self._ids("SELECT rowid FROM contacts WHERE tier = ? ORDER BY rowid", (tier,))

    def with_mobile(self, mobiles: Sequence[str]) -> list[int]:
        """Ids of the rows with one of these numbers, spelled exactly so."""
        marks = ", ".join("?" for _ in mobiles)
        statement = f"SELECT rowid FROM contacts WHERE mobile IN ({marks}) ORDER BY rowid"  # noqa: S608 — marks only
        return self._ids(statement, mobiles)

    def repeated(self) -> list[int]:
        """Ids of the rows whose contact_id was entered before."""
        return self._ids(
            "SELECT rowid FROM contacts AS later WHERE EXISTS (SELECT 1 FROM contacts AS earlier"
            " WHERE earlier.contact_id = later.contact_id AND earlier.rowid < later.rowid)"
            " ORDER BY rowid"
        )

    def _ids(self, statement: str, values: Sequence[str] = ()) -> list[int]:
        return [row[0] for row in self.connection.execute(statement, values).fetchall()]


def quoted(identifier: str) -> str:
    """An SQL identifier in quotes."""
    escaped = identifier.replace('"', '""')
    return f'"{escaped}"'
