"""Planning a delivery: whether its lane is released, what goes which way, and why.

Nothing leaves here. The plan is one for the whole diff set: whichever delivery comes first writes
the intents of all lanes to the ledger; a dry run writes nothing.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from vibes_pipelines.delivery.plan import Plan, plan, preview
from vibes_pipelines.delivery.release import Verdict, may_deliver
from vibes_pipelines.delivery.routes import Estimates
from vibes_pipelines.stages.api_rate import delivery_rate_per_s
from vibes_pipelines.stages.erase_lock import not_while_erasing
from vibes_pipelines.stages.preview_left import what_is_left
from vibes_pipelines.stages.project import Project
from vibes_pipelines.stages.reconciling import read_summary
from vibes_pipelines.store.records import Lane

REPORT_POLL_S = 0.5
"""Seconds between two looks for the reports of import files, where the account asks for no gap."""

_DEFERRED_ROADS = {
    "opt_out": "opt_outs/api",
    "crm_opt_out": "opt_outs/crm",
    "crm_update": "crm/crm",
}


class NotReleasedError(RuntimeError):
    """A guard, a missing approval, a newer diff set or another mapping keeps this one back."""


@dataclass(frozen=True)
class Options:
    """How a delivery runs; `force_reason` delivers a day that is not the newest.

    `tell` is given one line for every few hundred operations.
    """

    dry_run: bool = True
    force_reason: str | None = None
    tell: Callable[[str], None] | None = None


@dataclass(frozen=True)
class Delivery:
    """What a delivery carries: the lane that has to be released first, and its roads, `lane/route`.

    One that `waits` stops nothing while its lane is held.
    """

    lane: Lane
    roads: tuple[str, ...]
    waits: bool = False


DELIVERIES: Mapping[str, Delivery] = {
    "opt_outs": Delivery("opt_outs", ("opt_outs/api", "opt_outs/file")),
    # Opt-outs go to the CRM whatever holds its fields, whose lane is looked at when they are sent.
    "crm_write_back": Delivery("opt_outs", ("opt_outs/crm", "crm/crm")),
    "person_import": Delivery("persons", ("persons/file",)),
    "api_push": Delivery("persons", ("persons/api",)),
    "invites": Delivery("invites", ("invites/api",), waits=True),
}


@dataclass(frozen=True)
class Planned:
    """What a delivery has before it, in counts of operations by `lane/route/kind`.

    `counts` is everything that goes its roads, `left` what of it is still to be sent; `estimated_s`
    is what the planner thinks that roads take of which nothing went yet. `release` says whether its
    lane may go out, and why not.
    """

    diff_set: str
    counts: Mapping[str, int]
    left: Mapping[str, int]
    why: str
    release: str
    estimated_s: float

    @property
    def sentence(self) -> str:
        """One line for the log."""
        counts = ", ".join(f"{name} {rows}" for name, rows in self.left.items())
        return f"to be sent: {counts or 'nothing'} ({self.why}); {self.release}"


@not_while_erasing
def plan_delivery(project: Project, day: str, name: str, options: Options) -> Planned:
    """Plans one of `DELIVERIES`; its intents are in the ledger then, unless it is a dry run.

    Raises:
        NotReleasedError: its lane may not go out; a dry run says so in `release` instead.
        NotReconciledError: the day has no diff set.
    """
    delivery = DELIVERIES[name]
    diff_set = read_summary(project, day).diff_set
    verdict = verdict_of(project, diff_set, delivery.lane, options.force_reason)
    if delivery.waits and verdict.status == "held":
        options = replace(options, dry_run=True)
    planned = planned_lane(project, day, delivery.lane, options)
    left = what_is_left(planned, project.ledger)
    return Planned(
        diff_set=diff_set,
        counts=counts_of(planned.operations, delivery.roads),
        left=counts_of(left.operations, delivery.roads),
        why=why_of(planned, delivery.roads),
        release="; ".join(filter(None, (verdict.status, reason_of(verdict)))),
        estimated_s=sum(left.seconds.get(road, 0.0) for road in delivery.roads),
    )


def planned_lane(project: Project, day: str, lane: Lane, options: Options) -> Plan:
    """The plan of the day's diff set; intents are written only when `lane` may go out.

    Raises:
        NotReleasedError: it may not; a dry run only looks.
    """
    diff_set = read_summary(project, day).diff_set
    if not options.dry_run:
        require_release(project, diff_set, lane, options)
    build = preview if options.dry_run else plan
    return build(
        diff_set,
        project.diff_set_folder(day),
        project.config,
        project.ledger,
        estimates_of(project),
    )


def estimates_of(project: Project) -> Estimates:
    """What each road costs on this account, as its settings tell."""
    gap_s = project.settings.sftp.gap_s
    rate = delivery_rate_per_s(project)
    return Estimates(rate_per_s=rate, gap_s=gap_s, pickup_s=max(gap_s, REPORT_POLL_S))


def require_release(project: Project, diff_set: str, lane: Lane, options: Options) -> None:
    """Raises NotReleasedError unless this lane of the diff set may go out now."""
    verdict = verdict_of(project, diff_set, lane, options.force_reason)
    if not verdict.allowed:
        raise NotReleasedError(f"{lane}: {verdict.status}: {reason_of(verdict)}")


def verdict_of(project: Project, diff_set: str, lane: Lane, force: str | None = None) -> Verdict:
    """Whether this lane of the diff set may go out now, under today's mapping."""
    mapping = project.config.mapping_hash
    return may_deliver(project.ledger, diff_set, lane, mapping_hash=mapping, force_reason=force)


def was_only_looked_at(project: Project, day: str) -> bool:
    """Whether the newest diff set, being of this day, may go out and had dry runs alone.

    What waits for an approval has not, and until the first delivery that is everything.
    """
    newest, sent = project.ledger.newest_diff_set(), project.ledger.last_delivered()
    if newest is None or newest.day != day or (sent is not None and sent.day == day):
        return False
    lanes: tuple[Lane, ...] = ("opt_outs", "persons")
    may_go = any(verdict_of(project, newest.diff_set, lane).allowed for lane in lanes)
    return may_go and project.ledger.plan(newest.diff_set) is None


def reason_of(verdict: Verdict) -> str:
    """Why a lane may not go out, and the cure; empty when it may."""
    cure = f"; {verdict.cure}" if verdict.cure else ""
    return "; ".join(verdict.reasons) + cure


def counts_of(operations: Mapping[str, int], roads: Iterable[str]) -> dict[str, int]:
    """Those counts by `lane/route/kind` that belong to these roads."""
    of_these = tuple(f"{road}/" for road in roads)
    return {name: rows for name, rows in operations.items() if name.startswith(of_these)}


def why_of(planned: Plan, roads: Collection[str]) -> str:
    """Why so much goes these roads, and what is deferred on them."""
    return "; ".join(_sentences(planned, roads)) or "nothing goes this way today"


def _sentences(planned: Plan, roads: Collection[str]) -> Iterable[str]:
    for reason, rows in planned.reasons.items():
        road, _, why = reason.partition(": ")
        if road in roads:
            yield f"{rows}: {why}"
    for reason, rows in planned.deferred.items():
        if _DEFERRED_ROADS[reason.partition(": ")[0]] in roads:
            yield f"{rows} deferred: {reason}"
