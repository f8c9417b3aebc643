"""The page's section on opt-ins and opt-outs per list, and why they rose or fell."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import duckdb

from vibes_pipelines.data_files import parquet
from vibes_pipelines.reconcile.moments import instant_literal, moment_of
from vibes_pipelines.reconcile.sql import ident
from vibes_pipelines.report.day_blocks import (
    Block,
    Facts,
    Note,
    Section,
    counted,
    difference,
    table,
)
from vibes_pipelines.report.day_ledger import invitations
from vibes_pipelines.report.day_view import DayView, instant
from vibes_pipelines.store.snapshots import Snapshot
from vibes_pipelines.vibes.error_classes import without_personal_data

SUBSCRIPTIONS = "share/subscriptions"
EVENTS = "extract/subscriptions"
NO_REASON = "no reason given"
_DAY = timedelta(days=1)


@dataclass(frozen=True)
class Flow:
    """What happened to one list between two instants."""

    opt_ins: int = 0
    opt_outs: int = 0
    by_reason: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class ListDay:
    """One list on one day, and on the day before."""

    name: str
    active: int
    flow: Flow
    before: Flow


def lists_section(view: DayView) -> Section:
    """Opt-ins and opt-outs of each list against the day before, and what stands behind them."""
    return Section(
        "lists",
        "Opt-ins and opt-outs",
        "From the share's subscriptions: what began and ended between two refreshes of the share, "
        "against the refresh before.",
        tuple(_blocks(view)),
    )


def _blocks(view: DayView) -> Iterator[Block]:
    snapshot = view.project.snapshots.find(SUBSCRIPTIONS, view.day)
    if snapshot is None:
        yield Note("info", f"{SUBSCRIPTIONS} is not landed for this day.")
        return
    windows = _windows(view, snapshot)
    lists = read_lists(view.reading.engine, snapshot, windows)
    yield Facts((("Counted from", instant(windows[1])), ("to", instant(windows[2]))))
    yield table(
        "Subscriptions by list",
        (
            "List",
            "Active",
            "Opt-ins",
            "Opt-ins the day before",
            "Opt-outs",
            "Opt-outs the day before",
        ),
        [
            (
                one.name,
                one.active,
                one.flow.opt_ins,
                one.before.opt_ins,
                one.flow.opt_outs,
                one.before.opt_outs,
            )
            for one in lists
        ],
        empty="No subscription is landed.",
    )
    invited, invited_before = (invitations(view.ledger, day) for day in _two_days_before(view))
    for one in lists:
        yield Note("info", _why(one, invited.get(one.name, 0), invited_before.get(one.name, 0)))
    yield table(
        "Why subscriptions ended",
        ("List", "Reason, in the platform's word", "This day", "Day before", "Difference"),
        [row for one in lists for row in _reasons(one)],
        empty="No subscription ended on either day.",
    )
    yield table(
        "By what they began or ended, from the day's extract of events",
        ("List", "Event", "Activity", "Events"),
        _activities(view),
        empty="The extract of this day has no events.",
    )


def _windows(view: DayView, snapshot: Snapshot) -> tuple[datetime, datetime, datetime]:
    """Three refreshes of the share: this day's, the one before, and the one before that.

    Where a day before was not landed, the refresh is taken to be a day earlier.
    """
    instants = [snapshot.manifest.as_of]
    for day in view.days_before()[:2]:
        earlier = view.project.snapshots.find(SUBSCRIPTIONS, day)
        if earlier and earlier.manifest.as_of < instants[-1]:
            instants.append(earlier.manifest.as_of)
    while len(instants) < 3:
        instants.append(instants[-1] - _DAY)
    return instants[2], instants[1], instants[0]


def read_lists(
    engine: duckdb.DuckDBPyConnection,
    snapshot: Snapshot,
    windows: tuple[datetime, datetime, datetime],
) -> list[ListDay]:
    """Each list's flows between the instants of `windows`, oldest first."""
    types = _column_types(engine, snapshot.data)
    reason = "opt_out_reason" if "opt_out_reason" in types else "NULL"
    engine.execute(
        "CREATE OR REPLACE TEMP VIEW subscription AS SELECT"  # noqa: S608 - names go through ident
        " CAST(subscription_list_id AS VARCHAR) AS list,"
        f" {_moment('opt_in_date', types)} AS begun,"
        f" {_moment('opt_out_date', types)} AS ended,"
        f" CAST({reason} AS VARCHAR) AS reason"
        f" FROM {parquet(snapshot.data)}"
    )
    now = _flows(engine, windows[1], windows[2])
    before = _flows(engine, windows[0], windows[1])
    active = engine.execute(
        "SELECT list, count(*) FILTER (ended IS NULL) FROM subscription"
        " WHERE list IS NOT NULL GROUP BY list ORDER BY list"
    ).fetchall()
    return [
        ListDay(name, rows, now.get(name, Flow()), before.get(name, Flow()))
        for name, rows in active
    ]


