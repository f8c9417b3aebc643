"""Who joined at the platform and has said no in the CRM, where the callback came after the no.

A look at the CRM's changes that came between the two found nobody to opt out, and would not look at
the contact again before the next day.
"""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain, islice

import duckdb

from vibes_pipelines.data_files import parquet
from vibes_pipelines.reconcile.consent import OPTED_OUT
from vibes_pipelines.reconcile.phone import to_e164
from vibes_pipelines.reconcile.sql import clean, ident
from vibes_pipelines.stages.consents_now import consents_in
from vibes_pipelines.stages.erasing_links import TAIL
from vibes_pipelines.stages.inbox_persons import contacts_by_share
from vibes_pipelines.stages.landing import CONTACTS
from vibes_pipelines.stages.project import Project
from vibes_pipelines.store.inbox import Inbox, StoredCallback
from vibes_pipelines.store.realtime import RealtimeBook
from vibes_pipelines.vibes.callbacks import SUBSCRIPTION_ADDED

MARK = "late_joins_seen"
"""The newest callback that was looked at, and those shortly before it."""

OVERLAP = 1_000
"""How many numbers before the newest are read again: a transaction may end later than they say."""

LOOK_ROWS = 10_000
"""Joins that one look reads at most; the next one goes on behind them. More than OVERLAP."""


@dataclass(frozen=True)
class LateJoins:
    """Contacts to compare, and the mark once that is done; None: it stays where it is.

    `contacts` has with each the id of the newest callback by which it joined.
    """

    contacts: Mapping[str, int]
    mark: str | None

    def looked_at(self, book: RealtimeBook) -> None:
        """Records that these were compared, or that there was nobody to compare."""
        if self.mark is not None:
            book.move_cursor(MARK, self.mark)


def late_joins(project: Project, book: RealtimeBook) -> LateJoins:
    """Contacts of which a join arrived since the last look, and whose cell says no.

    Without a mark it begins with the oldest callback.

    Raises:
        CrmError: the CRM cannot be read.
    """
    lists = {consent.list.strip() for consent in project.config.consents}
    company = project.config.company_key
    mark = book.cursor(MARK)
    last = json.loads(mark or "{}")
    with closing(Inbox(project.settings.ledger_url)) as inbox:
        newest = inbox.newest()
        begin = min(last.get("newest", 0), newest) - OVERLAP
        pages = inbox.arrived_after(begin, SUBSCRIPTION_ADDED, lists, company)
        joined = list(islice(chain.from_iterable(pages), LOOK_ROWS))
    if len(joined) == LOOK_ROWS:
        newest = joined[-1].id
    # Also where nobody joined: the next look must not have to guess where this one ended.
    document = _mark_of(newest, (callback.id for callback in joined))
    seen = set(last.get("seen", ()))
    new = [callback for callback in joined if callback.id not in seen]
    joins = _contacts(project, new) if new else {}
    says_no = {cell.contact for cell in consents_in(project, joins, OPTED_OUT)} if joins else set()
    contacts = {contact: joins[contact] for contact in joins if contact in says_no}
    return LateJoins(contacts, document if document != mark else None)


def look_again(book: RealtimeBook, ids: Collection[int]) -> None:
    """Has the next look begin before these callbacks, which it may have passed over."""
    last = json.loads(book.cursor(MARK) or "{}")
    if ids and last:
        newest = min(last["newest"], min(ids) - 1 + OVERLAP)
        book.move_cursor(MARK, _mark_of(newest, set(last["seen"]) - set(ids)))


def _mark_of(newest: int, seen: Iterable[int]) -> str:
    kept = sorted(number for number in seen if number > newest - OVERLAP)
    return json.dumps({"newest": newest, "seen": kept})


def _contacts(project: Project, joined: Sequence[StoredCallback]) -> dict[str, int]:
    """Each contact and its newest of these callbacks, which come in the order of arrival."""
    by_share = contacts_by_share(project, (one for one in joined if not one.external_person_id))
    named = {one.id: one.external_person_id or by_share.get(one.id) for one in joined}
    by_number = {one.mdn: one.id for one in joined if one.mdn and not named[one.id]}
    found = [(contact, number) for number, contact in named.items() if contact]
    found += _with_numbers(project, by_number)
    return dict(sorted(found, key=lambda one: one[1]))


def _with_numbers(project: Project, ids: Mapping[str, int]) -> Iterator[tuple[str, int]]:
    """The contacts that had one of these numbers on the newest landed day, and the number's id.

    The platform may have somebody by the number alone. Whether that is the contact is decided
    where the two are compared.
    """
    mapped = project.config.contacts
    days = project.snapshots.days(CONTACTS)
    snapshot = project.snapshots.find(CONTACTS, days[-1]) if days and ids else None
    if snapshot is None or mapped.mdn is None:
        return
    key, phone = (f"CAST({ident(name)} AS VARCHAR)" for name in (mapped.key, mapped.mdn.column))
    with duckdb.connect() as engine:
        engine.execute("SET autoinstall_known_extensions = false")
        rows = engine.execute(
            f"SELECT {clean(key)}, {phone} FROM {parquet(snapshot.data)}"  # noqa: S608 - quoted names
            f" WHERE list_contains(?, right(regexp_replace({phone}, '[^0-9]', '', 'g'), {TAIL}))",
            [sorted({number[-TAIL:] for number in ids})],
        ).fetchall()
    for contact, written in rows:
        number = to_e164(written, mapped.mdn.default_region) or ""
        if number in ids:
            yield contact, ids[number]
