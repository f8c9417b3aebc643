"""Every opt-out that one side knows of and the other does not, as far as it is recorded.

An opt-out stays here until it is effective on the other side, whatever was tried meanwhile: one
that was refused, or sent without an answer, is under way. The same opt-out known in several places
counts once, from the earliest time. Without a time of its own, or with one that is still to come,
it counts from when it was first seen.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

import pyarrow.compute as pc
import pyarrow.parquet as pq

from vibes_pipelines.crm.write_back import CHANGED_MEANWHILE, CONTACT_NOT_FOUND
from vibes_pipelines.delivery.deferrals import Deferrals
from vibes_pipelines.delivery.intents import Origin, evidence_at, opt_out_intents
from vibes_pipelines.stages.inbox_effects import ASKS_TO_STOP
from vibes_pipelines.stages.inbox_opt_outs import ECHO_WITHIN
from vibes_pipelines.stages.project import Project
from vibes_pipelines.store.inbox import Inbox, StoredCallback
from vibes_pipelines.store.realtime import RealtimeBook, Sent
from vibes_pipelines.store.records import DiffSet, Operation, Route
from vibes_pipelines.vibes.callbacks import SUBSCRIPTION_REMOVED, UNMATCHED

Way = Literal["to_crm", "to_platform", "at_the_desk"]

_ROUTES: tuple[Route, ...] = ("api", "file", "crm")
_Key = tuple[str, str | None, str | None]
_CHANGES = "subscription_changes.parquet"
_QUARANTINE = "quarantine.parquet"

_NOTHING_TO_DO = frozenset({CHANGED_MEANWHILE, CONTACT_NOT_FOUND})
"""Refusals after which nothing is left to tell the CRM: it knows better, or knows nobody."""


@dataclass(frozen=True, slots=True)
class OpenOptOut:
    """One opt-out under way; `since` is when the side that knows of it recorded it.

    `at_the_desk`: parked, a person has to look. `contact` and `list` tell whose it is, if known.
    """

    way: Way
    since: datetime
    contact: str | None = None
    list: str | None = None


def open_opt_outs(project: Project) -> Iterator[OpenOptOut]:
    """What is under way in the inbox, at the desk, in real time and in the newest diff set."""
    with closing(RealtimeBook(project.settings.ledger_url)) as book:
        found = [
            *_in_the_inbox(project, book),
            *_in_real_time(project, book),
            *_of_the_newest_diff_set(project, book),
        ]
    yield from _once_each(found)


def _once_each(found: Iterable[OpenOptOut]) -> Iterator[OpenOptOut]:
    earliest: dict[tuple[str, str | None, str | None], OpenOptOut] = {}
    for one in found:
        key = (one.way, one.contact, one.list)
        if one.contact is None:
            yield one
        elif key not in earliest or one.since < earliest[key].since:
            earliest[key] = one
    yield from earliest.values()


def _of_operation(operation: Operation, first_seen: datetime) -> OpenOptOut:
    return OpenOptOut(
        "to_platform" if operation.kind == "opt_out" else "to_crm",
        _said_at(operation) or first_seen,
        operation.external_person_id,
        operation.subscription_list_id,
    )


def _said_at(operation: Operation) -> datetime | None:
    """When the side that knows of it recorded it; a time that is still to come is none."""
    at = evidence_at(operation)
    return at if at is not None and at <= operation.as_of else None


def _in_the_inbox(project: Project, book: RealtimeBook) -> Iterator[OpenOptOut]:
    lists = {consent.list.strip() for consent in project.config.consents}
    with closing(Inbox(project.settings.ledger_url)) as inbox:
        waiting = inbox.stored((SUBSCRIPTION_REMOVED,))
        parked = inbox.parked((SUBSCRIPTION_REMOVED, UNMATCHED))
    waiting = [callback for callback in waiting if callback.subscription_list_id in lists]
    for callback in _not_delivered(book, waiting):
        yield _of_callback("to_crm", callback)
    for callback in parked:
        listed = callback.subscription_list_id
        # A removal whose list cannot be read may be of any.
        is_of_any = listed is None and callback.event_type == SUBSCRIPTION_REMOVED
        if listed in lists or is_of_any or callback.reason == ASKS_TO_STOP:
            yield _of_callback("at_the_desk", callback)


def _of_callback(way: Way, callback: StoredCallback) -> OpenOptOut:
    named = callback.external_person_id, callback.subscription_list_id
    return OpenOptOut(way, callback.order_at, *named)


def _not_delivered(book: RealtimeBook, waiting: list[StoredCallback]) -> Iterator[StoredCallback]:
    """Without those that the CRM was told of otherwise meanwhile, and those that it told itself."""
    contacts = {callback.external_person_id for callback in waiting if callback.external_person_id}
    since = min((callback.received_at for callback in waiting), default=None)
    sent = book.accepted_opt_outs(contacts, since - ECHO_WITHIN) if since else []
    for callback in waiting:
        if not any(_tells(one, callback) for one in sent):
            yield callback


def _tells(sent: Sent, callback: StoredCallback) -> bool:
    operation = sent.operation
    if (operation.external_person_id, operation.subscription_list_id) != (
        callback.external_person_id,
        callback.subscription_list_id,
    ):
        return False
    if operation.kind == "opt_out":  # the CRM knew it first, and this is the echo
        return callback.received_at - ECHO_WITHIN <= sent.at <= callback.received_at
    return sent.at >= callback.received_at


def _in_real_time(project: Project, book: RealtimeBook) -> Iterator[OpenOptOut]:
    """Those that the platform did not take, nor a later one of the daily job.

    A refused one is over, too, when a later day compared the two sides and asks for it no more.
    """
    found = book.open_opt_outs()
    if not found:
        return
    contacts = {one.external_person_id for one, _ in found if one.external_person_id}
    accepted = book.accepted_opt_outs(contacts, min(one.as_of for one, _ in found))
    taken = {_key(sent.operation): sent.operation.as_of for sent in sorted(accepted, key=_decided)}
    newest = project.ledger.newest_diff_set()
    planned = None if newest is None else _planned_or_in_doubt(project, newest)
    for one, since in found:
        is_made_good = _key(one) in taken and taken[_key(one)] >= one.as_of
        is_over = (
            one.status == "rejected"
            and newest is not None
            and newest.as_of > one.as_of
            and planned is not None
            and not planned & {_key(one), _whoever(one.external_person_id)}
        )
        if not is_made_good and not is_over:
            yield _of_operation(one, since)


def _decided(sent: Sent) -> datetime:
    return sent.operation.as_of


def _planned_or_in_doubt(project: Project, newest: DiffSet) -> set[_Key] | None:
    """Opt-outs of a diff set, and whoever is in its quarantine; None when its files are gone."""
    folder = project.diff_set_folder(newest.day)
    changes, quarantine = folder / _CHANGES, folder / _QUARANTINE
    if not changes.is_file() or not quarantine.is_file():
        return None
    contacts = pq.read_table(quarantine, columns=["external_person_id"])["external_person_id"]
    return _opt_outs_in(changes) | {_whoever(contact) for contact in contacts.to_pylist()}


def _of_the_newest_diff_set(project: Project, book: RealtimeBook) -> list[OpenOptOut]:
    newest = project.ledger.newest_diff_set()
    if newest is None:
        return []
    due = list(_due(project, newest))
    contacts = {one.external_person_id for one in due if one.external_person_id}
    gone = {
        _key(one.operation)
        for one in book.accepted_opt_outs(contacts, newest.as_of)
        if one.in_real_time
    } | _told_by_callback(project, due)
    left = [one for one in due if _key(one) not in gone]
    in_doubt = {_key(one) for one in left if _said_at(one) is None or _may_be_over(one)}
    seen = _first_seen(project, newest, in_doubt)
    return [
        _of_operation(one, seen.get(_key(one), one.as_of))
        for one in left
        if not _may_be_over(one) or _key(one) in seen
    ]


def _may_be_over(operation: Operation) -> bool:
    """Whether the CRM says that there is nothing to tell it any more.

    That holds of what it changed or deleted since it was landed. One that was asked for on the day
    before too may not be over: the CRM is read otherwise, or has the contact under another key,
    than it is landed with; if it is, the next day knows.
    """
    return operation.status == "rejected" and operation.error_class in _NOTHING_TO_DO


def _due(project: Project, newest: DiffSet) -> Iterator[Operation]:
    """Its opt-outs that are not effective: all of them while it is not planned, e.g. held."""
    if project.ledger.plan(newest.diff_set) is None:
        folder = project.diff_set_folder(newest.day)
        if not (folder / _CHANGES).is_file():
            return
        lag = timedelta(hours=project.config.policies.visibility_lag_h)
        deferrals = Deferrals.of(project.ledger, newest, lag)
        for one in opt_out_intents(Origin(newest.diff_set, newest.day, newest.as_of, folder)):
            if deferrals.why_deferred(one) is None:
                yield one
        return
    for route in _ROUTES:
        yield from project.ledger.open_operations(newest.diff_set, "opt_outs", route)
    for one in project.ledger.failures(newest.diff_set):
        if one.lane == "opt_outs" and one.status == "rejected":
            yield one


def _key(operation: Operation) -> _Key:
    side = "platform" if operation.kind == "opt_out" else "crm"
    return side, operation.external_person_id, operation.subscription_list_id


def _whoever(contact: str | None) -> _Key:
    """Stands for every opt-out of a contact."""
    return "both", contact, None


def _told_by_callback(project: Project, due: Iterable[Operation]) -> set[_Key]:
    """Opt-outs to the CRM that a callback, no older than what was planned, has carried there."""
    planned = {_key(one): one for one in due if one.kind == "crm_opt_out"}
    contacts = [contact for _, contact, _ in planned if contact]
    times = [at for one in planned.values() if (at := evidence_at(one))]
    if not times:
        return set()
    with closing(Inbox(project.settings.ledger_url)) as inbox:
        heard = inbox.heard((SUBSCRIPTION_REMOVED,), min(times), contacts)
    return {
        key
        for callback in heard
        if callback.status == "applied"
        and (key := ("crm", callback.external_person_id, callback.subscription_list_id)) in planned
        and (at := evidence_at(planned[key]))
        and callback.order_at >= at
    }


def _first_seen(project: Project, newest: DiffSet, wanted: set[_Key]) -> Mapping[_Key, datetime]:
    """The beginning of the first of the days that each was planned on without a day between."""
    seen: dict[_Key, datetime] = {}
    root = project.diff_set_folder(newest.day).parent
    if not wanted or not root.is_dir():
        return seen
    days = (folder.name for folder in root.glob("????-??-??") if folder.name < newest.day)
    for day in sorted(days, reverse=True):
        path = root / day / _CHANGES
        if not wanted or not path.is_file():
            break
        wanted &= _opt_outs_in(path)
        seen |= dict.fromkeys(wanted, datetime.fromisoformat(day).replace(tzinfo=UTC))
    return seen


def _opt_outs_in(path: Path) -> set[_Key]:
    names = ["side", "external_person_id", "subscription_list_id"]
    table = pq.read_table(path, columns=[*names, "action"])
    table = table.filter(pc.equal(table["action"], "opt_out")).select(names)
    return {tuple(row.values()) for row in table.to_pylist()}
