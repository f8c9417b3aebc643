"""The page's sections on time: how long opt-outs have been under way, how fast deliveries were."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from vibes_pipelines.report.day_blocks import Note, Section, Table
from vibes_pipelines.report.day_loop import clocks_section, speed_section
from vibes_pipelines.report.day_view import open_reading
from vibes_pipelines.stages.project import Project
from vibes_pipelines.store.ledger import Ledger
from vibes_pipelines.store.records import Operation, Receipt
from vibes_pipelines_tests.support.landed_days import Row, landed_project, reconciled

DAY = "2026-01-16"  # a Friday, shown as of 06:00
SHOWN = datetime(2026, 1, 16, 6, tzinfo=UTC)
HOUR, DAYS = timedelta(hours=1), timedelta(days=1)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    with landed_project(tmp_path, monkeypatch) as opened:
        yield opened


def test_the_clocks_tell_a_day_from_five_business_days(project: Project) -> None:
    # Five business days before a Friday morning are the Friday morning before.
    _opted_out(project, SHOWN - HOUR, SHOWN - 30 * HOUR, SHOWN - 7 * DAYS, SHOWN - 7 * DAYS - HOUR)
    note, shown = _clocks(project)
    assert note.tone == "bad"
    assert note.text == (
        "4 opt-outs under way, the oldest for 169.0 hours; more than a day: 3; "
        "more than five business days: 1."
    )
    assert shown.caption == "Under way at 2026-01-16 06:00 UTC, the newest instant that is landed"
    assert shown.rows == (("from the CRM to the platform", 4),)


def test_over_a_day_warns_and_only_the_newest_day_has_clocks(project: Project) -> None:
    _opted_out(project, SHOWN - 30 * HOUR)
    assert _clocks(project)[0].tone == "warn"
    _opted_out(project, SHOWN - HOUR, day="2026-01-17")
    assert _section(project).blocks == (
        Note("info", "The clocks stand on the page of the newest day."),
    )


def _opted_out(project: Project, *times: datetime, day: str = DAY) -> None:
    """Lands a day on which the CRM knows of an opt-out of each time, and the platform of none."""
    contacts: list[Row] = []
    persons: list[Row] = []
    share: list[Row] = []
    for number, at in enumerate(times):
        mdn = f"+1201555010{number}"
        when = at.strftime("%Y-%m-%d %H:%M:%S")
        contacts.append({"id": f"C{number}", "phone": mdn, "sms": "false", "sms_at": when})
        persons.append({"person_key": f"k{number}", "external_person_id": f"C{number}", "mdn": mdn})
        share.append(
            {
                "person_key": f"k{number}",
                "subscription_list_id": "1234",
                "opt_in_date": "2025-01-01",
            }
        )
    reconciled(project, day, contacts, persons, share)


def _section(project: Project) -> Section:
    with open_reading(project) as reading:
        return clocks_section(reading.day(DAY))


def _clocks(project: Project) -> tuple[Note, Table]:
    note, shown = _section(project).blocks
    assert isinstance(note, Note)
    assert isinstance(shown, Table)
    return note, shown


def test_the_rate_is_rows_by_seconds_and_stands_beside_the_limit(project: Project) -> None:
    summary = reconciled(project, DAY, [], [])
    one = Operation(
        operation_id="",
        diff_set=summary.diff_set,
        day=DAY,
        as_of=SHOWN,
        lane="persons",
        route="api",
        route_reason="few rows",
        kind="update",
        external_person_id="C1",
        person_key="k1",
        mdn=None,
        subscription_list_id=None,
        changes=(),
    )
    by_api = [replace(one, operation_id=f"a{number}") for number in range(5)]
    brief = replace(one, operation_id="c0", route="crm", lane="crm", kind="crm_update")
    now = [SHOWN]
    with closing(Ledger(project.settings.ledger_url, clock=lambda: now[0])) as ledger:
        plan = {"estimates": {"rate_per_s": 50.0}}
        ledger.write_plan(summary.diff_set, [], [*by_api, brief], lambda: plan)
        for operation, took_s in ((by_api[0], 0), (brief, 0.5)):
            _send(ledger, now, operation, took_s)
        now[0] = SHOWN + timedelta(seconds=1)
        ledger.mark_sent(["a1"])  # and again below: no answer came
        for operation in by_api[1:]:
            _send(ledger, now, operation, 0.375)
    with open_reading(project) as reading:
        [shown] = speed_section(reading.day(DAY)).blocks
    assert isinstance(shown, Table)
    assert shown.columns == ("Route", "Rows", "Took", "Rate", "Limit", "Sent again")
    assert sorted(shown.rows) == [
        ("CRM changes, write-back into the CRM", 1, "0.5 s", "too short to tell",
         "no documented limit", 0),
        ("person changes, Vibes API", 5, "2.5 s", "2.0 a second", "50 a second", 1),
    ]  # fmt: skip


def _send(ledger: Ledger, now: list[datetime], operation: Operation, took_s: float) -> None:
    ledger.mark_sent([operation.operation_id])
    now[0] += timedelta(seconds=took_s)
    ledger.record([Receipt(operation.operation_id, "accepted")], DAY)
