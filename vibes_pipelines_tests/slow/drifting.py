"""Days of drift on both sides, and a witness who keeps count of what happened to whom.

The witness knows the sandbox's edits and what was landed, and judges by them alone: which opt-outs
must be planned on a day, which value may be sent again, on which side somebody still subscribes.
"""

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import pyarrow.parquet as pq
import sqlalchemy as sa

from vibes_pipelines.reconcile.summary import Summary
from vibes_pipelines.report.account import DayAccount, account_of
from vibes_pipelines.sandbox.numbers import landline_number
from vibes_pipelines.sandbox.platform import Value
from vibes_pipelines.sandbox.population import build_world, crm_stamp
from vibes_pipelines.stages.delivering import NoAnswerError
from vibes_pipelines.store.models import operations
from vibes_pipelines_tests.support.loop import Loop, running_loop

# Doubts about who is who: towards the CRM nothing is written for contacts in these.
OF_VALUES = frozenset({"invalid_mdn", "unknown_option", "invalid_value"})
LIST = "1234"
PERSONS = "share/persons"

Row = dict[str, Any]
Events = dict[str | None, tuple[datetime | None, datetime | None]]
"""Per person key the newest opt-in and the newest opt-out."""
MAX_LAG_H = 72


@dataclass
class Day:
    """What one day came to, and how long the night, the pipeline and the witness took."""

    date: str
    summary: Summary
    account: DayAccount
    seconds: float
    missed_opt_outs: set[tuple[str, str]]

    @property
    def guards(self) -> set[str]:
        return {breach.guard for breach in self.summary.breaches}


@dataclass
class Drift:
    """A loop over many days.

    With `trouble`, the share is behind by another span each day, the API refuses some people and is
    out of order for a while, and new contacts come with landlines, which the platform refuses.
    """

    loop: Loop
    people: int
    trouble: Random | None = None
    edited_at_platform: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    told: Events = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Listens to edits on the platform's own pages; the ledger keeps the sandbox's time."""
        self.loop.project.ledger._clock = self.loop.sandbox.now
        platform = self.loop.sandbox.platform
        edit = platform.edit

        def noted(person_key: str, custom: Mapping[str, Value], at: datetime) -> None:
            self.edited_at_platform[person_key] |= set(custom)
            edit(person_key, custom, at)

        platform.edit = noted  # type: ignore[method-assign]

    def days(self, count: int, *, settle: int = 0) -> Iterator[Day]:
        """Lives so many days with edits, then `settle` quiet ones with a share in time."""
        for number in range(count + settle):
            if number:
                self._night(quiet=number >= count)
            started = time.perf_counter()
            summary = self.loop.reconcile()
            if number == 0:
                self.loop.approve(summary)
            self._deliver()
            account = account_of(self.loop.project, self.loop.today)
            seconds = time.perf_counter() - started
            yield Day(self.loop.today, summary, account, seconds, self._missed_opt_outs())

    def _night(self, *, quiet: bool) -> None:
        sandbox = self.loop.sandbox
        if self.trouble and not quiet:
            lag_h = self.trouble.choice((0, 1, 12, 30, 48, MAX_LAG_H))
            sandbox._days._history.lag = timedelta(hours=lag_h)
            self._enter_landlines()
        if quiet:
            sandbox.set_faults(None)
            sandbox._days._history.lag = timedelta(0)
        sandbox.next_day(edits=not quiet)
        if self.trouble and not quiet:
            self._break_the_api(self.trouble)

    def _enter_landlines(self) -> None:
        """New contacts, and numbers for contacts without one, that the platform will refuse."""
        assert self.trouble
        sandbox, rng = self.loop.sandbox, self.trouble
        count = max(1, self.people // 5_000)
        stamp = crm_stamp(sandbox.now())
        with sandbox.crm.edit() as editor:
            first = editor.row(1)
            editor.insert(
                first
                | {
                    "contact_id": f"L{sandbox.today:%Y%m%d}-{number}",
                    "mobile": landline_number(rng.randrange(10_000_000)),
                    "customer_type": "A",
                    "sms_opt_in": None,
                    "sms_opt_in_at": None,
                    "updated_at": stamp,
                }
                for number in range(count)
            )

    def _break_the_api(self, rng: Random) -> None:
        """Some people are refused all day; a storm is over before the client gives up."""
        digits = "".join(rng.sample("0123456789", 1))
        self.loop.sandbox.set_faults(
            [
                {
                    "match": {"path_regex": f"external/C[0-9-]*{digits}$"},
                    "action": "status",
                    "status": 422,
                    "times": 3,
                },
                {
                    "match": {"path_regex": "subscriptions/"},
                    "action": "status",
                    "status": 503,
                    "times": 2,
                },
                {"match": {"path_regex": "persons"}, "action": "status", "status": 429, "times": 2},
            ]
        )

    def _deliver(self) -> None:
        """As the daily job; what got no answer is sent again, as the job repush would."""
        try:
            self.loop.deliver()
        except NoAnswerError:
            self.loop.deliver()

    def _missed_opt_outs(self) -> set[tuple[str, str]]:
        """Opt-outs that the facts landed so far demand and today's diff set does not have.

        Told from the landed files alone: a contact whose consent says no and whose person
        subscribes, and the reverse, unless the other side has strictly newer evidence of an opt-in.
        """
        folder = self.loop.project.diff_set_folder(self.loop.today)
        planned = {
            (row["side"], row["external_person_id"])
            for row in rows_of(folder / "subscription_changes.parquet")
        }
        doubtful = self._doubtful()
        add_events(self.told, landed(self.loop, "extract/subscriptions"))
        newest = dict(self.told)
        add_events(newest, landed(self.loop, "share/subscriptions"))
        key_of = {r["external_person_id"]: r["person_key"] for r in landed(self.loop, PERSONS)}
        demanded = {
            (side, row["contact_id"])
            for row in landed(self.loop, "crm/contacts")
            if row["contact_id"] not in doubtful
            if (events := newest.get(key_of.get(row["contact_id"])))
            if (side := side_to_tell(row, *events))
        }
        return demanded - planned

    # What the witness asks at the end

    def subscribed_against_their_will(self) -> set[str]:
        """Contacts who are out on one side and in on the other.

        Without those whose identity is in doubt: nothing is written to the CRM for them.
        """
        platform, doubtful = self.loop.sandbox.platform, self._doubtful()
        found = set()
        for row in self.loop.sandbox.crm.rows():
            contact, consent = str(row["contact_id"]), row["sms_opt_in"]
            person = platform.find(external_person_id=contact)
            if person is None or not platform.subscriptions_of(
                person.person_key, active_only=False
            ):
                continue
            if platform.subscriptions_of(person.person_key):
                if consent == "false":
                    found.add(contact)
            elif consent == "true" and contact not in doubtful:
                found.add(contact)
        return found

    def _doubtful(self) -> set[str | None]:
        """Contacts of whom today's quarantine doubts who they are."""
        path = self.loop.project.diff_set_folder(self.loop.today) / "quarantine.parquet"
        return {row["external_person_id"] for row in rows_of(path) if row["kind"] not in OF_VALUES}

    def sent_twice(self) -> list[tuple[str, str]]:
        """Values accepted twice for one field of one person, with nobody's edit between them."""
        table = self._accepted()
        found = []
        for (person, person_key, name), values in table.items():
            again = [one for one, next_one in pairwise(values) if one == next_one]
            if again and name not in self.edited_at_platform[person_key]:
                found.append((person, name))
        return found

    def _accepted(self) -> dict[tuple[str, str, str], list[str | None]]:
        columns = operations.c
        query = (
            sa.select(
                columns.external_person_id,
                columns.person_key,
                columns.kind,
                columns.changes,
                columns.subscription_list_id,
            )
            .where(columns.status == "accepted", columns.kind.in_(("add", "update", "opt_out")))
            .order_by(columns.day, columns.operation_id)
        )
        sent: dict[tuple[str, str, str], list[str | None]] = defaultdict(list)
        platform = self.loop.sandbox.platform
        with self.loop.project.ledger._engine.begin() as connection:
            for row in connection.execute(query):
                person = platform.find(external_person_id=row.external_person_id)
                key = person.person_key if person else str(row.person_key)
                if row.kind == "opt_out":
                    sent[row.external_person_id, key, f"list {row.subscription_list_id}"].append(
                        "out"
                    )
                for change in row.changes:
                    sent[row.external_person_id, key, change["field"]].append(change["after"])
        return sent

    def repeats(self) -> set[str]:
        """People to whom something was written that they had already, by nobody else's edit."""
        by_person: dict[str, dict[str, int]] = self.loop.sandbox.audit()["repeats_by_person"]  # type: ignore[assignment]
        return {key for key in by_person if not self.edited_at_platform[key]}


