"""Handing over again: what stands there is good, was overtaken, is lost, or is of another day."""

import functools
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from vibes_pipelines.delivery.hand_over import HandedOver, hand_over, others_in
from vibes_pipelines.delivery.ports import ConsentWatch
from vibes_pipelines.store.ledger import Ledger
from vibes_pipelines.vibes.import_errors import ImportFileUnwritable
from vibes_pipelines.vibes.import_writer import PartLimits
from vibes_pipelines.vibes.upload_page import write_for_upload
from vibes_pipelines_tests.support.deliveries import (
    BY_FILE,
    NEXT_DAY,
    TYPES,
    change,
    opt_out,
    planned,
    update,
)
from vibes_pipelines_tests.support.withdrawals import Withdraws

TODAY, TOMORROW = "d" * 64, "e" * 64
ROWS = [update(key, change("first_name", key)) for key in ("C1", "C2", "C3")]


def handed(
    ledger: Ledger, folder: Path, diff_set: str = TODAY, watch: ConsentWatch | None = None
) -> HandedOver:
    batches = ledger.batches(diff_set=diff_set)
    with TemporaryDirectory() as work:
        return hand_over(batches, folder, ledger, TYPES, Path(work), watch=watch)


def test_what_was_handed_over_and_is_lost_is_named_with_its_rows(
    ledger: Ledger, tmp_path: Path
) -> None:
    planned(ledger, tmp_path, persons=[], subscriptions=[opt_out("C9")], estimates=BY_FILE)
    files = handed(ledger, tmp_path / "out").files
    shutil.rmtree(tmp_path / "out")
    assert handed(ledger, tmp_path / "out") == HandedOver(not_there=files)
    assert [file.rows for file in files] == [1]


def test_what_stands_in_the_folder_of_an_earlier_run_is_found_there(
    ledger: Ledger, tmp_path: Path
) -> None:
    planned(ledger, tmp_path, persons=ROWS, estimates=BY_FILE)
    files = handed(ledger, tmp_path / "out").files
    assert handed(ledger, tmp_path / "another") == HandedOver(before=files)


def test_files_of_an_earlier_diff_set_are_told_from_those_of_the_newest(
    ledger: Ledger, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    lists = [opt_out("C9")]
    planned(ledger, tmp_path, persons=ROWS, subscriptions=lists, estimates=BY_FILE)
    batches = ledger.batches(diff_set=TODAY)
    old = [hand_over([one], out, ledger, TYPES, tmp_path / "w").files[0].path for one in batches]
    (out / "payroll.xlsx").touch()
    (out / "2026.persons").touch()
    tomorrow = tmp_path / "tomorrow"
    planned(ledger, tomorrow, diff_set=TOMORROW, day=NEXT_DAY, persons=ROWS[:1], estimates=BY_FILE)
    good = [file.path for file in handed(ledger, out, TOMORROW).files]
    assert len(good) == 1
    assert others_in(out, good) == tuple(sorted(old)), "others' files are no business of ours"
    assert others_in(tmp_path / "missing", good) == ()


def test_the_parts_are_named_of_whose_rows_something_newer_became_known(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = functools.partial(write_for_upload, limits=PartLimits(max_rows=2))
    monkeypatch.setattr("vibes_pipelines.delivery.hand_over.write_for_upload", small)
    planned(ledger, tmp_path, persons=ROWS, estimates=BY_FILE)
    first, second = handed(ledger, tmp_path / "out").files
    again = handed(ledger, tmp_path / "out", watch=Withdraws("C3"))
    assert (again.before, again.overtaken) == ((first, second), {second.path: 1})
    second.path.unlink()
    again = handed(ledger, tmp_path / "out", watch=Withdraws("C3"))
    assert (again.overtaken, again.not_there) == ({}, (second,)), "nothing is left to be deleted"


def test_a_folder_that_cannot_be_made_is_named_with_a_cure(ledger: Ledger, tmp_path: Path) -> None:
    planned(ledger, tmp_path, persons=ROWS, estimates=BY_FILE)
    (tmp_path / "file").touch()
    with pytest.raises(ImportFileUnwritable, match=r"file/out: .*: Not a directory; .* name one"):
        handed(ledger, tmp_path / "file" / "out")