def _flows(engine: duckdb.DuckDBPyConnection, since: datetime, until: datetime) -> dict[str, Flow]:
    window = f"> {instant_literal(since)} AND {{}} <= {instant_literal(until)}"
    begun = engine.execute(
        "SELECT list, count(*) FROM subscription"  # noqa: S608 - instants are literals of ours
        f" WHERE begun {window.format('begun')} GROUP BY list"
    ).fetchall()
    ended = engine.execute(
        "SELECT list, coalesce(nullif(reason, ''), $none), count(*) FROM subscription"  # noqa: S608
        f" WHERE ended {window.format('ended')} GROUP BY ALL ORDER BY ALL",
        {"none": NO_REASON},
    ).fetchall()
    opt_ins = dict(begun)
    reasons: dict[str, dict[str, int]] = {}
    for name, reason, rows in ended:
        reasons.setdefault(name, {})[without_personal_data(reason)] = rows
    return {
        name: Flow(opt_ins.get(name, 0), sum(reasons.get(name, {}).values()), reasons.get(name, {}))
        for name in {*opt_ins, *reasons}
    }


def _moment(column: str, types: Mapping[str, str]) -> str:
    return moment_of(ident(column), types[column])


def _column_types(engine: duckdb.DuckDBPyConnection, path: Path) -> dict[str, str]:
    rows = engine.execute(f"DESCRIBE SELECT * FROM {parquet(path)}").fetchall()  # noqa: S608
    return {row[0]: row[1] for row in rows}


def _two_days_before(view: DayView) -> tuple[str, str]:
    before = [*view.days_before()[:2], "", ""]
    return before[0], before[1]


def _why(one: ListDay, invited: int, invited_before: int) -> str:
    """What is known of the difference, in a sentence: counts only, no guesses."""
    opt_ins, opt_outs = one.flow.opt_ins, one.flow.opt_outs
    said = [
        f"List {one.name}: {counted(opt_ins, 'opt-in')}, {_against(opt_ins, one.before.opt_ins)}.",
        f"{counted(opt_outs, 'opt-out')}, {_against(opt_outs, one.before.opt_outs)}"
        f"{_leading(one)}.",
    ]
    if invited or invited_before:
        said.append(
            f"This project sent {counted(invited, 'invitation')} the day before and "
            f"{invited_before:,} the day before that; persons answer to them, or do not."
        )
    else:
        said.append(
            "This project sent no invitations on the two days before, so that opt-ins came from "
            "keywords, forms and campaigns of the platform alone."
        )
    return " ".join(said)


def _against(now: int, before: int) -> str:
    if now == before:
        return "as many as the day before"
    return f"{abs(now - before):,} {'more' if now > before else 'fewer'} than the day before"


def _leading(one: ListDay) -> str:
    if not one.flow.by_reason:
        return ""
    reason, rows = max(one.flow.by_reason.items(), key=lambda item: (item[1], item[0]))
    return f", most of them {reason} ({rows:,})"


def _reasons(one: ListDay) -> Iterator[tuple[str, str, int, int, str]]:
    for reason in sorted({*one.flow.by_reason, *one.before.by_reason}):
        now, before = one.flow.by_reason.get(reason, 0), one.before.by_reason.get(reason, 0)
        yield one.name, reason, now, before, difference(now - before)


def _activities(view: DayView) -> Sequence[tuple[str, str, str, int]]:
    snapshot = view.project.snapshots.find(EVENTS, view.day)
    if snapshot is None:
        return []
    known = snapshot.manifest.columns
    activity = "activity_description" if "activity_description" in known else "NULL"
    rows = view.query(
        snapshot.data,
        "SELECT CAST(subscription_list_id AS VARCHAR), CAST(subscription_event AS VARCHAR),"  # noqa: S608 - one of two constants
        f" coalesce(nullif(CAST({activity} AS VARCHAR), ''), 'not named'), count(*)"
        " FROM file GROUP BY ALL ORDER BY ALL",
    )
    return [
        (name or "no list", event or "no event", without_personal_data(text), n)
        for name, event, text, n in rows
    ]
