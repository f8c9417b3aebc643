"""The ledger keeps intents, receipts and approvals, on SQLite and PostgreSQL alike."""

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from threading import Barrier

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from vibes_pipelines.store.database import open_engine
from vibes_pipelines.store.file_rows import FILE_ROWS
from vibes_pipelines.store.ledger import Ledger
from vibes_pipelines.store.models import metadata
from vibes_pipelines.store.records import (
    AcceptedSnapshot,
    Batch,
    Change,
    DiffSet,
    DiffSetSuperseded,
    LedgerError,
    Operation,
    Receipt,
    operation_id,
)

AS_OF = datetime(2026, 1, 2, 12, tzinfo=UTC)
DAY, NEXT_DAY = "2026-01-02", "2026-01-03"


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'deep' / 'ledger.db'}"
    return str(request.getfixturevalue("postgresql_url"))


@pytest.fixture
def ledger(url: str) -> Iterator[Ledger]:
    with Ledger(url) as opened:
        yield opened


def diff_set(name: str = "one", day: str = DAY, mapping_hash: str = "m") -> DiffSet:
    snapshots = {"crm/contacts": AcceptedSnapshot(10, "hash")}
    return DiffSet(name, 0, day, AS_OF, mapping_hash, "c", "open", {"breaches": []}, snapshots)


def open_and_close(url: str) -> None:
    with Ledger(url) as opened:
        opened.newest_diff_set()


def operation(name: str = "op-1", **values: object) -> Operation:
    change = Change("first_name", "set", None, "Ada", "crm_changed")
    whole = Operation(
        operation_id=name,
        diff_set="one",
        day=DAY,
        as_of=AS_OF,
        lane="persons",
        route="api",
        route_reason="because",
        kind="update",
        external_person_id="C1",
        person_key="k1",
        mdn=None,
        subscription_list_id=None,
        changes=(change,),
    )
    return replace(whole, **values)  # type: ignore[arg-type]


def write(ledger: Ledger, *operations: Operation, batches: tuple[Batch, ...] = ()) -> bool:
    return ledger.write_plan(operations[0].diff_set, batches, operations, lambda: {"n": 1})


class TestOpening:
    def test_the_migrated_tables_are_those_of_the_models(self, url: str) -> None:
        with Ledger(url):
            pass
        engine = open_engine(url)
        with engine.connect() as connection:
            # SQLite keeps texts of any length, whatever the column says: it is never widened there.
            has_lengths = engine.dialect.name != "sqlite"
            context = MigrationContext.configure(connection, opts={"compare_type": has_lengths})
            differences = compare_metadata(context, metadata)
        engine.dispose()
        assert differences == []

    def test_opening_again_keeps_what_is_there(self, url: str) -> None:
        with Ledger(url) as first:
            first.register(diff_set())
        with Ledger(url) as second:
            assert second.diff_set("one") is not None

    def test_several_threads_may_open_a_new_ledger_at_once(self, url: str) -> None:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: open_and_close(url), range(4)))

    def test_several_processes_may_open_a_new_ledger_at_once(self, url: str) -> None:
        code = (
            "import sys; from vibes_pipelines.store.ledger import Ledger\n"
            "with Ledger(sys.argv[1]) as ledger: ledger.newest_diff_set()"
        )
        started = [subprocess.Popen([sys.executable, "-c", code, url]) for _ in range(3)]
        assert [process.wait(120) for process in started] == [0, 0, 0]

    def test_sqlite_writes_ahead_and_checks_references(self, tmp_path: Path) -> None:
        engine = open_engine(f"sqlite:///{tmp_path / 'ledger.db'}")
        with engine.connect() as connection:
            pragmas = [
                connection.execute(sa.text(f"PRAGMA {name}")).scalar()
                for name in ("journal_mode", "foreign_keys", "busy_timeout")
            ]
        engine.dispose()
        assert pragmas == ["wal", 1, 30_000]

    def test_a_time_without_an_offset_is_refused(self, ledger: Ledger) -> None:
        naive = replace(diff_set(), as_of=AS_OF.replace(tzinfo=None))
        with pytest.raises(sa.exc.StatementError, match="aware times only"):
            ledger.register(naive)


