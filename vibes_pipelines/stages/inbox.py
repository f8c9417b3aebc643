"""The callback inbox: what happens at the platform reaches the CRM within seconds.

Here stands the order in which callbacks are acted on, and what a drain came to; what becomes of
each is said in the modules `inbox_*`.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field

from vibes_pipelines.crm.database import CrmError
from vibes_pipelines.stages.inbox_effects import settle_others
from vibes_pipelines.stages.inbox_facts import note_facts
from vibes_pipelines.stages.inbox_opt_outs import SUBSCRIPTION_EVENTS, settle_subscriptions
from vibes_pipelines.stages.project import Project
from vibes_pipelines.store.inbox import PAGE_ROWS, Finished, Inbox, StoredCallback
from vibes_pipelines.store.ledger_rows import chunks
from vibes_pipelines.vibes.callbacks import SUBSCRIPTION_REMOVED

LOCKED = "locked_in_crm"
"""Why one still waits after a drain: another session of the CRM's database has its contact."""


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

    def __add__(self, other: "Drained") -> "Drained":
        """Both drains together."""
        return Drained(
            self.dry_run,
            applied=self.applied + other.applied,
            ignored=self.ignored + other.ignored,
            parked=self.parked + other.parked,
            reasons=dict(sorted((Counter(self.reasons) + Counter(other.reasons)).items())),
        )

    @property
    def sentence(self) -> str:
        """One line for the log."""
        whole = f"applied {self.applied}, ignored {self.ignored}, parked {self.parked}"
        why = ", ".join(f"{reason} {rows}" for reason, rows in self.reasons.items())
        return f"{'dry run: ' if self.dry_run else ''}{whole} ({why or 'nothing waits'})"


def drain(project: Project, *, dry_run: bool = True) -> Drained:
    """Acts on every callback that waits: those of subscriptions first, each in the order of events.

    Raises:
        CrmError: the CRM does not answer, or is not as sync.yaml maps it; what was not finished
            waits for the next drain.
    """
    with closing(Inbox(project.settings.ledger_url)) as inbox:
        pages = inbox.waiting(urgent=SUBSCRIPTION_EVENTS)
        return _drain_pages(project, inbox, pages, dry_run=dry_run)


def drain_opt_outs(project: Project, *, dry_run: bool = True) -> Drained:
    """Acts on the opt-outs that wait, and on nothing else; a whole drain may run beside it.

    Both write the same opt-out to the CRM, which it changes once; the first end of a callback
    stands.

    Raises:
        CrmError: as `drain` does.
    """
    with closing(Inbox(project.settings.ledger_url)) as inbox:
        pages = chunks(inbox.stored((SUBSCRIPTION_REMOVED,)), PAGE_ROWS)
        return _drain_pages(project, inbox, pages, dry_run=dry_run)


def newest_opt_out(project: Project) -> int | None:
    """The id of the newest opt-out that waits for a drain; None when none does."""
    with closing(Inbox(project.settings.ledger_url)) as inbox:
        waiting = inbox.stored((SUBSCRIPTION_REMOVED,))
    return max((callback.id for callback in waiting), default=None)


def _drain_pages(
    project: Project, inbox: Inbox, pages: Iterable[Sequence[StoredCallback]], *, dry_run: bool
) -> Drained:
    counts: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    fault: CrmError | None = None
    for page in pages:
        ended = _settle(project, inbox, page, dry_run=dry_run)
        try:
            ended = note_facts(project, inbox, page, ended, dry_run=dry_run)
        except CrmError as broken:
            # Opt-outs do not wait for the table of facts: the next page has its effects too.
            fault = broken
            continue
        if not dry_run:
            inbox.finish(ended)
        counts.update(finished.status for finished in ended)
        reasons.update(finished.reason for finished in ended)
        reasons.update({LOCKED: len(page) - len(ended)})
    if fault is not None:
        raise fault
    return Drained(
        dry_run,
        applied=counts["applied"],
        ignored=counts["ignored"],
        parked=counts["parked"],
        reasons=dict(sorted((+reasons).items())),
    )


def newest_waiting(project: Project) -> int | None:
    """The id of the newest callback that waits for a drain; None when none does."""
    with closing(Inbox(project.settings.ledger_url)) as inbox:
        return inbox.newest_waiting()


def _settle(
    project: Project, inbox: Inbox, page: Sequence[StoredCallback], *, dry_run: bool
) -> list[Finished]:
    if page[0].event_type in SUBSCRIPTION_EVENTS:  # a page never has both
        return settle_subscriptions(project, inbox, page, dry_run=dry_run)
    return settle_others(project, inbox, page, dry_run=dry_run)
