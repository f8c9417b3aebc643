"""Files for a person to upload: checked like all others, handed over once, open until seen."""

import functools
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path

import pytest

from vibes_pipelines.delivery.file_import import collect_reports, deliver_files
from vibes_pipelines.delivery.hand_over import HANDED_OVER, HandedOver, hand_over
from vibes_pipelines.delivery.lane_lease import lease_name
from vibes_pipelines.delivery.ports import ConsentWatch
from vibes_pipelines.store.leases import LaneBusy
from vibes_pipelines.store.ledger import Ledger
from vibes_pipelines.store.records import Batch, DiffSetSuperseded, Operation
from vibes_pipelines.vibes import import_writer
from vibes_pipelines.vibes.import_errors import ImportFileUnwritable
from vibes_pipelines.vibes.import_reader import read_file
from vibes_pipelines.vibes.import_writer import PartLimits, WrittenFile
from vibes_pipelines.vibes.upload_page import write_for_upload
from vibes_pipelines_tests.support.deliveries import (
    BY_FILE,
    DIFF_SET,
    FOLDERS,
    NEXT_DAY,
    TYPES,
    FakeServer,
    Killed,
    add,
    change,
    opt_out,
    planned,
    update,
)

ROWS = [
    add("C1", change("first_name", 'Ada "the, first"'), mdn="+13125550142"),
    update("C2", change("first_name", "Grace")),
    update("C3", change("first_name", "Bea")),
    update("C4", change("tier", "gold")),
]


def handed(
    ledger: Ledger,
    tmp_path: Path,
    watch: ConsentWatch | None = None,
    *,
    also_begun: bool = False,
    told: list[WrittenFile] | None = None,
) -> HandedOver:
    return hand_over(
        ledger.batches(diff_set=DIFF_SET),
        tmp_path / "out",
        ledger,
        TYPES,
        tmp_path / "work",
        watch=watch,
        also_begun=also_begun,
        tell=(told if told is not None else []).append,
    )


def names(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "out").iterdir())


def statuses(ledger: Ledger) -> dict[str, int]:
    return {status: rows for (_, _, status), rows in ledger.status_counts(DIFF_SET).items()}


def cells(result: HandedOver) -> set[tuple[str, ...]]:
    return {row for file in result.files for row in read_file(file.path).rows}


def test_a_group_of_changed_columns_stays_a_file_of_its_own(ledger: Ledger, tmp_path: Path) -> None:
    planned(ledger, tmp_path, persons=ROWS, estimates=BY_FILE)
    result = handed(ledger, tmp_path)
    assert {read_file(file.path).columns: file.rows for file in result.files} == {
        ("external_person_id", "mdn", "first_name"): 1,
        ("external_person_id", "first_name"): 2,
        ("external_person_id", "tier"): 1,
    }
    assert result.rows == 4


def test_what_is_handed_over_is_unknown_until_it_is_seen(ledger: Ledger, tmp_path: Path) -> None:
    planned(ledger, tmp_path, persons=ROWS, estimates=BY_FILE)
    handed(ledger, tmp_path)
    assert statuses(ledger) == {"unknown": 4}
    assert {o.error_class for o in ledger.failures(DIFF_SET)} == {HANDED_OVER}
    assert ledger.pending(NEXT_DAY).num_rows == 6, "every value it set, and an add's identifiers"
    assert ledger.to_certify(NEXT_DAY).num_rows == 4


def test_no_job_sends_it_any_more_nor_looks_for_its_report(ledger: Ledger, tmp_path: Path) -> None:
    planned(ledger, tmp_path, persons=ROWS, estimates=BY_FILE)
    handed(ledger, tmp_path)
    server, batches = FakeServer(), ledger.batches(diff_set=DIFF_SET)
    deliver_files(batches, server.session, FOLDERS, ledger, TYPES, tmp_path / "w", dry_run=False)
    collect_reports(ledger, server.session, FOLDERS, NEXT_DAY)
    assert server.sessions == 0


