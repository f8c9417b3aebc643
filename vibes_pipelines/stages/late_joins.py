"""Who joined at the platform and has said no in the CRM, where the callback came after the no.

A look at the CRM's changes that came between the two found nobody to opt out, and would not look at
the contact again before the next day.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

import duckdb

from vibes_pipelines.reconcile.consent import OPTED_OUT
from vibes_pipelines.reconcile.phone import to_e164
from vibes_pipelines.reconcile.sql import ident
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


@dataclass(frozen=True)
class LateJoins:
    """Contacts to compare, and the mark once that is done; None: nothing is new.

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

    Without a mark it begins with the newest few.

    Raises:
        CrmError: the CRM cannot be read.
    """
    lists = {consent.list.strip() for consent in project.config.consents}
    mark = json.loads(book.cursor(MARK) or "{}")
    with closing(Inbox(project.settings.ledger_url)) as inbox:
        newest = inbox.newest()
        begin = min(mark.get("newest", newest), newest) - OVERLAP
        joined = inbox.arrived_after(begin, SUBSCRIPTION_ADDED, lists)
    seen = set(mark.get("seen", ()))
    new = [callback for callback in joined if callback.id not in seen]
    if not new:
        return LateJoins({}, None)
    joins = _contacts(project, new)
    says_no = {cell.contact for cell in consents_in(project, joins, OPTED_OUT)}
    kept = [callback.id for callback in joined if callback.id > newest - OVERLAP]
    document = json.dumps({"newest": newest, "seen": kept})
    return LateJoins({contact: joins[contact] for contact in joins if contact in says_no}, document)


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
            f"SELECT trim({key}), {phone} FROM read_parquet(?)"  # noqa: S608 - quoted names
            f" WHERE list_contains(?, right(regexp_replace({phone}, '[^0-9]', '', 'g'), {TAIL}))",
            [str(snapshot.data), sorted({number[-TAIL:] for number in ids})],
        ).fetchall()
    for contact, written in rows:
        number = to_e164(written, mapped.mdn.default_region) or ""
        if number in ids:
            yield contact, ids[number]
