"""Blanking one person's rows in the ledger: every table with a column that tells a person.

Rows stay, so that every count stays. An operation that has not been sent is withdrawn, so that it
never is; one whose answer is awaited has to be answered first.
"""

from typing import Any

import sqlalchemy as sa

from vibes_pipelines.stages.erasing_bodies import (
    is_named,
    is_theirs,
    tells_of_them,
    without_mentions,
)
from vibes_pipelines.stages.erasing_files import Naming
from vibes_pipelines.stages.erasing_numbers import WAITING
from vibes_pipelines.stages.erasing_subject import Subject
from vibes_pipelines.stages.erasing_tidy import tidy_up
from vibes_pipelines.stages.pseudonyms import BLANK
from vibes_pipelines.store import models
from vibes_pipelines.store.database import open_engine, utc_now, writer
from vibes_pipelines.store.file_rows import leave_files

_KEYS = ("external_person_id", "person_key", "person_id", "contact_id", "contact")
_NUMBERS = ("mdn",)

_VALUES: dict[str, dict[str, Any]] = {
    "operations": {"message": None},
    "realtime_operations": {"message": None},
    "callbacks": {"body": b"", "path": "", "source_address": "", "decided_reason": None},
    "signups": {"source_address": ""},
}
"""What else of a row goes, per table."""


def blank_ledger(url: str, naming: Naming, *, dry_run: bool = False) -> dict[str, int]:
    """Blanks the person's rows of every table of a ledger; returns the rows per table.

    One transaction. With `dry_run` they are only counted. `tidy_ledger` comes after it.
    """
    engine = open_engine(url)
    try:
        with writer(engine).begin() as connection:
            if engine.dialect.name == "sqlite":
                connection.exec_driver_sql("PRAGMA secure_delete = ON")
            counts = {
                table.name: _blank(connection, table, naming, dry_run=dry_run)
                for table in _of_people()
            }
            counts["callbacks"] += _blank_bodies(connection, naming, dry_run=dry_run)
            counts["events"] = _blank_events(connection, naming, dry_run=dry_run)
            counts["case_decisions"] = _blank_decisions(connection, naming, dry_run=dry_run)
    finally:
        engine.dispose()
    return {name: rows for name, rows in counts.items() if rows}


def tidy_ledger(url: str) -> tuple[str, ...]:
    """Rids a ledger of what the blanked rows were; returns the tables that are too large for it.

    Raises:
        ErasureError: another process keeps the database from being tidied up.
    """
    engine = open_engine(url)
    try:
        told_elsewhere = {models.events, models.case_decisions, models.cursors}
        return tidy_up(engine, {*_of_people(), *told_elsewhere})
    finally:
        engine.dispose()


def _of_people() -> list[sa.Table]:
    """The tables with a column that tells a person."""
    tables = models.metadata.sorted_tables
    return [one for one in tables if set(_KEYS + _NUMBERS).intersection(one.c.keys())]


def theirs(table: sa.Table, subject: Subject) -> sa.ColumnElement[bool]:
    """Rows with a key of the person, or with its number and no key at all.

    A person_id of the platform may read like the contact key of somebody else: it tells nobody.
    """
    keys = [table.c[name] for name in _KEYS if name in table.c]
    numbers = [table.c[name] for name in _NUMBERS if name in table.c]
    external = [subject.external_person_id] if subject.external_person_id else []
    known = {*subject.person_keys, *(one.upper() for one in subject.person_keys)}
    tests: list[sa.ColumnElement[bool]] = [
        column.in_(sorted(known)) if column.name == "person_key" else column.in_(external)
        for column in keys
        if column.name != "person_id"
    ]
    without = [column.is_(None) for column in keys]
    tests += [
        sa.and_(*without, column.in_(subject.mdns), _may_go(table, subject)) for column in numbers
    ]
    return sa.or_(*tests)


def _may_go(table: sa.Table, subject: Subject) -> sa.ColumnElement[bool]:
    """Of callbacks only those go that were found to be the person's; what comes meanwhile stays."""
    return table.c.id.in_(subject.own_callbacks) if table is models.callbacks else sa.true()


def _blank(connection: sa.Connection, table: sa.Table, naming: Naming, *, dry_run: bool) -> int:
    meant = theirs(table, naming.subject)
    if dry_run:
        return int(connection.execute(sa.select(sa.func.count()).where(meant)).scalar_one())
    rows = connection.execute(sa.select(table).where(meant)).mappings().all()
    for row in rows:
        own = [column == row[column.name] for column in table.primary_key]
        values = _values(table, dict(row), naming)
        connection.execute(sa.update(table).where(*own).values(values))
    if table is models.operations:
        withdrawn = [row["operation_id"] for row in rows if row["status"] == "planned"]
        leave_files(connection, withdrawn, utc_now())
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
    if table.name == "callbacks" and row["status"] in WAITING:
        values |= {"status": "dropped", "reason": BLANK}
    return values


def _blank_bodies(connection: sa.Connection, naming: Naming, *, dry_run: bool) -> int:
    """Callbacks that name nobody in a column may tell a person in their body.

    What names somebody else stays, and is acted on as it would have been: of its body only keys of
    the person go.
    """
    table, found = models.callbacks, 0
    numbers = sa.select(table.c.id).where(table.c.body != b"").order_by(table.c.id)
    for number in connection.execute(numbers).scalars().all():
        own = table.c.id == number
        row = dict(connection.execute(sa.select(table).where(own)).mappings().one())
        values: dict[str, Any] = {}
        if not is_named(row) and naming.is_in(row["body"].decode("utf-8", "replace")):
            found += 1
            values = _values(table, row, naming)
        elif is_named(row) and not is_theirs(row, naming.subject):
            body = without_mentions(row["body"], naming)
            values = {"body": body} if body != row["body"] else {}
        if values and not dry_run:
            connection.execute(sa.update(table).where(own).values(values))
    return found


def _blank_events(connection: sa.Connection, naming: Naming, *, dry_run: bool) -> int:
    """Events tell a person anywhere in their data."""
    table, found = models.events, 0
    query = sa.select(table.c.event_id, table.c.event_data, table.c.debug_data)
    for row in connection.execute(query).all():
        if tells_of_them([row.event_data, row.debug_data], naming):
            found += 1
            if not dry_run:
                connection.execute(
                    sa.update(table)
                    .where(table.c.event_id == row.event_id)
                    .values(event_data={}, debug_data={}, message=None)
                )
    return found


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
