"""The page's sections on what a day did: the funnel, the ends of contacts, plan and held lanes."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from vibes_pipelines.delivery.plan import Plan, plan, preview
from vibes_pipelines.delivery.release import Verdict, may_deliver
from vibes_pipelines.reconcile.summary import CONTACT_STATUSES
from vibes_pipelines.report.day_blocks import (
    Block,
    Facts,
    Note,
    Plot,
    Plots,
    Section,
    counted,
    table,
)
from vibes_pipelines.report.day_ledger import HAS_LEFT, Standing, standings
from vibes_pipelines.report.day_plots import funnel
from vibes_pipelines.report.day_view import DayView
from vibes_pipelines.stages.delivering import LANES
from vibes_pipelines.stages.landing import CONTACTS
from vibes_pipelines.vibes.error_classes import without_personal_data

ENDS: Mapping[str, str] = {
    "added": "the platform had no such person",
    "updated": "an existing person changes",
    "unchanged": "nothing differs that the rules would change",
    "filtered": "does not meet the conditions of sync.yaml",
    "quarantined": "in doubt; nothing is done until a person has looked",
    "pending": "sent before, not visible yet",
    "blocked": "refused or not kept before, and unchanged since",
}

ROADS: Mapping[str, str] = {
    "file": "import file over SFTP",
    "api": "Vibes API",
    "crm": "write-back into the CRM",
}

KINDS: Mapping[str, str] = {
    "add": "persons to add",
    "update": "persons to update",
    "mdn_replace": "numbers to replace",
    "opt_out": "opt-outs to the platform",
    "invite": "invitations",
    "crm_opt_out": "opt-outs to the CRM",
    "crm_update": "fields of contacts",
}

LANE_NAMES: Mapping[str, str] = {
    "opt_outs": "opt-outs",
    "persons": "person changes",
    "crm": "CRM changes",
    "invites": "invitations",
}


NOT_COMPARED = Note("info", "This day is landed and was not compared: nothing is known to send.")


def funnel_section(view: DayView) -> Section:
    """From landed contacts to confirmed operations."""
    contacts, operations = _contact_steps(view), _operation_steps(_standings(view))
    confirmed = dict(operations)["Confirmed"]
    delivered = dict(operations)["Delivered"]
    blocks: list[Block] = [
        Plots(
            (
                Plot(funnel("Contacts", contacts), "Contacts", "landed to differing"),
                Plot(funnel("Operations", operations), "Operations", "planned to confirmed"),
            )
        ),
    ]
    if delivered and not confirmed:
        blocks.append(
            Note("info", "What was delivered is confirmed by the certificate of the next day.")
        )
    blocks.append(
        table(
            "The steps in numbers",
            ("Step", "Counted", "Number"),
            [(name, "contacts", n) for name, n in contacts]
            + [(name, "operations", n) for name, n in operations],
            folded=True,
        )
    )
    return Section(
        "funnel",
        "From landed to confirmed",
        "Contacts are landed and compared; what differs becomes operations, which are delivered, "
        "answered and, a day later, confirmed by reading the platform back. "
        "The two drawings have a scale each.",
        tuple(blocks),
    )


def _contact_steps(view: DayView) -> list[tuple[str, int]]:
    summary = view.summary
    snapshot = view.project.snapshots.find(CONTACTS, view.day)
    landed = snapshot.manifest.rows if snapshot else 0
    if summary is None:
        return [("Landed", landed), ("Compared", 0), ("Differing", 0)]
    compared = summary.contacts - summary.filtered - summary.quarantined
    return [
        ("Landed", landed),
        ("Compared", compared),
        ("Differing", summary.added + summary.updated),
    ]


def _operation_steps(found: Iterable[Standing]) -> list[tuple[str, int]]:
    counts: Counter[str] = Counter()
    for one in found:
        counts["Planned"] += one.rows
        counts["Delivered"] += one.rows * (one.status in HAS_LEFT)
        counts["Accepted"] += one.rows * (one.status == "accepted")
        counts["Confirmed"] += one.rows * (one.outcome == "confirmed")
    return [(name, counts[name]) for name in ("Planned", "Delivered", "Accepted", "Confirmed")]


def _standings(view: DayView) -> list[Standing]:
    return standings(view.ledger, view.record.diff_set) if view.record else []


def ends_section(view: DayView) -> Section:
    """Every contact ends in exactly one place, and the counts add up."""
    summary = view.summary
    blocks: list[Block] = []
    if summary is not None:
        ends = [(name, getattr(summary, name), ENDS[name]) for name in CONTACT_STATUSES]
        told = sum(rows for _, rows, _ in ends)
        landed = _contact_steps(view)[0][1]
        adds_up = told == summary.contacts == landed
        sentence = (
            f"{landed:,} contacts landed, {summary.contacts:,} read, {told:,} ended in one place: "
            f"{'the counts add up' if adds_up else 'the counts do not add up'}."
        )
        blocks += [
            Note("good" if adds_up else "bad", sentence),
            table(
                "Where every contact ended",
                ("End", "Contacts", "Meaning"),
                [*ends, ("sum", told, "every contact is in exactly one line above")],
            ),
            Facts(
                (
                    ("Persons landed", summary.persons),
                    ("Persons without a contact", summary.persons_only),
                    ("Persons in quarantine", summary.quarantined_persons),
                )
            ),
        ]
    return Section(
        "contacts",
        "Where every contact ended",
        "Nothing is lost: each landed contact ends in exactly one of these.",
        tuple(blocks),
    )


def plan_section(view: DayView) -> Section:
    """What the day's run sends, by route."""
    planned = _plan(view)
    blocks: list[Block] = []
    if view.record is None:
        blocks.append(NOT_COMPARED)
    elif planned is None:
        blocks.append(Note("info", "Nothing was planned: a newer diff set took its place."))
    else:
        rows = [
            (KINDS.get(kind, kind), ROADS.get(route, route), rows, _seconds(planned, lane, route))
            for lane, route, kind, rows in _split(planned.operations)
        ]
        blocks += [
            table(
                "What goes where",
                ("What", "Route", "Rows", "Route is through after"),
                rows,
                empty="Nothing is to be sent: both sides agree.",
            ),
            table(
                "Why this route",
                ("Route", "Why", "Rows"),
                _reasons(planned.reasons),
                folded=True,
            ),
        ]
        if planned.deferred:
            blocks.append(
                table(
                    "Not sent on this day",
                    ("What", "Why", "Rows"),
                    [(*_named(name), rows) for name, rows in planned.deferred.items()],
                )
            )
        if planned.batches:
            blocks.append(
                table(
                    "Import files",
                    ("File", "Rows", "Standing"),
                    [(b.name, b.rows, _BATCH[b.status]) for b in planned.batches],
                )
            )
    return Section(
        "plan",
        "What this day's run sends",
        "Opt-outs leave first. Each operation takes the road on which all are through soonest.",
        tuple(blocks),
    )


