"""The file server cannot be used: a person uploads the day's import files on the page.

The page is the sandbox's import folder, which the person fills in place of the SFTP; the
environment of the project has an address of it where nobody answers.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from vibes_pipelines.cli.main import main
from vibes_pipelines.sandbox.home import IMPORT_DIR
from vibes_pipelines.sandbox.population import build_world
from vibes_pipelines.stages import delivering
from vibes_pipelines.stages.failures import write_failures
from vibes_pipelines.store.records import LedgerError
from vibes_pipelines.vibes.error_classes import lookup
from vibes_pipelines_tests.support.loop import SEND, Loop, agreed_keys
from vibes_pipelines_tests.support.second_morning import running_second_morning

POPULATION = (300, 31)  # people and seed
EDITED = agreed_keys(build_world(*POPULATION))[:80]
# So slow an API that a file is the faster road, and no SFTP.
CUT_OFF = {"VIBES_API_RATE_PER_S": "1", "VIBES_SFTP_GAP_S": "0", "VIBES_SFTP_PORT": "9"}


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Loop]:
    """The second morning, with so many edits that a guard holds them."""
    with running_second_morning(tmp_path, POPULATION) as running:
        running.edit_contacts("last_name = 'Ada, the first'", EDITED)
        yield running


def upload_files(out: Path, *options: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, ["upload-files", "--out", str(out), *options])
    return result.exit_code, result.stdout, result.stderr


def fail(*_: object) -> None:
    raise LedgerError("the ledger cannot be written to")


def test_what_a_person_uploads_is_confirmed_by_the_next_day(
    loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "for the page"
    summary = loop.reconcile()
    with loop.changed(**CUT_OFF) as cut_off:
        code, _, why = upload_files(out)
        assert (code, "held: persons: updates: " in why) == (3, True)
        assert not list(out.glob("*.persons")), "what is held is not handed over"

        loop.approve(summary)
        with monkeypatch.context() as failing:
            failing.setattr("vibes_pipelines.delivery.hand_over._record", fail)
            code, _, why = upload_files(out)
        assert (code, f"what stands in {out} is handed over all the same" in why) == (1, True)

        code, told, _ = upload_files(out, "--json")
        (file,) = json.loads(told)["files"]
        assert (code, file["lane"], file["rows"]) == (0, "persons", 80)
        code, told, _ = upload_files(out)
        assert (code, told) == (0, f"{loop.today}: no file waits to be handed over\n")

        imported = delivering.import_persons(cut_off.project, loop.today, SEND)
        assert imported.counts["files"] == 0, "no session is needed: nothing is left for it"
        failures = write_failures(cut_off.project, loop.today)
        assert ("HandedOver", 80, "retry_later", lookup("HandedOver").advice) in failures.advised

    waiting = Path(file["path"])
    waiting.rename(loop.sandbox.home.sftp_folder(IMPORT_DIR) / waiting.name)
    loop.sandbox.next_day(edits=False)
    after = loop.day()
    assert loop.sandbox.audit()["effects"] == {"import_update": 80}, "nothing was sent twice"
    assert (after.confirmed, after.updated, after.unexplained) == (80, 0, 0)


@pytest.mark.slow
def test_what_nobody_uploads_is_sent_again(loop: Loop, tmp_path: Path) -> None:
    loop.approve(loop.reconcile())
    with loop.changed(**CUT_OFF):
        upload_files(tmp_path / "forgotten")
    days = []
    for _ in range(4):
        loop.sandbox.next_day(edits=False)
        days.append(loop.day(approve=True))
    assert sum(day.confirmed for day in days) == 80
    assert [day.updated for day in days].count(80) == 1
    assert loop.sandbox.audit()["effects"] == {"import_update": 80}


def test_without_a_diff_set_there_is_nothing_to_upload(
    loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIBES_HOME", str(tmp_path / "elsewhere"))
    code, _, why = upload_files(tmp_path)
    assert (code, "no ledger at" in why) == (1, True)
