"""A report that cannot be counted costs its own file a receipt, and no other file."""

from pathlib import Path

import pytest

from vibes_pipelines.delivery.file_import import (
    ReportMismatch,
    ReportsResult,
    collect_reports,
    deliver_files,
)
from vibes_pipelines.store.ledger import Ledger
from vibes_pipelines.vibes.sftp_errors import RemoteFileMissing, TransferRefused
from vibes_pipelines_tests.support.deliveries import (
    BY_FILE,
    DAY,
    DIFF_SET,
    FOLDERS,
    NEXT_DAY,
    TYPES,
    FakeServer,
    change,
    opt_out,
    planned,
    update,
)

PERSONS = [
    update("C1", change("first_name", "Ada")),
    update("C2", change("birthdate", "1906-12-09")),
    update("C3", change("tier", "gold")),
]
OPT_OUTS = f"{DAY}_dddddddddddd_out_01.opt_outs"
FIRST, SECOND, THIRD = (f"{DAY}_dddddddddddd_0{n}.persons" for n in (1, 2, 3))


@pytest.fixture
def server(ledger: Ledger, tmp_path: Path) -> FakeServer:
    """Four files of a row each were imported and reported on, one of them of opt-outs."""
    planned(ledger, tmp_path, persons=PERSONS, subscriptions=[opt_out("C9")], estimates=BY_FILE)
    there, work = FakeServer(), tmp_path / "work"
    for lane in ("persons", "opt_outs"):
        batches = [batch for batch in ledger.batches() if batch.name.endswith(lane)]
        deliver_files(batches, there.session, FOLDERS, ledger, TYPES, work, dry_run=False)
    there.process()
    there.files["/reports"][f"{OPT_OUTS}.summary.csv"] = summary(1)
    return there


def summary(rows: int) -> str:
    return f"rows,created,updated,unchanged,rejected\n{rows},0,{rows},0,0\n"


def collect(ledger: Ledger, server: FakeServer, day: str = DAY) -> ReportsResult:
    return collect_reports(ledger, server.session, FOLDERS, day)


def sent(ledger: Ledger) -> list[str]:
    return [batch.name for batch in ledger.batches(status="sent")]


def confirm_all(ledger: Ledger, day: str) -> None:
    """The certificate of a day has seen every value."""
    ids = [
        operation.operation_id
        for batch in ledger.batches()
        for operation in ledger.batch_operations(batch.batch_id)
    ]
    ledger.record_outcomes([(one, "confirmed", "share") for one in ids], day)


def test_those_that_cannot_be_counted_are_told_by_name_after_all_others_are_read(
    ledger: Ledger, server: FakeServer
) -> None:
    reports = server.files["/reports"]
    reports[f"{FIRST}.summary.csv"] = summary(7)
    reports[f"{SECOND}.report.csv"] = "what\n"
    for _ in range(2):
        with pytest.raises(ReportMismatch) as told:
            collect(ledger, server)
        assert sent(ledger) == [FIRST, SECOND], "the younger file and the opt-outs are read"
        assert f"{FIRST}: the report is about 7 rows, the file has 1; ask Vibes" in str(told.value)
        assert f"{SECOND}: report: no column row_number" in str(told.value)
        assert "the right report and summary" in str(told.value)
        assert told.value.others.waiting == 0
    assert ledger.status_counts(DIFF_SET) == {
        ("persons", "file", "sent"): 2,
        ("persons", "file", "accepted"): 1,
        ("opt_outs", "file", "accepted"): 1,
    }
    reports[f"{FIRST}.summary.csv"] = summary(1)
    reports[f"{SECOND}.report.csv"] = reports[f"{THIRD}.report.csv"]
    assert collect(ledger, server).accepted == 2, "the right ones are read in their place"


def test_one_whose_quote_is_left_open_costs_no_other_its_receipt(
    ledger: Ledger, server: FakeServer
) -> None:
    reports = server.files["/reports"]
    reports[f"{FIRST}.report.csv"] = 'row_number,error_class,error_message\n1,E,"' + "x\n" * 100_000
    reports[f"{SECOND}.summary.csv"] = summary(1).replace("1", "9" * 5_000, 1)
    with pytest.raises(ReportMismatch, match="is a quote left open") as told:
        collect(ledger, server)
    assert "expected a whole number" in str(told.value)
    assert len(str(told.value)) < 1_000
    assert sent(ledger) == [FIRST, SECOND]


