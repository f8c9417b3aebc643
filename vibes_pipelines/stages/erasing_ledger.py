"""Blanking one person's rows in the ledger: every table with a column that tells a person.

Rows stay, so that every count stays. An operation that has not been sent is withdrawn, so that it
never is; one whose answer is awaited has to be answered first.
"""

from collections.abc import Collection, Mapping
from typing import Any

import sqlalchemy as sa

from vibes_pipelines.stages.erasing_files import BLANK, Naming
from vibes_pipelines.stages.erasing_subject import ErasureError, Subject
from vibes_pipelines.stages.project import Project
from vibes_pipelines.store import models
from vibes_pipelines.store.database import open_engine, writer

_KEYS = ("external_person_id", "person_key", "person_id", "contact_id", "contact")
_NUMBERS = ("mdn",)

_VALUES: dict[str, dict[str, Any]] = {
    "operations": {"message": None},
    "realtime_operations": {"message": None},
    "callbacks": {"body": b"", "path": "", "source_address": "", "decided_reason": None},
    "signups": {"source_address": ""},
}
"""What else of a row goes, per table."""

_WAITING = ("stored", "parked")


def open_operations(project: Project, subject: Subject) -> list[str]:
    """Operations of the person whose answer is awaited, by their ids."""
    table = models.operations
    query = sa.select(table.c.operation_id).where(
        _theirs(table, subject), table.c.status.in_(("sent", "unknown")), table.c.outcome.is_(None)
    )
    engine = open_engine(project.settings.ledger_url)
    try:
        with engine.begin() as connection:
            return list(connection.execute(query).scalars())
    finally:
        engine.dispose()


def blank_ledger(url: str, naming: Naming, *, dry_run: bool = False) -> dict[str, int]:
    """Blanks the person's rows of every table of a ledger; returns the rows per table.

    One transaction. With `dry_run` they are only counted. SQLite is made to forget the freed pages.

    Raises:
        ErasureError: another process keeps the database from being tidied up.
    """
    engine = open_engine(url)
    try:
        with writer(engine).begin() as connection:
            if engine.dialect.name == "sqlite":
                connection.exec_driver_sql("PRAGMA secure_delete = ON")
            counts = {
                table.name: _blank(connection, table, naming, dry_run=dry_run)
                for table in models.metadata.sorted_tables
                if set(_KEYS + _NUMBERS).intersection(table.c.keys())
            }
            counts["callbacks"] += _blank_bodies(connection, naming, dry_run=dry_run)
            counts["events"] = _blank_events(connection, naming, dry_run=dry_run)
            counts["case_decisions"] = _blank_decisions(connection, naming, dry_run=dry_run)
        if engine.dialect.name == "sqlite" and not dry_run:
            _tidy_up(engine)
    finally:
        engine.dispose()
    return {name: rows for name, rows in counts.items() if rows}


def _tidy_up(engine: sa.Engine) -> None:
    try:
        with engine.connect() as connection:
            driver = connection.connection.driver_connection
            for statement in ("PRAGMA wal_checkpoint(TRUNCATE)", "VACUUM"):
                driver.execute(statement).fetchall()  # type: ignore[union-attr]
            driver.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()  # type: ignore[union-attr]
    except sa.exc.OperationalError as busy:
        raise ErasureError("the ledger is busy; run the same erasure again") from busy


def _theirs(table: sa.Table, subject: Subject) -> sa.ColumnElement[bool]:
    """Rows with a key of the person, or with its number and no key at all."""
    keys = [table.c[name] for name in _KEYS if name in table.c]
    numbers = [table.c[name] for name in _NUMBERS if name in table.c]
    known = sorted(subject.keys | {one.upper() for one in subject.person_keys})
    tests: list[sa.ColumnElement[bool]] = [column.in_(known) for column in keys]
    without = [column.is_(None) for column in keys]
    tests += [sa.and_(*without, column.in_(subject.mdns)) for column in numbers]
    return sa.or_(*tests)


