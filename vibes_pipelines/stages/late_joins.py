"""Who joined at the platform and has said no in the CRM, where the callback came after the no.

A look at the CRM's changes that came between the two found nobody to opt out, and would not look at
the contact again before the next day.
"""

import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

from vibes_pipelines.reconcile.consent import OPTED_OUT
from vibes_pipelines.stages.consents_now import consents_in
from vibes_pipelines.stages.inbox_persons import contacts_by_share
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
    """Contacts to compare, and the mark once that is done; None: nothing is new."""

    contacts: tuple[str, ...]
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
        return LateJoins((), None)
    says_no = consents_in(project, _contacts(project, new), OPTED_OUT)
    kept = [callback.id for callback in joined if callback.id > newest - OVERLAP]
    document = json.dumps({"newest": newest, "seen": kept})
    return LateJoins(tuple(dict.fromkeys(cell.contact for cell in says_no)), document)


def _contacts(project: Project, joined: Sequence[StoredCallback]) -> list[str]:
    named = (callback.external_person_id for callback in joined)
    nameless = [callback for callback in joined if callback.external_person_id is None]
    by_share = contacts_by_share(project, nameless).values()
    return list(dict.fromkeys([*(contact for contact in named if contact), *by_share]))
