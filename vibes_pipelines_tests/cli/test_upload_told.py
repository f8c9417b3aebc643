"""What `upload-files` tells: of which day, what to upload, what to delete, what is not there."""

import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from vibes_pipelines.cli.main import main
from vibes_pipelines.delivery.hand_over import HandedOver
from vibes_pipelines.stages.handing_over import ForUpload
from vibes_pipelines.vibes.import_writer import WrittenFile

DAY, NEXT_DAY = "2026-01-02", "2026-01-03"
ADA = WrittenFile(Path("/out/ada.persons"), 40)
BEA = WrittenFile(Path("/out/bea.persons"), 2)
OUTS = WrittenFile(Path("/out/outs.opt_outs"), 8)

Told = tuple[int, str, str]
Upload = Callable[..., Told]


@pytest.fixture
def upload(monkeypatch: pytest.MonkeyPatch) -> Upload:
    """Runs the command on `today`, where the stage finds these lanes."""

    def run(found: ForUpload, *options: str, today: str = DAY) -> Told:
        def finds(*_: Any, **__: Any) -> ForUpload:
            return found

        monkeypatch.setattr("vibes_pipelines.cli.upload.today", lambda: today)
        monkeypatch.setattr(
            "vibes_pipelines.stages.project.open_project", lambda **_: nullcontext()
        )
        monkeypatch.setattr("vibes_pipelines.stages.handing_over.hand_over_files", finds)
        result = CliRunner().invoke(main, ["upload-files", "--out", "/out", *options])
        return result.exit_code, result.stdout, result.stderr

    return run


def persons(day: str = DAY, *, in_real_time: bool = False, **handed: Any) -> ForUpload:
    return ForUpload(day, {"persons": HandedOver(**handed)}, in_real_time=in_real_time)


def test_a_diff_set_that_is_not_of_today_is_told(upload: Upload) -> None:
    """The file server was away before the day was landed: nothing of the day is in any file."""
    code, told, why = upload(persons(), today=NEXT_DAY)
    assert (code, told) == (1, f"{DAY}: no file waits to be handed over\n")
    assert f"newest diff set is of {DAY}: {NEXT_DAY} is not reconciled, and nothing of it" in why
    assert "Its opt-outs leave by API where real time carries them" in why
    assert upload(persons()) == (0, told, "")
    assert json.loads(upload(persons(), "--json", today=NEXT_DAY)[1])["is_of_today"] is False


def test_what_is_lost_is_told_with_what_becomes_of_it(upload: Upload) -> None:
    found = ForUpload(DAY, {"opt_outs": HandedOver(not_there=(OUTS,)), "persons": HandedOver()})
    code, told, why = upload(found)
    assert (code, told) == (1, f"{DAY}: no file waits to be handed over\n")
    assert why.startswith("files: 1, handed over before, and not there any more. If they were up")
    assert "of opt-outs the next day's diff set sends anew what the platform does not show" in why
    assert why.endswith(f"{OUTS.path}  8 rows, opt_outs\n")
    document = json.loads(upload(found, "--json")[1])
    assert document["not_there"] == [{"lane": "opt_outs", "path": str(OUTS.path), "rows": 8}]


def test_a_file_with_an_overtaken_row_is_not_among_those_to_upload(upload: Upload) -> None:
    found = persons(before=(ADA, BEA), overtaken={ADA.path: 1})
    code, told, _ = upload(found)
    first, count, _, delete = told.splitlines()
    assert (code, first) == (1, f"{BEA.path}  2 rows, handed over before")
    assert count.startswith(f"files of {DAY}: 1, to be uploaded in this order; upload at once")
    assert delete.startswith(f"{ADA.path}  overtaken rows: 1; something newer became known since")
    assert "delete it, do not upload" in delete
    document = json.loads(upload(found, "--json")[1])
    assert [file["overtaken"] for file in document["files"]] == [1, 0]


def test_files_of_another_diff_set_are_to_be_deleted(upload: Upload) -> None:
    found = ForUpload(DAY, {"persons": HandedOver(files=(ADA,))}, old=(BEA.path,))
    code, told, _ = upload(found)
    assert code == 0
    assert told.endswith(f"of another diff set, or held: delete, do not upload:\n{BEA.path}\n")
    assert json.loads(upload(found, "--json")[1])["old"] == [str(BEA.path)]


def test_where_real_time_runs_its_sensor_is_to_stand_still(upload: Upload) -> None:
    assert "crm_change_sensor" in upload(persons(files=(ADA,), in_real_time=True))[1]
    assert "crm_change_sensor" not in upload(persons(files=(ADA,)))[1]
    assert "crm_change_sensor" not in upload(persons(in_real_time=True))[1]


def test_what_was_begun_is_told_with_the_option_that_is_left(upload: Upload) -> None:
    code, _, why = upload(persons(begun=1))
    assert (code, "--also-begun hands them over, too" in why) == (1, True)
    code, _, why = upload(persons(begun=1), "--also-begun")
    assert (code, "none of their rows is left to be handed over" in why) == (1, True)
