"""Checks of the CRM: connection, columns, keys, spellings, rights, clock."""

from collections.abc import Iterator
from datetime import datetime

import sqlalchemy as sa

from vibes_pipelines.crm.contacts import column_names, place_of, relation_of
from vibes_pipelines.crm.database import CrmError, missing_column, reflect_table
from vibes_pipelines.crm.facts import COLUMNS as FACT_COLUMNS
from vibes_pipelines.crm.mapped_columns import mapped_columns
from vibes_pipelines.stages.doctor.bench import Bench
from vibes_pipelines.stages.doctor.clock import of_clocks
from vibes_pipelines.stages.doctor.findings import Check, Finding, fail, of_error, ok, warn
from vibes_pipelines.sync_config import SELECT_TYPES, SyncConfig
from vibes_pipelines.sync_config.realtime import Changes
from vibes_pipelines.sync_config.spellings import as_compared

MOST_DOUBTFUL_SHARE = 0.01
"""Of contacts without their own key; above, the key is the wrong column."""
MOST_SPELLINGS = 200


def _connection(bench: Bench) -> Iterator[Finding]:
    try:
        with bench.crm() as connection:
            connection.execute(sa.select(sa.literal(1))).all()
            place = connection.engine.url.render_as_string(hide_password=True)
    except CrmError as refused:
        told = str(refused).partition("; ")[0]
        cure = (
            "check host, port, database, user and password in CRM_URL, and that the server lets "
            "this machine in"
        )
        yield fail(told, cure)
        return
    yield ok(place)


def _columns(bench: Bench) -> Iterator[Finding]:
    with bench.crm() as connection:
        existing = column_names(connection, bench.config)
    place = place_of(bench.config)
    named = mapped_columns(bench.config)
    missing = [(column, entry) for column, entry in named.items() if column not in existing]
    for column, entry in missing:
        told = f"sync.yaml: {entry}: {place} has no column {column!r}"
        yield fail(told, f"correct the name in sync.yaml; it has: {', '.join(existing)}")
    if not missing:
        yield ok(f"{place} has all {len(named)} mapped columns")


def _read(bench: Bench) -> Iterator[Finding]:
    named = [_as_is(column) for column in mapped_columns(bench.config)]
    query = sa.select(*named).select_from(relation_of(bench.config)).limit(1)
    try:
        with bench.crm() as connection:
            found = connection.execute(query).all()
    except CrmError as refused:
        place = place_of(bench.config)
        told = f"{place} cannot be read ({_class(refused)})"
        yield fail(told, f"GRANT SELECT ON {place} to the user of CRM_URL")
        return
    if found:
        yield ok("the mapped columns can be read")
    else:
        told = f"{place_of(bench.config)} holds no contact"
        yield fail(told, "check CRM_URL, and contacts.table or contacts.query in sync.yaml")


def _key(bench: Bench) -> Iterator[Finding]:
    key = _as_is(bench.config.contacts.key)
    count = sa.func.count
    query = sa.select(count(), count(key), count(sa.distinct(key)))
    with bench.crm() as connection:
        rows, filled, different = connection.execute(
            query.select_from(relation_of(bench.config))
        ).one()
    name = bench.config.contacts.key
    without, doubled = rows - filled, filled - different
    if without == 0 and doubled == 0:
        yield ok(f"{name} is filled and unique in {rows:,} contacts")
        return
    told = f"{name}: {without:,} of {rows:,} contacts have none, {doubled:,} repeat another's"
    if without + doubled > MOST_DOUBTFUL_SHARE * rows:
        yield fail(told, "name a column in contacts.key that is filled and unique")
    else:
        yield warn(told, "they go to quarantine; correct them in the CRM")


def _options(bench: Bench) -> Iterator[Finding]:
    config = bench.config
    for field in config.fields:
        if field.options is None:
            continue
        known = {spelling.strip() for spelling in field.options}
        parts = field.separator if field.type == "multi_select" else None
        found = _spellings(bench, config, field.from_, parts)
        if found is None:
            told = f"{field.from_} has more than {MOST_SPELLINGS} values"
            yield warn(told, f"is fields: to: {field.to} really a {field.type}?")
            continue
        unknown = [one for one in found if one.strip() not in known]
        if unknown:
            told = f"{field.from_}: {len(unknown)} values are in no option of fields: {field.to}"
            cure = "their contacts go to quarantine: add each to options in sync.yaml"
            yield warn(told, cure)
    mapped = [field for field in config.fields if field.type in SELECT_TYPES]
    if mapped:
        yield ok(f"the values of {len(mapped)} select fields were looked at")


def _consents(bench: Bench) -> Iterator[Finding]:
    for consent in bench.config.consents:
        known = consent.says_in | consent.says_out
        found = _spellings(bench, bench.config, consent.from_, None)
        unknown = [one for one in found or () if as_compared(one) not in {"", *known}]
        if found is None or unknown:
            told = f"{consent.from_}: values that mean neither opted in nor opted out"
            cure = (
                "their contacts go to quarantine, and a no among them is carried nowhere: name each"
                " in opted_in or opted_out of that consent, or correct it in the CRM"
            )
            yield fail(told, cure)
        else:
            yield ok(f"{consent.from_} says opted in or out as sync.yaml spells it")


def _spellings(
    bench: Bench, config: SyncConfig, column: str, separator: str | None
) -> list[str] | None:
    """The different texts of a column, blank ones left out; None when there are too many."""
    text = sa.cast(_as_is(column), sa.Text)
    query = sa.select(text).distinct().select_from(relation_of(config)).where(text.is_not(None))
    with bench.crm() as connection:
        most = MOST_SPELLINGS * (20 if separator else 1)
        found = [str(one) for one in connection.scalars(query.limit(most + 1))]
    parts = {part for one in found for part in (one.split(separator) if separator else [one])}
    spelled = sorted(part for part in parts if part.strip())
    return spelled if len(found) <= most and len(spelled) <= MOST_SPELLINGS else None