def test_it_is_handed_over_once_and_listed_as_long_as_it_stands_there(
    ledger: Ledger, tmp_path: Path
) -> None:
    planned(ledger, tmp_path, persons=ROWS, estimates=BY_FILE)
    first = handed(ledger, tmp_path)
    assert handed(ledger, tmp_path) == HandedOver(before=first.files)
    uploaded, *left = first.files
    uploaded.path.unlink()
    assert handed(ledger, tmp_path) == HandedOver(before=tuple(left), not_there=(uploaded,))


def test_nobody_else_may_read_the_files(ledger: Ledger, tmp_path: Path) -> None:
    planned(ledger, tmp_path, persons=ROWS[3:], estimates=BY_FILE)
    (file,) = handed(ledger, tmp_path).files
    assert oct(file.path.stat().st_mode & 0o777) == "0o600"
    assert oct(file.path.parent.stat().st_mode & 0o777) == "0o700"


def test_a_file_that_was_begun_on_the_server_is_left_to_it_unless_asked_for(
    ledger: Ledger, tmp_path: Path
) -> None:
    planned(ledger, tmp_path, persons=ROWS, estimates=BY_FILE)
    begun, *_ = ledger.batches(diff_set=DIFF_SET)
    ledger.mark_batch_sent(begun.batch_id)
    result = handed(ledger, tmp_path)
    assert (len(result.files), result.begun) == (2, 1)
    also = handed(ledger, tmp_path, also_begun=True)
    assert (len(also.files), len(also.before), also.begun) == (1, 2, 0)
    assert statuses(ledger) == {"unknown": 4}