class TestDiffSets:
    def test_a_newer_day_supersedes_the_open_one(self, ledger: Ledger) -> None:
        ledger.register(diff_set("one", DAY))
        ledger.register(diff_set("two", NEXT_DAY))
        one, newest = ledger.diff_set("one"), ledger.newest_diff_set()
        assert one is not None
        assert newest is not None
        assert (one.status, newest.diff_set) == ("superseded", "two")

    def test_the_identical_one_again_changes_nothing(self, ledger: Ledger) -> None:
        assert ledger.register(diff_set()) == ledger.register(diff_set())

    @pytest.mark.postgresql
    def test_a_day_rebuilt_beside_todays_waits_for_its_number(self, postgresql_url: str) -> None:
        with Ledger(postgresql_url) as ours, Ledger(postgresql_url) as others:
            together = Barrier(2)

            def register(ledger: Ledger, day: str, number: int) -> None:
                together.wait(60)
                ledger.register(diff_set(f"{day} {number}", day))

            with ThreadPoolExecutor(2) as pool:
                for number in range(20):
                    done = [
                        pool.submit(register, ledger, day, number)
                        for ledger, day in ((ours, DAY), (others, NEXT_DAY))
                    ]
                    for one in done:
                        one.result(60)
            newest = ours.newest_diff_set()
        assert newest is not None
        assert newest.day == NEXT_DAY

    def test_a_day_rebuilt_after_a_newer_one_is_superseded_from_the_start(
        self, ledger: Ledger
    ) -> None:
        ledger.register(diff_set("two", NEXT_DAY))
        assert ledger.register(diff_set("late", DAY)).status == "superseded"
        newest = ledger.newest_diff_set()
        assert newest is not None
        assert (newest.diff_set, newest.status) == ("two", "open")

    def test_a_config_changed_back_makes_the_first_the_newest_again(self, ledger: Ledger) -> None:
        for name in ("one", "other", "one"):
            ledger.register(diff_set(name))
        newest, other = ledger.newest_diff_set(), ledger.diff_set("other")
        assert newest is not None
        assert other is not None
        assert (newest.diff_set, newest.status, other.status) == ("one", "open", "superseded")

    def test_a_delivered_one_stays_delivered(self, ledger: Ledger) -> None:
        ledger.register(diff_set("one", DAY))
        ledger.mark_delivered("one")
        ledger.register(diff_set("two", NEXT_DAY))
        delivered = ledger.last_delivered()
        assert delivered is not None
        assert delivered.diff_set == "one"

    def test_delivery_accepts_the_snapshots_for_later_days_only(self, ledger: Ledger) -> None:
        ledger.register(diff_set("one", DAY))
        assert ledger.accepted_rows(NEXT_DAY) is None
        ledger.mark_delivered("one")
        assert ledger.accepted_rows(NEXT_DAY) == {"crm/contacts": 10}
        assert ledger.accepted_rows(DAY) is None

    def test_the_first_approval_counts(self, ledger: Ledger) -> None:
        ledger.register(diff_set())
        ledger.approve("one", "looked at it")
        assert ledger.approve("one", "again").approved_reason == "looked at it"

    def test_an_unknown_diff_set_is_named(self, ledger: Ledger) -> None:
        with pytest.raises(LedgerError, match="nobody is not registered"):
            ledger.approve("nobody", "why")


class TestPlans:
    def test_an_operation_comes_back_as_it_was_written(self, ledger: Ledger) -> None:
        ledger.register(diff_set())
        write(ledger, operation())
        assert list(ledger.open_operations("one", "persons", "api")) == [operation()]

    def test_a_second_plan_changes_nothing(self, ledger: Ledger) -> None:
        ledger.register(diff_set())
        assert write(ledger, operation())
        assert not write(ledger, operation("op-2"))
        assert [op.operation_id for op in ledger.open_operations("one", "persons", "api")] == [
            "op-1"
        ]

    def test_a_plan_that_fails_leaves_nothing_behind(self, ledger: Ledger) -> None:
        ledger.register(diff_set())

        def cut() -> Iterator[Operation]:
            yield operation()
            raise RuntimeError("cut")

        with pytest.raises(RuntimeError, match="cut"):
            ledger.write_plan("one", (), cut(), dict)
        assert ledger.status_counts("one") == {}
        assert ledger.plan("one") is None

    def test_many_operations_are_read_page_by_page(self, ledger: Ledger) -> None:
        ledger.register(diff_set())
        write(ledger, *(operation(f"op-{n:05d}") for n in range(2_500)))
        read = []
        for op in ledger.open_operations("one", "persons", "api"):
            read.append(op.operation_id)
            if len(read) % 500 == 0:
                ledger.mark_sent([op.operation_id])
                ledger.record([Receipt(op.operation_id, "accepted")], DAY)
        assert read == [f"op-{n:05d}" for n in range(2_500)]

    def test_ids_depend_on_what_is_intended_and_nothing_else(self) -> None:
        first = Change("a", "set", "old", "1", "why")
        second = Change("b", "set", None, "2", "why")
        one = operation_id("d", "update", "C1", None, [first, second])
        same = operation_id("d", "update", "C1", None, [second, replace(first, before="x")])
        others = [
            operation_id("e", "update", "C1", None, [first, second]),
            operation_id("d", "add", "C1", None, [first, second]),
            operation_id("d", "update", "C2", None, [first, second]),
            operation_id("d", "update", "C1", "1234", [first, second]),
            operation_id("d", "update", "C1", None, [replace(first, after="3"), second]),
            operation_id("d", "update", "C1", None, [first]),
        ]
        assert one == same
        assert len(one) == 32
        assert len({one, *others}) == 7


