"""Texts that cannot be right are never carried to the other side, and harm only their contact."""

import shutil
import traceback
from pathlib import Path
from typing import cast

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vibes_pipelines.reconcile.characters import LONGEST_KEY
from vibes_pipelines.reconcile.errors import ReconcileError
from vibes_pipelines.reconcile.run import Inputs, reconcile
from vibes_pipelines.reconcile.sources import open_source
from vibes_pipelines.store.models import operations
from vibes_pipelines.sync_config import SyncConfig
from vibes_pipelines_tests.reconcile.conftest import PERSON, write_parquet
from vibes_pipelines_tests.support.examples import examples

WRONG = ["A\0B", "A\ufffdB", "\x1bA", "A\x7f", "caf\xc3\x83\x85", "A\uffff"]
ANN = {"id": "C1", "name": "Ann"}
BO = {"id": "C2", "name": "Bo"}
KNOWN = {"person_key": "k1", "external_person_id": "C1", "name": "Anna"}


@pytest.mark.parametrize("text", WRONG)
@pytest.mark.parametrize("persons", [[], [KNOWN]])
def test_a_text_that_cannot_be_right_holds_only_its_contact(run, make_config, text, persons):
    done = run(make_config(), [ANN | {"name": text}, BO], persons)
    assert done.quarantine == {("invalid_value", "contact", "C1")}
    [row] = done.rows("quarantine")
    assert row["detail"].endswith("in name")
    assert [row["external_person_id"] for row in done.person_changes] == ["C2"]


@pytest.mark.parametrize(
    "text", ["two\nlines", "a\tb", "\u0905\u200d\u0915", "\U0001f469\u200d\U0001f52c"]
)
def test_line_breaks_tabs_and_joiners_are_text(run, make_config, text):
    done = run(make_config(), [ANN | {"name": text}], [KNOWN])
    assert done.changes_of("C1")["name"][2] == text


def test_what_both_sides_hold_already_is_no_change_and_no_doubt(run, make_config):
    done = run(make_config(), [ANN | {"name": "A\0B"}], [KNOWN | {"name": " A\0B"}])
    assert done.quarantine == set()
    assert done.summary.unchanged == 1


def test_a_good_text_replaces_a_wrong_one_at_the_platform(run, make_config):
    done = run(make_config(), [ANN], [KNOWN | {"name": "A\0B"}])
    assert done.changes_of("C1") == {"name": ("set", "A\0B", "Ann", "no_base")}


def test_a_wrong_text_of_the_platform_is_not_written_back(run, make_config):
    fields = [{"from": "name", "to": "name", "type": "string", "authority": "platform"}]
    done = run(make_config(fields=fields), [ANN], [KNOWN | {"name": "A\0B"}])
    assert done.quarantine == {("invalid_value", "contact", "C1")}
    assert done.rows("crm_changes") == []


NEWER_AT_CRM = {"authority": "newest", "changed_at": "at"}


@pytest.mark.parametrize(
    ("rule", "name", "persons_name", "base"),
    [
        ({"authority": "fill"}, "A\0B", "Ann", None),
        ({"authority": "platform"}, "A\0B", "Ann", None),
        ({"authority": "platform"}, "Ann", "A\0B", "A\0B"),
        (NEWER_AT_CRM, "Ann", "A\0B", None),
    ],
)
def test_a_wrong_text_that_stays_where_it_is_harms_nobody(
    run, make_config, rule, name, persons_name, base
):
    fields = [{"from": "name", "to": "name", "type": "string"} | rule]
    fields += [{"from": "city", "to": "city", "type": "string"}]
    contact = ANN | {"name": name, "city": "Oslo", "at": "2026-01-10"}
    person = KNOWN | {"name": persons_name, "city": "Bergen", "updated_at": "2026-01-01"}
    bases = [] if base is None else [person | {"name": base}]
    done = run(make_config(fields=fields), [contact], [person], base=bases)
    assert done.quarantine == set()
    assert done.changes_of("C1")["city"][2] == "Oslo"


@pytest.mark.parametrize(
    "extra",
    [
        {"type": "postal_code"},
        {"type": "single_select"},
        {"type": "multi_select"},
    ],
)
def test_every_type_that_takes_a_text_as_it_is_is_judged(run, make_config, extra):
    fields = [{"from": "name", "to": "name"} | extra]
    done = run(make_config(fields=fields), [ANN | {"name": "a;A\ufffd"}], [])
    assert done.quarantine == {("invalid_value", "contact", "C1")}


