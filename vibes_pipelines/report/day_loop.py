"""The page's sections on what came back: pending, opt-out clocks, certificate, callbacks, speed."""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime

from vibes_pipelines.delivery.certificate import PARQUET
from vibes_pipelines.report.day_blocks import Block, Facts, Note, Section, Tone, counted, table
from vibes_pipelines.report.day_flow import LANE_NAMES, ROADS
from vibes_pipelines.report.day_ledger import Awaited, awaited, paces
from vibes_pipelines.report.day_view import DayView, instant
from vibes_pipelines.report.trends import convergence
from vibes_pipelines.stages.opt_outs import OptOutClock, read_clock
from vibes_pipelines.stages.opt_outs_under_way import open_opt_outs
from vibes_pipelines.store.inbox import Inbox

TELLING_S = 1.0
"""A rate over less time than this says nothing about a limit per second."""

OUTCOMES: Mapping[str, str] = {
    "confirmed": "the value is visible",
    "pending": "sent, and the visibility lag has not passed",
    "rejected": "refused, as reported",
    "superseded": "something newer took its place, or it was never sent",
    "unexplained": "should be visible and is not: somebody must look",
}

_WAITING = {
    "sent": "no answer yet",
    "unknown": "no answer came; a repush sends exactly these again",
    "accepted": "accepted, to be seen by the next certificate",
}

_MADE_ANEW = "no answer came; the next look at the CRM's changes makes it anew"
"""What `unknown` means in real time."""

_UNREPORTED = "no report tells; the certificates do, and what was not done is sent again"
"""What it means of an import file: its upload was cut, or it was handed over to a person."""

_WAYS = {
    "to_crm": "from the platform to the CRM",
    "to_platform": "from the CRM to the platform",
    "at_the_desk": "parked: a person has to look",
}

_INBOX = {
    "stored": "waiting to be acted on",
    "applied": "had their effect",
    "ignored": "needed no effect",
    "parked": "wait for a person: vibes-pipelines callbacks parked",
    "dropped": "set aside by a person",
}


def pending_section(view: DayView) -> Section:
    """What is still pending: sent and not seen, and what the reconcile waited for."""
    rows = awaited(view.ledger, view.day)
    whole = sum(one.rows for one in rows)
    lag = view.project.config.policies.visibility_lag_h
    blocks: list[Block] = [
        Note(
            "info" if whole else "good",
            f"{counted(whole, 'operation')} left and {'was' if whole == 1 else 'were'} not seen "
            f"yet when the day was over; each is confirmed or escalated {lag:g} hours after it "
            "was sent.",
        ),
        table(
            "Under way when the day was over",
            ("Sent on", "What", "By", "Operations", "Standing"),
            [
                (one.day, LANE_NAMES.get(one.lane, one.lane), _road(one), one.rows, _waits(one))
                for one in rows
            ],
            empty="Nothing is pending.",
        ),
        table(
            "Values that the reconcile of this day waited for",
            ("Field", "Values", "Oldest sent"),
            _waited_for(view),
            empty="It waited for none.",
        ),
    ]
    return Section(
        "pending",
        "Still pending",
        "Delivered and accepted, but not yet visible in the share. Such values are not sent again.",
        tuple(blocks),
    )


def _road(one: Awaited) -> str:
    return "real time" if one.in_real_time else "the daily job"


def _waits(one: Awaited) -> str:
    if one.status == "unknown" and (one.in_real_time or one.route == "file"):
        return _MADE_ANEW if one.in_real_time else _UNREPORTED
    return _WAITING[one.status]


def _waited_for(view: DayView) -> list[tuple[str, int, str]]:
    rows = view.query(
        view.folder / "pending.parquet",
        "SELECT field, count(*), min(accepted_at) FROM file GROUP BY field ORDER BY field",
    )
    return [(name, count, instant(oldest.replace(tzinfo=UTC))) for name, count, oldest in rows]


def clocks_section(view: DayView) -> Section:
    """How long opt-outs have been under way, whichever way they go."""
    return Section(
        "clocks",
        "Opt-out clocks",
        "Every opt-out that one side knows of and the other does not. Revocations are to be "
        "honoured within ten business days (47 CFR 64.1200(a)(10)); here a day warns and five "
        "business days fail.",
        tuple(_clocks(view)),
    )


def _clocks(view: DayView) -> Iterator[Block]:
    if not view.is_newest:
        yield Note("info", "The clocks stand on the page of the newest day.")
        return
    now = _shown_at(view)
    clock = read_clock(open_opt_outs(view.project), now)
    tone: Tone = "bad" if clock.late else "warn" if clock.over_a_day else "good"
    yield Note(tone, _clock_sentence(clock))
    yield table(
        f"Under way at {instant(now)}, the newest instant that is landed",
        ("Way", "Opt-outs"),
        [(_WAYS[way], rows) for way, rows in clock.open.items()],
        empty="No opt-out is under way.",
    )


