"""The account of a day: what was landed, reconciled, delivered and confirmed, in counts only."""

from dataclasses import asdict, dataclass
from typing import Any

from vibes_pipelines.delivery.tally import tally
from vibes_pipelines.stages.certifying import certified_day, read_certificate
from vibes_pipelines.stages.project import Project
from vibes_pipelines.stages.reconciling import read_summary
from vibes_pipelines.sync_config import EXTRACT_FEEDS

FEEDS = ("share/persons", "share/subscriptions", *EXTRACT_FEEDS, "crm/contacts")


_FOR_PEOPLE = frozenset({"diff_set", "rejections", "not_yet", "superseded"})


@dataclass(frozen=True)
class DayAccount:
    """One day in counts. The names are those of `demo --json`, which leaves out `_FOR_PEOPLE`."""

    date: str
    diff_set: str
    landed: dict[str, int]
    added: int
    updated: int
    unchanged: int
    filtered: int
    quarantined: int
    pending: int
    blocked: int
    delivered: dict[str, int]
    rejected: int
    opt_outs_to_platform: int
    opt_outs_to_crm: int
    approved: str | None
    certificate_for: str | None
    confirmed: int
    unexplained: int
    not_yet: int
    superseded: int
    rejections: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        """The object that `demo --json` prints for this day."""
        document = asdict(self)
        return {name: value for name, value in document.items() if name not in _FOR_PEOPLE}


def account_of(project: Project, day: str) -> DayAccount:
    """The account of a reconciled day, from the snapshots, the diff set and the ledger."""
    summary = read_summary(project, day)
    certificate = read_certificate(project, day)
    sent = tally(project.ledger, summary.diff_set)
    snapshots = {feed: project.snapshots.find(feed, day) for feed in FEEDS}
    record = project.ledger.diff_set(summary.diff_set)
    return DayAccount(
        date=day,
        diff_set=summary.diff_set,
        landed={feed: found.manifest.rows for feed, found in snapshots.items() if found},
        added=summary.added,
        updated=summary.updated,
        unchanged=summary.unchanged,
        filtered=summary.filtered,
        quarantined=summary.quarantined,
        pending=summary.pending,
        blocked=summary.blocked,
        delivered=sent.persons_by_route,
        rejected=sum(sent.rejections.values()),
        opt_outs_to_platform=sent.opt_outs_to_platform,
        opt_outs_to_crm=sent.opt_outs_to_crm,
        approved=record.approved_reason if record else None,
        certificate_for=certified_day(project, day),
        confirmed=certificate.confirmed,
        unexplained=certificate.unexplained,
        not_yet=certificate.pending,
        superseded=certificate.superseded,
        rejections=sent.rejections,
    )


def render(account: DayAccount) -> str:
    """The account as lines for a terminal."""
    landed = " · ".join(f"{feed} {rows:,}" for feed, rows in account.landed.items())
    routes = " · ".join(f"{route} {rows:,}" for route, rows in account.delivered.items())
    refused = " · ".join(f"{name} {rows:,}" for name, rows in account.rejections.items())
    lines = [
        account.date,
        f"  landed       {landed}",
        f"  reconciled   {account.added:,} to add · {account.updated:,} to update · "
        f"{account.unchanged:,} unchanged · {account.filtered:,} filtered",
        f"  held back    {account.quarantined:,} quarantined · {account.pending:,} pending · "
        f"{account.blocked:,} blocked (rejected before, unchanged since)",
        f"  delivered    persons: {routes or 'none'} · opt-outs: "
        f"{account.opt_outs_to_platform:,} to the platform, {account.opt_outs_to_crm:,} to the CRM",
    ]
    lines.append(f"  rejected     {refused or 'none'}")
    if account.approved:
        lines.append(f"  approved     {account.approved}")
    if account.certificate_for:
        lines.append(
            f"  converged    sends up to {account.certificate_for}: {account.confirmed:,} "
            f"confirmed, {account.not_yet:,} pending, {account.superseded:,} superseded, "
            f"{account.unexplained:,} unexplained"
        )
    return "\n".join(lines)