_BATCH = {
    "planned": "not uploaded",
    "sent": "uploaded, its report is awaited",
    "done": "reported on by the platform",
}


def _plan(view: DayView) -> Plan | None:
    """The plan as written; before it is, what it would say, of the newest diff set only."""
    if view.record is None:
        return None
    ledger, diff_set = view.project.ledger, view.record.diff_set
    if ledger.plan(diff_set) is None and not view.is_newest:
        return None
    build = preview if ledger.plan(diff_set) is None else plan
    return build(diff_set, view.folder, view.project.config, ledger)


def _split(operations: Mapping[str, int]) -> Iterator[tuple[str, str, str, int]]:
    for name, rows in operations.items():
        lane, route, kind = name.split("/", maxsplit=2)
        yield lane, route, kind, rows


def _seconds(planned: Plan, lane: str, route: str) -> str:
    seconds = planned.seconds.get(f"{lane}/{route}")
    if seconds is None:
        return "not estimated"
    return "under a second" if seconds < 1 else f"about {seconds:,.0f} s"


def _reasons(reasons: Mapping[str, int]) -> Iterator[tuple[str, str, int]]:
    for name, rows in reasons.items():
        road, _, why = name.partition(": ")
        lane, _, route = road.partition("/")
        yield f"{LANE_NAMES.get(lane, lane)}, {ROADS.get(route, route)}", why, rows


def _named(deferred: str) -> tuple[str, str]:
    kind, _, why = deferred.partition(": ")
    return KINDS.get(kind, kind), why


def verdicts(view: DayView) -> dict[str, Verdict]:
    """Of each lane whether it may go out now; empty when the day is not the newest."""
    if view.record is None or not view.is_newest:
        return {}
    ledger, diff_set = view.project.ledger, view.record.diff_set
    mapping = view.project.config.mapping_hash
    return {lane: may_deliver(ledger, diff_set, lane, mapping_hash=mapping) for lane in LANES}


def held_section(view: DayView) -> Section:
    """Held lanes, why, and how to release them."""
    return Section(
        "held",
        "Held lanes",
        "A guard holds its own lane until a person has looked. Opt-outs have a lane of their own.",
        tuple(_held(view)),
    )


def _held(view: DayView) -> Iterator[Block]:
    record = view.record
    if record is None:
        return
    if record.approved_reason:
        reason = without_personal_data(record.approved_reason)
        yield Facts((("Approved by a person, because", reason),))
    found = verdicts(view)
    if not found:
        yield Note("info", f"This diff set is {record.status}: a newer day took its place.")
        return
    held = {lane: v for lane, v in found.items() if v.status == "held" and _has_work(view, lane)}
    if not held:
        yield Note("good", "No lane is held.")
        return
    for lane, verdict in held.items():
        yield Note("bad", f"{LANE_NAMES[lane]} are held: {'; '.join(verdict.reasons)}.")
    yield Note(
        "warn",
        "To release: look at the sections on contacts, plan and quarantine above and below; when "
        "the changes are right, approve this diff set. The diff_set_sensor, or the job repush, "
        "then delivers it. Otherwise correct the source: the next day's diff set replaces it.",
        f"vibes-pipelines approve {record.diff_set[:12]} --reason 'why these changes are right'",
    )


def _has_work(view: DayView, lane: str) -> bool:
    """Invitations wait with every other lane; that is worth a word only when there are any."""
    return lane != "invites" or (view.summary is not None and view.summary.invites > 0)


def sentence(view: DayView) -> str:
    """The day in one sentence."""
    summary = view.summary
    if summary is None:
        return ""
    steps = dict(_operation_steps(_standings(view)))
    sent = f"{counted(steps['Delivered'], 'operation')} delivered of {steps['Planned']:,} planned."
    return (
        f"{counted(summary.contacts, 'contact')} compared: {summary.added:,} to add, "
        f"{summary.updated:,} to update, {summary.quarantined:,} in quarantine. "
        f"{sent if steps['Planned'] else 'Nothing was delivered.'}"
    )