def _clock_sentence(clock: OptOutClock) -> str:
    whole = sum(clock.open.values())
    if not whole:
        return "No opt-out is under way."
    hours = clock.oldest.total_seconds() / 3600
    return (
        f"{counted(whole, 'opt-out')} under way, the oldest for {hours:,.1f} hours; more than a "
        f"day: {clock.over_a_day:,}; more than five business days: {clock.late:,}."
    )


def _shown_at(view: DayView) -> datetime:
    """The instant of the page: what is landed, so that equal inputs make an equal page."""
    return view.as_of or datetime.fromisoformat(view.day).replace(tzinfo=UTC)


def certificate_section(view: DayView) -> Section:
    """What became of every earlier send."""
    return Section(
        "certificate",
        "Convergence certificate",
        "Every earlier send without a final verdict, looked for in this day's snapshots.",
        tuple(_certificate(view)),
    )


def _certificate(view: DayView) -> Iterator[Block]:
    found = view.certificate
    if found is None:
        yield Note("info", "This day has no certificate.")
        return
    rate = convergence(found)
    if found.unexplained:
        yield Note(
            "bad",
            f"{counted(found.unexplained, 'send')} cannot be explained: accepted, and not visible "
            "after the visibility lag. Look at certificate.parquet, and ask Vibes with the "
            "operation ids.",
        )
    elif found.operations:
        share = "" if rate is None else f" {rate:.1%} of what can be judged is confirmed."
        yield Note("good", f"Every earlier send is explained.{share}")
    else:
        yield Note("info", "No earlier send had to be judged.")
    yield table(
        "Verdicts",
        ("Verdict", "All", *(LANE_NAMES[lane].capitalize() for lane in sorted(found.by_lane))),
        [
            (
                f"{name}: {meaning}",
                getattr(found, name),
                *(found.by_lane[lane].get(name, 0) for lane in sorted(found.by_lane)),
            )
            for name, meaning in OUTCOMES.items()
        ],
    )
    if found.operations:
        yield table(
            "By the day of the send and the evidence",
            ("Sent on", "Verdict", "Evidence", "Operations"),
            view.query(
                view.project.certificate_folder(view.day) / PARQUET,
                "SELECT day, outcome, coalesce(evidence, 'none'), count(*) FROM file"
                " GROUP BY ALL ORDER BY ALL",
            ),
            folded=True,
        )


def speed_section(view: DayView) -> Section:
    """How fast the deliveries were, against the platform's limits."""
    limit = _rate_limit(view)
    rows = []
    for one in paces(view.ledger, view.record.diff_set) if view.record else []:
        rate = one.rows / one.seconds if one.seconds >= TELLING_S else None
        bound = f"{limit:,.0f} a second" if one.route == "api" and limit else "no documented limit"
        rows.append(
            (
                f"{LANE_NAMES.get(one.lane, one.lane)}, {ROADS.get(one.route, one.route)}",
                one.rows,
                f"{one.seconds:,.1f} s",
                "too short to tell" if rate is None else f"{rate:,.1f} a second",
                bound,
                one.attempts - one.rows,
            )
        )
    return Section(
        "speed",
        "Delivery speed",
        "From the first send to the last answer of each route. A file's time includes the wait for "
        "the platform's report.",
        (
            table(
                "Speed against limits",
                ("Route", "Rows", "Took", "Rate", "Limit", "Sent again"),
                rows,
                empty="Nothing was delivered.",
            ),
        ),
    )


def _rate_limit(view: DayView) -> float | None:
    plan = view.project.ledger.plan(view.record.diff_set) if view.record else None
    return float(plan["estimates"]["rate_per_s"]) if plan else None


def callbacks_section(view: DayView) -> Section:
    """The inbox of callbacks."""
    return Section(
        "callbacks",
        "Callbacks",
        "What the platform told between two daily runs; each is kept before it is answered.",
        tuple(_callbacks(view)),
    )


def _callbacks(view: DayView) -> Iterator[Block]:
    if not view.is_newest:
        yield Note("info", "The inbox stands on the page of the newest day.")
        return
    with closing(Inbox(view.project.settings.ledger_url)) as inbox:
        backlog = inbox.backlog()
        reasons = Counter(one.reason or "no reason" for one in inbox.parked())
    if backlog.get("parked"):
        yield Note("warn", f"{counted(backlog['parked'], 'callback')} parked for a person.")
    yield table(
        "The inbox",
        ("Status", "Callbacks", "Meaning"),
        [(name, backlog[name], meaning) for name, meaning in _INBOX.items() if name in backlog],
        empty="No callback has come. Are they registered? vibes-pipelines callbacks plan",
    )
    if reasons:
        yield table("Why callbacks are parked", ("Reason", "Callbacks"), sorted(reasons.items()))
    consents = view.project.config.consents
    yield Facts((("Lists whose opt-outs are awaited", ", ".join(c.list for c in consents)),))
