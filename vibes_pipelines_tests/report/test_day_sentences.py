"""What a page may not say: nothing pending while a send waits, nothing newer where nothing was."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import pytest

from vibes_pipelines.report.day_page import render_day, report_folder, write_report
from vibes_pipelines.report.trends import trend
from vibes_pipelines.stages.project import Project
from vibes_pipelines.store.realtime import RealtimeBook
from vibes_pipelines.store.records import Operation, Receipt
from vibes_pipelines_tests.support.landed_days import land, landed_project, reconciled
from vibes_pipelines_tests.support.pages import ReadPage

Answer = Literal["accepted", "rejected", "unknown"]

DAY = "2026-01-02"
OPT_OUT = Operation(
    operation_id="prompt",
    diff_set="d" * 64,
    day=DAY,
    as_of=datetime(2026, 1, 2, 6, tzinfo=UTC),
    lane="opt_outs",
    route="api",
    route_reason="in real time",
    kind="opt_out",
    external_person_id="C1",
    person_key="k1",
    mdn=None,
    subscription_list_id="1234",
    changes=(),
)
CONTACT = {"id": "C1", "phone": "+12015550123", "name": "Ada", "sms": "false"}
PERSON = {"person_key": "k1", "external_person_id": "C1", "mdn": "+12015550123"}
SUBSCRIBED = {"person_key": "k1", "subscription_list_id": "1234", "opt_in_date": "2026-01-01"}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    with landed_project(tmp_path, monkeypatch) as opened:
        yield opened


def sent_in_real_time(project: Project, *sends: tuple[str, Answer]) -> None:
    with closing(RealtimeBook(project.settings.ledger_url)) as book:
        for name, status in sends:
            book.plan([replace(OPT_OUT, operation_id=name)])
            book.mark_sent([name])
            book.record([Receipt(name, status)])


def test_a_send_of_real_time_without_an_answer_is_pending(project: Project) -> None:
    land(project, DAY, "crm/contacts", [CONTACT])
    sent_in_real_time(project, ("prompt", "unknown"))
    page = ReadPage(render_day(project, DAY))
    assert "1 operation left and was not seen yet" in page.section("pending")
    [row] = page.table("Under way when the day was over").rows
    assert row[:4] == [DAY, "opt-outs", "real time", "1"]
    assert "makes it anew" in row[4]


def test_a_day_that_was_not_compared_says_so_and_names_no_newer_one(project: Project) -> None:
    land(project, DAY, "crm/contacts", [CONTACT])
    page = ReadPage(render_day(project, DAY))
    assert "was not compared: nothing is known to send" in page.section("plan")
    assert "a newer diff set took its place" not in page.text
    assert "Nobody is in quarantine" not in page.text


def test_the_trend_counts_opt_outs_that_were_taken_not_those_planned(project: Project) -> None:
    summary = reconciled(project, DAY, [CONTACT], [PERSON], [SUBSCRIBED])
    assert summary.opt_outs_to_platform == 1
    assert trend(project, DAY, 1)[0].opt_outs == 0
    sent_in_real_time(project, ("one", "accepted"), ("other", "rejected"))
    assert trend(project, DAY, 1)[0].opt_outs == 1


def test_only_who_asks_for_it_makes_the_pages_that_are_missing(project: Project) -> None:
    days = [f"2026-01-0{number}" for number in range(1, 5)]
    for day in days:
        land(project, day, "crm/contacts", [CONTACT])
    write_report(project, days[-1], fills_gaps=False)
    assert _pages(project) == days[-2:]
    write_report(project, days[-1])
    assert _pages(project) == days


def _pages(project: Project) -> list[str]:
    return sorted(page.stem for page in report_folder(project).glob("2*.html"))
