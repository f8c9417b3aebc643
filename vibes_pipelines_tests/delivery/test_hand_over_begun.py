"""A file whose upload to the server was begun is handed over whole, or stays as the server has it.

Its rows may have arrived there, so that a report on it still has to fit the ledger.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from vibes_pipelines.delivery.file_import import collect_reports, deliver_files
from vibes_pipelines.delivery.hand_over import HandedOver, hand_over
from vibes_pipelines.delivery.ports import ConsentWatch
from vibes_pipelines.store.ledger import Ledger
from vibes_pipelines.store.records import DiffSetSuperseded
from vibes_pipelines.vibes.import_errors import ImportFileUnwritable
from vibes_pipelines.vibes.import_reader import read_file
from vibes_pipelines_tests.support.deliveries import (
    BY_FILE,
    DIFF_SET,
    FOLDERS,
    NEXT_DAY,
    TYPES,
    FakeServer,
    Killed,
    change,
    opt_out,
    planned,
    update,
)
from vibes_pipelines_tests.support.withdrawals import Withdraws

HAND_OVER = "vibes_pipelines.delivery.hand_over"


@pytest.fixture
def server(ledger: Ledger, tmp_path: Path) -> FakeServer:
    """The upload of a file of two persons was begun, and has arrived."""
    rows = [update(key, change("first_name", key)) for key in ("C2", "C3")]
    planned(ledger, tmp_path, persons=rows, estimates=BY_FILE)
    server = FakeServer()
    batches = ledger.batches(diff_set=DIFF_SET)
    deliver_files(batches, server.session, FOLDERS, ledger, TYPES, tmp_path / "w", dry_run=False)
    return server


def handed(ledger: Ledger, tmp_path: Path, watch: ConsentWatch) -> HandedOver:
    batches = ledger.batches(diff_set=DIFF_SET)
    out, work = tmp_path / "out", tmp_path / "work"
    return hand_over(batches, out, ledger, TYPES, work, watch=watch, also_begun=True)


def statuses(ledger: Ledger) -> dict[str, int]:
    return {status: rows for (_, _, status), rows in ledger.status_counts(DIFF_SET).items()}


def fails_to_write(patch: pytest.MonkeyPatch, ledger: Ledger, home: Path) -> type[BaseException]:
    def full(*_: object) -> None:
        raise ImportFileUnwritable("no room")

    patch.setattr(f"{HAND_OVER}.write_for_upload", full)
    return ImportFileUnwritable


def is_killed(patch: pytest.MonkeyPatch, ledger: Ledger, home: Path) -> type[BaseException]:
    def dies(*_: object) -> None:
        raise Killed

    patch.setattr(Ledger, "_finish_batch", dies)
    return Killed


def is_superseded(patch: pytest.MonkeyPatch, ledger: Ledger, home: Path) -> type[BaseException]:
    record = Ledger.hand_over_batch

    def newer_first(*arguments: object) -> None:
        planned(ledger, home / "newer", diff_set="e" * 64, day=NEXT_DAY, estimates=BY_FILE)
        record(*arguments)  # type: ignore[arg-type]

    patch.setattr(Ledger, "hand_over_batch", newer_first)
    return DiffSetSuperseded


@pytest.mark.parametrize("fails", [fails_to_write, is_killed, is_superseded])
def test_what_fails_leaves_it_as_the_server_has_it(
    server: FakeServer,
    ledger: Ledger,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fails: Callable[[pytest.MonkeyPatch, Ledger, Path], type[BaseException]],
) -> None:
    before = ledger.batches(diff_set=DIFF_SET)
    with monkeypatch.context() as patch, pytest.raises(fails(patch, ledger, tmp_path)):
        handed(ledger, tmp_path, Withdraws("C3"))
    assert ledger.batches(diff_set=DIFF_SET) == before
    assert statuses(ledger) == {"sent": 2}
    server.process()
    assert collect_reports(ledger, server.session, FOLDERS, NEXT_DAY).accepted == 2


def test_a_row_that_must_not_leave_any_more_is_not_in_the_second_one(
    server: FakeServer, ledger: Ledger, tmp_path: Path
) -> None:
    result = handed(ledger, tmp_path, Withdraws("C3"))
    (file,) = result.files
    assert (read_file(file.path).rows, file.rows) == ([("C2", "C2")], 1)
    assert (result.withdrawn, result.begun) == (1, 0)
    assert statuses(ledger) == {"superseded": 1, "unknown": 1}
    assert [(b.status, b.rows) for b in ledger.batches(diff_set=DIFF_SET)] == [("done", 1)]


def test_one_without_rows_left_stays_with_the_file_server(
    server: FakeServer, ledger: Ledger, tmp_path: Path
) -> None:
    """It is on the server, as a report shows: closed by hand, nobody would read that."""
    result = handed(ledger, tmp_path, Withdraws("C2", "C3"))
    assert (result.files, result.withdrawn, result.begun) == ((), 0, 1)
    server.process()
    assert collect_reports(ledger, server.session, FOLDERS, NEXT_DAY).accepted == 2


def test_opt_outs_are_written_without_them_too(ledger: Ledger, tmp_path: Path) -> None:
    lists = [opt_out("C8"), opt_out("C9")]
    planned(ledger, tmp_path, persons=[], subscriptions=lists, estimates=BY_FILE)
    (batch,) = ledger.batches(diff_set=DIFF_SET)
    ledger.mark_batch_sent(batch.batch_id)
    (file,) = handed(ledger, tmp_path, Withdraws("C8")).files
    assert (file.rows, "C8" in file.path.read_text()) == (1, False)