def _blank(connection: sa.Connection, table: sa.Table, naming: Naming, *, dry_run: bool) -> int:
    theirs = _theirs(table, naming.subject)
    if dry_run:
        return int(connection.execute(sa.select(sa.func.count()).where(theirs)).scalar_one())
    rows = connection.execute(sa.select(table).where(theirs)).mappings().all()
    for row in rows:
        own = [column == row[column.name] for column in table.primary_key]
        values = _values(table, dict(row), naming)
        connection.execute(sa.update(table).where(*own).values(values))
    return len(rows)


def _values(table: sa.Table, row: dict[str, Any], naming: Naming) -> dict[str, Any]:
    values = dict(_VALUES.get(table.name, {}))
    identifiers = {name: row[name] for name in (*_KEYS, *_NUMBERS) if name in row}
    named = Naming(
        naming.subject, naming.key, naming.key_columns | {"contact"}, naming.number_columns
    )
    values |= named.blanked(identifiers, frozenset())
    values |= {
        name: BLANK
        for name in _NUMBERS
        if name in values and values[name] is None and not table.c[name].nullable
    }
    if "changes" in row:
        values["changes"] = [change | {"before": None, "after": None} for change in row["changes"]]
    if table.name in {"operations", "realtime_operations"} and row["status"] == "planned":
        values |= {"status": "superseded", "message": BLANK}
    if table.name == "callbacks" and row["status"] in _WAITING:
        values |= {"status": "dropped", "reason": BLANK}
    return values


def _blank_bodies(connection: sa.Connection, naming: Naming, *, dry_run: bool) -> int:
    """Callbacks that could not be read tell a person in their body only."""
    table, found = models.callbacks, 0
    numbers = sa.select(table.c.id).where(table.c.body != b"").order_by(table.c.id)
    for number in connection.execute(numbers).scalars().all():
        own = table.c.id == number
        row = connection.execute(sa.select(table).where(own)).mappings().one()
        if not naming.is_in(row["body"].decode("utf-8", "replace")):
            continue
        is_counted = dry_run and _is_theirs(dict(row), naming.subject)
        found += not is_counted
        if not dry_run:
            connection.execute(
                sa.update(table).where(own).values(_values(table, dict(row), naming))
            )
    return found


def _is_theirs(row: Mapping[str, Any], subject: Subject) -> bool:
    """What `_theirs` says in SQL."""
    own = [row[name] for name in _KEYS if row.get(name) is not None]
    if own:
        return bool({*own, *(str(one).lower() for one in own)} & subject.keys)
    return any(row.get(name) in subject.mdns for name in _NUMBERS)


def _blank_events(connection: sa.Connection, naming: Naming, *, dry_run: bool) -> int:
    """Events tell a person anywhere in their data."""
    table, found = models.events, 0
    query = sa.select(table.c.event_id, table.c.event_data, table.c.debug_data, table.c.message)
    for row in connection.execute(query).all():
        texts = [*_strings(row.event_data), *_strings(row.debug_data)]
        if any(naming.is_key(text) or text in naming.subject.mdns for text in texts):
            found += 1
            if not dry_run:
                connection.execute(
                    sa.update(table)
                    .where(table.c.event_id == row.event_id)
                    .values(event_data={}, debug_data={}, message=None)
                )
    return found


def _strings(document: object) -> Collection[str]:
    if isinstance(document, dict):
        return [text for value in document.values() for text in _strings(value)]
    if isinstance(document, list):
        return [text for value in document for text in _strings(value)]
    return [str(document)]


def _blank_decisions(connection: sa.Connection, naming: Naming, *, dry_run: bool) -> int:
    table, found = models.case_decisions, 0
    for row in connection.execute(sa.select(table)).mappings().all():
        told = {name: row[name] for name in ("record", "target")}
        if not naming.is_theirs(told):
            continue
        found += 1
        if not dry_run:
            values = naming.blanked(told, frozenset())
            connection.execute(
                sa.update(table)
                .where(table.c.id == row["id"])
                .values(**values, evidence=None, reason=BLANK)
            )
    return found
