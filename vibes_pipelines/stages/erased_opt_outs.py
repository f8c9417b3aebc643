"""What an erasure remembers: that a number was opted out of a list, and since when.

Gathered before anything is blanked, kept as keyed hashes in `store.erased_numbers`, and asked for
before an invitation leaves and for contacts that are new. Every opt-out that was ever seen counts:
only evidence that is newer than the last one may ask again.
"""

# ruff: noqa: S608  (SQL is composed here on purpose: names and texts go through reconcile.sql)

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import sqlalchemy as sa

from vibes_pipelines.delivery.intents import EVIDENCE, evidence_at
from vibes_pipelines.reconcile.consent import OPTED_OUT, changed_at_columns, state_column
from vibes_pipelines.reconcile.destinations import VIBES
from vibes_pipelines.reconcile.engine import Limits, engine
from vibes_pipelines.reconcile.identifiers import contact_identifiers
from vibes_pipelines.reconcile.moments import latest_possible, moment_of
from vibes_pipelines.reconcile.sources import open_source
from vibes_pipelines.reconcile.sql import clean, text_list
from vibes_pipelines.settings import Settings
from vibes_pipelines.stages.erasing_subject import Subject
from vibes_pipelines.stages.landing import CONTACTS
from vibes_pipelines.stages.masking import hash_key, keyed_hash
from vibes_pipelines.stages.project import Project
from vibes_pipelines.store.database import open_engine, utc_now
from vibes_pipelines.store.erased_numbers import NO_LIST, ErasedNumber, ErasedNumbers
from vibes_pipelines.store.inbox import Inbox, StoredCallback
from vibes_pipelines.store.models import operations, realtime_operations
from vibes_pipelines.store.records import Operation
from vibes_pipelines.sync_config.realtime import OPT_OUT_WORDS
from vibes_pipelines.vibes.callback_facts import asks_to_stop
from vibes_pipelines.vibes.callbacks import SUBSCRIPTION_REMOVED, UNMATCHED, CallbackError

OptOut = tuple[str, datetime]
"""A list, and when it was opted out of."""

OPTED_OUT_ONCE = "somebody who was erased opted out with this number, and nothing newer says yes"
_OPT_OUT_KINDS = ("opt_out", "crm_opt_out")


def remember_opt_outs(project: Project, subject: Subject, erasure_id: str) -> None:
    """Keeps what is known of the person's numbers; once more adds what came since."""
    told = _callbacks(project, subject)
    latest: dict[str, datetime | None] = {NO_LIST: None}
    for name, at in _opt_outs(project, subject, told):
        known = latest.get(name)
        latest[name] = at if known is None else max(known, at)
    newest = project.ledger.newest_diff_set()
    key = hash_key(project.settings.keys_home)
    numbers = {*subject.mdns, *(one.mdn for one in told if one.mdn is not None)}
    hashes = {keyed_hash(number, key) for number in numbers if number.startswith("+")}
    with closing(ErasedNumbers(project.settings.inbox_url)) as book:
        hashes |= book.hashes_of(erasure_id)
        book.keep(
            ErasedNumber(erasure_id, number, name, at, newest.day if newest else "")
            for number in sorted(hashes)
            for name, at in latest.items()
        )


def opted_out_before(settings: Settings, asking: Sequence[Operation]) -> dict[str, str]:
    """Invitations to a number that an erased person opted out, on no newer evidence: id → why."""
    if not asking:
        return {}
    key = hash_key(settings.keys_home)
    hashes = {o.operation_id: keyed_hash(o.mdn, key) for o in asking if o.mdn is not None}
    with closing(ErasedNumbers(settings.inbox_url)) as book:
        known = book.opted_out(frozenset(hashes.values()))
    told = {}
    for operation in asking:
        number = hashes.get(operation.operation_id, "")
        out_at = known.get((number, operation.subscription_list_id or NO_LIST))
        said_yes_at = evidence_at(operation)
        if out_at is not None and (said_yes_at is None or said_yes_at <= out_at):
            told[operation.operation_id] = OPTED_OUT_ONCE
    return told


def _opt_outs(
    project: Project, subject: Subject, told: Sequence[StoredCallback]
) -> Iterator[OptOut]:
    yield from _told_by_callbacks(project, told)
    yield from _told_by_the_platform(project, subject)
    yield from _told_by_the_crm(project, subject)
    yield from _carried(project, subject)


def _callbacks(project: Project, subject: Subject) -> list[StoredCallback]:
    """Opt-outs and texts of the person: by its keys, by a number only where there is no key."""
    spellings = {*subject.person_keys, *(one.upper() for one in subject.person_keys)}
    external = {subject.external_person_id} if subject.external_person_id else set()
    persons = {"external_person_id": external, "person_key": spellings, "mdn": {*subject.mdns}}
    with closing(Inbox(project.settings.inbox_url)) as inbox:
        found = [
            callback
            for event_type in (SUBSCRIPTION_REMOVED, UNMATCHED)
            for callback in inbox.events(event_type, None, persons)
        ]
    own = {*external, *spellings}
    named = [{one.external_person_id, one.person_key} - {None} for one in found]
    return [
        one
        for one, keys in zip(found, named, strict=True)
        if keys & own or (not keys and one.id in subject.own_callbacks)
    ]


