"""Subscription callbacks: an opt-out at the platform reaches the CRM, an opt-in never does.

The rules are those of the reconcile: an opt-out is carried unless newer evidence speaks against it.
An effect comes first and its mark after it; the effect again changes nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from vibes_pipelines.crm.write_back import (
    CHANGED_MEANWHILE,
    CONTACT_NOT_FOUND,
    LOCKED_IN_CRM,
    REFUSED_BY_CRM,
    VALUE_DOES_NOT_FIT,
)
from vibes_pipelines.delivery.ports import CrmOptOut
from vibes_pipelines.stages.crm_side import crm_writer
from vibes_pipelines.stages.inbox_persons import contacts_by_share
from vibes_pipelines.stages.project import Project
from vibes_pipelines.store.inbox import Finished, Inbox, StoredCallback
from vibes_pipelines.store.realtime import RealtimeBook
from vibes_pipelines.sync_config import SyncConfig
from vibes_pipelines.vibes.callbacks import SUBSCRIPTION_ADDED, SUBSCRIPTION_REMOVED

SUBSCRIPTION_EVENTS = (SUBSCRIPTION_ADDED, SUBSCRIPTION_REMOVED)

OPTED_OUT = "opted_out"
ECHO = "echo"
OPT_IN_NOT_CARRIED = "opt_in_not_carried"
LIST_NOT_MAPPED = "list_not_mapped"
SUPERSEDED = "superseded"
CRM_IS_NEWER = "crm_is_newer"
OTHER_COMPANY = "other_company"
UNKNOWN_PERSON = "unknown_person"
VALUE_FITS_NOT = "value_does_not_fit"
CRM_REFUSES = "refused_by_crm"

# What the CRM's refusals come to. A contact that is not found is sought again, then unknown.
_REFUSED: Mapping[str | None, tuple[str, str]] = {
    CHANGED_MEANWHILE: ("ignored", CRM_IS_NEWER),
    VALUE_DOES_NOT_FIT: ("parked", VALUE_FITS_NOT),
    REFUSED_BY_CRM: ("parked", CRM_REFUSES),
    CONTACT_NOT_FOUND: ("parked", UNKNOWN_PERSON),
}


ECHO_WITHIN = timedelta(days=1)
"""How long after a write its callback may come, the platform's repeated attempts included."""


@dataclass(frozen=True, slots=True)
class _OptOut:
    """A callback that is to reach the CRM; `contact_id` is None until its contact is known."""

    callback: StoredCallback
    list: str
    contact_id: str | None

    @property
    def evidence_at(self) -> datetime:
        """When it happened, or at the latest: when it was received."""
        return self.callback.order_at


def settle_subscriptions(
    project: Project, inbox: Inbox, page: Sequence[StoredCallback], *, dry_run: bool
) -> list[Finished]:
    """Carries the opt-outs of a page to the CRM; says what becomes of each of its callbacks.

    Nothing is said of one whose contact somebody else has locked: it waits for the next drain.

    Raises:
        CrmError: the CRM does not answer, or is not as sync.yaml maps it.
    """
    ended, opt_outs = _judge(project.config, inbox, page)
    opt_outs, unknown = _find_contacts(project, opt_outs)
    ended += unknown
    if dry_run:
        return ended + [_finished(opt_out, "applied", OPTED_OUT) for opt_out in opt_outs]
    return ended + _without_echoes(project, opt_outs, _apply(project, opt_outs))


def _without_echoes(
    project: Project, opt_outs: Sequence[_OptOut], ended: Sequence[Finished]
) -> list[Finished]:
    """Tells what we sent ourselves and hear back; the CRM had it first, so nothing was written."""
    if not opt_outs:
        return list(ended)
    since = min(opt_out.callback.received_at for opt_out in opt_outs) - ECHO_WITHIN
    with closing(RealtimeBook(project.settings.ledger_url)) as book:
        sent = book.sent([opt_out.contact_id or "" for opt_out in opt_outs], since)
    ours = {
        (one.operation.external_person_id, one.operation.subscription_list_id): one.at
        for one in reversed(sent)
        if one.operation.kind == "opt_out"
    }
    echoes = {
        opt_out.callback.id
        for opt_out in opt_outs
        if (at := ours.get((opt_out.contact_id, opt_out.list)))
        and at <= opt_out.callback.received_at <= at + ECHO_WITHIN
    }
    return [
        replace(one, status="ignored", reason=ECHO)
        if one.id in echoes and one.reason == OPTED_OUT
        else one
        for one in ended
    ]