def _rights(bench: Bench) -> Iterator[Finding]:
    """Whether what is written back may be written; asked, not tried."""
    config = bench.config
    columns = _written_back(config)
    if not columns:
        return
    table = config.contacts.table
    with bench.crm() as connection:
        declared = reflect_table(connection, table)
        for column in columns:
            if column not in declared.columns:
                raise missing_column("contacts.table", column, table, list(declared.columns.keys()))
        if connection.dialect.name != "postgresql":
            yield ok(f"a {connection.dialect.name} database does not tell rights beforehand")
            return
        refused = [c for c in columns if not _may_update(connection, table, c)]
    if refused:
        named = ", ".join(refused)
        told = f"the user of CRM_URL may not update {named} of {table}"
        yield fail(told, f"GRANT UPDATE ({named}) ON {table} to that user: opt-outs are written")
    else:
        yield ok(f"{', '.join(columns)} of {table} may be updated")


def _written_back(config: SyncConfig) -> list[str]:
    """The columns that opt-outs, and fields whose authority is the platform, are written to."""
    columns = [c for one in config.consents for c in (one.from_, one.changed_at) if c]
    columns += [f.from_ for f in config.fields if f.is_written_back]
    return list(dict.fromkeys(columns))


def _may_update(connection: sa.Connection, table: str, column: str) -> bool:
    ask = sa.func.has_column_privilege(_regclass(connection, table), column, "UPDATE")
    return bool(connection.scalar(sa.select(ask)))


def _regclass(connection: sa.Connection, table: str) -> str:
    quote = connection.dialect.identifier_preparer.quote
    return ".".join(quote(part) for part in table.split("."))


def _times(bench: Bench) -> Iterator[Finding]:
    """Columns of time without a zone are read as UTC."""
    named = {c.changed_at for c in bench.config.consents} | {
        field.changed_at for field in bench.config.fields
    }
    if bench.config.contacts.query is not None or not any(named):
        return
    with bench.crm() as connection:
        if connection.dialect.name == "sqlite":
            return
        declared = reflect_table(connection, bench.config.contacts.table).columns
        for name in sorted(filter(None, named)):
            kind = declared[name].type
            if isinstance(kind, sa.DateTime) and not kind.timezone:
                told = f"{name} has no time zone, and is read as UTC"
                cure = "if it is local time, convert it in contacts.query or in the table"
                yield warn(told, cure)
            else:
                yield ok(f"{name} tells its zone, or is text")


def _other_tables(bench: Bench) -> Iterator[Finding]:
    config = bench.config
    wanted: list[tuple[str, str, tuple[str, ...]]] = []
    if config.contacts.changes is not None:
        wanted += _of_changes(config, config.contacts.changes)
    if config.callbacks is not None and config.callbacks.facts_table:
        wanted.append(("callbacks.facts_table", config.callbacks.facts_table, FACT_COLUMNS))
    if config.events is not None and config.events.query is None:
        wanted.append(("events.table", config.events.table, config.events.columns))
    for entry, table, columns in wanted:
        try:
            with bench.crm() as connection:
                existing = list(reflect_table(connection, table, entry).columns.keys())
        except CrmError as missing:
            yield of_error(missing)
            continue
        absent = [column for column in columns if column not in existing]
        if absent:
            yield of_error(missing_column(entry, absent[0], table, existing))
        else:
            yield ok(f"{entry}: {table} has its columns")


def _of_changes(config: SyncConfig, changes: Changes) -> list[tuple[str, str, tuple[str, ...]]]:
    if changes.by == "outbox":
        return [("contacts.changes.table", changes.table or "", (changes.id, changes.key))]
    return [("contacts.changes.column", config.contacts.table, (changes.column or "",))]


def _clock(bench: Bench) -> Iterator[Finding]:
    with bench.crm() as connection:
        if connection.dialect.name == "sqlite":
            return
        theirs = connection.scalar(sa.select(sa.func.now()))
    if isinstance(theirs, datetime):
        yield of_clocks("the CRM's database", theirs, bench.now())


def _as_is(column: str) -> sa.ColumnElement[object]:
    """A column whose values come as the driver gives them."""
    return sa.column(column)


def _class(refused: CrmError) -> str:
    """The class that the message of a CRM's error names, without its place."""
    return str(refused).partition("; ")[0].rpartition(": ")[2]


_WELL = ("files/sync.yaml", "crm/connection")
_READ = (*_WELL, "crm/columns", "crm/read")

CHECKS = (
    Check("crm/connection", "the database of the CRM answers", _connection, ("settings/crm",)),
    Check("crm/columns", "every column that sync.yaml names is there", _columns, _WELL),
    Check("crm/read", "the columns can be read, and there are contacts", _read, _READ[:-1]),
    Check("crm/key", "the key is filled and unique", _key, _READ),
    Check("crm/options", "every value of a select has an option", _options, _READ),
    Check("crm/consents", "consent columns are spelled as sync.yaml says", _consents, _READ),
    Check("crm/rights", "what is written back may be written", _rights, _READ),
    Check("crm/times", "times of change tell their zone", _times, _READ),
    Check("crm/other tables", "outbox, facts and events have their columns", _other_tables, _WELL),
    Check("crm/clock", "the database's clock agrees with ours", _clock, ("crm/connection",)),
)
