"""A person file is made of columns, read back, and replayed on the state it was planned for."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from vibes_pipelines.delivery.checked_files import write_person_rows
from vibes_pipelines.delivery.person_files import planned_rows, write_person_file
from vibes_pipelines.delivery.replay import ReplayMismatch, check_replay, left_by
from vibes_pipelines.store.records import Change, Operation
from vibes_pipelines.sync_config import FieldType
from vibes_pipelines.vibes.import_cells import table_of
from vibes_pipelines.vibes.import_errors import CannotExpress, ImportFileError
from vibes_pipelines.vibes.import_reader import ImportFile
from vibes_pipelines_tests.support.import_rows import file_rows_of
from vibes_pipelines_tests.support.operations import cleared, operation, set_to

TYPES: dict[str, FieldType] = {
    "name": "string",
    "born": "date",
    "tier": "single_select",
    "likes": "multi_select",
    "score": "number",
}

TEXT = pa.string()
CHANGES = pa.list_(pa.struct([(name, TEXT) for name in ("field", "before", "after")]))
PLANNED = pa.schema(
    [
        *((name, TEXT) for name in ("operation_id", "kind", "external_person_id", "mdn")),
        ("changes", CHANGES),
    ]
)
BLANKS = [chr(code) for code in range(0x110000) if chr(code).isspace()]


def check(columns: Sequence[str], rows: Sequence[tuple[str, ...]], *planned: Operation) -> None:
    """Replays a file of these rows on what was planned."""
    table = pa.Table.from_pylist([asdict(operation) for operation in planned], PLANNED)
    check_replay(ImportFile("a.persons", table_of(columns, rows)), table, TYPES)


def replayed(planned: Operation, **cells: str) -> None:
    check(tuple(cells), [tuple(cells.values())], planned)


class TestReplay:
    @pytest.mark.parametrize(
        ("changes", "cells"),
        [
            ((set_to("name", "Ada"),), {"name": "Ada"}),
            ((set_to("born", "2000-01-01"),), {"born": "2000-01-01T00:00:00Z"}),
            ((set_to("born", "2000-01-01T08:30:00Z"),), {"born": "2000-01-01T08:30:00Z"}),
            ((set_to("likes", "a|b"),), {"likes": "b|a|b"}),
            ((cleared("tier"),), {"tier": ""}),
            ((cleared("likes"),), {"likes": ""}),
            ((set_to("name", "Ada"), cleared("tier")), {"name": "Ada", "tier": ""}),
        ],
    )
    def test_a_row_that_does_what_was_planned_passes(
        self, changes: tuple[Change, ...], cells: dict[str, str]
    ) -> None:
        replayed(operation(*changes), external_person_id="C1", **cells)

    @pytest.mark.parametrize(
        ("changes", "cells", "wrong"),
        [
            ((set_to("name", "Ada"),), {"name": "Eda"}, "name"),
            ((set_to("name", "Ada"),), {"name": ""}, "name"),
            ((set_to("name", "Ada"),), {}, "name"),
            ((cleared("name"),), {"name": ""}, "name"),
            ((set_to("name", "Ada"),), {"name": "Ada", "tier": "gold"}, "tier"),
            ((set_to("born", "2000-01-01"),), {"born": "2000-01-02T00:00:00Z"}, "born"),
            ((set_to("name", "Ada"), cleared("tier")), {"name": "x", "tier": "y"}, "name, tier"),
            ((), {"mdn": "+13125550142"}, "mdn"),
            ((), {"external_person_id": "C2"}, "external_person_id"),
            ((), {"external_person_id": ""}, "external_person_id"),
        ],
    )
    def test_a_row_that_does_something_else_is_named_without_its_values(
        self, changes: tuple[Change, ...], cells: dict[str, str], wrong: str
    ) -> None:
        with pytest.raises(ReplayMismatch) as raised:
            replayed(operation(*changes), **({"external_person_id": "C1"} | cells))
        assert f"column {wrong};" in str(raised.value)
        assert "a.persons: row 1 " in str(raised.value)
        assert "op-1" in str(raised.value)
        assert not any(value in str(raised.value) for value in ("Ada", "Eda", "2000", "gold"))

    def test_an_add_carries_the_number(self) -> None:
        added = operation(kind="add", mdn="+13125550142")
        replayed(added, external_person_id="C1", mdn="+13125550142")
        with pytest.raises(ReplayMismatch, match="column mdn;"):
            replayed(added, external_person_id="C1")

    def test_an_update_leaves_the_number_alone(self) -> None:
        replayed(operation(mdn="+13125550142"), external_person_id="C1", mdn="")

    def test_the_marker_that_takes_an_external_id_away_is_never_one(self) -> None:
        with pytest.raises(ReplayMismatch, match="column external_person_id;"):
            replayed(operation(external_person_id="[null]"), external_person_id="[null]")

    def test_the_second_row_is_told_as_the_second(self) -> None:
        rows = [("C1", "Ada"), ("C2", "Eda")]
        planned = [operation(set_to("name", "Ada"), external_person_id=one) for one in ("C1", "C2")]
        with pytest.raises(ReplayMismatch, match=r"a\.persons: row 2 "):
            check(("external_person_id", "name"), rows, *planned)

    def test_a_row_too_few_is_told(self) -> None:
        with pytest.raises(ReplayMismatch, match=r"a\.persons: 0 rows, planned 1"):
            check(("external_person_id",), [], operation())

    def test_of_several_wrong_rows_the_first_is_told_with_its_columns(self) -> None:
        name, tier = set_to("name", "Ada"), cleared("tier")
        planned = [operation(name, tier, external_person_id=f"C{n}") for n in (1, 2, 3)]
        rows = [("C1", "Ada", "x"), ("C2", "Eda", ""), ("C9", "Ada", "y")]
        with pytest.raises(ReplayMismatch, match=r"a\.persons: row 1 .* in column tier;"):
            check(("external_person_id", "name", "tier"), rows, *planned)
        rows = [("C1", "Ada", ""), ("C2", "Ada", ""), ("C9", "", "y")]
        with pytest.raises(ReplayMismatch, match=r"row 3 .* external_person_id, name, tier;"):
            check(("external_person_id", "name", "tier"), rows, *planned)

    def test_a_row_that_changes_a_field_less_than_its_neighbour_is_looked_at(self) -> None:
        planned = [operation(), operation(set_to("name", "Ada"), external_person_id="C2")]
        check(("external_person_id", "name"), [("C1", ""), ("C2", "Ada")], *planned)
        with pytest.raises(ReplayMismatch, match=r"row 1 .* in column name;"):
            check(("external_person_id", "name"), [("C1", "Eda"), ("C2", "Ada")], *planned)

    def test_a_planned_number_is_no_field_of_a_file(self) -> None:
        planned = operation(set_to("mdn", "+13125550142"))
        with pytest.raises(ReplayMismatch, match="column mdn;"):
            replayed(planned, external_person_id="C1", mdn="")

    @pytest.mark.parametrize("column", ["person_id", "person_key", "city", "Name"])
    @pytest.mark.parametrize("cell", ["Utrecht", ""])
    def test_columns_that_no_plan_has_are_refused(self, column: str, cell: str) -> None:
        with pytest.raises(ReplayMismatch, match=f"row 1 .* in column {column};"):
            replayed(operation(), external_person_id="C1", **{column: cell})

    @pytest.mark.parametrize(
        "text", ["not a date", "Name 0", "2000-13-01", "2000-01-01T25:00:00Z", "2000-01-01\n"]
    )
    def test_what_is_no_date_is_refused_even_when_it_was_planned(self, text: str) -> None:
        for cell in (text, f"{text}T00:00:00Z"):
            with pytest.raises(ReplayMismatch, match="column born;") as raised:
                replayed(operation(set_to("born", text)), external_person_id="C1", born=cell)
            assert text not in str(raised.value)

    def test_a_refused_file_does_not_stay(self, tmp_path: Path) -> None:
        planned = file_rows_of([operation(set_to("name", "[null]"))])
        with duckdb.connect() as engine, pytest.raises(ReplayMismatch):
            write_person_rows(tmp_path / "a.persons", planned, TYPES, engine)
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("text", ["", "[null]", *BLANKS, "".join(BLANKS)])
    def test_a_cell_that_could_be_read_as_nothing_is_never_one(self, text: str) -> None:
        for field in TYPES:
            with pytest.raises(ReplayMismatch, match=f"column {field};"):
                replayed(operation(set_to(field, text)), external_person_id="C1", **{field: text})

    @pytest.mark.parametrize(
        ("field_type", "cell", "left"),
        [
            ("string", "", "before"),
            ("number", "", "before"),
            ("date", "", "before"),
            ("postal_code", "", "before"),
            ("single_select", "", None),
            ("multi_select", "", None),
            ("string", "2000-01-01T00:00:00Z", "2000-01-01T00:00:00Z"),
            ("date", "2000-01-01T00:00:00Z", "2000-01-01"),
            ("date", "2000-01-01T00:00:00Z\n", "2000-01-01T00:00:00Z\n"),
            ("multi_select", "ski|golf|ski", "golf|ski"),
            ("single_select", "ski|golf", "ski|golf"),
        ],
    )
    def test_what_a_cell_leaves_of_a_value(
        self, field_type: FieldType, cell: str, left: str | None
    ) -> None:
        told, before = pa.chunked_array([[cell]]), pa.chunked_array([["before"]])
        assert left_by(told, before, field_type).to_pylist() == [left]


class TestPersonFiles:
    """The rows of a file become columns; what no file can say is told before one is written."""

    def written(self, folder: Path, *planned: Operation) -> str:
        path = folder / "a.persons"
        with duckdb.connect() as engine:
            rows = planned_rows(path.name, file_rows_of(planned), engine)
            write_person_file(path, rows, TYPES, engine)
        return path.read_text(encoding="utf-8")

    def test_changes_may_stand_in_any_order(self, tmp_path: Path) -> None:
        name, born = set_to("name", "\u0001\U0001f600"), set_to("born", "2000-01-01")
        planned = [
            operation(name, born, kind="add", mdn="+13125550142"),
            operation(born, name, kind="add", mdn="+13125550143"),
        ]
        assert self.written(tmp_path, *planned) == (
            "external_person_id,mdn,born,name\n"
            "C1,+13125550142,2000-01-01T00:00:00Z,\u0001\U0001f600\n"
            "C1,+13125550143,2000-01-01T00:00:00Z,\u0001\U0001f600\n"
        )

    @pytest.mark.parametrize(
        "other", [(), (set_to("born", "2000-01-01"),), (set_to("name", "x"), cleared("tier"))]
    )
    def test_rows_that_change_different_fields_are_refused(
        self, tmp_path: Path, other: tuple[Change, ...]
    ) -> None:
        for planned in ((set_to("name", "x"),), other), (other, (set_to("name", "x"),)):
            with pytest.raises(ImportFileError, match=r"a\.persons: its rows change different"):
                self.written(tmp_path, *(operation(*changes) for changes in planned))
        assert not list(tmp_path.iterdir())

    def test_a_row_that_names_nobody_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ImportFileError, match=r"a\.persons: column 1 has rows without a text"):
            self.written(tmp_path, operation(external_person_id=None))

    def test_a_clear_that_no_file_can_say_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(CannotExpress, match="send the change through the API"):
            self.written(tmp_path, operation(cleared("name")))

    def test_changes_that_cannot_be_read_are_told_without_their_values(
        self, tmp_path: Path
    ) -> None:
        with pytest.raises(ImportFileError, match=r"a\.persons: the changes of a row") as raised:
            self.written(tmp_path, operation(set_to("name", "Ada\ud83d")))
        assert "Ada" not in str(raised.value)
        assert (raised.value.__cause__, raised.value.__context__) == (None, None)