@pytest.mark.parametrize("key", ["C\0001", "C1\u200b", "C\u20601", "C\n1", "\u202eC1", "C\ufffd"])
def test_a_key_with_what_cannot_be_seen_is_never_given_to_a_person(run, make_config, key):
    done = run(make_config(), [ANN | {"id": key}, BO], [])
    assert done.quarantine == {("invalid_contact_key", "contact", key)}
    assert [row["external_person_id"] for row in done.person_changes] == ["C2"]


def test_a_person_is_not_adopted_by_such_a_key(run, make_config):
    contact = ANN | {"id": "C1\u200b", "phone": "312-555-0100"}
    done = run(make_config(), [contact], [{"person_key": "k1", "mdn": "+13125550100"}])
    assert done.quarantine == {("invalid_contact_key", "contact", "C1\u200b")}


@pytest.mark.parametrize("persons", [[], [{"person_key": "k1", "mdn": "+13125550100"}]])
def test_a_key_longer_than_a_ledger_keeps_is_never_given_to_a_person(run, make_config, persons):
    contacts = [
        {"id": "\u00e9" * (LONGEST_KEY + 1), "phone": "312-555-0100"},
        {"id": "K" * LONGEST_KEY},
    ]
    done = run(make_config(), contacts, persons)
    assert done.quarantine == {("invalid_contact_key", "contact", contacts[0]["id"])}
    assert done.rows("quarantine")[0]["detail"] == "the key has 256 characters; 255 is the most"
    assert [row["external_person_id"] for row in done.person_changes] == [contacts[1]["id"]]


def test_the_ledger_keeps_the_longest_key():
    assert cast("sa.String", operations.c.external_person_id.type).length == LONGEST_KEY


@pytest.mark.parametrize("number", ["1e400", "-1e999", "9" * 309])
def test_a_number_that_no_reader_can_hold_is_invalid(run, make_config, number):
    fields = [{"from": "score", "to": "score", "type": "number"}]
    done = run(make_config(fields=fields), [{"id": "C1", "score": number}], [])
    assert done.quarantine == {("invalid_value", "contact", "C1")}


def test_a_header_with_a_column_twice_is_refused(tmp_path, make_config):
    contacts = tmp_path / "contacts.csv"
    contacts.write_text("id,name,phone,Name\nC1,Ann,,Anna\n")
    with pytest.raises(ReconcileError, match=r"contacts\.csv: the header names name twice"):
        reconcile(make_config(), Inputs(contacts, contacts), tmp_path / "out")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("id,name,phone\nC1,Ann,\nC2,Zo\xeb,\n".encode("latin-1"), "line 3 is not UTF-8"),
        ("id,name,phone\n".encode("utf-16"), "line 1 is not UTF-8"),
        (b"id;name;phone\nC1;Ann;\n", "the header is separated by ';'; write the file with commas"),
        (b"id\tname\tphone\n", r"separated by '\\t'"),
    ],
)
def test_a_file_of_another_kind_is_told_by_what_it_is(tmp_path, make_config, text, says):
    contacts = tmp_path / "contacts.csv"
    contacts.write_bytes(text)
    with pytest.raises(ReconcileError, match=says):
        reconcile(make_config(), Inputs(contacts, contacts), tmp_path / "out")


HEADER = "id,name,phone\n"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (f"{HEADER}C1,Ann,\nC2,Bo,\n{HEADER[:-1]},city\nC3,Cy,,x\nC4,Di,,y\n", 4),
        (f"id,name\nC1,Ann\n{HEADER}C2,Bo,\nC3,Cy,\n", 3),
        (f"Contacts of today\n{HEADER}C1,Ann,\n", 2),
        (f"{HEADER}C1,Ann\nC2,Bo,\nC3,Cy,\n", 2),
    ],
    ids=["two exports", "two narrower ones", "a title", "first row"],
)
def test_lines_with_fewer_cells_are_told_and_never_left_out(tmp_path, make_config, text, line):
    contacts = tmp_path / "contacts.csv"
    contacts.write_text(text)
    with pytest.raises(ReconcileError, match=rf"contacts\.csv: line {line} cannot be read"):
        reconcile(make_config(), Inputs(contacts, contacts), tmp_path / "out")


