"""Whose a callback is that tells nothing but a number: of who had the number when it happened.

A number has others before and after its person. The landed days tell who had it on which of them,
at the platform or in the CRM. Where they tell of the person alone, the callback is the person's;
where they tell of others alone, it is theirs; else nobody can say. And which numbers a person had
beside the landed ones: those that stand beside its keys in callbacks and in the ledger, and those
that an earlier erasure of the same person remembered as hashes.
"""

from bisect import bisect_right
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import sqlalchemy as sa

from vibes_pipelines.data_files import parquet
from vibes_pipelines.reconcile.sql import clean
from vibes_pipelines.stages.erasing_links import TAIL, e164_of
from vibes_pipelines.stages.landed_texts import landed_texts
from vibes_pipelines.stages.landing import CONTACTS, PERSONS
from vibes_pipelines.stages.masking import hash_key, keyed_hash
from vibes_pipelines.stages.project import Project
from vibes_pipelines.stages.pseudonyms import pseudonym
from vibes_pipelines.store.database import open_engine
from vibes_pipelines.store.erased_numbers import ErasedNumbers
from vibes_pipelines.store.erasures import Erasures
from vibes_pipelines.store.models import callbacks, operations, realtime_operations
from vibes_pipelines.store.snapshots import Snapshot

WAITING = ("stored", "parked")
"""Callbacks on which somebody still has to act."""

Holders = frozenset[bool]
"""Who has a number on a day: True for the person, False for anybody else."""

_NOBODY: Holders = frozenset()


@dataclass(frozen=True)
class ByNumber:
    """Callbacks without a key, by id: the person's; and those that wait and may be of others."""

    own: tuple[int, ...] = ()
    doubtful: tuple[int, ...] = ()


def told_numbers(project: Project, external: str | None, keys: Collection[str]) -> set[str]:
    """Numbers of a person that callbacks and the ledger tell, by a key or by an earlier erasure."""
    spelt = sorted({*keys, *(key.upper() for key in keys)})
    queries = [
        sa.select(table.c.mdn).where(
            table.c.mdn.is_not(None),
            sa.or_(
                table.c.external_person_id.in_([external] if external else []),
                table.c.person_key.in_(spelt),
            ),
        )
        for table in (callbacks, operations, realtime_operations)
    ]
    rows = [row for query in queries for row in _read(project, query.distinct())]
    return {row.mdn for row in rows} | _erased_numbers(project, {*keys} | {external or ""})


def _erased_numbers(project: Project, keys: Collection[str]) -> set[str]:
    """Numbers in callbacks without a key that were this person's when it was erased before."""
    secret = hash_key(project.settings.keys_home)
    own = {pseudonym(key, secret) for key in keys if key}
    with (
        closing(Erasures(project.settings.inbox_url)) as book,
        closing(ErasedNumbers(project.settings.inbox_url)) as numbers,
    ):
        known = [one.erasure_id for one in book.all() if own.intersection(one.pseudonyms)]
        hashes = frozenset[str]().union(*(numbers.hashes_of(one) for one in known))
    if not hashes:
        return set()
    found = {row.mdn for row in _read(project, _without_key(sa.true()))}
    return {number for number in found if keyed_hash(number, secret) in hashes}


def callbacks_by_number(
    project: Project,
    engine: duckdb.DuckDBPyConnection,
    external: str | None,
    keys: Collection[str],
    numbers: Collection[str],
) -> ByNumber:
    """Which callbacks are the person's that tell nothing but one of its numbers.

    What nobody can say any more counts as the person's once it was acted on.
    """
    rows = _read(project, _without_key(callbacks.c.mdn.in_(sorted(numbers))))
    if not rows:
        return ByNumber()
    instants = {row.order_at for row in rows}
    feeds = _feeds(project, engine, (external, keys), {row.mdn for row in rows}, instants)
    own, doubtful = [], []
    for row in rows:
        holders = _holders_at(row.order_at, row.mdn, feeds)
        if holders <= {True} or (len(holders) > 1 and row.status not in WAITING):
            own.append(row.id)
        elif len(holders) > 1:
            doubtful.append(row.id)
    return ByNumber(tuple(own), tuple(doubtful))


