"""Opt-outs by API and by file: what refuses one road holds up nothing on the other."""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn, cast

import pytest

from vibes_pipelines.delivery import plan, routes
from vibes_pipelines.delivery.file_import import ReportMismatch, ReportsResult
from vibes_pipelines.sandbox.population import build_world
from vibes_pipelines.stages import delivering, landing, report_reading
from vibes_pipelines.stages.delivering import BothRoadsFailedError, Delivered
from vibes_pipelines.stages.project import Project
from vibes_pipelines.store.records import Operation
from vibes_pipelines.vibes.person_api import VibesAuthError
from vibes_pipelines.vibes.sftp_errors import SftpUnavailable
from vibes_pipelines_tests.support.loop import SEND, Loop, agreed_keys
from vibes_pipelines_tests.support.second_morning import running_second_morning

POPULATION = (300, 31)  # people and seed
AGREED = agreed_keys(build_world(*POPULATION))
LEAVING = 8
SLOW_API = {"VIBES_API_RATE_PER_S": "1", "VIBES_SFTP_GAP_S": "0"}  # a file is the faster road


@pytest.fixture
def loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Loop]:
    """So many edits that a guard holds them, and opt-outs of which one can go by API alone."""
    why_not = routes.why_no_opt_out_by_file
    by_api: list[str | None] = []

    def first_not(operation: Operation) -> str | None:
        person = operation.external_person_id
        by_api[:] = by_api or [person]
        return "no file says it" if person in by_api else why_not(operation)

    with (
        running_second_morning(tmp_path, POPULATION) as running,
        running.changed(**SLOW_API) as slow,
    ):
        monkeypatch.setattr(plan, "why_no_opt_out_by_file", first_not)
        monkeypatch.setattr(delivering, "REPORT_WAIT_S", 0)
        said = {str(row["contact_id"]): row["sms_opt_in"] for row in slow.sandbox.crm.rows()}
        leaving = [key for key in AGREED[80:] if said[key] == "true"][:LEAVING]
        slow.edit_contacts("sms_opt_in = 'false', sms_opt_in_at = '2026-01-02 00:30:00'", leaving)
        slow.edit_contacts("last_name = 'Ada, the first'", AGREED[:80])
        yield slow


def opt_outs(loop: Loop, diff_set: str) -> dict[str, int]:
    """Those of the platform, by road and status."""
    counts = loop.project.ledger.status_counts(diff_set)
    return {
        f"{route} {status}": rows
        for (lane, route, status), rows in counts.items()
        if lane == "opt_outs" and route != "crm"
    }


@pytest.mark.slow
def test_a_refused_login_holds_up_no_file_and_a_held_lane_no_report(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    summary = loop.reconcile()
    assert list(delivering.held_lanes(loop.project, loop.today)) == ["persons", "invites"]
    loop.sandbox.set_faults(
        [{"match": {"path_regex": ".*"}, "action": "status", "status": 401, "times": 1}]
    )
    with monkeypatch.context() as late:
        late.setattr(loop.sandbox._pickup, "scan", lambda: None)
        with pytest.raises(VibesAuthError, match="HTTP 401"):
            delivering.deliver_opt_outs(loop.project, loop.today, SEND)
    by_file = LEAVING - 1
    assert opt_outs(loop, summary.diff_set) == {"api planned": 1, "file sent": by_file}

    loop.sandbox._pickup.scan()
    sent_on = loop.today
    loop.sandbox.next_day(edits=False)
    loop.edit_contacts("last_name = 'Bea, the second'", AGREED[:80])
    loop.reconcile()
    assert "persons" in delivering.held_lanes(loop.project, loop.today)
    assert delivering.awaited_day(loop.project) == sent_on
    sessions = sessions_of(monkeypatch)
    told = delivering.deliver_opt_outs(loop.project, loop.today, SEND)
    assert (told.counts["reports"], told.counts["accepted"]) == (1, by_file + 1)
    assert len(sessions) == 1
    assert opt_outs(loop, summary.diff_set)["file accepted"] == by_file
    assert delivering.awaited_day(loop.project) is None


def sessions_of(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Grows by one with every session that is opened to read reports."""
    opened: list[object] = []

    def noted(project: Project) -> Any:
        opened.append(project)
        return landing.sftp_account(project)

    monkeypatch.setattr(report_reading, "sftp_account", noted)
    return opened


def raising(error: BaseException) -> Callable[..., NoReturn]:
    def fail(*_: object, **__: object) -> NoReturn:
        raise error

    return fail


@pytest.fixture
def unplanned(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Project:
    """A project whose day has opt-outs on both roads; each test says what becomes of them."""
    roads = {"opt_outs/api/opt_out": 1, "opt_outs/file/opt_out": 1}
    planned = SimpleNamespace(
        diff_set="d" * 64, day="2026-01-02", operations=roads, reasons={}, deferred={}
    )
    monkeypatch.setattr(delivering, "planned_lane", lambda *_: planned)
    return cast("Project", SimpleNamespace(settings=SimpleNamespace(keys_home=tmp_path)))


def test_when_both_roads_fail_both_are_told(
    unplanned: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = VibesAuthError("HTTP 401, check the login")
    monkeypatch.setattr(delivering, "_by_api", raising(refused))
    monkeypatch.setattr(delivering, "_by_file", raising(SftpUnavailable("no such server")))
    with pytest.raises(BothRoadsFailedError) as told:
        delivering.deliver_opt_outs(unplanned, "2026-01-02", SEND)
    assert str(told.value) == (
        "opt-outs by API: HTTP 401, check the login; by file: no such server"
    )
    assert told.value.__cause__ is refused


def test_whoever_interrupts_the_one_road_begins_not_the_other(
    unplanned: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivering, "_by_api", raising(KeyboardInterrupt()))
    monkeypatch.setattr(delivering, "_by_file", raising(AssertionError("begun")))
    with pytest.raises(KeyboardInterrupt):
        delivering.deliver_opt_outs(unplanned, "2026-01-02", SEND)


@pytest.mark.parametrize("persons_held", [True, False])
def test_a_late_report_that_cannot_be_counted_is_told_by_whoever_runs(
    unplanned: Project, monkeypatch: pytest.MonkeyPatch, *, persons_held: bool
) -> None:
    """What comes after opt-outs is not stopped by it; the import of persons fails by the same."""
    unfit = ReportMismatch({"a.opt_outs": "about 7 rows"}, ReportsResult())
    sent = Delivered("d" * 64, dry_run=False, counts={"planned": 1}, why="")
    monkeypatch.setattr(delivering, "_by_api", lambda *_: sent)
    monkeypatch.setattr(delivering, "_goes_by", lambda *_: False)
    monkeypatch.setattr(delivering, "awaits_report", lambda *_: True)
    monkeypatch.setattr(delivering, "may_read", lambda *_: not persons_held)
    monkeypatch.setattr(delivering, "read_reports", raising(unfit))
    if persons_held:
        with pytest.raises(ReportMismatch, match=r"a\.opt_outs: about 7 rows"):
            delivering.deliver_opt_outs(unplanned, "2026-01-02", SEND)
    else:
        told = delivering.deliver_opt_outs(unplanned, "2026-01-02", SEND)
        assert "left to the import of persons: a.opt_outs: about 7 rows" in told.why