def _judge(
    config: SyncConfig, inbox: Inbox, page: Sequence[StoredCallback]
) -> tuple[list[Finished], list[_OptOut]]:
    """Which callbacks end here, and which have to reach the CRM."""
    lists = {consent.list.strip(): consent.list for consent in config.consents}
    ended: list[Finished] = []
    opt_outs: list[_OptOut] = []
    for callback in page:
        verdict = _without_effect(config, inbox, callback, lists)
        if verdict is None:
            mapped = lists[callback.subscription_list_id or ""]
            opt_outs.append(_OptOut(callback, mapped, callback.external_person_id))
        else:
            ended.append(verdict)
    return ended, opt_outs


def _without_effect(
    config: SyncConfig, inbox: Inbox, callback: StoredCallback, lists: Mapping[str, str]
) -> Finished | None:
    companies = {None, config.company_key}
    if callback.company_key not in companies:
        return Finished(callback.id, "parked", OTHER_COMPANY)
    if callback.subscription_list_id not in lists:
        return Finished(callback.id, "ignored", LIST_NOT_MAPPED)
    if callback.event_type == SUBSCRIPTION_ADDED:
        return Finished(callback.id, "ignored", OPT_IN_NOT_CARRIED)
    later = inbox.later_events(callback, SUBSCRIPTION_ADDED)
    ours = [added for added in later if added.company_key in companies]
    if any(_same_person(callback, added) for added in ours):
        return Finished(callback.id, "ignored", SUPERSEDED)
    return None


def _same_person(one: StoredCallback, other: StoredCallback) -> bool:
    """They share the strongest identifier that both have; a shared number alone may be passed on.

    Only a callback that names its person by nothing but the number is of that number's person.
    """
    for name in ("person_key", "external_person_id", "person_id"):
        of_one, of_other = getattr(one, name), getattr(other, name)
        if of_one and of_other:
            return bool(of_one == of_other)
    named = [c.person_key or c.external_person_id or c.person_id for c in (one, other)]
    return not any(named) and one.mdn == other.mdn


def _find_contacts(
    project: Project, opt_outs: Sequence[_OptOut]
) -> tuple[list[_OptOut], list[Finished]]:
    """Gives every opt-out its contact; one whose contact nobody knows ends here."""
    nameless = [opt_out.callback for opt_out in opt_outs if opt_out.contact_id is None]
    known = contacts_by_share(project, nameless)
    found = [
        replace(opt_out, contact_id=opt_out.contact_id or known.get(opt_out.callback.id))
        for opt_out in opt_outs
    ]
    unknown = [o for o in found if o.contact_id is None]
    return (
        [opt_out for opt_out in found if opt_out.contact_id is not None],
        [_finished(opt_out, "parked", UNKNOWN_PERSON) for opt_out in unknown],
    )


def _apply(project: Project, opt_outs: Sequence[_OptOut]) -> list[Finished]:
    """Writes opt-outs to the CRM; a contact it does not have is sought once more by the share."""
    ended: list[Finished] = []
    missing: list[_OptOut] = []
    for opt_out, finished in _write(project, opt_outs):
        if finished is None:
            continue
        (missing.append(opt_out) if finished.reason == UNKNOWN_PERSON else ended.append(finished))
    known = contacts_by_share(project, (opt_out.callback for opt_out in missing))
    renamed = [
        replace(opt_out, contact_id=contact)
        for opt_out in missing
        if (contact := known.get(opt_out.callback.id)) and contact != opt_out.contact_id
    ]
    again = {o.callback.id: finished for o, finished in _write(project, renamed)}
    unknown = (_finished(opt_out, "parked", UNKNOWN_PERSON) for opt_out in missing)
    ends = (again.get(finished.id, finished) for finished in unknown)
    return ended + [finished for finished in ends if finished]


def _write(
    project: Project, opt_outs: Sequence[_OptOut]
) -> Iterator[tuple[_OptOut, Finished | None]]:
    """What became of each; None: somebody has the contact locked, and it waits."""
    if not opt_outs:
        return
    rows = [CrmOptOut(o.contact_id or "", o.list, o.evidence_at) for o in opt_outs]
    answers = crm_writer(project).apply_opt_outs(rows)
    for opt_out, answer in zip(opt_outs, answers, strict=True):
        if answer.error_class == LOCKED_IN_CRM:
            yield opt_out, None
            continue
        status, reason = ("applied", OPTED_OUT)
        if answer.outcome == "rejected":
            status, reason = _REFUSED[answer.error_class]
        yield opt_out, _finished(opt_out, status, reason)


def _finished(opt_out: _OptOut, status: str, reason: str) -> Finished:
    return Finished(opt_out.callback.id, status, reason)  # type: ignore[arg-type]
