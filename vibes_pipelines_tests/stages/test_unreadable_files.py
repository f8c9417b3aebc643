"""Files that a power cut left without bytes: made anew, or named with the cure."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from vibes_pipelines.delivery.certificate import DOCUMENT
from vibes_pipelines.delivery.intents import Origin, PlanError, person_intents
from vibes_pipelines.reconcile.cases import CASES
from vibes_pipelines.reconcile.errors import ReconcileError
from vibes_pipelines.report.day_page import render_day, write_report
from vibes_pipelines.report.explain import explain
from vibes_pipelines.report.trends import trend
from vibes_pipelines.stages.certifying import certify_day
from vibes_pipelines.stages.project import Project
from vibes_pipelines.stages.quarantine_desk import DeskError, list_cases
from vibes_pipelines.stages.reconciling import UnreadableDayError, read_summary, reconcile_day
from vibes_pipelines_tests.support.landed_days import COLUMNS, Row, landed_project, reconciled

D1, D2, D3 = "2026-01-01", "2026-01-02", "2026-01-03"


def _contacts(level: str) -> list[Row]:
    return [{"id": f"c{n}", "phone": f"206555010{n}", "level": level} for n in range(3)]


PERSONS: list[Row] = [
    {"person_key": f"p{n}", "external_person_id": f"c{n}", "mdn": f"+1206555010{n}"}
    for n in range(3)
]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """Three days; a base from the second on. Each test leaves it as it was."""
    events = (*COLUMNS["extract/subscriptions"], "subscription_event")
    with (
        pytest.MonkeyPatch.context() as patch,
        landed_project(tmp_path_factory.mktemp("days"), patch) as opened,
    ):
        patch.setitem(COLUMNS, "extract/subscriptions", events)
        for day, level in ((D1, "Gold"), (D2, "Gold"), (D3, "")):
            reconciled(opened, day, _contacts(level), PERSONS)
            certify_day(opened, day)
        yield opened


@pytest.mark.parametrize("day", [D2, D3])
@pytest.mark.parametrize("file", ["origin.json", "exceptions.parquet"])
def test_a_base_that_cannot_be_read_is_made_anew_and_said(
    project: Project, day: str, file: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = project.base_folder(day) / file
    before, diff_set = path.read_bytes(), read_summary(project, D3).diff_set
    path.write_bytes(b"")
    # What is made of the day after needs the base of the day, too.
    for one in (D2, D3):
        reconcile_day(project, one)
    assert path.read_bytes() == before
    assert read_summary(project, D3).diff_set == diff_set
    assert caplog.text.count(f"{path.parent}: could not be read") == 1


@pytest.mark.parametrize(
    ("file", "kept"), [("agreement.parquet", 0), ("agreement.parquet", 40), ("pending.parquet", 0)]
)
def test_a_diff_set_that_cannot_be_read_is_named_with_the_cure(
    project: Project, file: str, kept: int
) -> None:
    path = project.diff_set_folder(D2) / file
    before = path.read_bytes()
    path.write_bytes(before[:kept])
    (project.base_folder(D3) / "origin.json").unlink()
    with pytest.raises(ReconcileError, match=f"{D2}.*reconcile {D2} again") as told:
        reconcile_day(project, D3)
    assert file in str(told.value)
    reconcile_day(project, D2)
    assert path.read_bytes() == before
    reconcile_day(project, D3)


@pytest.mark.parametrize("file", ["summary.json", "quarantine.parquet"])
def test_explain_names_what_cannot_be_read_with_the_cure(project: Project, file: str) -> None:
    path = project.diff_set_folder(D2) / file
    before = path.read_bytes()
    path.write_bytes(b"")
    with pytest.raises(ReconcileError, match=f"{path} cannot be read; reconcile {D2} again"):
        explain(project, "c1")
    path.write_bytes(before)
    assert explain(project, "c1").days


def test_the_desk_names_the_cases_that_cannot_be_read_with_the_cure(project: Project) -> None:
    path = project.diff_set_folder(D3) / CASES
    before = path.read_bytes()
    path.write_bytes(before[:40])
    with pytest.raises(DeskError, match=f"{path} cannot be read; reconcile {D3} again"):
        list_cases(project)
    path.write_bytes(before)
    assert list_cases(project) == []
    with pytest.raises(DeskError, match=r"no kind 'nope'; there are duplicate_contact_key, .*"):
        list_cases(project, "nope")


def test_a_plan_names_what_of_its_diff_set_cannot_be_read(tmp_path: Path) -> None:
    folder = tmp_path / D3
    folder.mkdir()
    (folder / "person_changes.parquet").write_bytes(b"")
    origin = Origin("", D3, datetime.now(UTC), folder)
    with pytest.raises(PlanError, match=f"{folder}/person_changes.* reconcile {D3} again"):
        list(person_intents(origin))


@pytest.mark.parametrize(
    ("folder", "file", "cure"),
    [
        ("diff_sets", "summary.json", f"reconcile {D2} again"),
        ("diff_sets", "person_changes.parquet", f"reconcile {D2} again"),
        ("diff_sets", "quarantine.parquet", f"reconcile {D2} again"),
        ("certificates", DOCUMENT, f"materialize convergence/certificate of {D2} again"),
    ],
)
def test_a_report_is_made_without_what_cannot_be_read_and_names_it(
    project: Project, folder: str, file: str, cure: str
) -> None:
    path = project.settings.home / folder / D2 / file
    before = path.read_bytes()
    path.write_bytes(b"")
    pages = write_report(project, D3).read_text() + render_day(project, D2)
    assert str(path) in pages
    assert cure in pages
    is_gap = file.endswith(".json")
    assert [one.day for one in trend(project, D3) if one.unreadable] == [D2] * is_gap
    if file == "summary.json":
        with pytest.raises(UnreadableDayError, match=f"{path} cannot be read; reconcile {D2}"):
            read_summary(project, D2)
    path.write_bytes(before)