@pytest.mark.parametrize(
    ("ends", "says"),
    [
        (("\n", "\r\n", "\n"), "line 3 ends in CRLF and the first in LF"),
        (("\r\n", "\r\n", "\n"), "line 4 ends in LF and the first in CRLF"),
    ],
)
def test_mixed_line_ends_are_told_as_such(tmp_path, make_config, ends, says):
    contacts = tmp_path / "contacts.csv"
    lines = ["id,phone,name", 'C1,,"Ann\n"', "C2,,Bo"]
    text = "".join(line + end for line, end in zip(lines, ends, strict=True))
    contacts.write_bytes(text.encode())
    with pytest.raises(ReconcileError, match=rf"contacts\.csv: {says}; write"):
        _added(make_config(), contacts, tmp_path)


def test_a_full_disk_and_too_little_memory_are_told_as_such(tmp_path):
    contacts = tmp_path / "contacts.csv"
    contacts.write_text(HEADER + "".join(f"C{n},Secret {n},\n" for n in range(200_000)))
    (tmp_path / "contacts.parquet").symlink_to("/dev/full")
    with duckdb.connect() as connection:
        with pytest.raises(ReconcileError, match=r"contacts\.csv: .*No space left") as full:
            open_source(connection, "contacts", contacts, tmp_path)
        connection.execute("SET memory_limit = '4MB'")
        connection.execute("SET max_temp_directory_size = '1KB'")
        (tmp_path / "small").mkdir()
        with pytest.raises(ReconcileError, match=r"contacts\.csv: Out of Memory") as small:
            open_source(connection, "contacts", contacts, tmp_path / "small")
    for told in (full, small):
        assert "Secret" not in "".join(traceback.format_exception(told.value))
        assert "\n" not in str(told.value)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("blank", ["", "\n", "\n \n"])
def test_marks_line_ends_and_blank_lines_before_the_header_are_no_rows(
    tmp_path, make_config, mark, blank, end
):
    contacts = tmp_path / "contacts.csv"
    text = f'{mark}{blank}{HEADER}C1,"Ann, ""A""",\n\nC2,Bo,\n'
    contacts.write_bytes(text.replace("\n", end).encode())
    assert _added(make_config(), contacts, tmp_path) == [("C1", 'Ann, "A"'), ("C2", "Bo")]


def test_a_blank_line_does_not_hide_a_header_with_a_column_twice(tmp_path, make_config):
    contacts = tmp_path / "contacts.csv"
    contacts.write_text("\nid,name,phone,Name\nC1,Ann,,Anna\n")
    with pytest.raises(ReconcileError, match=r"contacts\.csv: the header names name twice"):
        _added(make_config(), contacts, tmp_path)


@pytest.mark.parametrize("value", [["Ann", "Anna"], {"first": "Ann"}], ids=["list", "object"])
def test_a_list_or_an_object_is_no_text(tmp_path, make_config, value):
    rows = [{"id": "C1", "name": value, "phone": None}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "contacts.parquet")
    persons = {"external_person_id": ["C1"], "person_key": ["k1"], "mdn": [None], "name": ["Ann"]}
    pq.write_table(pa.table(persons), tmp_path / "persons.parquet")
    inputs = Inputs(tmp_path / "contacts.parquet", tmp_path / "persons.parquet")
    with pytest.raises(ReconcileError, match=r"column .*name.* multi_select"):
        reconcile(make_config(), inputs, tmp_path / "out")


@pytest.mark.parametrize("written_as", [pa.string(), pa.binary()])
def test_bytes_that_are_no_utf8_are_refused_without_repeating_them(
    tmp_path, make_config, written_as
):
    broken = pa.array([b"Secret\xff"], pa.binary()).buffers()
    table = pa.table(
        {
            "id": ["C1"],
            "external_person_id": ["C1"],
            "person_key": ["k1"],
            "phone": ["312-555-0100"],
            "mdn": ["+13125550100"],
            "name": pa.Array.from_buffers(written_as, 1, broken),
        }
    )
    pq.write_table(table, tmp_path / "both.parquet")
    inputs = Inputs(tmp_path / "both.parquet", tmp_path / "both.parquet")
    with pytest.raises(ReconcileError, match=r"both\.parquet: .* not UTF-8") as refused:
        reconcile(make_config(), inputs, tmp_path / "out")
    assert "Secret" not in str(refused.value)
    assert refused.value.__cause__ is None


