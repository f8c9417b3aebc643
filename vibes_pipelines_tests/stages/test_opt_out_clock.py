"""The clock of opt-outs: business days, what counts as under way, and what the check says."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from vibes_pipelines.callbacks.intake import posted, read_arrival
from vibes_pipelines.delivery.release import register_diff_set
from vibes_pipelines.orchestration.checks import opt_outs_arrive_in_time
from vibes_pipelines.orchestration.resources import ProjectResource
from vibes_pipelines.settings import Settings
from vibes_pipelines.stages.inbox import drain
from vibes_pipelines.stages.opt_outs import (
    LATE_AFTER_BUSINESS_DAYS,
    OpenOptOut,
    after_business_days,
    opt_out_clock,
    read_clock,
)
from vibes_pipelines.stages.project import Project, open_project
from vibes_pipelines.store.inbox import Inbox
from vibes_pipelines.store.realtime import RealtimeBook
from vibes_pipelines.store.records import Change, Operation, Receipt
from vibes_pipelines_tests.support.callbacks import REMOVED, as_bytes, subscription_body
from vibes_pipelines_tests.support.deliveries import (
    SNAPSHOTS,
    FakeSummary,
    noon,
    planned,
    write_diff_set,
)
from vibes_pipelines_tests.support.deliveries import opt_out as opt_out_row
from vibes_pipelines_tests.support.loop import EXAMPLE, process_environment

FRIDAY = datetime(2026, 1, 2, 15, tzinfo=UTC)
instants = st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


@given(instant=instants, days=st.integers(0, 30))
def test_business_days_are_mondays_to_fridays_and_nothing_else(
    instant: datetime, days: int
) -> None:
    end = after_business_days(instant, days)
    passed = [instant + timedelta(days=n + 1) for n in range((end - instant).days)]
    assert sum(day.weekday() < 5 for day in passed) == days
    assert not passed or end.weekday() < 5


def test_five_business_days_from_a_friday_end_on_the_next_friday() -> None:
    assert after_business_days(FRIDAY, LATE_AFTER_BUSINESS_DAYS) == FRIDAY + timedelta(days=7)


@pytest.mark.parametrize(
    ("hours", "over_a_day", "late"),
    [(-1, 0, 0), (24, 0, 0), (25, 1, 0), (7 * 24, 1, 0), (7 * 24 + 1, 1, 1)],
)
def test_a_day_warns_and_five_business_days_are_late(
    hours: int, over_a_day: int, late: int
) -> None:
    clock = read_clock([OpenOptOut("to_crm", FRIDAY)], FRIDAY + timedelta(hours=hours))
    assert (clock.over_a_day, clock.late) == (over_a_day, late)
    assert clock.open == {"to_crm": 1}
    assert clock.oldest == timedelta(hours=max(hours, 0))


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    environment = {
        "VIBES_HOME": str(tmp_path),
        "VIBES_SYNC_CONFIG": str(EXAMPLE),
        "CRM_URL": f"sqlite:///{tmp_path / 'crm.db'}",
    }
    with process_environment(environment), open_project(Settings(environment)) as opened:
        engine = sa.create_engine(environment["CRM_URL"])
        with engine.begin() as connection:
            connection.exec_driver_sql(
                "CREATE TABLE contacts (contact_id TEXT, sms_opt_in TEXT, sms_opt_in_at TEXT)"
            )
            connection.exec_driver_sql("INSERT INTO contacts VALUES ('C1', 'Y', '2020-01-01')")
        engine.dispose()
        yield opened


def receive(project: Project, contact: str, at: datetime, list_id: str = "1234") -> None:
    body = subscription_body(
        REMOVED,
        f"R{contact}{list_id}",
        f"{at:%Y-%m-%dT%H:%M:%SZ}",
        list_id=list_id,
        external_person_id=contact,
    )
    with closing(Inbox(project.settings.ledger_url)) as inbox:
        inbox.store([read_arrival(posted("127.0.0.1", "/callbacks", as_bytes(body)))])


def test_an_opt_out_in_the_inbox_is_under_way_until_the_crm_has_it(project: Project) -> None:
    receive(project, "C1", FRIDAY)
    receive(project, "C9", FRIDAY)  # nobody's: it goes to the desk
    receive(project, "C1", FRIDAY, list_id="9")  # of a list that is not mapped
    assert opt_out_clock(project, FRIDAY).open == {"to_crm": 2}
    drain(project, dry_run=False)
    clock = opt_out_clock(project, FRIDAY + timedelta(hours=30))
    assert clock.open == {"at_the_desk": 1}
    assert clock.sentence == (
        "under way: at_the_desk 1; the oldest for 30.0 h; 1 for more than 24 h,"
        " 0 for more than 5 business days"
    )


def test_an_opt_out_of_a_list_that_cannot_be_read_counts_at_the_desk(project: Project) -> None:
    receive(project, "C1", FRIDAY, list_id="1234\0")
    drain(project, dry_run=False)
    assert opt_out_clock(project, FRIDAY).open == {"at_the_desk": 1}


def opt_out(number: int) -> Operation:
    evidence = Change("evidence_at", "set", None, FRIDAY.isoformat(), "crm_opted_out")
    return Operation(
        operation_id=f"op{number}",
        diff_set="realtime",
        day="2026-01-02",
        as_of=FRIDAY + timedelta(hours=number),
        lane="opt_outs",
        route="api",
        route_reason="in real time",
        kind="opt_out",
        external_person_id="C1",
        person_key="k1",
        mdn=None,
        subscription_list_id="1234",
        changes=(evidence,),
    )


def test_one_that_the_platform_refused_is_under_way_until_a_later_one_is_accepted(
    project: Project,
) -> None:
    with closing(RealtimeBook(project.settings.ledger_url)) as book:
        book.plan([opt_out(1)])
        assert opt_out_clock(project, FRIDAY).open == {"to_platform": 1}
        book.mark_sent(["op1"])
        book.record([Receipt("op1", "rejected", "HTTP 404")])
        assert opt_out_clock(project, FRIDAY).open == {"to_platform": 1}
        book.plan([opt_out(2)])
        book.mark_sent(["op2"])
        book.record([Receipt("op2", "accepted")])
    assert opt_out_clock(project, FRIDAY).open == {}


def plan_day(
    project: Project, day: str, side: str = "platform", at: datetime | None = None
) -> None:
    """A planned diff set of the day, in which C1 opts out."""
    folder = project.diff_set_folder(day)
    rows = [opt_out_row("C1", side, at)]
    planned(project.ledger, folder, diff_set=day, day=day, subscriptions=rows)


def refuse_in_real_time(project: Project) -> None:
    with closing(RealtimeBook(project.settings.ledger_url)) as book:
        book.plan([opt_out(-12)])
        book.mark_sent(["op-12"])
        book.record([Receipt("op-12", "rejected", "HTTP 404")])


def test_a_refused_one_is_over_when_the_daily_run_was_heard(project: Project) -> None:
    refuse_in_real_time(project)
    plan_day(project, "2026-01-02")
    assert opt_out_clock(project, FRIDAY).open == {"to_platform": 1}
    answer(project, "2026-01-02", "accepted")
    assert opt_out_clock(project, FRIDAY).open == {}


@pytest.mark.parametrize(
    ("quarantined", "under_way"), [((), {}), (("C1",), {"to_platform": 1}), (("C2",), {})]
)
def test_a_refused_one_is_over_when_a_later_day_asks_for_it_no_more(
    project: Project, quarantined: tuple[str, ...], under_way: dict[str, int]
) -> None:
    refuse_in_real_time(project)
    folder = project.diff_set_folder("2026-01-02")
    planned(project.ledger, folder, diff_set="2026-01-02", day="2026-01-02")
    assert opt_out_clock(project, FRIDAY).open == {"to_platform": 1}  # nothing to go by
    rows = pa.table({"external_person_id": pa.array(quarantined, pa.string())})
    pq.write_table(rows, folder / "quarantine.parquet")
    assert opt_out_clock(project, FRIDAY).open == under_way


def test_one_without_an_answer_stays_whatever_a_day_says(project: Project) -> None:
    with closing(RealtimeBook(project.settings.ledger_url)) as book:
        book.plan([opt_out(-12)])
        book.mark_sent(["op-12"])
    folder = project.diff_set_folder("2026-01-02")
    planned(project.ledger, folder, diff_set="2026-01-02", day="2026-01-02")
    rows = pa.table({"external_person_id": pa.array([], pa.string())})
    pq.write_table(rows, folder / "quarantine.parquet")
    assert opt_out_clock(project, FRIDAY).open == {"to_platform": 1}


def answer(project: Project, day: str, status: Any, error_class: str | None = None) -> None:
    for route in ("api", "crm"):
        for one in project.ledger.open_operations(day, "opt_outs", route):
            project.ledger.mark_sent([one.operation_id])
            project.ledger.record([Receipt(one.operation_id, status, error_class)], day)


def test_one_that_the_daily_run_was_refused_stays_under_way(project: Project) -> None:
    plan_day(project, "2026-01-02", at=FRIDAY)
    answer(project, "2026-01-02", "rejected", "HTTP 404")
    clock = opt_out_clock(project, FRIDAY + timedelta(hours=30))
    assert (clock.open, clock.over_a_day) == ({"to_platform": 1}, 1)


@pytest.mark.parametrize(
    ("error_class", "under_way"),
    [("ValueDoesNotFit", {"to_crm": 1}), ("ChangedMeanwhile", {}), ("ContactNotFound", {})],
)
def test_a_refusal_of_the_crm_counts_while_there_is_something_left_to_tell(
    project: Project, error_class: str, under_way: dict[str, int]
) -> None:
    plan_day(project, "2026-01-02", "crm", FRIDAY)
    answer(project, "2026-01-02", "rejected", error_class)
    assert opt_out_clock(project, FRIDAY).open == under_way


@pytest.mark.parametrize("error_class", ["ChangedMeanwhile", "ContactNotFound"])
def test_one_that_is_asked_for_again_and_refused_again_counts(
    project: Project, error_class: str
) -> None:
    for day, under_way in (("2026-01-02", {}), ("2026-01-03", {"to_crm": 1})):
        plan_day(project, day, "crm", FRIDAY)
        answer(project, day, "rejected", error_class)
        clock = opt_out_clock(project, FRIDAY + timedelta(hours=30))
        assert clock.open == under_way
    assert clock.oldest == timedelta(hours=30)


@pytest.mark.parametrize("at", [None, datetime(2062, 1, 2, tzinfo=UTC)])
def test_one_without_a_time_that_has_come_counts_from_the_first_day_that_planned_it(
    project: Project, at: datetime | None
) -> None:
    for day in ("2026-01-02", "2026-01-04", "2026-01-05"):
        plan_day(project, day, at=at)
    write_diff_set(project.diff_set_folder("2026-01-03"))  # a day without it
    now = datetime(2026, 1, 6, tzinfo=UTC)
    assert opt_out_clock(project, now).oldest == timedelta(days=2)


def test_one_that_the_platform_took_is_not_counted_again_while_a_diff_set_waits(
    project: Project,
) -> None:
    plan_day(project, "2026-01-02")
    answer(project, "2026-01-02", "accepted")
    folder = write_diff_set(project.diff_set_folder("2026-01-03"), (), [opt_out_row("C1")])
    summary = FakeSummary("held", noon("2026-01-03"), config_hash="config-1")
    register_diff_set(project.ledger, "2026-01-03", summary, SNAPSHOTS)
    assert folder.is_dir()
    assert opt_out_clock(project, FRIDAY).open == {}


def test_a_callback_counts_no_more_once_the_daily_run_has_told_the_crm(project: Project) -> None:
    receive(project, "C1", FRIDAY)
    plan_day(project, "2026-01-02", "crm", FRIDAY)
    assert opt_out_clock(project, FRIDAY).open == {"to_crm": 1}  # once, not twice
    answer(project, "2026-01-02", "accepted")
    assert opt_out_clock(project, FRIDAY).open == {}


def test_a_planned_one_counts_no_more_once_its_callback_has_told_the_crm(project: Project) -> None:
    plan_day(project, "2026-01-02", "crm", FRIDAY)
    receive(project, "C1", FRIDAY)
    drain(project, dry_run=False)
    assert opt_out_clock(project, FRIDAY).open == {}


def test_the_echo_of_an_opt_out_that_we_sent_is_not_under_way(project: Project) -> None:
    with closing(RealtimeBook(project.settings.ledger_url)) as book:
        book.plan([opt_out(1)])
        book.mark_sent(["op1"])
        book.record([Receipt("op1", "accepted")])
    receive(project, "C1", datetime.now(UTC))
    assert opt_out_clock(project, FRIDAY).open == {}


def test_one_that_is_made_anew_counts_from_the_first_attempt(project: Project) -> None:
    with closing(RealtimeBook(project.settings.ledger_url)) as book:
        timeless = replace(opt_out(2), changes=(replace(opt_out(2).changes[0], after=None),))
        book.plan([replace(timeless, operation_id="op1", as_of=FRIDAY)])
        book.withdraw(["op1"])
        assert opt_out_clock(project, FRIDAY).open == {}
        book.plan([timeless])
    assert opt_out_clock(project, FRIDAY + timedelta(hours=5)).oldest == timedelta(hours=5)


@pytest.mark.parametrize(
    ("age", "passed", "severity"),
    [
        (timedelta(hours=1), True, None),
        (timedelta(hours=30), False, dg.AssetCheckSeverity.WARN),
        (timedelta(days=15), False, dg.AssetCheckSeverity.ERROR),
    ],
)
def test_the_check_warns_and_fails_with_counts_and_the_oldest_age(
    project: Project, age: timedelta, *, passed: bool, severity: dg.AssetCheckSeverity | None
) -> None:
    receive(project, "C1", datetime.now(UTC) - age)
    result = opt_outs_arrive_in_time(project=ProjectResource())
    assert isinstance(result, dg.AssetCheckResult)
    assert result.passed is passed
    assert passed or result.severity is severity
    assert result.metadata["open_to_crm"].value == 1
    oldest = result.metadata["oldest_h"].value
    assert oldest == pytest.approx(age.total_seconds() / 3600, abs=0.2)
