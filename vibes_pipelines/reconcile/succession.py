"""Succession: whether today's sources can be the successors of the last accepted ones.

A source can be whole and yet wrong: keys rewritten, a column blank or in another notation, a backup
of last week. Each shows in what it shares with the snapshot that was accepted before it. Only
comparing belongs here; caps on what a diff set would do are in `guards`.
"""

# ruff: noqa: S608  (SQL is composed here on purpose: names and texts go through reconcile.sql)

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb

from vibes_pipelines.reconcile.engine import Limits, engine
from vibes_pipelines.reconcile.guards import LANES, SMALL, Breach, Lane
from vibes_pipelines.reconcile.moments import is_moment_type, moment_of
from vibes_pipelines.reconcile.sources import ROW, Source, open_source
from vibes_pipelines.reconcile.sql import literal, text_list
from vibes_pipelines.reconcile.values import as_text, platform_text
from vibes_pipelines.sync_config import SyncConfig

_SAMPLE_ROWS = 50_000
"""Of larger sides, about as many keys are compared; the share that differs is the same."""

_WANTED_BY = "the comparison with the last accepted day"

_EVERY_LANE: tuple[Lane, ...] = LANES
_PERSONS: tuple[Lane, ...] = ("persons",)
_OPT_OUTS: tuple[Lane, ...] = ("opt_outs",)


@dataclass(frozen=True)
class Sources:
    """The landed snapshot folders of one day; `events` is the extract of subscriptions.

    Of a destination without a share there are the contacts only.
    """

    contacts: Path
    persons: Path | None = None
    subscriptions: Path | None = None
    events: Path | None = None


@dataclass(frozen=True)
class _Column:
    """A column that both snapshots have, and the lanes that its fault holds."""

    name: str
    lanes: tuple[Lane, ...]


def check_succession(config: SyncConfig, today: Sources, accepted: Sources) -> tuple[Breach, ...]:
    """Every sign that a source of today does not follow the accepted one.

    Raises:
        ReconcileError: a snapshot cannot be read.
    """
    with (
        tempfile.TemporaryDirectory(prefix="succession-") as workspace,
        engine(Limits(), Path(workspace)) as connection,
    ):
        compare = _Comparison(connection, config, Path(workspace))
        breaches = [*compare.contacts(accepted.contacts, today.contacts)]
        if accepted.persons and today.persons:
            breaches += compare.persons(accepted.persons, today.persons)
        if accepted.subscriptions and today.subscriptions:
            breaches += compare.subscriptions(accepted.subscriptions, today.subscriptions)
        if today.subscriptions and today.events:
            breaches += compare.events(today.subscriptions, today.events)
        return tuple(breaches)


@dataclass(frozen=True)
class _Pair:
    """One side twice: as it was accepted, and as it is today."""

    side: str
    before: Source
    today: Source

    def both_have(self, columns: Iterator[_Column]) -> list[_Column]:
        """The columns that can be compared, once each; the first mention says what they hold."""
        named: dict[str, _Column] = {}
        for column in columns:
            if self.before.has(column.name) and self.today.has(column.name):
                named.setdefault(column.name.lower(), column)
        return list(named.values())