class TestReceipts:
    def test_the_send_is_recorded_before_its_answer(self, ledger: Ledger) -> None:
        ledger.register(diff_set())
        write(ledger, operation())
        ledger.mark_sent(["op-1"])
        sent = ledger.operation("op-1")
        assert sent is not None
        assert (sent.status, sent.attempts) == ("sent", 1)

    def test_an_unknown_answer_leaves_the_operation_open(self, ledger: Ledger) -> None:
        ledger.register(diff_set())
        write(ledger, operation(), operation("op-2"), operation("op-3"))
        ledger.mark_sent(["op-1", "op-2", "op-3"])
        ledger.record([Receipt("op-1", "unknown", "Timeout"), Receipt("op-2", "accepted")], DAY)
        still_open = [op.operation_id for op in ledger.open_operations("one", "persons", "api")]
        assert still_open == ["op-1", "op-3"]

    def test_what_never_left_is_planned_again(self, ledger: Ledger) -> None:
        ledger.register(diff_set())
        write(ledger, operation())
        ledger.mark_sent(["op-1"])
        ledger.take_back(["op-1"])
        taken = ledger.operation("op-1")
        assert taken is not None
        assert (taken.status, taken.attempts) == ("planned", 0)

    def test_what_had_left_before_stays_unknown(self, ledger: Ledger) -> None:
        ledger.register(diff_set())
        write(ledger, operation())
        ledger.mark_sent(["op-1"])
        ledger.mark_sent(["op-1"])
        ledger.take_back(["op-1"])
        taken = ledger.operation("op-1")
        assert taken is not None
        assert (taken.status, taken.attempts) == ("unknown", 1)

    def test_a_batch_and_its_rows_change_together(self, ledger: Ledger) -> None:
        ledger.register(diff_set())
        batch = Batch("b", "one", "b.persons", 1)
        write(ledger, operation(batch_id="b", row_number=1, route="file"), batches=(batch,))
        ledger.mark_batch_sent("b")
        assert ledger.status_counts("one") == {("persons", "file", "sent"): 1}
        ledger.finish_batch("b", {"rows": 1}, [Receipt("op-1", "rejected", "X")], DAY)
        assert [b.report for b in ledger.batches(status="done")] == [{"rows": 1}]
        assert ledger.status_counts("one") == {("persons", "file", "rejected"): 1}

    def test_a_batch_is_handed_over_whole_or_not_at_all(self, ledger: Ledger) -> None:
        ledger.register(diff_set())
        batch = Batch("b", "one", "b.persons", 1)
        write(ledger, operation(batch_id="b", row_number=1, route="file"), batches=(batch,))

        def cut() -> Iterator[Receipt]:
            yield Receipt("op-1", "unknown", "X")
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            ledger.hand_over_batch(batch, {}, cut(), DAY)
        assert ledger.batches() == [batch]
        assert ledger.status_counts("one") == {("persons", "file", "planned"): 1}
        ledger.hand_over_batch(batch, {"by": "hand"}, [Receipt("op-1", "unknown", "X")], DAY)
        assert ledger.batches() == [replace(batch, status="done", report={"by": "hand"})]
        assert ledger.status_counts("one") == {("persons", "file", "unknown"): 1}

    def test_a_batch_of_a_superseded_diff_set_is_not_handed_over(self, ledger: Ledger) -> None:
        ledger.register(diff_set())
        batch = Batch("b", "one", "b.persons", 1)
        write(ledger, operation(batch_id="b", row_number=1, route="file"), batches=(batch,))
        ledger.register(diff_set("two", NEXT_DAY))
        with pytest.raises(DiffSetSuperseded, match=f"which is two of {NEXT_DAY}"):
            ledger.hand_over_batch(batch, {}, [Receipt("op-1", "unknown", "X")], DAY)
        assert ledger.batches() == [batch]


def test_the_rows_of_a_file_are_read_in_columns_in_the_order_of_the_file(ledger: Ledger) -> None:
    ledger.register(diff_set())
    text = Change("first_name", "set", "Ada", 'É "\\\n👩', "crm_changed")
    cleared = Change("tier", "clear", "gold", None, "crm_cleared")
    seats = {
        "op-1": {"row_number": 3},
        "op-2": {"row_number": 1, "kind": "add", "mdn": "+13125550142", "changes": (text, cleared)},
        "op-3": {"row_number": 2, "external_person_id": None, "changes": ()},
    }
    seated = [operation(name, batch_id="b", route="file", **at) for name, at in seats.items()]
    write(ledger, *seated, operation("op-4"), batches=(Batch("b", "one", "b.persons", 3),))
    rows = ledger.file_rows("b").to_pylist()
    assert [row | {"changes": json.loads(row["changes"])} for row in rows] == [
        {
            "operation_id": planned.operation_id,
            "kind": planned.kind,
            "external_person_id": planned.external_person_id,
            "mdn": planned.mdn,
            "changes": [change.as_json() for change in planned.changes],
        }
        for planned in ledger.batch_operations("b")
    ]
    assert [row["operation_id"] for row in rows] == ["op-2", "op-3", "op-1"]
    assert ledger.file_rows("none").schema == FILE_ROWS