def add_events(newest: Events, rows: Iterable[Row]) -> None:
    """Adds each row's opt-in and opt-out to the newest of the person."""
    for row in rows:
        if row["subscription_list_id"] == LIST:
            since, until = newest.get(row["person_key"], (None, None))
            newest[row["person_key"]] = (
                latest(since, instant(row["opt_in_date"])),
                latest(until, instant(row["opt_out_date"])),
            )


def side_to_tell(contact: Row, since: datetime | None, until: datetime | None) -> str | None:
    """The side that has yet to learn of an opt-out, if there is one."""
    consent, said_at = contact["sms_opt_in"], instant(contact["sms_opt_in_at"])
    if until is None or (since is not None and since > until):
        newer_opt_in = bool(said_at and since and since > said_at)
        return "platform" if consent == "false" and not newer_opt_in else None
    newer_opt_in = bool(consent == "true" and said_at and said_at > until)
    return "crm" if consent != "false" and not newer_opt_in else None


def latest(one: datetime | None, other: datetime | None) -> datetime | None:
    return max((moment for moment in (one, other) if moment), default=None)


def instant(value: Any) -> datetime | None:
    """A landed instant in UTC; texts without a zone are UTC."""
    if value is None:
        return None
    read = value if isinstance(value, datetime) else datetime.fromisoformat(_plain(str(value)))
    return read.replace(tzinfo=UTC) if read.tzinfo is None else read.astimezone(UTC)


def _plain(text: str) -> str:
    """`2017-04-05 14:30:00 -0600` as Python's parser wants it."""
    return text.replace(" -", "-").replace(" +", "+")


def landed(loop: Loop, feed: str) -> list[Row]:
    snapshot = loop.project.snapshots.find(feed, loop.today)
    assert snapshot
    return rows_of(snapshot.data)


def rows_of(path: Path) -> list[Row]:
    found: list[Row] = pq.read_table(path).to_pylist()
    return found


@contextmanager
def running_drift(
    home: Path, people: int, seed: int, sync_config: Path, trouble: Random | None = None
) -> Iterator[Drift]:
    """A world of so many people on its first morning."""
    with running_loop(home, build_world(people, seed), sync_config) as loop:
        yield Drift(loop, people, trouble)