@dataclass(frozen=True)
class _Comparison:
    connection: duckdb.DuckDBPyConnection
    config: SyncConfig
    workspace: Path

    def contacts(self, before: Path, today: Path) -> Iterator[Breach]:
        """Keys are known, columns hold what they held, and the newest consent is not older."""
        pair = self._pair("contacts", before, today)
        contacts = self.config.contacts
        yield from self._known(pair, contacts.key)
        yield from self._rewritten(pair, contacts.key, pair.both_have(self._crm_columns()))
        yield from self._emptied(pair, pair.both_have(self._contact_columns()))
        for consent in self.config.consents:
            if consent.changed_at:
                yield from self._older(pair, (consent.changed_at,), _EVERY_LANE)

    def persons(self, before: Path, today: Path) -> Iterator[Breach]:
        """Keys are known and columns are filled. What they hold, our own deliveries change too."""
        pair = self._pair("persons", before, today)
        yield from self._known(pair, "person_key")
        yield from self._emptied(pair, pair.both_have(self._person_columns()))

    def subscriptions(self, before: Path, today: Path) -> Iterator[Breach]:
        """The mapped lists have their subscriptions, and the newest event is not older."""
        pair = self._pair("subscriptions", before, today)
        yield from self._fewer_subscriptions(pair)
        yield from self._older(pair, ("opt_in_date", "opt_out_date"), _OPT_OUTS)

    def events(self, subscriptions: Path, events: Path) -> Iterator[Breach]:
        """Some event of the extract is of a list that the share or the sync config knows."""
        pair = self._pair("extract/subscriptions", subscriptions, events)
        listed = [_text(source, "subscription_list_id") for source in (pair.before, pair.today)]
        [(rows, known)] = self._asked(f"""
            WITH known AS (SELECT {listed[0]} AS list FROM {pair.before.relation}
                           UNION SELECT unnest({_texts(self._lists)}))
            SELECT count(*), count(*) FILTER (WHERE {listed[1]} IN (SELECT list FROM known))
            FROM {pair.today.relation}""")
        if rows > 0 and known == 0:
            message = (
                f"{pair.side}: none of {rows} events is of a list that is known; look for shifted"
                " columns or the file of somebody else"
            )
            yield from _breaches(f"{pair.side}.known_lists", _OPT_OUTS, 0, 1, message)

    @property
    def _lists(self) -> list[str]:
        return sorted({consent.list.strip() for consent in self.config.consents})

    def _pair(self, side: str, before: Path, today: Path) -> _Pair:
        opened = (open_source(self.connection, side, at, self.workspace) for at in (before, today))
        return _Pair(side, *opened)

    def _crm_columns(self) -> Iterator[_Column]:
        """Columns that only the CRM writes: nothing that we deliver can change them."""
        contacts = self.config.contacts
        if contacts.mdn:
            yield _Column(contacts.mdn.column, _EVERY_LANE)
        if contacts.person_key:
            yield _Column(contacts.person_key, _EVERY_LANE)
        for condition in contacts.conditions:
            yield _Column(condition.column, _PERSONS)
        for field in self.config.fields:
            if field.authority in {"crm", "fill"}:
                yield _Column(field.from_, _PERSONS)

    def _contact_columns(self) -> Iterator[_Column]:
        for consent in self.config.consents:
            yield _Column(consent.from_, _OPT_OUTS)
            if consent.changed_at:
                yield _Column(consent.changed_at, _OPT_OUTS)
        yield from self._crm_columns()
        for field in self.config.fields:
            yield _Column(field.from_, _PERSONS)

    def _person_columns(self) -> Iterator[_Column]:
        for name in ("external_person_id", "mdn"):
            yield _Column(name, _EVERY_LANE)
        for field in self.config.fields:
            yield _Column(field.to, _PERSONS)

    def _known(self, pair: _Pair, key: str) -> Iterator[Breach]:
        if not (pair.before.has(key) and pair.today.has(key)):
            return
        every = self._every(pair)
        [(accepted, known)] = self._asked(f"""
            SELECT count(*), count(today.key) FROM ({_keys(pair.before, key, every)}) before
            LEFT JOIN ({_keys(pair.today, key, every)}) today USING (key)""")
        least = self.config.guards.min_input_share
        if known < least * accepted:
            message = (
                f"{pair.side}: {known / accepted:.1%} of the keys last accepted are still there,"
                f" fewer than {least:.0%} (guards.min_input_share); look whether {key} was"
                " rewritten"
            )
            share = known / accepted
            yield from _breaches(f"{pair.side}.known_keys", _EVERY_LANE, share, least, message)

    def _rewritten(self, pair: _Pair, key: str, columns: list[_Column]) -> Iterator[Breach]:
        cap = self.config.guards.max_rewritten_share
        if not columns or cap is None:
            return
        every = self._every(pair)
        names = [column.name for column in columns]
        counts = ", ".join(
            f"count(*) FILTER (WHERE {_differs(pair, name, index)})"
            for index, name in enumerate(names)
        )
        [(rows, *changed)] = self._asked(f"""
            SELECT count(*), {counts} FROM ({_keyed(pair.before, key, every, names)}) before
            JOIN ({_keyed(pair.today, key, every, names)}) today USING (key)""")
        for column, differing in zip(columns, changed, strict=True):
            if differing * every > SMALL and differing > cap * rows:
                message = (
                    f"{pair.side}: {column.name} differs in {differing / rows:.1%} of the rows from"
                    f" what was last accepted, more than {cap:.0%} (guards.max_rewritten_share);"
                    " look for another notation or encoding, or approve an intended change"
                )
                guard = f"{pair.side}.{column.name}.rewritten"
                yield from _breaches(guard, column.lanes, differing / rows, cap, message)

    def _emptied(self, pair: _Pair, columns: list[_Column]) -> Iterator[Breach]:
        if not columns:
            return
        (rows_before, *filled_before), (rows, *filled) = (
            self._filled(source, columns) for source in (pair.before, pair.today)
        )
        least = self.config.guards.min_input_share
        for column, before, today in zip(columns, filled_before, filled, strict=True):
            if today * rows_before < least * before * rows and before - today > SMALL:
                message = (
                    f"{pair.side}: {column.name} is filled in {today / rows:.1%} of the rows, in"
                    f" {before / rows_before:.1%} when last accepted; less than {least:.0%} of that"
                    " (guards.min_input_share): look why it is blank"
                )
                guard, kept = f"{pair.side}.{column.name}.filled", today * rows_before / rows
                yield from _breaches(guard, column.lanes, kept / before, least, message)

    def _filled(self, source: Source, columns: list[_Column]) -> tuple[int, ...]:
        """The rows, and of each column those that are not blank."""
        counts = ", ".join(f"count({_mark(source, column.name)})" for column in columns)
        return self._asked(f"SELECT count(*), {counts} FROM {source.relation}")[0]

    def _fewer_subscriptions(self, pair: _Pair) -> Iterator[Breach]:
        counts = [self._stays(source) for source in (pair.before, pair.today)]
        least = self.config.guards.min_input_share
        names = ("min_input_share", "opt_out_date.filled")
        for name, before, today in zip(names, *counts, strict=True):
            if today < least * before:
                message = (
                    f"{pair.side}: {today} stays on the mapped lists ({name}) are fewer than"
                    f" {least:.0%} (guards.min_input_share) of the {before} last accepted; look for"
                    " a partial table"
                )
                yield from _breaches(
                    f"{pair.side}.{name}", _OPT_OUTS, today / before, least, message
                )

    def _stays(self, source: Source) -> tuple[int, int]:
        """Different stays on the mapped lists, and how many of them have ended."""
        names = ("person_key", "subscription_list_id", "opt_in_date")
        stay = f"count(DISTINCT hash({', '.join(_column(source, name) for name in names)}))"
        listed, has_ended = (
            _text(source, "subscription_list_id"),
            _mark(source, "opt_out_date"),
        )
        [(stays, ended)] = self._asked(f"""
            SELECT {stay}, {stay} FILTER (WHERE {has_ended} IS NOT NULL)
            FROM {source.relation} WHERE {listed} IN {text_list(self._lists)}""")
        return stays, ended

    def _older(
        self, pair: _Pair, columns: tuple[str, ...], lanes: tuple[Lane, ...]
    ) -> Iterator[Breach]:
        before, today = (self._newest(source, columns) for source in (pair.before, pair.today))
        if before and today and today < before:
            names = " and ".join(columns)
            message = (
                f"{pair.side}: the newest {names} is of {today:%Y-%m-%d %H:%M} UTC; what was last"
                f" accepted had one of {before:%Y-%m-%d %H:%M}; look whether an old copy was read"
            )
            age = (before - today).total_seconds() / 3600
            yield from _breaches(f"{pair.side}.{columns[0]}.newest", lanes, age, 0, message)

    def _newest(self, source: Source, columns: tuple[str, ...]) -> datetime | None:
        """The newest instant in these columns that is not in the source's own future."""
        found = [self._newest_of(source, name) for name in columns if source.has(name)]
        return max((instant for instant in found if instant), default=None)

    def _newest_of(self, source: Source, name: str) -> datetime | None:
        column, column_type = source.column(name, _WANTED_BY)
        until = source.as_of or datetime.max.replace(tzinfo=UTC)
        newest_days = "true"
        if not is_moment_type(column_type):
            # Texts of instants start with their day; only those of the newest days are parsed.
            day = f"left(CAST({column} AS VARCHAR), 10)"
            [(newest,)] = self._asked(
                f"SELECT max({day}) FROM {source.relation} WHERE {day} <= '{until:%Y-%m-%d}'"
            )
            newest_days = f"{day} >= strftime(try_cast({literal(newest or '')} AS DATE)" + (
                " - INTERVAL 1 DAY, '%Y-%m-%d')"
            )
        found: datetime | None = self._asked(f"""
            SELECT max(instant) FILTER (WHERE instant <= TIMESTAMP '{until:%Y-%m-%d %H:%M:%S}')
            FROM (SELECT {moment_of(column, column_type)} AS instant
                  FROM {source.relation} WHERE {newest_days})""")[0][0]
        return found

    def _every(self, pair: _Pair) -> int:
        """How many keys stand behind one that is compared."""
        rows: int = self._asked(f"SELECT count(*) FROM {pair.before.relation}")[0][0]
        return max(1, rows // _SAMPLE_ROWS)

    def _asked(self, statement: str) -> list[tuple[Any, ...]]:
        return self.connection.execute(statement).fetchall()


def _keys(source: Source, key: str, every: int) -> str:
    return f"""
        SELECT DISTINCT {_text(source, key)} AS key FROM {source.relation}
        WHERE {_text(source, key)} IS NOT NULL AND hash({_text(source, key)}) % {every} = 0"""


def _keyed(source: Source, key: str, every: int, columns: list[str]) -> str:
    """Rows of the compared keys, without those whose key stands twice."""
    text = _text(source, key)
    values = ", ".join(f"{_column(source, name)} AS value_{i}" for i, name in enumerate(columns))
    return f"""
        SELECT key, {values} FROM {source.relation} JOIN (
            SELECT {text} AS key, min({ROW}) AS {ROW} FROM {source.relation}
            WHERE {text} IS NOT NULL AND hash({text}) % {every} = 0
            GROUP BY key HAVING count(*) = 1) USING ({ROW})"""


def _differs(pair: _Pair, name: str, index: int) -> str:
    """SQL for: the values differ, and not in their spelling alone."""
    before, today = (
        _cell(f"{side}.value_{index}", source.column(name, _WANTED_BY)[1])
        for side, source in (("before", pair.before), ("today", pair.today))
    )
    same = f"CAST(before.value_{index} AS VARCHAR) IS NOT DISTINCT FROM" + (
        f" CAST(today.value_{index} AS VARCHAR)"
    )
    return f"CASE WHEN {same} THEN false ELSE {before} IS DISTINCT FROM {today} END"


def _mark(source: Source, name: str) -> str:
    """SQL for something where the cell is not blank, else NULL; most cells need no cleaning."""
    column, column_type = source.column(name, _WANTED_BY)
    if column_type != "VARCHAR":
        return _cell(column, column_type) if column_type.endswith("]") else column
    cleaned = as_text(column, column_type)
    return f"CASE WHEN ascii({column}) BETWEEN 33 AND 126 THEN '' ELSE {cleaned} END"


def _cell(column: str, column_type: str) -> str:
    """SQL for the clean text of a cell; of a list, that of the set that it is."""
    if column_type.endswith("]"):
        return platform_text("multi_select", column, column_type)
    return as_text(column, column_type)


def _column(source: Source, name: str) -> str:
    return source.column(name, _WANTED_BY)[0]


def _text(source: Source, name: str) -> str:
    return as_text(*source.column(name, _WANTED_BY))


def _texts(texts: list[str]) -> str:
    return f"[{', '.join(map(literal, texts))}]::VARCHAR[]"


def _breaches(
    guard: str, lanes: tuple[Lane, ...], value: float, limit: float, message: str
) -> Iterator[Breach]:
    for lane in lanes:
        yield Breach(guard, lane, value, limit, message)