@pytest.mark.parametrize("lane", ["persons", "opt_outs"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_cut_around_the_record_loses_no_file(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lane: str, when: str
) -> None:
    persons, lists = (ROWS[3:], []) if lane == "persons" else ([], [opt_out("C9")])
    planned(ledger, tmp_path, persons=persons, subscriptions=lists, estimates=BY_FILE)
    record = Ledger.hand_over_batch

    def dies(*arguments: object) -> None:
        if when == "after":
            record(*arguments)  # type: ignore[arg-type]
        raise Killed

    with monkeypatch.context() as cut:
        cut.setattr(Ledger, "hand_over_batch", dies)
        with pytest.raises(Killed):
            handed(ledger, tmp_path)
    assert statuses(ledger) == {"planned" if when == "before" else "unknown": 1}
    (stands,) = (tmp_path / "out").iterdir()
    said = stands.read_bytes()

    again = handed(ledger, tmp_path)
    (file,) = again.files + again.before
    assert (file.path, file.rows, file.path.read_bytes()) == (stands, 1, said)
    assert statuses(ledger) == {"unknown": 1}
    assert (len(again.files), len(again.before)) == ((1, 0) if when == "before" else (0, 1))


def test_what_was_written_before_a_cut_and_withdrawn_then_is_removed(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned(ledger, tmp_path, persons=ROWS[3:], estimates=BY_FILE)

    def dies(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as cut:
        cut.setattr(Ledger, "hand_over_batch", dies)
        with pytest.raises(Killed):
            handed(ledger, tmp_path)
    others = ["2026-01-01_dddddddddddd_01-001.persons", "payroll.xlsx"]
    for name in others:
        (tmp_path / "out" / name).write_text("not ours")
    assert handed(ledger, tmp_path, WithdrawsAll()).files == ()
    assert names(tmp_path) == others


def test_of_a_file_that_cannot_be_written_whole_no_part_stays(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first file is in the ledger, and told; the second one's second part has no room."""
    planned(ledger, tmp_path, persons=ROWS[1:], estimates=BY_FILE)
    batches = ledger.batches(diff_set=DIFF_SET)
    full = f"{batches[0].batch_id}-002.persons"
    write_table = import_writer.write_table

    def has_no_room(path: Path, table: import_writer.Table, rows: list[list[str]]) -> int:
        if path.name == full:
            raise ImportFileUnwritable("no room")
        return write_table(path, table, rows)

    monkeypatch.setattr(import_writer, "write_table", has_no_room)
    small = functools.partial(write_for_upload, limits=PartLimits(max_rows=1))
    monkeypatch.setattr("vibes_pipelines.delivery.hand_over.write_for_upload", small)
    told: list[WrittenFile] = []
    with pytest.raises(ImportFileUnwritable):
        handed(ledger, tmp_path, told=told)
    assert (names(tmp_path), told, statuses(ledger)) == ([], [], {"planned": 3})

    full = f"{batches[1].batch_id}-001.persons"
    with pytest.raises(ImportFileUnwritable):
        handed(ledger, tmp_path, told=told)
    assert names(tmp_path) == [file.path.name for file in told]
    assert (sum(file.rows for file in told), statuses(ledger)) == (2, {"planned": 1, "unknown": 2})


@pytest.mark.parametrize("lane", ["persons", "opt_outs"])
def test_a_newer_diff_set_is_not_set_back_by_the_files_of_the_former(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lane: str
) -> None:
    """It comes after the first file was recorded; opt-outs that are recorded stay for the page."""
    outs = [opt_out("C8"), opt_out("C9") | {"subscription_list_id": "5678"}]
    persons, lists = (ROWS[2:], []) if lane == "persons" else ([], outs)
    planned(ledger, tmp_path, persons=persons, subscriptions=lists, estimates=BY_FILE)
    record = Ledger.hand_over_batch

    def newer_after_the_first(self: Ledger, batch: Batch, *rest: object) -> None:
        record(self, batch, *rest)  # type: ignore[arg-type]
        planned(ledger, tmp_path / "newer", diff_set="e" * 64, day=NEXT_DAY, persons=ROWS[1:2])

    monkeypatch.setattr(Ledger, "hand_over_batch", newer_after_the_first)
    told: list[WrittenFile] = []
    with pytest.raises(DiffSetSuperseded, match=f"eeeeeeeeeeee of {NEXT_DAY}"):
        handed(ledger, tmp_path, told=told)
    assert statuses(ledger) == {"planned": 1, "unknown": 1}
    assert names(tmp_path) == ([] if lane == "persons" else [file.path.name for file in told])


class WithdrawsBea:
    def withdrawn(self, operations: Sequence[Operation]) -> Mapping[str, str]:
        return {o.operation_id: "newer" for o in operations if o.external_person_id == "C3"}


class WithdrawsAll:
    def withdrawn(self, operations: Sequence[Operation]) -> Mapping[str, str]:
        return {o.operation_id: "newer" for o in operations}


def test_what_became_known_meanwhile_is_taken_out(ledger: Ledger, tmp_path: Path) -> None:
    planned(ledger, tmp_path, persons=ROWS[1:3], estimates=BY_FILE)
    result = handed(ledger, tmp_path, WithdrawsBea())
    assert (cells(result), result.withdrawn) == ({("C2", "Grace")}, 1)
    assert statuses(ledger) == {"superseded": 1, "unknown": 1}


def test_a_file_without_rows_left_is_not_written(ledger: Ledger, tmp_path: Path) -> None:
    planned(ledger, tmp_path, persons=ROWS, estimates=BY_FILE)
    result = handed(ledger, tmp_path, WithdrawsAll())
    assert (result.files, result.withdrawn) == ((), 4)
    assert not list((tmp_path / "out").iterdir())


def test_nothing_is_handed_over_while_a_delivery_uploads(ledger: Ledger, tmp_path: Path) -> None:
    planned(ledger, tmp_path, persons=ROWS, estimates=BY_FILE)
    lease = ledger.take_lease(lease_name("persons", "file"), timedelta(minutes=1))
    with pytest.raises(LaneBusy):
        handed(ledger, tmp_path)
    ledger.give_lease_back(lease)
    assert handed(ledger, tmp_path).rows == 4
