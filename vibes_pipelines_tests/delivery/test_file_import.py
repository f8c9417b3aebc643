"""Files are checked before they leave, leave once, and every row gets its receipt."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pytest

from vibes_pipelines.delivery import person_files
from vibes_pipelines.delivery.file_import import (
    FilesResult,
    ReportMismatch,
    ReportsResult,
    collect_reports,
    deliver_files,
)
from vibes_pipelines.delivery.ports import ConsentWatch
from vibes_pipelines.delivery.replay import ReplayMismatch
from vibes_pipelines.store.ledger import Ledger
from vibes_pipelines.store.records import Operation
from vibes_pipelines.sync_config import FieldType
from vibes_pipelines.vibes.person_import import ImportReportError, cells, write_import
from vibes_pipelines_tests.support.deliveries import (
    BY_FILE,
    DAY,
    DIFF_SET,
    FOLDERS,
    NEXT_DAY,
    TYPES,
    FakeServer,
    Killed,
    add,
    change,
    planned,
    update,
)

STEM = f"{DAY}_dddddddddddd_"
ROWS = [
    add("C1", change("first_name", 'Ada "the, first"'), mdn="+13125550142"),
    add("C2", change("first_name", "Grace"), change("birthdate", "1906-12-09")),
    update("C3", change("tier", None, "gold")),
    update("C4", change("tier", "silver", "gold")),
    update("C5", change("interests", "golf|ski")),
]


@pytest.fixture
def server() -> FakeServer:
    return FakeServer()


def deliver(
    ledger: Ledger,
    server: FakeServer,
    tmp_path: Path,
    *,
    watch: ConsentWatch | None = None,
    dry_run: bool = False,
) -> FilesResult:
    return deliver_files(
        ledger.batches(diff_set=DIFF_SET),
        server.session,
        FOLDERS,
        ledger,
        TYPES,
        tmp_path / "work",
        watch=watch,
        dry_run=dry_run,
    )


def deliver_with_half_reports(ready: Ledger, server: FakeServer, tmp_path: Path) -> None:
    """Of every report the rows are there, and the summary is not."""
    deliver(ready, server, tmp_path)
    server.process()
    for name in [name for name in server.files["/reports"] if name.endswith(".summary.csv")]:
        del server.files["/reports"][name]


def collect(ledger: Ledger, server: FakeServer, day: str = DAY) -> ReportsResult:
    return collect_reports(ledger, server.session, FOLDERS, day)


def statuses(ledger: Ledger) -> dict[str, int]:
    return {status: rows for (_, _, status), rows in ledger.status_counts(DIFF_SET).items()}


@pytest.fixture
def ready(ledger: Ledger, tmp_path: Path) -> Ledger:
    planned(ledger, tmp_path / "out", persons=ROWS, estimates=BY_FILE)
    return ledger


class TestUpload:
    def test_each_file_holds_its_columns_and_rows_only(
        self, ready: Ledger, server: FakeServer, tmp_path: Path
    ) -> None:
        assert deliver(ready, server, tmp_path) == FilesResult(files=4, rows=5)
        assert server.files["/in"] == {
            STEM + "01.persons": "external_person_id,birthdate,first_name\n"
            "C2,1906-12-09T00:00:00Z,Grace\n",
            STEM + "02.persons": "external_person_id,interests\nC5,golf|ski\n",
            STEM + "03.persons": "external_person_id,mdn,first_name\n"
            'C1,+13125550142,"Ada ""the, first"""\n',
            STEM + "04.persons": "external_person_id,tier\nC3,\nC4,silver\n",
        }
        assert statuses(ready) == {"sent": 5}

    def test_many_files_take_one_session(
        self, ready: Ledger, server: FakeServer, tmp_path: Path
    ) -> None:
        deliver(ready, server, tmp_path)
        assert server.sessions == 1

    def test_a_dry_run_writes_and_checks_but_sends_nothing(
        self, ready: Ledger, server: FakeServer, tmp_path: Path
    ) -> None:
        assert deliver(ready, server, tmp_path, dry_run=True) == FilesResult(files=4, rows=5)
        assert (server.sessions, server.files["/in"], statuses(ready)) == (0, {}, {"planned": 5})
        assert len(list((tmp_path / "work").iterdir())) == 4

    def test_the_same_plan_makes_the_same_bytes(
        self, ready: Ledger, server: FakeServer, tmp_path: Path
    ) -> None:
        deliver(ready, server, tmp_path / "one", dry_run=True)
        deliver(ready, server, tmp_path / "two", dry_run=True)
        one, two = (
            {path.name: path.read_bytes() for path in (tmp_path / name / "work").iterdir()}
            for name in ("one", "two")
        )
        assert one == two

    def test_nothing_left_to_send_opens_no_session(
        self, ready: Ledger, server: FakeServer, tmp_path: Path
    ) -> None:
        deliver(ready, server, tmp_path)
        server.process()
        collect(ready, server)
        before = server.sessions
        assert deliver(ready, server, tmp_path) == FilesResult()
        assert server.sessions == before