def _told_by_callbacks(project: Project, told: Sequence[StoredCallback]) -> Iterator[OptOut]:
    """Opt-outs, and texts that ask to stop: those name no list, so that they count for each."""
    section = project.config.callbacks
    words = section.opt_out_words if section else OPT_OUT_WORDS
    with closing(Inbox(project.settings.inbox_url)) as inbox:
        bodies = inbox.bodies([one.id for one in told if one.event_type == UNMATCHED])
    for callback in told:
        if callback.id not in bodies:
            yield callback.subscription_list_id or NO_LIST, callback.order_at
        elif _asks_to_stop(bodies[callback.id], words):
            for consent in project.config.consents:
                yield consent.list.strip(), callback.order_at


def _asks_to_stop(body: bytes, words: Sequence[str]) -> bool:
    try:
        return asks_to_stop(body, words)
    except CallbackError:
        return False


def _told_by_the_platform(project: Project, subject: Subject) -> Iterator[OptOut]:
    """Subscriptions that ended, of every landed day."""
    if not subject.person_keys:
        return
    for feed in VIBES.feeds.subscriptions:
        for day in project.snapshots.days(feed):
            snapshot = project.snapshots.find(feed, day)
            if snapshot is None:
                continue
            with (
                tempfile.TemporaryDirectory(prefix="erasure-") as workspace,
                engine(Limits(threads=1), Path(workspace)) as duck,
            ):
                source = open_source(duck, "subscriptions", snapshot.folder, Path(workspace))
                ended, kind = source.column("opt_out_date", feed)
                person, _ = source.column("person_key", feed)
                listed, _ = source.column("subscription_list_id", feed)
                at = latest_possible(moment_of(ended, kind))
                rows = duck.execute(
                    f"SELECT {clean(f'CAST({listed} AS VARCHAR)')}, {at} FROM {source.relation}"
                    f" WHERE lower(CAST({person} AS VARCHAR)) IN"
                    f" {text_list(subject.person_keys)} AND {ended} IS NOT NULL"
                ).fetchall()
            yield from _as_opt_outs(rows, utc_now())


def _told_by_the_crm(project: Project, subject: Subject) -> Iterator[OptOut]:
    """Consent cells that say no, on the newest day that has the contact."""
    if subject.external_person_id is None:
        return
    for day in reversed(project.snapshots.days(CONTACTS)):
        snapshot = project.snapshots.find(CONTACTS, day)
        if snapshot is None:
            continue
        is_there = False
        with (
            tempfile.TemporaryDirectory(prefix="erasure-") as workspace,
            engine(Limits(threads=1), Path(workspace)) as duck,
        ):
            source = open_source(duck, "contacts", snapshot.folder, Path(workspace))
            key = contact_identifiers(project.config, source).key
            own = f"{key} IN {text_list([subject.external_person_id])}"
            for consent in project.config.consents:
                state, (at, _) = state_column(consent, source), changed_at_columns(consent, source)
                rows = duck.execute(
                    f"SELECT {state}, {latest_possible(at)} FROM {source.relation} WHERE {own}"
                ).fetchall()
                is_there = is_there or bool(rows)
                said_no = [(consent.list.strip(), row[1]) for row in rows if row[0] == OPTED_OUT]
                yield from _as_opt_outs(said_no, snapshot.manifest.as_of)
        if is_there:
            return


def _as_opt_outs(rows: Sequence[tuple[str, datetime | None]], unknown: datetime) -> list[OptOut]:
    """With `unknown` where it is not known since when."""
    return [(name, at.replace(tzinfo=UTC) if at else unknown) for name, at in rows]


def _carried(project: Project, subject: Subject) -> Iterator[OptOut]:
    """Opt-outs that were planned or sent, to either side."""
    keys = sorted(subject.keys | {one.upper() for one in subject.person_keys})
    ledger = open_engine(project.settings.inbox_url)
    try:
        with ledger.begin() as connection:
            for table in (operations, realtime_operations):
                query = sa.select(
                    table.c.subscription_list_id, table.c.as_of, table.c.changes
                ).where(
                    table.c.kind.in_(_OPT_OUT_KINDS),
                    sa.or_(table.c.external_person_id.in_(keys), table.c.person_key.in_(keys)),
                )
                for name, as_of, changes in connection.execute(query):
                    told = next((c["after"] for c in changes if c["field"] == EVIDENCE), None)
                    yield name or NO_LIST, datetime.fromisoformat(told) if told else as_of
    finally:
        ledger.dispose()
