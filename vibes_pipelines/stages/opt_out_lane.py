"""The lane of opt-outs: both ways, and nothing else, while another job is busy.

What becomes of an opt-out is decided where it always is, in `stages.inbox` and `stages.changes`;
here stands what waits, and what was looked at already. The marks of the looks at everything stay
where they are: those come by later, and find the same opt-outs done.
"""

import hashlib
import json
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

from vibes_pipelines.crm.database import CrmError
from vibes_pipelines.reconcile.consent import OPTED_OUT
from vibes_pipelines.stages.api_rate import LEASE, calls_of_opt_outs
from vibes_pipelines.stages.carried import Carried
from vibes_pipelines.stages.changes import OPT_OUTS, carry_opt_outs_of, changed_contacts
from vibes_pipelines.stages.consents_now import Consent, consents_in
from vibes_pipelines.stages.erase_lock import not_while_erasing
from vibes_pipelines.stages.inbox import Drained, drain_opt_outs, newest_opt_out
from vibes_pipelines.stages.late_joins import late_joins
from vibes_pipelines.stages.masking import hash_of
from vibes_pipelines.stages.project import Project
from vibes_pipelines.stages.slices import held
from vibes_pipelines.store.kept_lease import kept_lease
from vibes_pipelines.store.leases import Leases
from vibes_pipelines.store.realtime import RealtimeBook
from vibes_pipelines.vibes.rate_limit import RateLimiter

PAGE_S = 30
"""How long the opt-outs of one page take at most, at the rate that is kept for them.

That old is the comparison when the last of them leaves, and so long those of the inbox wait.
"""

RUN_S = 600.0
"""After so long no further page is begun; the sensor asks again while any waits."""

SEEN = "crm_opt_outs_seen"
"""Marks of the CRM's opt-outs that were looked at, as far as they still stand among the changes."""


@dataclass(frozen=True)
class WaitingOptOuts:
    """What waits, each way: a number that stays the same while the same waits; None: nothing."""

    to_crm: int | None = None
    to_platform: int | None = None


@dataclass(frozen=True)
class OptOutsCarried:
    """What became of them, each way."""

    to_crm: Drained
    to_platform: Carried

    @property
    def sentence(self) -> str:
        """One line for the log."""
        return f"to the CRM: {self.to_crm.sentence}; to the platform: {self.to_platform.sentence}"


def opt_outs_waiting(project: Project) -> WaitingOptOuts:
    """Opt-outs that nobody acted on yet.

    Raises:
        CrmError: the CRM cannot be read.
    """
    return WaitingOptOuts(newest_opt_out(project), _crm_opt_outs_waiting(project))


def carry_opt_outs(project: Project, *, dry_run: bool = True) -> OptOutsCarried:
    """Carries the opt-outs that wait: those of the inbox first, also before each page of the CRM's.

    One way that fails does not hold up the other.

    Raises:
        CrmError: the CRM does not answer, or is not as sync.yaml maps it.
        VibesAuthError: the platform refuses the login.
        LaneBusy: another process does this already; nothing was sent.
        LeaseLost: this process stood still for so long that deliveries do not give way any more.
    """
    with Leases(project.settings.ledger_url) as leases, kept_lease(leases, LEASE) as lease:
        calls = calls_of_opt_outs(project.settings, lease)
        drained, carried = Drained(dry_run), Carried(dry_run)
        ends_at, are_more = time.monotonic() + RUN_S, True
        while are_more and time.monotonic() < ends_at:
            fault: CrmError | None = None
            try:
                drained += drain_opt_outs(project, dry_run=dry_run)
            except CrmError as broken:
                fault = broken
            page, are_more = carry_crm_opt_outs(project, calls, dry_run=dry_run)
            carried += page
            if fault is not None:
                raise fault
        return OptOutsCarried(drained, carried)


@not_while_erasing
def carry_crm_opt_outs(
    project: Project, calls: RateLimiter, *, dry_run: bool = True
) -> tuple[Carried, bool]:
    """Sends to the platform who opted out in the CRM since the last look at all changes.

    At most a page of them, within the lane's `calls`; returns also whether more wait.

    Raises:
        CrmError: the CRM cannot be read.
        VibesAuthError: the platform refuses the login; everything is sent with the next look.
    """
    if why := _why_not(project):
        return Carried(dry_run, why=(why,)), False
    with closing(RealtimeBook(project.settings.ledger_url)) as book:
        standing = _standing(project, book)
        seen = _seen(book) & standing.keys()
        new = list(dict.fromkeys(standing[mark] for mark in standing if mark not in seen))
        page = new[: PAGE_S * project.settings.api.opt_out_rate_per_s]
        carried = carry_opt_outs_of(project, book, page, calls, dry_run=dry_run)
        if not dry_run:  # only now, and only of what stands still: the rest is looked at anew
            done = {mark for mark, contact in standing.items() if contact in set(page)}
            book.move_cursor(SEEN, json.dumps(sorted(seen | done)))
        return carried, not dry_run and len(page) < len(new)


def _crm_opt_outs_waiting(project: Project) -> int | None:
    if _why_not(project):
        return None
    with closing(RealtimeBook(project.settings.ledger_url)) as book:
        marks = sorted(_standing(project, book).keys() - _seen(book))
        unfinished = [operation.operation_id for operation in book.unfinished(OPT_OUTS)]
    if not marks and not unfinished:
        return None
    return int(hashlib.sha256(json.dumps([marks, unfinished]).encode()).hexdigest()[:12], 16)


def _why_not(project: Project) -> str | None:
    if project.config.contacts.changes is None:
        return "contacts.changes of sync.yaml is not set"
    return held(project)


def _standing(project: Project, book: RealtimeBook) -> dict[str, str]:
    """The contacts that opted out, each by the mark of its opt-out.

    They are among the changes, or had joined before they said no, which was told here only now. A
    look at such a contact that came before the callback found nobody to opt out, so that the
    callback is part of the mark.
    """
    joined = late_joins(project, book).contacts
    contacts = dict.fromkeys([*changed_contacts(project, book), *joined])
    opted_out = consents_in(project, contacts, OPTED_OUT)
    hashed = hash_of(project.settings)
    return {_mark(cell, joined.get(cell.contact), hashed): cell.contact for cell in opted_out}


def _seen(book: RealtimeBook) -> frozenset[str]:
    return frozenset(json.loads(book.cursor(SEEN) or "[]"))


def _mark(cell: Consent, join: int | None, hashed: Callable[[str], str]) -> str:
    """An opt-out on its evidence, without saying whose it is: a keyed hash, for it is stored."""
    text = f"{cell.contact} {cell.list} {cell.changed_at} {join or ''}"
    return hashed(text)[:16]
