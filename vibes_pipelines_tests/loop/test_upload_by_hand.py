"""The file server cannot be used: a person uploads the day's import files on the page.

The page is the sandbox's import folder, which the person fills in place of the SFTP; the
environment of the project has an address of it where nobody answers.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from vibes_pipelines.cli.main import main
from vibes_pipelines.sandbox.home import IMPORT_DIR
from vibes_pipelines.sandbox.population import build_world
from vibes_pipelines.stages import delivering
from vibes_pipelines.stages.failures import write_failures
from vibes_pipelines.store.ledger import Ledger
from vibes_pipelines.store.records import Batch, LedgerError
from vibes_pipelines.vibes.error_classes import lookup
from vibes_pipelines.vibes.sftp_errors import SftpError
from vibes_pipelines_tests.support.loop import SEND, Loop, agreed_keys
from vibes_pipelines_tests.support.second_morning import running_second_morning

POPULATION = (300, 31)  # people and seed
AGREED = agreed_keys(build_world(*POPULATION))
EDITED = AGREED[:80]
LEAVING = 8
# So slow an API that a file is the faster road, and no SFTP.
CUT_OFF = {"VIBES_API_RATE_PER_S": "1", "VIBES_SFTP_GAP_S": "0", "VIBES_SFTP_PORT": "9"}


@pytest.fixture
def loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Loop]:
    """The second morning, with so many edits that a guard holds them."""
    with running_second_morning(tmp_path, POPULATION) as running:
        running.edit_contacts("last_name = 'Ada, the first'", EDITED)
        monkeypatch.setattr("vibes_pipelines.cli.upload.today", lambda: running.today)
        yield running


def opt_out(loop: Loop) -> None:
    """Some contacts withdraw their consent in the CRM: fewer than a guard holds."""
    said = {str(row["contact_id"]): row["sms_opt_in"] for row in loop.sandbox.crm.rows()}
    leaving = [key for key in AGREED[80:] if said[key] == "true"][:LEAVING]
    assert len(leaving) == LEAVING
    loop.edit_contacts("sms_opt_in = 'false', sms_opt_in_at = '2026-01-02 00:30:00'", leaving)


def upload_files(out: Path, *options: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, ["upload-files", "--out", str(out), *options])
    return result.exit_code, result.stdout, result.stderr


def fail(*_: object) -> None:
    raise LedgerError("the ledger cannot be written to")


def test_what_a_person_uploads_is_confirmed_by_the_next_day(
    loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "for the page"
    opt_out(loop)
    summary = loop.reconcile()
    with loop.changed(**CUT_OFF) as cut_off:
        code, told, why = upload_files(out)
        assert (code, "held: persons: updates: " in why) == (3, True)
        (first,) = out.iterdir()
        assert first.suffix == ".opt_outs", "what is held is not handed over"
        assert (
            f"{first}  {LEAVING} rows\nfiles of {loop.today}: 1, to be uploaded in this order"
            in told
        )
        assert "upload at once, before the next daily run; afterwards delete, do not" in told

        loop.approve(summary)
        with monkeypatch.context() as failing:
            failing.setattr("vibes_pipelines.delivery.hand_over._record", fail)
            code, told, why = upload_files(out)
        assert (code, told) == (1, "")
        assert "were handed over" not in why, "nothing was, in this run"
        assert list(out.iterdir()) == [first], "nothing stays that the ledger does not know"

        code, told, _ = upload_files(out, "--json")
        files = json.loads(told)["files"]
        assert code == 0
        assert [(one["lane"], one["rows"], one["handed_over_before"]) for one in files] == [
            ("opt_outs", LEAVING, True),
            ("persons", 80, False),
        ], "opt-outs first"
        code, again, _ = upload_files(out, "--json")
        assert (code, json.loads(again)["files"]) == (
            0,
            [one | {"handed_over_before": True} for one in files],
        )

        for deliver in (delivering.deliver_opt_outs, delivering.import_persons):
            sent = deliver(cut_off.project, loop.today, SEND)
            assert not sent.counts.get("files"), "no session is needed: nothing is left for it"
        failures = write_failures(cut_off.project, loop.today)
        handed = 80 + LEAVING
        advice = lookup("HandedOver").advice
        assert ("HandedOver", handed, "retry_later", advice) in failures.advised

    for file in files:
        shutil.move(file["path"], loop.sandbox.home.sftp_folder(IMPORT_DIR))
    with loop.changed(**CUT_OFF):
        code, told, why = upload_files(out)
        assert (code, told) == (1, f"{loop.today}: no file waits to be handed over\n")
        assert why.startswith(
            "files: 2, handed over before, and not there any more. If they were up"
        )
        assert f"{files[0]['path']}  {LEAVING} rows, opt_outs\n" in why, "uploaded, or lost: both"
    loop.sandbox.next_day(edits=False)
    after = loop.day()
    effects = {"import_update": 80, "import_unsubscribe": LEAVING}
    assert loop.sandbox.audit()["effects"] == effects, "nothing was sent twice"
    assert (after.confirmed, after.updated, after.unexplained) == (80 + LEAVING, 0, 0)


@pytest.mark.slow
def test_whether_a_begun_upload_arrived_is_not_known(loop: Loop, tmp_path: Path) -> None:
    """Its connection broke in the middle: only who asks for it hands the same over again."""
    out = tmp_path / "for the page"
    out.mkdir()
    old = out / "2026-01-01_0123456789ab_01-001.persons"
    old.touch()
    loop.approve(loop.reconcile())
    with loop.changed(VIBES_API_RATE_PER_S="1", VIBES_SFTP_GAP_S="0") as slow:
        loop.sandbox.set_faults([{"on": "sftp", "action": "reset"}])
        with pytest.raises(SftpError):
            delivering.import_persons(slow.project, loop.today, SEND)
    with loop.changed(**CUT_OFF):
        code, told, why = upload_files(out)
        assert (code, told) == (
            1,
            f"{loop.today}: no file waits to be handed over\n"
            f"of another diff set, or held: delete, do not upload:\n{old}\n",
        )
        assert "files begun on the file server: 1; whether they arrived is not known" in why
        code, told, _ = upload_files(out, "--also-begun", "--json")
        (file,) = json.loads(told)["files"]
        assert (code, file["rows"], json.loads(told)["begun"]) == (0, 80, 0)
        assert upload_files(out)[0] == 0, "nothing is left for the file server"


def test_what_was_handed_over_before_a_failure_is_named(
    loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "full of other files"
    out.mkdir()
    (out / "payroll.xlsx").touch()
    opt_out(loop)
    loop.approve(loop.reconcile())
    record = Ledger.hand_over_batch

    def fails_for_persons(self: Ledger, batch: Batch, *rest: object) -> None:
        if batch.name.endswith(".persons"):
            fail()
        record(self, batch, *rest)  # type: ignore[arg-type]

    with loop.changed(**CUT_OFF), monkeypatch.context() as failing:
        failing.setattr(Ledger, "hand_over_batch", fails_for_persons)
        code, told, why = upload_files(out)
    (opt_outs,) = out.glob("*.opt_outs")
    assert (code, told) == (1, "")
    assert f"before this failed these were handed over:\n{opt_outs}  {LEAVING} rows\n" in why
    assert "payroll" not in why
    assert {path.name for path in out.iterdir()} == {"payroll.xlsx", opt_outs.name}


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