def test_one_that_the_server_does_not_give_holds_up_no_other(
    ledger: Ledger, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = server.read_text

    def garbled(remote: str) -> str:
        if FIRST in remote:
            raise TransferRefused(f"{remote}: not UTF-8 at byte 3")
        return read(remote)

    monkeypatch.setattr(server, "read_text", garbled)
    with pytest.raises(ReportMismatch, match="not UTF-8 at byte 3"):
        collect(ledger, server)
    assert sent(ledger) == [FIRST]


def test_a_report_whose_rows_certificates_have_told_of_is_asked_for_no_longer(
    ledger: Ledger, server: FakeServer
) -> None:
    server.files["/reports"][f"{FIRST}.summary.csv"] = summary(7)
    with pytest.raises(ReportMismatch):
        collect(ledger, server, NEXT_DAY)
    confirm_all(ledger, NEXT_DAY)
    assert collect(ledger, server, NEXT_DAY).lost == 1
    assert sent(ledger) == []
    assert collect(ledger, server, NEXT_DAY) == ReportsResult()


class TestASummaryWhoseReportIsGone:
    """It says how many were refused, and not which: half a report is none."""

    def test_waits_and_holds_up_no_other(self, ledger: Ledger, server: FakeServer) -> None:
        del server.files["/reports"][f"{FIRST}.report.csv"]
        result = collect(ledger, server)
        assert (result.accepted, result.waiting, result.half) == (3, 1, (FIRST,))
        later = collect(ledger, server, NEXT_DAY)
        assert (later.waiting, later.half) == (1, (FIRST,))

    def test_is_closed_once_certificates_have_told(
        self, ledger: Ledger, server: FakeServer
    ) -> None:
        del server.files["/reports"][f"{FIRST}.report.csv"]
        collect(ledger, server)
        confirm_all(ledger, NEXT_DAY)
        assert collect(ledger, server, NEXT_DAY) == ReportsResult(lost=1)

    def test_may_go_between_the_list_and_the_look(
        self, ledger: Ledger, server: FakeServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        read = server.read_text

        def gone(remote: str) -> str:
            if FIRST in remote:
                raise RemoteFileMissing(remote)
            return read(remote)

        monkeypatch.setattr(server, "read_text", gone)
        result = collect(ledger, server)
        assert (result.accepted, result.waiting) == (3, 1)


def test_a_delivery_of_an_older_day_tells_what_it_reads_to_no_day_before_the_newest(
    ledger: Ledger, tmp_path: Path, server: FakeServer
) -> None:
    """Law: what the ledger says as of a past day does not change."""
    collect(ledger, server)
    older = [update("C5", change("tier", "gold"))]
    planned(
        ledger, tmp_path / "o", diff_set="o" * 64, day=NEXT_DAY, persons=older, estimates=BY_FILE
    )
    batches = [batch for batch in ledger.batches() if batch.status == "planned"]
    deliver_files(batches, server.session, FOLDERS, ledger, TYPES, tmp_path / "w", dry_run=False)
    planned(ledger, tmp_path / "newest", diff_set="t" * 64, day="2026-01-06")
    before = [(ledger.pending(day), ledger.blocked(day)) for day in ("2026-01-04", "2026-01-05")]
    server.files["/in"].clear()
    assert collect(ledger, server, NEXT_DAY).waiting == 1, "picked up, and not lost"
    server.files["/in"] = {batches[0].name: "tier\nx\n"}
    server.process({1: ("PersonErrors::InvalidSelectCustomFieldValue", "no")})
    assert collect(ledger, server, NEXT_DAY).rejected == 1
    after = [(ledger.pending(day), ledger.blocked(day)) for day in ("2026-01-04", "2026-01-05")]
    assert after == before
    assert ledger.blocked("2026-01-07").num_rows == 1
