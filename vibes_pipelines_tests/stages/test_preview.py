"""The preview: what would be sent, without a trace of it and without a personal value."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from vibes_pipelines.cli.main import main
from vibes_pipelines.orchestration.resources import ShareResource
from vibes_pipelines.sandbox.population import build_world
from vibes_pipelines.settings import Settings
from vibes_pipelines.stages import preview
from vibes_pipelines.stages.erase_lock import LOCK, no_erasure
from vibes_pipelines.stages.erasing import erase
from vibes_pipelines.stages.preview import Preview, PreviewError, preview_day
from vibes_pipelines.stages.preview_left import what_is_left
from vibes_pipelines.stages.preview_samples import shape
from vibes_pipelines.store.ledger import Ledger
from vibes_pipelines.store.records import Receipt
from vibes_pipelines_tests.support.deliveries import change, planned, update
from vibes_pipelines_tests.support.landed_days import SYNC, landed_project, reconciled
from vibes_pipelines_tests.support.loop import Loop, running_loop


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    with running_loop(tmp_path_factory.mktemp("preview"), build_world(300, seed=9)) as loop:
        yield loop


def previewed(loop: Loop, **changes: str) -> Preview:
    environment = {**loop.environment, **changes}
    connect = ShareResource().connector()
    return preview_day(environment, loop.today, connect, lambda _told: None)


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_before_anything_is_set_up_nothing_is_left_behind(loop: Loop, tmp_path: Path) -> None:
    home = tmp_path / "data"
    found = previewed(loop, VIBES_HOME=str(home))
    # The account's gap is kept, and the file that a lock is held on.
    assert files_below(home) == {"sftp_session.json", LOCK}
    assert found.landed_before == ()
    assert set(found.held) == {"opt_outs", "persons", "invites"}
    assert "first run" in found.held["persons"]


@pytest.mark.slow
def test_the_preview_is_what_the_daily_job_then_makes(loop: Loop) -> None:
    first = previewed(loop)
    assert loop.project.ledger.newest_diff_set() is None
    summary = loop.reconcile()
    counts = ("contacts", "added", "updated", "unchanged", "filtered", "quarantined", "clears")
    assert [getattr(first.summary, n) for n in counts] == [getattr(summary, n) for n in counts]
    assert first.summary.quarantine_kinds == summary.quarantine_kinds

    before = files_below(loop.project.settings.home)
    again = previewed(loop)
    assert len(again.landed_before) == 5  # nothing is read twice
    assert again.summary.diff_set == summary.diff_set
    assert files_below(loop.project.settings.home) == before


@pytest.mark.slow  # the first hour has a small version of it
def test_after_an_approved_delivery_the_next_day_is_not_held(tmp_path: Path) -> None:
    with running_loop(tmp_path, build_world(60, seed=3)) as loop:
        loop.day(approve=True)
        loop.sandbox.next_day(edits=False)
        found = previewed(loop)
        newest = loop.project.ledger.newest_diff_set()
        assert newest is not None
        assert newest.day < loop.today
        assert found.held == {}
        assert found.summary.updated == 0


def test_the_command_shows_counts_roads_quarantine_and_what_approving_does(
    loop: Loop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["preview", "--day", loop.today])
    assert result.exit_code == 0, result.output
    for told in (
        "would go",
        "persons, by API:",
        "cost: ",
        "quarantine:",
        "samples, masked",
        "held: persons: first run",
        "nothing was landed or sent",
        "approve <hash>",
    ):
        assert told in result.stdout
    document = json.loads(
        CliRunner().invoke(main, ["preview", "--day", loop.today, "--json"]).stdout
    )
    assert document["summary"]["contacts"] > 0
    assert document["calls"] == sum(
        rows for name, rows in document["operations"].items() if "/api/" in name
    )


def test_no_personal_value_is_shown(loop: Loop) -> None:
    found = previewed(loop)
    keys = {"gold", "silver", "bronze"}
    for sample in found.samples:
        for value in (sample.before, sample.after):
            assert value in keys or not (set(value) - set("x9|-.:+ T?…'")), value
    shown = json.dumps(found.as_json())
    people = [row["mobile"] for row in loop.sandbox.crm.rows() if row["mobile"]]
    assert not [number for number in people if str(number) in shown]


def test_of_a_delivery_that_began_only_what_is_open_would_go(tmp_path: Path) -> None:
    """What went, was refused or was withdrawn is told apart; a plan is no promise any more."""
    persons = [update(f"C{number}", change("first_name", "Ada")) for number in range(6)]
    with Ledger(f"sqlite:///{tmp_path / 'ledger.db'}") as ledger:
        plan = planned(ledger, tmp_path / "diff_set", persons=persons)
        before = what_is_left(plan, ledger)
        assert (before.operations, before.went) == ({"persons/api/update": 6}, {})
        assert before.seconds == plan.seconds != {}
        of_plan = ledger.open_operations(plan.diff_set, "persons", "api")
        ids = [one.operation_id for one in of_plan]
        ledger.mark_sent(ids[:4])
        receipts = [Receipt(ids[0], "accepted"), Receipt(ids[1], "accepted")]
        ledger.record([*receipts, Receipt(ids[2], "rejected")], plan.day)
        ledger.withdraw({ids[4]: "opted out"}, plan.day)
        left = what_is_left(plan, ledger)
        assert left.operations == {"persons/api/update": 2}
        assert left.went == {"accepted": 2, "rejected": 1, "superseded": 1}
        assert (left.unanswered, left.seconds, left.is_through) == (1, {}, False)
        ledger.mark_sent(ids[5:])
        ledger.record([Receipt(ids[3], "accepted"), Receipt(ids[5], "accepted")], plan.day)
        assert what_is_left(plan, ledger).is_through


@pytest.mark.parametrize(
    ("value", "masked"),
    [("Ada-Léa 7", "xxx-xxx 9"), ("+13125550142", "+99999999999"), (None, ""), ("\n", "?")],
)
def test_a_mask_keeps_the_shape(value: str | None, masked: str) -> None:
    assert shape(value) == masked


def test_a_ledger_of_another_version_is_not_touched(loop: Loop, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    with Ledger(url) as ledger, ledger._writer.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0001'")
    with pytest.raises(PreviewError, match=r"of shape 0001 .* doctor"):
        previewed(loop, VIBES_LEDGER_URL=url)


def test_what_a_killed_preview_left_goes_with_the_next(tmp_path: Path) -> None:
    settings = Settings({"VIBES_HOME": str(tmp_path)})
    left = tmp_path / ".preview-abcd" / "landing"
    left.mkdir(parents=True)
    with no_erasure(settings):  # another preview runs: perhaps it is its own
        preview._remove_what_is_left(settings)
    assert left.exists()
    preview._remove_what_is_left(settings)
    assert list(tmp_path.iterdir()) == [tmp_path / LOCK]


def test_a_preview_keeps_erased_people_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sync = SYNC.replace("max_age_h: 300", "max_age_h: 300, erasure: none")
    contact = {"id": "Quentin-42", "phone": "+13125550042", "name": "Quentin"}
    with landed_project(tmp_path, monkeypatch, sync) as project:
        reconciled(project, "2026-01-01", [contact], [])
        erase(project, "Quentin-42", "asked for", "ann")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with preview._draft(dict(os.environ), "2026-01-02", scratch) as draft:
        assert reconciled(draft, "2026-01-02", [contact], []).quarantine_kinds == {"erased": 1}