def _without_key(condition: sa.ColumnElement[bool]) -> sa.Select[Any]:
    table = callbacks.c
    keys = (table.external_person_id, table.person_key, table.person_id)
    return sa.select(table.id, table.mdn, table.status, table.order_at).where(
        table.mdn.is_not(None), *(key.is_(None) for key in keys), condition
    )


Days = list[tuple[datetime, Mapping[str, Holders]]]
"""The landed days of one feed, oldest first, each with who had which number."""


def _holders_at(at: datetime, number: str, feeds: Sequence[Days]) -> Holders:
    """Who may have had the number: by the days next to that instant, else by all before or after.

    Empty where no landed day tells of anybody. A number that somebody gave up has a new owner, of
    whom nothing may be known yet.
    """
    near, former, later = _NOBODY, _NOBODY, list[tuple[datetime, Holders]]()
    for days in feeds:
        before = [held.get(number, _NOBODY) for as_of, held in days if as_of <= at]
        after = [(as_of, held.get(number, _NOBODY)) for as_of, held in days if as_of > at]
        near = near.union(*before[-1:], *(held for _, held in after[:1]))
        former = former.union(*before)
        later += [(as_of, held) for as_of, held in after if held]
    if near:
        return near
    if former:
        return frozenset({True, False})
    return min(later, key=lambda one: one[0])[1] if later else _NOBODY


def _feeds(
    project: Project,
    engine: duckdb.DuckDBPyConnection,
    person: tuple[str | None, Collection[str]],
    numbers: Collection[str],
    instants: Collection[datetime],
) -> list[Days]:
    """Every landed day of the platform; of the CRM, whose texts take longer, those next to one."""
    persons = [
        (one.manifest.as_of, _held(_persons(engine, one.data, person, numbers)))
        for one in _landed(project, PERSONS)
    ]
    landed = _landed(project, CONTACTS)
    times = [one.manifest.as_of for one in landed]
    places = {bisect_right(times, at) + step for at in instants for step in (-1, 0)}
    contacts = [
        (one.manifest.as_of, _held(_contacts(project, engine, one.data, person[0], numbers)))
        for place, one in enumerate(landed)
        if place in places
    ]
    return [persons, contacts]


def _landed(project: Project, feed: str) -> list[Snapshot]:
    found = (project.snapshots.find(feed, day) for day in project.snapshots.days(feed))
    return sorted((one for one in found if one), key=lambda one: one.manifest.as_of)


def _held(rows: Iterable[tuple[str, bool]]) -> Mapping[str, Holders]:
    held: dict[str, Holders] = {}
    for number, is_own in rows:
        held[number] = held.get(number, _NOBODY) | {is_own}
    return held


def _persons(
    engine: duckdb.DuckDBPyConnection,
    path: Path,
    person: tuple[str | None, Collection[str]],
    numbers: Collection[str],
) -> list[tuple[str, bool]]:
    external, keys = person
    return engine.execute(
        "SELECT DISTINCT mdn, coalesce(external_person_id = ?, false)"  # noqa: S608 - our own path
        " OR coalesce(list_contains(?, lower(person_key)), false)"
        f" FROM {parquet(path)} WHERE list_contains(?, mdn)",
        [external, list(keys), sorted(numbers)],
    ).fetchall()


def _contacts(
    project: Project,
    engine: duckdb.DuckDBPyConnection,
    path: Path,
    external: str | None,
    numbers: Collection[str],
) -> Iterable[tuple[str, bool]]:
    mapped = project.config.contacts
    if mapped.mdn is None:
        return
    landed = landed_texts(engine, [path], key=mapped.key, phone=mapped.mdn.column)
    rows = engine.execute(
        f"SELECT DISTINCT phone, coalesce({clean('key')} = ?, false) FROM {landed}"  # noqa: S608
        f" WHERE list_contains(?, right(regexp_replace(phone, '[^0-9]', '', 'g'), {TAIL}))",
        [external, sorted({number[-TAIL:] for number in numbers})],
    ).fetchall()
    spelt = e164_of(project, engine, {phone for phone, _ in rows})
    for written, is_own in rows:
        if spelt.get(written) in numbers:
            yield spelt[written], is_own


def _read(project: Project, query: sa.Select[Any]) -> Sequence[sa.Row[Any]]:
    ledger = open_engine(project.settings.inbox_url)
    try:
        with ledger.begin() as connection:
            return connection.execute(query).all()
    finally:
        ledger.dispose()
