"""The callback inbox: opt-outs at the platform reach the CRM within seconds, not the next day.

The rules are those of the reconcile: an opt-out is carried unless newer evidence speaks against it,
an opt-in never is. An effect comes first and its mark after it; the effect again changes nothing.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import datetime

from vibes_pipelines.crm.write_back import (
    CHANGED_MEANWHILE,
    CONTACT_NOT_FOUND,
    VALUE_DOES_NOT_FIT,
    CrmTable,
)
from vibes_pipelines.delivery.ports import CrmOptOut
from vibes_pipelines.stages.inbox_persons import contacts_by_share
from vibes_pipelines.stages.project import Project
from vibes_pipelines.store.inbox import Finished, Inbox, StoredCallback
from vibes_pipelines.sync_config import SyncConfig
from vibes_pipelines.vibes.callbacks import SUBSCRIPTION_ADDED, SUBSCRIPTION_REMOVED

OPTED_OUT = "opted_out"
RECORDED_ONLY = "recorded only"
OPT_IN_NOT_CARRIED = "opt_in_not_carried"
LIST_NOT_MAPPED = "list_not_mapped"
SUPERSEDED = "superseded"
CRM_IS_NEWER = "crm_is_newer"
OTHER_COMPANY = "other_company"
UNKNOWN_PERSON = "unknown_person"
VALUE_FITS_NOT = "value_does_not_fit"

# What the CRM's refusals come to. A contact that is not found is sought again, then unknown.
_REFUSED: Mapping[str | None, tuple[str, str]] = {
    CHANGED_MEANWHILE: ("ignored", CRM_IS_NEWER),
    VALUE_DOES_NOT_FIT: ("parked", VALUE_FITS_NOT),
    CONTACT_NOT_FOUND: ("parked", UNKNOWN_PERSON),
}


@dataclass(frozen=True)
class Drained:
    """What a drain did, in counts of callbacks; a dry run says what it would do.

    A dry run does not ask the CRM, so that it counts an opt-out as applied whose contact may turn
    out to be unknown or newer.
    """

    dry_run: bool
    applied: int = 0
    ignored: int = 0
    parked: int = 0
    reasons: Mapping[str, int] = field(default_factory=dict)

    @property
    def sentence(self) -> str:
        """One line for the log."""
        whole = f"applied {self.applied}, ignored {self.ignored}, parked {self.parked}"
        why = ", ".join(f"{reason} {rows}" for reason, rows in self.reasons.items())
        return f"{'dry run: ' if self.dry_run else ''}{whole} ({why or 'nothing waits'})"


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


def drain(project: Project, *, dry_run: bool = True) -> Drained:
    """Acts on every callback that waits, in the order of events.

    Raises:
        CrmError: the CRM does not answer, or is not as sync.yaml maps it; what was not finished
            waits for the next drain.
    """
    counts: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    with closing(Inbox(project.settings.ledger_url)) as inbox:
        for page in inbox.waiting():
            ended, opt_outs = _judge(project.config, inbox, page)
            opt_outs, unknown = _find_contacts(project, opt_outs)
            ended += unknown
            if dry_run:
                ended += [_finished(opt_out, "applied", OPTED_OUT) for opt_out in opt_outs]
            else:
                ended += _apply(project, opt_outs)
                inbox.finish(ended)
            counts.update(finished.status for finished in ended)
            reasons.update(finished.reason for finished in ended)
    return Drained(
        dry_run,
        applied=counts["applied"],
        ignored=counts["ignored"],
        parked=counts["parked"],
        reasons=dict(sorted(reasons.items())),
    )


def newest_waiting(project: Project) -> int | None:
    """The id of the newest callback that waits for a drain; None when none does."""
    with closing(Inbox(project.settings.ledger_url)) as inbox:
        return inbox.newest_waiting()


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
    if callback.event_type not in {SUBSCRIPTION_ADDED, SUBSCRIPTION_REMOVED}:
        return Finished(callback.id, "ignored", RECORDED_ONLY)
    if callback.company_key not in {None, config.company_key}:
        return Finished(callback.id, "parked", OTHER_COMPANY)
    if callback.subscription_list_id not in lists:
        return Finished(callback.id, "ignored", LIST_NOT_MAPPED)
    if callback.event_type == SUBSCRIPTION_ADDED:
        return Finished(callback.id, "ignored", OPT_IN_NOT_CARRIED)
    later = inbox.later_events(callback, SUBSCRIPTION_ADDED)
    if any(_same_person(callback, added) for added in later):
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
        (missing.append(opt_out) if finished.reason == UNKNOWN_PERSON else ended.append(finished))
    known = contacts_by_share(project, (opt_out.callback for opt_out in missing))
    renamed = [
        replace(opt_out, contact_id=contact)
        for opt_out in missing
        if (contact := known.get(opt_out.callback.id)) and contact != opt_out.contact_id
    ]
    again = {o.callback.id: finished for o, finished in _write(project, renamed)}
    unknown = (_finished(opt_out, "parked", UNKNOWN_PERSON) for opt_out in missing)
    return ended + [again.get(finished.id, finished) for finished in unknown]


def _write(project: Project, opt_outs: Sequence[_OptOut]) -> Iterator[tuple[_OptOut, Finished]]:
    if not opt_outs:
        return
    rows = [CrmOptOut(o.contact_id or "", o.list, o.evidence_at) for o in opt_outs]
    answers = CrmTable(project.settings.crm_url, project.config).apply_opt_outs(rows)
    for opt_out, answer in zip(opt_outs, answers, strict=True):
        status, reason = ("applied", OPTED_OUT)
        if answer.outcome == "rejected":
            status, reason = _REFUSED[answer.error_class]
        yield opt_out, _finished(opt_out, status, reason)


def _finished(opt_out: _OptOut, status: str, reason: str) -> Finished:
    return Finished(opt_out.callback.id, status, reason)  # type: ignore[arg-type]
