"""What earlier diff sets asked to be opted out: an input of the reconcile of a day.

Read are the last diff set before the day, which has carried on what stood open before it, and the
one that the day had until now, by the same sync config: both sides may be landed anew within a day.
Which of them are due still, with their record gone, is the reconcile's to say. An opt-out by policy
is no word of anybody, and is not carried.
"""

from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from vibes_pipelines.crm.write_back import CONTACT_NOT_FOUND
from vibes_pipelines.data_files import parquet
from vibes_pipelines.delivery.intents import evidence_at
from vibes_pipelines.reconcile.earlier_opt_outs import COLUMNS
from vibes_pipelines.reconcile.errors import ReconcileError, unreadable
from vibes_pipelines.reconcile.sql import clean, ident, text_list
from vibes_pipelines.reconcile.summary import SUMMARY, Summary, load_summary
from vibes_pipelines.stages.project import Project
from vibes_pipelines.store.records import ERASED_PREFIX, Operation
from vibes_pipelines.store.sent_changes import SentChanges
from vibes_pipelines.store.snapshots import Snapshot

NAME = "earlier_opt_outs.parquet"
_CHANGES = "subscription_changes.parquet"
_DAY = "????-??-??"
_WORDS = ("crm_opted_out", "platform_opted_out")
"""The reasons of opt-outs that somebody asked for."""

_TYPES = {
    "evidence_at": pa.timestamp("us"),
    "told_at": pa.timestamp("us"),
    "is_answered": pa.bool_(),
}
_NOBODY = (CONTACT_NOT_FOUND, "HTTP 404")
"""Error classes by which CRM and platform say that they have nobody of that name."""

_SCHEMA = pa.schema([(name, _TYPES.get(name, pa.string())) for name in COLUMNS])

_Row = dict[str, Any]
_Key = tuple[str, str | None, str | None, str | None]


def write_earlier_opt_outs(
    project: Project, day: str, folder: Path, contacts: Snapshot, persons: Snapshot
) -> Path:
    """Writes the opt-outs that were asked for before, as the ledger knows them as of the day.

    Left out are those whose record is landed: there may be many, and they are asked for anew.
    """
    asked: dict[_Key, _Row] = {}
    for one in _diff_sets(project, day):
        for row in _opt_outs_in(one, project.config.contacts.key, contacts, persons):
            asked.setdefault(_key_of(row), row)
    whose = {row["external_person_id"] for row in asked.values()}
    with closing(SentChanges(project.settings.ledger_url)) as book:
        answered = {
            (one.kind, one.external_person_id, one.subscription_list_id, _instant(one))
            for one in book.answered_opt_outs(day, whose, _NOBODY)
        }
    rows = [row | {"is_answered": _as_sent(row) in answered} for row in asked.values()]
    path = folder / NAME
    pq.write_table(pa.Table.from_pylist(rows, _SCHEMA), path)
    return path


def _diff_sets(project: Project, day: str) -> Iterator[Path]:
    """The diff sets that are read: what the earlier one says of an opt-out comes first.

    The day's own is about to be made anew: of one that cannot be read nothing is taken.
    """
    own = project.diff_set_folder(day)
    files = (own.parent.glob(f"{_DAY}/{name}") for name in (SUMMARY, _CHANGES))
    days = (one.parent.name for one in chain.from_iterable(files))
    last = max((one for one in days if one < day), default=None)
    if last is not None:
        yield project.diff_set_folder(last)
    with suppress(ReconcileError):
        if _read(own).config_hash == project.config.config_hash:
            yield own


def _read(folder: Path) -> Summary:
    """The summary of a diff set whose opt-outs can be read too.

    Raises:
        ReconcileError: a file is not there, or cannot be read.
    """
    summary, file = load_summary(folder), folder / _CHANGES
    try:
        pq.read_schema(file)
    except (OSError, ValueError) as half:
        raise ReconcileError(unreadable(file)) from half
    return summary


def _opt_outs_in(folder: Path, key: str, contacts: Snapshot, persons: Snapshot) -> Iterator[_Row]:
    as_of = _read(folder).as_of
    told_at = as_of.astimezone(UTC).replace(tzinfo=None) if as_of else None
    if not _has(contacts, key) or not _has(persons, "person_key"):
        return  # the reconcile says what is missing, or knows nobody's subscriptions
    with duckdb.connect() as engine:
        engine.execute("SET autoinstall_known_extensions = false")
        rows = engine.sql(
            f"""
            FROM (FROM {parquet(folder / _CHANGES)}
                  WHERE action = 'opt_out' AND reason IN {text_list(_WORDS)}) o
            ANTI JOIN {parquet(contacts.data)} c
              ON o.side = 'platform'
                 AND o.external_person_id = {clean(f"CAST(c.{ident(key)} AS VARCHAR)")}
            ANTI JOIN {parquet(persons.data)} p
              ON o.side = 'crm' AND o.person_key = lower(CAST(p.person_key AS VARCHAR))
            ORDER BY ALL"""
        ).to_arrow_table()
    for row in rows.to_pylist():
        names = (row["external_person_id"] or "", row["person_key"] or "")
        if all(names) and not any(name.startswith(ERASED_PREFIX) for name in names):
            yield row | {"told_at": told_at}


def _has(snapshot: Snapshot, name: str) -> bool:
    names = pq.read_schema(snapshot.data).names
    return name.lower() in (column.lower() for column in names)


def _key_of(row: _Row) -> _Key:
    return row["side"], row["external_person_id"], row["person_key"], row["subscription_list_id"]


def _as_sent(row: _Row) -> tuple[Any, ...]:
    kind = "opt_out" if row["side"] == "platform" else "crm_opt_out"
    return kind, row["external_person_id"], row["subscription_list_id"], row["evidence_at"]


def _instant(operation: Operation) -> datetime | None:
    at = evidence_at(operation)
    return at.astimezone(UTC).replace(tzinfo=None) if at else None
