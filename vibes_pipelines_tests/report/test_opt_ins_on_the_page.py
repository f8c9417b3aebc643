"""Why opt-ins fell: the page counts those that began since the refresh before."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.walk_answers import opt_ins
from vibes_pipelines.report.day_page import render_day
from vibes_pipelines.stages.project import Project
from vibes_pipelines_tests.support.landed_days import Row, land, landed_project
from vibes_pipelines_tests.support.pages import ReadPage

DAYS = ("2026-01-01", "2026-01-02", "2026-01-03")
# When each person's subscription began; the share is refreshed at 06:00.
BEGAN = (
    "2025-12-01 10:00:00",
    "2026-01-01 06:00:00",  # on the first day's refresh itself: of that day
    "2026-01-01 06:00:01",
    "2026-01-01 23:00:00",
    "2026-01-02 06:00:00",  # these three are of the second
    "2026-01-02 18:30:00",  # and this one of the third
)
OPT_INS = {"2026-01-02": 3, "2026-01-03": 1}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    with landed_project(tmp_path, monkeypatch) as opened:
        for day in DAYS:
            begun = [at for at in BEGAN if at <= f"{day} 06:00:00"]
            people = range(len(BEGAN))
            land(opened, day, "crm/contacts", [_contact(n) for n in people])
            land(opened, day, "share/persons", [_person(n) for n in people])
            share = [_subscription(n, at) for n, at in enumerate(begun)]
            land(opened, day, "share/subscriptions", share)
        yield opened


def _contact(number: int) -> Row:
    return {"id": f"C{number}", "phone": f"+1201555010{number}", "name": "Ada"}


def _person(number: int) -> Row:
    return {
        "person_key": f"k{number}",
        "external_person_id": f"C{number}",
        "mdn": f"+1201555010{number}",
        "first_name": "Ada",
    }


def _subscription(number: int, began: str) -> Row:
    return {"person_key": f"k{number}", "subscription_list_id": "1234", "opt_in_date": began}


def test_opt_ins_are_those_that_began_since_the_refresh_before(project: Project) -> None:
    for day, expected in OPT_INS.items():
        lists = ReadPage(render_day(project, day)).table("Subscriptions by list")
        assert lists.column("Opt-ins") == [str(expected)]
        assert opt_ins(project, day) == expected  # what the walk in the UI is judged by


def test_the_page_says_in_a_sentence_that_they_fell(project: Project) -> None:
    page = ReadPage(render_day(project, "2026-01-03"))
    assert page.table("Subscriptions by list").column("Opt-ins the day before") == ["3"]
    assert "List 1234: 1 opt-in, 2 fewer than the day before." in page.section("lists")
