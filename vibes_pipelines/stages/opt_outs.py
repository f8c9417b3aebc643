"""The clock of every opt-out that has not reached the other side yet, whichever way it goes.

Law: revocations of consent are to be honoured within ten business days at most (47 CFR
64.1200(a)(10)); the project warns after a day and calls half of that time a fault.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal

from vibes_pipelines.delivery.intents import Origin, evidence_at, opt_out_intents
from vibes_pipelines.stages.inbox_effects import ASKS_TO_STOP, UNMATCHED
from vibes_pipelines.stages.project import Project
from vibes_pipelines.store.inbox import Inbox
from vibes_pipelines.store.realtime import RealtimeBook
from vibes_pipelines.store.records import Kind, Operation, Route
from vibes_pipelines.vibes.callbacks import SUBSCRIPTION_REMOVED

Way = Literal["to_crm", "to_platform", "at_the_desk"]

WARN_AFTER = timedelta(hours=24)
LATE_AFTER_BUSINESS_DAYS = 5

_SATURDAY = 5
_OPT_OUT: tuple[Kind, ...] = ("opt_out",)
_ROUTES: tuple[Route, ...] = ("api", "file", "crm")


@dataclass(frozen=True, slots=True)
class OpenOptOut:
    """One opt-out under way; `since` is when the side that knows of it recorded it.

    `at_the_desk`: parked, a person has to look.
    """

    way: Way
    since: datetime


@dataclass(frozen=True)
class OptOutClock:
    """How many opt-outs are under way, how long the oldest has been, and how many are too late."""

    open: Mapping[Way, int] = field(default_factory=dict)
    oldest: timedelta = timedelta()
    over_a_day: int = 0
    late: int = 0

    @property
    def sentence(self) -> str:
        """One line for a check or a log."""
        if not self.open:
            return "no opt-out is under way"
        counts = ", ".join(f"{way} {rows}" for way, rows in self.open.items())
        hours = self.oldest.total_seconds() / 3600
        return (
            f"under way: {counts}; the oldest for {hours:.1f} h; {self.over_a_day} for more than"
            f" {WARN_AFTER.total_seconds() / 3600:.0f} h, {self.late} for more than"
            f" {LATE_AFTER_BUSINESS_DAYS} business days"
        )


def opt_out_clock(project: Project, now: datetime | None = None) -> OptOutClock:
    """Looks at the inbox, at what is sent in real time, and at the newest diff set."""
    return read_clock(open_opt_outs(project), now or datetime.now(UTC))


def read_clock(opt_outs: Iterable[OpenOptOut], now: datetime) -> OptOutClock:
    """What the clock shows at an instant."""
    found = list(opt_outs)
    ages = [max(now - one.since, timedelta()) for one in found]
    return OptOutClock(
        dict(sorted(Counter(one.way for one in found).items())),
        max(ages, default=timedelta()),
        sum(age > WARN_AFTER for age in ages),
        sum(now > after_business_days(one.since, LATE_AFTER_BUSINESS_DAYS) for one in found),
    )


def after_business_days(instant: datetime, days: int) -> datetime:
    """The same time of day, so many Mondays to Fridays later (UTC; no holidays are known)."""
    end = instant
    while days:
        end += timedelta(days=1)
        days -= end.weekday() < _SATURDAY
    return end


def open_opt_outs(project: Project) -> Iterator[OpenOptOut]:
    """Every opt-out that one side knows of and the other does not, as far as it is recorded."""
    yield from _in_the_inbox(project)
    with closing(RealtimeBook(project.settings.ledger_url)) as book:
        for operation in (*book.unfinished(_OPT_OUT), *book.refused_opt_outs()):
            yield OpenOptOut("to_platform", evidence_at(operation) or operation.as_of)
        planned = list(_of_the_newest_diff_set(project))
        contacts = [operation.external_person_id or "" for operation in planned]
        since = min((operation.as_of for operation in planned), default=datetime.now(UTC))
        gone = {
            (one.operation.external_person_id, one.operation.subscription_list_id)
            for one in book.sent(contacts, since)
            if one.operation.kind == "opt_out" and one.operation.status == "accepted"
        }
    for operation in planned:
        if (operation.external_person_id, operation.subscription_list_id) not in gone:
            way: Way = "to_platform" if operation.kind == "opt_out" else "to_crm"
            yield OpenOptOut(way, evidence_at(operation) or operation.as_of)


def _in_the_inbox(project: Project) -> Iterator[OpenOptOut]:
    lists = {consent.list.strip() for consent in project.config.consents}
    with closing(Inbox(project.settings.ledger_url)) as inbox:
        for callback in inbox.stored((SUBSCRIPTION_REMOVED,)):
            if callback.subscription_list_id in lists:
                yield OpenOptOut("to_crm", callback.order_at)
        for callback in inbox.parked((SUBSCRIPTION_REMOVED, UNMATCHED)):
            is_ours = callback.subscription_list_id in lists
            if is_ours or callback.reason == ASKS_TO_STOP:
                yield OpenOptOut("at_the_desk", callback.order_at)


def _of_the_newest_diff_set(project: Project) -> Iterator[Operation]:
    """Its opt-outs that have not gone out: all of them while it is not planned, e.g. held."""
    newest = project.ledger.newest_diff_set()
    if newest is None:
        return
    if project.ledger.plan(newest.diff_set) is None:
        folder = project.diff_set_folder(newest.day)
        if (folder / "subscription_changes.parquet").is_file():
            yield from opt_out_intents(Origin(newest.diff_set, newest.day, newest.as_of, folder))
        return
    for route in _ROUTES:
        yield from project.ledger.open_operations(newest.diff_set, "opt_outs", route)
