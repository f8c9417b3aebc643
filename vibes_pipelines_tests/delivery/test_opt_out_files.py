"""Opt-outs in bulk: a file per list, checked before it leaves, every row with its receipt."""

from pathlib import Path

import pytest

from vibes_pipelines.delivery import checked_files
from vibes_pipelines.delivery.file_import import LEASE, collect_reports, deliver_files
from vibes_pipelines.delivery.replay import ReplayMismatch
from vibes_pipelines.store.leases import LaneBusy
from vibes_pipelines.store.ledger import Ledger
from vibes_pipelines.vibes.import_files import write_opt_outs
from vibes_pipelines_tests.support.deliveries import (
    BY_FILE,
    DAY,
    DIFF_SET,
    FOLDERS,
    TYPES,
    FakeServer,
    opt_out,
    planned,
)

NAME = f"{DAY}_dddddddddddd_out_01.opt_outs"


@pytest.fixture
def ready(ledger: Ledger, tmp_path: Path) -> Ledger:
    rows = [opt_out("C1"), opt_out("C2"), opt_out("C3") | {"person_key": None}]
    planned(ledger, tmp_path / "out", subscriptions=rows, estimates=BY_FILE)
    return ledger


def deliver(ledger: Ledger, server: FakeServer, tmp_path: Path) -> None:
    batches = ledger.batches(diff_set=DIFF_SET)
    folder = tmp_path / "work"
    deliver_files(batches, server.session, FOLDERS, ledger, TYPES, folder, dry_run=False)


def statuses(ledger: Ledger) -> dict[str, int]:
    return {status: rows for (_, _, status), rows in ledger.status_counts(DIFF_SET).items()}


def test_one_identifier_per_row_and_the_list_in_the_header(ready: Ledger, tmp_path: Path) -> None:
    server = FakeServer()
    deliver(ready, server, tmp_path)
    text = server.files["/in"][NAME]
    head, rows = text.split("\n\n") if "\n\n" in text else (text, "")
    assert "Subscription-List-ID: 1234" in head
    assert sorted((rows or text).split()[-3:]) == [",C3", "key-c1,", "key-c2,"]
    assert statuses(ready) == {"sent": 3}
    assert [path.name for path in (tmp_path / "work").iterdir()] == [NAME]


def test_nobody_is_unsubscribed_who_was_not_meant(
    ready: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Law: the reader model's result equals the plan, or the file stays here."""
    monkeypatch.setattr(
        checked_files,
        "write_opt_outs",
        lambda folder, stem, members: write_opt_outs(folder, stem, list(reversed(members))),
    )
    server = FakeServer()
    with pytest.raises(ReplayMismatch, match="row 1: the file would not end the planned"):
        deliver(ready, server, tmp_path)
    assert (server.sessions, statuses(ready)) == (0, {"planned": 3})


def test_whoever_has_no_subscription_is_out_already(ready: Ledger, tmp_path: Path) -> None:
    server = FakeServer()
    deliver(ready, server, tmp_path)
    (batch,) = ready.batches()
    stem = f"/reports/{batch.name}"
    server.files["/reports"] = {
        f"{batch.name}.report.csv": "row_number,error_class,error_message\n"
        "1,SubscriptionErrors::NotSubscribed,no\n"
        "2,PersonErrors::PersonNotFound,no\n",
        f"{batch.name}.summary.csv": "rows,created,updated,unchanged,rejected\n3,0,1,0,2\n",
    }
    assert server.read_text(f"{stem}.summary.csv")
    result = collect_reports(ready, server.session, FOLDERS, DAY, "opt_outs")
    assert (result.accepted, result.rejected) == (2, 1)
    assert statuses(ready) == {"accepted": 2, "rejected": 1}


def test_reports_of_the_other_lane_are_left_for_it(ready: Ledger, tmp_path: Path) -> None:
    server = FakeServer()
    deliver(ready, server, tmp_path)
    sessions = server.sessions
    collect_reports(ready, server.session, FOLDERS, DAY, "persons")
    assert (server.sessions, statuses(ready)) == (sessions, {"sent": 3})


def test_two_processes_do_not_upload_the_same_lane(ready: Ledger, tmp_path: Path) -> None:
    ready.take_lease("opt_outs/file", LEASE)
    server = FakeServer()
    with pytest.raises(LaneBusy):
        deliver(ready, server, tmp_path)
    assert (server.sessions, statuses(ready)) == (0, {"planned": 3})