class Overtaken:
    """Withdraws what is of these contacts."""

    def __init__(self, *contacts: str) -> None:
        self._contacts = contacts

    def withdrawn(self, operations: Sequence[Operation]) -> dict[str, str]:
        return {
            one.operation_id: "overtaken"
            for one in operations
            if one.external_person_id in self._contacts
        }


class TestLastLook:
    """What was overtaken since the diff set was made does not leave with its file."""

    def test_a_file_leaves_without_the_rows_that_were_overtaken(
        self, ready: Ledger, server: FakeServer, tmp_path: Path
    ) -> None:
        delivered = deliver(ready, server, tmp_path, watch=Overtaken("C3", "C5"))
        assert delivered == FilesResult(files=3, rows=3, withdrawn=2)
        assert server.files["/in"][STEM + "04.persons"] == "external_person_id,tier\nC4,silver\n"
        assert STEM + "02.persons" not in server.files["/in"]
        assert statuses(ready) == {"sent": 3, "superseded": 2}
        server.process({1: ("SomeError", "no")})
        assert collect(ready, server).rejected == 3
        assert collect(ready, server) == ReportsResult()
        refused = [o.external_person_id for o in ready.failures(DIFF_SET) if o.status == "rejected"]
        assert sorted(filter(None, refused)) == ["C1", "C2", "C4"]

    def test_a_cut_upload_is_looked_at_again_unless_the_file_arrived(
        self, ready: Ledger, server: FakeServer, tmp_path: Path
    ) -> None:
        server.die_before_upload_of = STEM + "04.persons"
        with pytest.raises(Killed):
            deliver(ready, server, tmp_path)
        server.die_before_upload_of = None
        again = deliver(ready, server, tmp_path, watch=Overtaken("C2", "C3"))
        assert again == FilesResult(files=1, rows=1, already_there=3, withdrawn=1)
        assert server.files["/in"][STEM + "04.persons"] == "external_person_id,tier\nC4,silver\n"

    def test_where_nothing_is_left_no_session_is_opened(
        self, ready: Ledger, server: FakeServer, tmp_path: Path
    ) -> None:
        nobody = Overtaken("C1", "C2", "C3", "C4", "C5")
        assert deliver(ready, server, tmp_path, watch=nobody) == FilesResult(withdrawn=5)
        assert server.sessions == 0
        assert deliver(ready, server, tmp_path) == FilesResult()

    def test_a_dry_run_withdraws_nothing(
        self, ready: Ledger, server: FakeServer, tmp_path: Path
    ) -> None:
        deliver(ready, server, tmp_path, watch=Overtaken("C1"), dry_run=True)
        assert statuses(ready) == {"planned": 5}


