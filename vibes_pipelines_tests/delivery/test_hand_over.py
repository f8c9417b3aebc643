"""Files for a person to upload: checked like all others, handed over once, open until seen."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path

import pytest

from vibes_pipelines.delivery.file_import import Folders, collect_reports, deliver_files
from vibes_pipelines.delivery.hand_over import HANDED_OVER, HandedOver, hand_over
from vibes_pipelines.delivery.lane_lease import lease_name
from vibes_pipelines.delivery.ports import ConsentWatch
from vibes_pipelines.store.leases import LaneBusy
from vibes_pipelines.store.ledger import Ledger
from vibes_pipelines.store.records import Operation
from vibes_pipelines.vibes.import_reader import read_file
from vibes_pipelines_tests.support.deliveries import (
    BY_FILE,
    NEXT_DAY,
    TYPES,
    FakeServer,
    Killed,
    add,
    change,
    planned,
    update,
)

DIFF_SET = "d" * 64
FOLDERS = Folders("/in", "/reports")
ROWS = [
    add("C1", change("first_name", 'Ada "the, first"'), mdn="+13125550142"),
    update("C2", change("first_name", "Grace")),
    update("C3", change("first_name", "Bea")),
    update("C4", change("tier", "gold")),
]


def handed(ledger: Ledger, tmp_path: Path, watch: ConsentWatch | None = None) -> HandedOver:
    batches = ledger.batches(diff_set=DIFF_SET)
    work, out = tmp_path / "work", tmp_path / "out"
    return hand_over(batches, out, ledger, TYPES, work, watch=watch)


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


def test_it_is_handed_over_once(ledger: Ledger, tmp_path: Path) -> None:
    planned(ledger, tmp_path, persons=ROWS, estimates=BY_FILE)
    handed(ledger, tmp_path)
    assert handed(ledger, tmp_path) == HandedOver()


def test_a_file_that_went_to_the_server_is_left_to_the_server(
    ledger: Ledger, tmp_path: Path
) -> None:
    planned(ledger, tmp_path, persons=ROWS, estimates=BY_FILE)
    sent, *_ = ledger.batches(diff_set=DIFF_SET)
    ledger.mark_batch_sent(sent.batch_id)
    result = handed(ledger, tmp_path)
    assert (len(result.files), result.at_server) == (2, 1)


def test_a_cut_before_the_ledger_knows_hands_the_same_file_over_again(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned(ledger, tmp_path, persons=ROWS[3:], estimates=BY_FILE)

    def dies(self: Ledger, batch_id: str) -> None:
        raise Killed

    with monkeypatch.context() as cut:
        cut.setattr(Ledger, "mark_batch_sent", dies)
        with pytest.raises(Killed):
            handed(ledger, tmp_path)
    (first,) = (tmp_path / "out").iterdir()
    before = first.read_bytes()
    (again,) = handed(ledger, tmp_path).files
    assert again.path == first
    assert again.path.read_bytes() == before


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
