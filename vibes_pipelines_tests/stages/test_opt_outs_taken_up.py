"""Opt-outs that got no answer are made anew: they count once, pass again, and are never lost."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from vibes_pipelines.settings import Settings
from vibes_pipelines.stages import changes
from vibes_pipelines.stages.project import Project, open_project
from vibes_pipelines.stages.slices import Slice
from vibes_pipelines.store.realtime import RealtimeBook
from vibes_pipelines.store.records import Change, Operation, Receipt
from vibes_pipelines.vibes.rate_limit import RateLimiter
from vibes_pipelines_tests.support.loop import EXAMPLE, process_environment

NOW = datetime(2026, 1, 2, 15, tzinfo=UTC)
PERSONS = 400
"""At these many the least share of guards.opt_outs that breaks is 21 rows, and chance does 20."""
OPT_OUT = Operation(
    operation_id="",
    diff_set="realtime",
    day="2026-01-02",
    as_of=NOW,
    lane="opt_outs",
    route="api",
    route_reason="in real time",
    kind="opt_out",
    external_person_id=None,
    person_key="k1",
    mdn=None,
    subscription_list_id="1234",
    changes=(Change("evidence_at", "set", None, NOW.isoformat(), "crm_opted_out"),),
)


@dataclass
class Sides:
    """A CRM in which these opted out, and a platform that answers or does not."""

    opted_out: set[str]
    status: Any = "unknown"
    sent: list[str] = field(default_factory=list)
    joined: dict[tuple[str | None, str | None], datetime] = field(default_factory=dict)

    def slice(self, _project: Project, contacts: Sequence[str], name: str) -> Slice:
        opt_outs = tuple(
            replace(OPT_OUT, operation_id=f"{name[-20:]} {key}", external_person_id=key)
            for key in contacts
            if key in self.opted_out
        )
        share_as_of = NOW - timedelta(days=1)
        present = frozenset(contacts)
        sides = (share_as_of, PERSONS, PERSONS, present)
        return Slice((), opt_outs, (), *sides, joined_by=self.joined)

    async def send(
        self, _project: Project, operations: Sequence[Operation], _calls: RateLimiter
    ) -> tuple[list[Receipt], None]:
        if self.status is None:
            raise ConnectionError
        self.sent += [one.external_person_id or "" for one in operations]
        return [Receipt(one.operation_id, self.status) for one in operations], None


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    environment = {
        "VIBES_HOME": str(tmp_path),
        "VIBES_SYNC_CONFIG": str(EXAMPLE),
        "CRM_URL": f"sqlite:///{tmp_path / 'crm.db'}",
    }
    with process_environment(environment), open_project(Settings(environment)) as opened:
        yield opened


@pytest.fixture
def sides(monkeypatch: pytest.MonkeyPatch) -> Sides:
    made = Sides({f"C{n}" for n in range(12)})
    monkeypatch.setattr(changes, "reconcile_slice", made.slice)
    monkeypatch.setattr(changes, "_send_all", made.send)
    return made


@pytest.fixture
def book(project: Project) -> Iterator[RealtimeBook]:
    with closing(RealtimeBook(project.settings.ledger_url)) as opened:
        yield opened


def look(project: Project, book: RealtimeBook, *changed: str) -> changes.Carried:
    carrier = changes._Carrier(project, book, RateLimiter(100), dry_run=False)
    try:
        carrier.take_up()
        carrier.carry(changed, "a look")
    except ConnectionError:
        return changes.Carried(dry_run=False)
    return carrier.carried()


def _today() -> str:
    return datetime.now(UTC).date().isoformat()


@pytest.mark.parametrize("status", ["unknown", None])
def test_an_outage_fills_no_cap_and_loses_none(
    project: Project, book: RealtimeBook, sides: Sides, status: str | None
) -> None:
    sides.status = status
    days = {_today()}
    look(project, book, *sides.opted_out)
    for _ in range(5):
        assert look(project, book).why == ()
        assert {
            key for one in book.unfinished() if (key := one.external_person_id)
        } == sides.opted_out
    days.add(_today())  # midnight may have passed
    assert sum(book.counts(day)["opt_out"] for day in days) == len(sides.opted_out)
    sides.status = "accepted"
    assert look(project, book).accepted >= len(sides.opted_out)
    assert (set(sides.sent), book.unfinished(), book.open_opt_outs()) == (sides.opted_out, [], [])


def test_a_cap_that_is_reached_holds_the_new_ones_only(
    project: Project, book: RealtimeBook, sides: Sides
) -> None:
    look(project, book, *sides.opted_out)
    more = {f"D{n}" for n in range(12)}
    first, sides.opted_out, sides.sent = sides.opted_out, sides.opted_out | more, []
    sides.status = "accepted"
    carried = look(project, book, *sides.opted_out)
    assert carried.left_to_daily == len(more)
    assert set(sides.sent) == first
    assert book.unfinished() == []


def test_what_the_comparison_asks_for_no_more_is_withdrawn(
    project: Project, book: RealtimeBook, sides: Sides
) -> None:
    look(project, book, *sides.opted_out)
    sides.opted_out, sides.sent = {"C1"}, []
    look(project, book)
    assert sides.sent == ["C1"]
    assert [one.external_person_id for one in book.unfinished()] == ["C1"]


def test_what_was_sent_before_a_join_arrived_is_sent_again_on_the_same_evidence(
    project: Project, book: RealtimeBook, sides: Sides
) -> None:
    sides.status = "accepted"
    for _ in range(2):
        look(project, book, "C1", "C2")
    assert sorted(sides.sent) == ["C1", "C2"]
    sides.joined = {("C1", "1234"): datetime.now(UTC)}
    for _ in range(2):
        look(project, book, "C1", "C2")
    assert sorted(sides.sent) == ["C1", "C1", "C2"]