class TestReplay:
    """Law: the reader model's result equals the plan, or the file stays here."""

    @pytest.mark.parametrize(
        ("field", "text", "column"),
        [
            ("tier", "", "tier"),
            ("first_name", "Somebody", "first_name"),
            ("birthdate", "1906-12-10T00:00:00Z", "birthdate"),
        ],
    )
    def test_a_cell_that_says_something_else_stops_every_upload(
        self,
        ready: Ledger,
        server: FakeServer,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        field: str,
        text: str,
        column: str,
    ) -> None:
        def wrong_cells(values: pa.ChunkedArray, field_type: FieldType) -> pa.ChunkedArray:
            if field_type == TYPES[field]:
                return pa.chunked_array([[text] * len(values)])
            return cells(values, field_type)

        monkeypatch.setattr(person_files, "cells", wrong_cells)
        with pytest.raises(
            ReplayMismatch, match=f"would not do what was planned in column {column}"
        ):
            deliver(ready, server, tmp_path)
        assert (server.sessions, statuses(ready)) == (0, {"planned": 5})

    def test_a_lost_row_stops_the_upload(
        self,
        ready: Ledger,
        server: FakeServer,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(
            person_files,
            "write_import",
            lambda path, told, engine: write_import(path, told.slice(1), engine),
        )
        with pytest.raises(ReplayMismatch, match="0 rows, planned 1"):
            deliver(ready, server, tmp_path)


class TestCrashes:
    """Law: killed at any point and run again, every file is imported exactly once."""

    @pytest.mark.parametrize("number", ["01", "02", "04"])
    @pytest.mark.parametrize("where", ["die_before_upload_of", "die_after_upload_of"])
    @pytest.mark.parametrize("picked_up", [False, True])
    def test_a_cut_delivery_is_finished_by_the_next(
        self,
        ready: Ledger,
        server: FakeServer,
        tmp_path: Path,
        number: str,
        where: str,
        picked_up: bool,
    ) -> None:
        setattr(server, where, f"{STEM}{number}.persons")
        with pytest.raises(Killed):
            deliver(ready, server, tmp_path)
        setattr(server, where, None)
        if picked_up:
            server.process()
        deliver(ready, server, tmp_path)
        server.process()
        collect(ready, server)
        assert sorted(server.imported) == [f"{STEM}0{n}.persons" for n in range(1, 5)]
        assert statuses(ready) == {"accepted": 5}

    def test_a_cut_collection_is_finished_by_the_next(
        self, ready: Ledger, server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        deliver(ready, server, tmp_path)
        server.process()
        read = server.read_text
        reads: list[str] = []

        def dying(remote: str) -> str:
            reads.append(remote)
            if len(reads) == 5:
                raise Killed
            return read(remote)

        monkeypatch.setattr(server, "read_text", dying)
        with pytest.raises(Killed):
            collect(ready, server)
        assert statuses(ready) == {"accepted": 2, "sent": 3}
        monkeypatch.setattr(server, "read_text", read)
        assert collect(ready, server).waiting == 0
        assert statuses(ready) == {"accepted": 5}


class TestReports:
    def test_rows_without_an_error_are_accepted(
        self, ready: Ledger, server: FakeServer, tmp_path: Path
    ) -> None:
        deliver(ready, server, tmp_path)
        server.process({2: ("PersonErrors::InvalidSelectCustomFieldValue", "Invalid value")})
        assert collect(ready, server) == ReportsResult(
            files=4,
            accepted=4,
            rejected=1,
            error_classes={"PersonErrors::InvalidSelectCustomFieldValue": 1},
        )
        (refused,) = ready.blocked(NEXT_DAY).to_pylist()
        assert (refused["external_person_id"], refused["field"], refused["value"]) == (
            "C4",
            "tier",
            "silver",
        )

    def test_a_passing_refusal_is_not_blocked(
        self, ready: Ledger, server: FakeServer, tmp_path: Path
    ) -> None:
        deliver(ready, server, tmp_path)
        server.process({1: ("CarrierLookupService::TransientLookupFailureError", "later")})
        assert collect(ready, server).rejected == 4
        assert ready.blocked(NEXT_DAY).num_rows == 0

    def test_an_error_of_the_file_refuses_every_row(
        self, ready: Ledger, server: FakeServer, tmp_path: Path
    ) -> None:
        deliver(ready, server, tmp_path)
        server.process({0: ("PersonErrors::InvalidImportFileFormat", "no field")})
        assert collect(ready, server).rejected == 5
        assert statuses(ready) == {"rejected": 5}

    def test_a_missing_report_leaves_the_file_sent(
        self, ready: Ledger, server: FakeServer, tmp_path: Path
    ) -> None:
        deliver(ready, server, tmp_path)
        assert collect(ready, server) == ReportsResult(waiting=4)
        assert statuses(ready) == {"sent": 5}
        assert ready.pending(NEXT_DAY).num_rows > 0

    def test_a_file_of_an_earlier_day_without_any_trace_is_lost(
        self, ready: Ledger, server: FakeServer, tmp_path: Path
    ) -> None:
        server.die_before_upload_of = f"{STEM}02.persons"
        with pytest.raises(Killed):
            deliver(ready, server, tmp_path)
        assert collect(ready, server) == ReportsResult(waiting=2)  # a run of the day may finish it
        lost = collect(ready, server, NEXT_DAY)
        assert lost == ReportsResult(waiting=1, lost=1, error_classes={"ReportMissing": 1})
        assert statuses(ready) == {"planned": 3, "sent": 1, "unknown": 1}
        (done,) = ready.batches(status="done")
        assert (done.name, done.report) == (f"{STEM}02.persons", {"lost": True})
        server.process()
        assert collect(ready, server, NEXT_DAY) == ReportsResult(files=1, accepted=1)

    def test_a_file_whose_summary_is_late_is_not_lost(
        self, ready: Ledger, server: FakeServer, tmp_path: Path
    ) -> None:
        deliver_with_half_reports(ready, server, tmp_path)
        assert collect(ready, server, NEXT_DAY) == ReportsResult(waiting=4)

    def test_half_a_report_is_waited_for_until_certificates_have_told_of_every_row(
        self, ready: Ledger, server: FakeServer, tmp_path: Path
    ) -> None:
        deliver_with_half_reports(ready, server, tmp_path)
        operations = [o for b in ready.batches() for o in ready.batch_operations(b.batch_id)]
        seen, last = operations[:-1], operations[-1]
        ready.record_outcomes([(o.operation_id, "confirmed", "share") for o in seen], NEXT_DAY)
        ready.record_outcomes([(last.operation_id, "pending", "share")], NEXT_DAY)
        assert collect(ready, server, NEXT_DAY) == ReportsResult(waiting=1, lost=3)
        ready.record_outcomes([(last.operation_id, "unexplained", "share")], NEXT_DAY)
        assert collect(ready, server, NEXT_DAY) == ReportsResult(lost=1)
        assert statuses(ready) == {"sent": 5}, "no receipt is made up where a verdict stands"

    def test_a_report_without_its_summary_is_not_read_yet(
        self, ready: Ledger, server: FakeServer, tmp_path: Path
    ) -> None:
        deliver(ready, server, tmp_path)
        server.process()
        reports = server.files["/reports"]
        for name in [name for name in reports if name.endswith(".summary.csv")]:
            del reports[name]
        assert collect(ready, server).waiting == 4

    def test_a_report_about_another_number_of_rows_is_refused(
        self, ready: Ledger, server: FakeServer, tmp_path: Path
    ) -> None:
        deliver(ready, server, tmp_path)
        server.process()
        server.files["/reports"][f"{STEM}01.persons.summary.csv"] = (
            "rows,created,updated,unchanged,rejected\n7,7,0,0,0\n"
        )
        with pytest.raises(ReportMismatch, match=r"01\.persons: the report is about 7 rows"):
            collect(ready, server)
        assert statuses(ready) == {"accepted": 4, "sent": 1}

    def test_a_report_that_cannot_be_read_is_refused(
        self, ready: Ledger, server: FakeServer, tmp_path: Path
    ) -> None:
        deliver(ready, server, tmp_path)
        server.process()
        server.files["/reports"][f"{STEM}01.persons.report.csv"] = "what\n"
        with pytest.raises(ImportReportError):
            collect(ready, server)

    def test_no_file_awaiting_a_report_opens_no_session(
        self, ledger: Ledger, server: FakeServer
    ) -> None:
        assert collect(ledger, server) == ReportsResult()
        assert server.sessions == 0
