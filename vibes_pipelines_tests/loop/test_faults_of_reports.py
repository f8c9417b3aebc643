"""Reports on import files come late, twice or in half: nothing counts twice, nothing is lost.

Two of the rows are refused by the platform: what is cut off a report must not make them accepted.
"""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from vibes_pipelines.report.account import DayAccount
from vibes_pipelines.sandbox import pickup
from vibes_pipelines.sandbox.population import build_world
from vibes_pipelines.stages import delivering
from vibes_pipelines_tests.sandbox.receiver import eventually
from vibes_pipelines_tests.support.loop import SEND, Loop, agreed_keys
from vibes_pipelines_tests.support.second_morning import running_second_morning
from vibes_pipelines_tests.support.virtual_time import SetClock

POPULATION = (300, 31)  # people and seed
EDITED = agreed_keys(build_world(*POPULATION))[:12]
SLOW_API = {"VIBES_API_RATE_PER_S": "1", "VIBES_SFTP_GAP_S": "0"}  # a file is the faster road
REFUSED = "PersonErrors::InvalidSelectCustomFieldValue"
LATE_S = 1.5


@pytest.fixture
def loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Loop]:
    """The second morning: ten names, and two that the platform will not take."""
    monkeypatch.setattr(delivering, "REPORT_WAIT_S", 0.6)
    with (
        running_second_morning(tmp_path, POPULATION) as running,
        running.changed(**SLOW_API) as slow,
    ):
        slow.edit_contacts("last_name = 'Second Day'", EDITED[:10])
        slow.edit_contacts("last_name = 'Zo\u00eb'", EDITED[10:])
        yield slow


def imported(loop: Loop, fault: dict[str, object] | None = None) -> delivering.Delivered:
    """The day until its file was sent, while the platform's reports suffer from a fault."""
    loop.approve(loop.reconcile())
    fields = loop.sandbox.platform.field_by_name
    fields["last_name"] = replace(fields["last_name"], charset="ascii")
    loop.sandbox.set_faults([{"on": "reports", **fault}] if fault else None)
    return collected(loop)


def collected(loop: Loop) -> delivering.Delivered:
    """The step again, as the sensor of reports starts it."""
    return delivering.import_persons(loop.project, loop.today, SEND)


def statuses(loop: Loop, day: str) -> dict[str, int]:
    """Rows that go by file, by status."""
    batch = next(one for one in loop.project.ledger.batches() if one.batch_id.startswith(day))
    counts = loop.project.ledger.status_counts(batch.diff_set)
    return {status: rows for (_, route, status), rows in counts.items() if route == "file"}


def next_day(loop: Loop) -> DayAccount:
    loop.sandbox.next_day(edits=False)
    return loop.day(approve=True)


@pytest.mark.slow
def test_a_late_report_is_collected_by_the_next_look(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = SetClock()
    monkeypatch.setattr(pickup, "time", SimpleNamespace(monotonic=machine))
    first = imported(loop, {"action": "late", "delay_s": LATE_S})
    assert (first.counts["rows"], first.counts["awaiting_report"]) == (12, 1)
    assert statuses(loop, loop.today) == {"sent": 12}
    assert delivering.awaited_day(loop.project) == loop.today, "its sensor looks again"
    machine.now += LATE_S
    reports = loop.sandbox.home.sftp_folder("/files/reports")
    eventually(lambda: any(reports.glob("*.summary.csv")), "the report")
    counts = collected(loop).counts
    assert (counts["accepted"], counts["rejected"], counts["rows"]) == (10, 2, 0)
    assert delivering.awaited_day(loop.project) is None
    assert statuses(loop, loop.today) == {"accepted": 10, "rejected": 2}


@pytest.mark.slow
def test_a_report_that_comes_after_the_next_day_began_is_collected_there(loop: Loop) -> None:
    imported(loop, {"action": "late", "delay_s": LATE_S})
    sent_on, after = loop.today, next_day(loop)
    assert (after.confirmed, after.unexplained, after.updated) == (10, 0, 0)
    assert statuses(loop, sent_on) == {"accepted": 10, "rejected": 2}


@pytest.mark.slow
def test_a_report_that_comes_twice_counts_once(loop: Loop) -> None:
    first = imported(loop, {"action": "duplicate", "delay_s": 0.2})
    assert (first.counts["accepted"], first.counts["rejected"]) == (10, 2)
    time.sleep(0.5)
    assert collected(loop).counts == {
        "files": 0,
        "rows": 0,
        "reports": 0,
        "accepted": 0,
        "rejected": 0,
        "lost": 0,
        "awaiting_report": 0,
    }
    sent_on, after = loop.today, next_day(loop)
    assert statuses(loop, sent_on) == {"accepted": 10, "rejected": 2}
    assert (after.confirmed, after.unexplained, after.updated) == (10, 0, 0)
    assert loop.sandbox.audit()["effects"] == {"import_update": 10}


@pytest.mark.slow
def test_half_a_report_is_none_and_the_certificate_tells_in_its_place(loop: Loop) -> None:
    first = imported(loop, {"action": "half"})
    assert (first.counts["accepted"], first.counts["awaiting_report"]) == (0, 1)
    loop.sandbox.set_faults(None)
    sent_on = loop.today
    morrow, later = next_day(loop), next_day(loop)
    assert (morrow.confirmed, morrow.unexplained, morrow.not_yet) == (10, 0, 2)
    assert (later.confirmed, later.unexplained, later.updated) == (0, 2, 2)
    assert later.rejections == {REFUSED: 2}, "what the report did not tell is told by the next"
    assert loop.sandbox.audit()["effects"] == {"import_update": 10}
    assert statuses(loop, sent_on) == {"sent": 12}, "no answer came; the certificates have told"
    assert delivering.awaited_day(loop.project) is None, "nothing waits for the other half"