@given(st.lists(st.text(max_size=4), min_size=1, max_size=6))
@settings(
    max_examples=examples(8),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_no_diff_set_carries_a_control_character(run, make_config, names):
    contacts = [{"id": f"C{number}", "name": name} for number, name in enumerate(names)]
    done = run(make_config(), contacts, [])
    carried = [change["after"] for row in done.person_changes for change in row["changes"]]
    allowed = {"\t", "\n", "\r"}
    assert not any(
        (ord(sign) < 32 or 127 <= ord(sign) < 160 or sign == "\ufffd") and sign not in allowed
        for text in carried
        for sign in text
    )
    assert done.summary.added + done.summary.quarantined == len(names)


def _one_contact(path: Path, **values: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    row = {"id": "C1", "name": "Ann", "phone": None} | values
    pq.write_table(pa.Table.from_pylist([row]), path)
    return path


def _added(config: SyncConfig, contacts: Path, folder: Path) -> list[tuple[str, str]]:
    """Key and name of every contact that is new to a platform without persons."""
    persons = write_parquet(folder / "persons.parquet", [], (*PERSON, "name"))
    shutil.rmtree(folder / "out", ignore_errors=True)
    reconcile(config, Inputs(contacts, persons, relative_guards=False), folder / "out")
    rows = pq.read_table(folder / "out" / "person_changes.parquet").to_pylist()
    return [(row["external_person_id"], row["changes"][0]["after"]) for row in rows]


@pytest.mark.parametrize("other", ["Name", "NAME"])
def test_a_column_that_two_names_may_mean_is_refused(tmp_path, make_config, other):
    contacts = _one_contact(tmp_path / "c.parquet", **{other: "Anna"})
    says = rf"c\.parquet: .*'name'.*'{other}'.* fields\.from: name"
    with pytest.raises(ReconcileError, match=says):
        _added(make_config(), contacts, tmp_path)


def test_names_that_are_one_but_for_case_harm_nobody_who_does_not_map_them(tmp_path, make_config):
    values = {"Note": "a", "note": "b", "Note_1": "c", "inner": {"name": "x", "Name": "y"}}
    contacts = _one_contact(tmp_path / "c.parquet", **values)
    assert _added(make_config(), contacts, tmp_path) == [("C1", "Ann")]
    fields = [{"from": "note_1", "to": "name", "type": "string"}]
    assert _added(make_config(fields=fields), contacts, tmp_path) == [("C1", "c")]


def test_the_name_that_the_engine_needs_for_itself_is_told(tmp_path, make_config):
    contacts = _one_contact(tmp_path / "c.parquet", File_Row_Number=7)
    with pytest.raises(ReconcileError, match=r"c\.parquet: .*file_row_number.*; rename it"):
        _added(make_config(), contacts, tmp_path)


def test_text_that_the_writer_did_not_declare_as_text_is_text(tmp_path, make_config):
    contacts = {"key": "id", "conditions": [{"column": "region", "equals": "Fürth"}]}
    config = make_config(contacts=contacts)
    texts = {"id": "Č1", "name": "Zoë", "region": "Fürth"}
    path = _one_contact(tmp_path / "c.parquet", **{k: v.encode() for k, v in texts.items()})
    assert pq.read_schema(path).field("name").type == pa.binary()
    assert _added(config, path, tmp_path) == [("Č1", "Zoë")]


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
@pytest.mark.parametrize(
    ("name", "other"), [("day[1]", "day1"), ("s*", "s2"), ("q?", "q2"), ("{a}", "a")]
)
def test_a_path_that_is_also_a_pattern_is_that_one_file(tmp_path, make_config, name, other, suffix):
    for one in (name, other):
        path = _one_contact(tmp_path / one / f"{one}.parquet", name=one)
        path.with_suffix(".csv").write_text(f"id,name,phone\nC1,{one},\n")
    contacts = tmp_path / name / f"{name}.{suffix}"
    assert _added(make_config(), contacts, tmp_path) == [("C1", name)]


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_a_folder_that_is_called_like_a_partition_is_no_column(tmp_path, make_config, suffix):
    contacts = {"key": "id", "conditions": [{"column": "name", "equals": "Ann"}]}
    config = make_config(contacts=contacts)
    folder = tmp_path / "name=Ann" / "day=2026"
    _one_contact(folder / "c.parquet", name="Bo")
    (folder / "c.csv").write_text("id,name\nC1,Bo\n")
    assert _added(config, folder / f"c.{suffix}", tmp_path) == []
