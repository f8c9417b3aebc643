"""Person imports: the file format, the rules of rows, the error classes, the reports."""

import csv
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vibes_pipelines.sandbox.import_format import parse_import
from vibes_pipelines.sandbox.imports import process_import
from vibes_pipelines.sandbox.pickup import ImportPickup
from vibes_pipelines.sandbox.platform import Platform
from vibes_pipelines.sandbox.platform_refusals import CarrierLookupDownError
from vibes_pipelines.sandbox.switches import Switches
from vibes_pipelines_tests.sandbox.stand_in import (
    ADA_KEY,
    ADA_MDN,
    BEA_KEY,
    BEA_MDN,
    CAL_KEY,
    LANDLINE,
    NEW_MDN,
    build_platform,
)

FORMAT = "PersonErrors::InvalidImportFileFormat"
ENCODING = "FileEngine::EncodingDetection::Unknown8BitEncodingDetected"


@pytest.fixture
def platform() -> Platform:
    return build_platform()


def imported(
    platform: Platform, text: str | bytes, **switches: object
) -> tuple[dict[str, int], list[tuple[int, str]]]:
    """Summary, and the report as row numbers with error classes."""
    data = text if isinstance(text, bytes) else text.encode()
    outcome = process_import(platform, "a.persons", data, Switches.from_mapping(switches))
    (summary,) = csv.DictReader(outcome.summary_csv.splitlines())
    report = csv.DictReader(outcome.report_csv.splitlines())
    errors = [(int(row["row_number"]), row["error_class"]) for row in report]
    return {name: int(count) for name, count in summary.items()}, errors


def counts(created: int = 0, updated: int = 0, unchanged: int = 0, rejected: int = 0) -> object:
    return {
        "rows": created + updated + unchanged + rejected,
        "created": created,
        "updated": updated,
        "unchanged": unchanged,
        "rejected": rejected,
    }


def test_rows_create_update_and_leave_alone(platform: Platform) -> None:
    text = "external_person_id,mdn,first_name\nCRM-1,,Augusta\nCRM-3,,\nCRM-9,+13125550199,Dee\n"
    assert imported(platform, text) == (counts(created=1, updated=1, unchanged=1), [])
    new = platform.find(external_person_id="CRM-9")
    assert new is not None
    assert (new.mdn, new.custom["first_name"]) == (NEW_MDN, "Dee")
    assert platform.audit.as_dict(persons=False)["effects"] == {
        "import_add": 1,
        "import_update": 1,
    }


def test_the_same_file_again_changes_nothing(platform: Platform) -> None:
    text = "external_person_id,mdn,tier\nCRM-1,,silver\nCRM-9,3125550199,gold\n"
    imported(platform, text)
    before = repr(platform.persons)
    assert imported(platform, text) == (counts(unchanged=2), [])
    assert repr(platform.persons) == before
    assert (platform.audit.effects(), platform.audit.repeats("import_update")) == (2, 2)


def test_reports_have_their_header_and_lines_end_with_lf(platform: Platform) -> None:
    outcome = process_import(platform, "a.persons", b"mdn\nx\n")
    assert outcome.report_csv == (
        "row_number,error_class,error_message\n"
        "1,MobilePhoneErrors::InvalidMDNFormat,"
        "The MDN is incorrectly formatted. It should be an E.164 MDN.\n"
    )
    assert outcome.summary_csv == "rows,created,updated,unchanged,rejected\n1,0,0,0,1\n"


def test_a_header_section_names_fields_and_delimiters(platform: Platform) -> None:
    text = (
        "fields: external_person_id,interests,first_name\nDelimiter: ;\n"
        "MULTI-SELECT-DELIMITER: ,\n\nCRM-3;golf,tennis;Cal\n"
    )
    assert imported(platform, text) == (counts(updated=1), [])
    assert platform.persons[CAL_KEY].custom["interests"] == ("golf", "tennis")


def test_a_header_section_without_fields_takes_them_from_the_first_row(platform: Platform) -> None:
    text = "Delimiter: |\nMulti-Select-Delimiter: ;\n\nmdn|tier\n+13125550143|gold\n"
    assert imported(platform, text) == (counts(updated=1), [])


def test_quoted_cells_hold_delimiters_quotes_and_line_breaks(platform: Platform) -> None:
    text = 'external_person_id,first_name\r\nCRM-1,"A ""B"",\nC"\r\nCRM-3,Cal'
    assert imported(platform, text) == (counts(updated=2), [])
    assert platform.persons[ADA_KEY].custom["first_name"] == 'A "B",\nC'


def test_a_byte_order_mark_is_dropped(platform: Platform) -> None:
    data = "\ufeffexternal_person_id,first_name\nCRM-1,Zoë\n".encode()
    assert imported(platform, data) == (counts(updated=1), [])
    assert platform.persons[ADA_KEY].custom["first_name"] == "Zoë"


@pytest.mark.parametrize(
    ("data", "error_class"),
    [
        ("mdn,first_name\n+13125550142,Zoë\n".encode("utf-16-le"), ENCODING),
        ("mdn,first_name\n+13125550142,Zoë\n".encode("utf-16"), ENCODING),
        ("mdn,first_name\n+13125550142,Zoë\n".encode("latin-1"), ENCODING),
        (b"", FORMAT),
        (b"first_name,tier\nAda,gold\n", FORMAT),
        (b"person_key,first_name\nx,Ada\n", FORMAT),
        (b"Fields: mdn\nDelimiter: ,\n+13125550142\n", FORMAT),
        (b"Fields: mdn\n+13125550142\n", FORMAT),
        (b"Fields: mdn\nSubscription-List-ID: 1234\n\n+13125550142\n", FORMAT),
        (b"Fields: mdn\nFields: mdn\n\n+13125550142\n", FORMAT),
        (b"Fields: mdn\nDelimiter: ;;\n\n+13125550142\n", FORMAT),
        (b"Fields: mdn\nDelimiter: |\n\n+13125550142\n", FORMAT),
        (b"mdn,first_name,first_name\n+13125550142,a,b\n", FORMAT),
        (b"mdn,first_name\n+13125550142,Ada\n+13125550143\n", FORMAT),
        (b"mdn,first_name\n+13125550142,Ada\n\n+13125550143,Bea\n", FORMAT),
        (b'mdn,first_name\n+13125550142,"Ada\n', FORMAT),
        (b"mdn,first_name\r+13125550142,Ada\r", FORMAT),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_whole(
    platform: Platform, data: bytes, error_class: str
) -> None:
    before = repr(platform.persons)
    assert imported(platform, data) == (counts(), [(0, error_class)])
    assert repr(platform.persons) == before


def test_a_file_identified_by_person_key_alone_is_taken_under_the_other_reading(
    platform: Platform,
) -> None:
    text = f"person_key,first_name\n{ADA_KEY},Augusta\n"
    summary, errors = imported(platform, text, person_key_only_import="accepted")
    assert (summary, errors) == (counts(updated=1), [])


def test_an_unknown_column_rejects_every_row(platform: Platform) -> None:
    errors = [(1, "PersonErrors::CustomFieldNotFound"), (2, "PersonErrors::CustomFieldNotFound")]
    for column in ("shoe_size", "First_Name", " first_name"):
        text = f"external_person_id,{column}\nCRM-1,43\nCRM-3,\n"
        assert imported(platform, text) == (counts(rejected=2), errors)


@pytest.mark.parametrize(
    ("columns", "cells", "error_class"),
    [
        ("mdn", "555", "MobilePhoneErrors::InvalidMDNFormat"),
        ("external_person_id,mdn", "CRM-3,[null]", "MobilePhoneErrors::InvalidMDNFormat"),
        ("mdn,nickname", f"{ADA_MDN},Zoë", "PersonErrors::InvalidSelectCustomFieldValue"),
        ("mdn,tier", f"{ADA_MDN},Gold", "PersonErrors::InvalidSelectCustomFieldValue"),
        ("mdn,interests", f"{ADA_MDN},golf;music", "PersonErrors::InvalidSelectCustomFieldValue"),
        ("mdn,birthdate", f"{ADA_MDN},1990-12-01", "PersonErrors::InvalidSelectCustomFieldValue"),
        ("mdn,score", f"{ADA_MDN},many", "PersonErrors::InvalidSelectCustomFieldValue"),
        ("person_key,mdn", f"nobody,{ADA_MDN}", "PersonErrors::PersonNotFound"),
        ("person_key,mdn", f"{ADA_KEY.upper()},", "PersonErrors::PersonNotFound"),
        ("person_id,mdn", f"999,{ADA_MDN}", "PersonErrors::PersonNotFound"),
        ("person_id,mdn", f"{ADA_KEY},{ADA_MDN}", "PersonErrors::InvalidPersonID"),
        ("external_person_id,mdn", f"CRM-3,{ADA_MDN}", "PersonErrors::MobilePhoneAlreadyAssigned"),
        ("external_person_id,mdn", f"CRM-9,{ADA_MDN}", "PersonErrors::MobilePhoneAlreadyAssigned"),
        ("external_person_id,mdn", f"CRM-1,{NEW_MDN}", "PersonErrors::MdnChangeNotAllowed"),
        ("external_person_id,mdn", f"CRM-1,{BEA_MDN}", "PersonErrors::MdnChangeNotAllowed"),
        (
            "external_person_id,first_name",
            ",Ada",
            "PersonErrors::PersonCreateRequiresDeviceOrExternalPersonId",
        ),
        (
            "external_person_id,first_name",
            "[null],Ada",
            "PersonErrors::PersonCreateRequiresDeviceOrExternalPersonId",
        ),
        ("person_key,external_person_id", f"{BEA_KEY},CRM-1", "PG::UniqueViolation"),
        ("external_person_id", "x" * 129, "PG::StringDataRightTruncation"),
        ("mdn", LANDLINE, "CarrierLookupService::PermanentLookupFailureError"),
        (
            "external_person_id,mdn",
            f"CRM-3,{LANDLINE}",
            "CarrierLookupService::PermanentLookupFailureError",
        ),
    ],
)
def test_error_classes_of_rows(
    platform: Platform, columns: str, cells: str, error_class: str
) -> None:
    before = repr(platform.persons)
    assert imported(platform, f"{columns}\n{cells}\n") == (
        counts(rejected=1),
        [(1, error_class)],
    )
    assert repr(platform.persons) == before


def test_a_carrier_look_up_may_be_down_for_the_moment() -> None:
    def is_down(_: str) -> str:
        raise CarrierLookupDownError

    summary, errors = imported(build_platform(carrier_lookup=is_down), f"mdn\n{NEW_MDN}\n")
    assert summary == counts(rejected=1)
    assert errors == [(1, "CarrierLookupService::TransientLookupFailureError")]


def test_a_rejected_row_does_not_stop_the_others(platform: Platform) -> None:
    text = f"mdn,first_name\n{ADA_MDN},Augusta\n{LANDLINE},Lee\n{BEA_MDN},Bea\n"
    summary, errors = imported(platform, text)
    assert summary == counts(updated=2, rejected=1)
    assert [number for number, _ in errors] == [2]


def test_identifiers_count_by_precedence_and_the_others_are_values(platform: Platform) -> None:
    text = (
        "person_id,person_key,external_person_id,mdn,first_name\n"
        f"12,{ADA_KEY},,,Id\n,{CAL_KEY},,{NEW_MDN},Key\n,,CRM-1,{ADA_MDN},External\n"
    )
    assert imported(platform, text) == (counts(updated=3), [])
    names = {key: person.custom["first_name"] for key, person in platform.persons.items()}
    assert names == {BEA_KEY: "Id", CAL_KEY: "Key", ADA_KEY: "External"}
    assert platform.persons[CAL_KEY].mdn == NEW_MDN


def test_blank_cells_clear_selects_and_nothing_else(platform: Platform) -> None:
    text = f"person_key,external_person_id,mdn,first_name,tier,interests\n{ADA_KEY},,,,,\n"
    assert imported(platform, text) == (counts(updated=1), [])
    ada = platform.persons[ADA_KEY]
    assert (ada.external_person_id, ada.mdn, ada.custom["first_name"]) == ("CRM-1", ADA_MDN, "Ada")
    assert (ada.custom["tier"], ada.custom["interests"]) == (None, None)


def test_null_in_brackets_clears_the_external_id_and_is_text_elsewhere(platform: Platform) -> None:
    text = f"mdn,external_person_id,first_name\n{ADA_MDN},[null],[null]\n"
    assert imported(platform, text) == (counts(updated=1), [])
    ada = platform.persons[ADA_KEY]
    assert (ada.external_person_id, ada.custom["first_name"]) == (None, "[null]")


def test_an_import_never_touches_subscriptions(platform: Platform) -> None:
    before = repr(platform.subscriptions)
    imported(platform, f"mdn,first_name\n{ADA_MDN},Augusta\n{NEW_MDN},Dee\n")
    assert repr(platform.subscriptions) == before


@given(st.lists(st.lists(st.text(st.characters(exclude_characters="\0")), min_size=2, max_size=2)))
def test_every_well_written_table_is_read_back(rows: list[list[str]]) -> None:
    def cell(text: str) -> str:
        return '"' + text.replace('"', '""') + '"'

    body = "".join(",".join(map(cell, row)) + "\n" for row in rows)
    assert list(parse_import(f"a,b\n{body}".encode(errors="replace")).rows()) == [
        [text.encode(errors="replace").decode() for text in row] for row in rows
    ]


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    folders = tmp_path / "in", tmp_path / "reports"
    for folder in folders:
        folder.mkdir()
    return folders


def test_pickup_takes_whole_files_and_leaves_reports(
    platform: Platform, folders: tuple[Path, Path]
) -> None:
    in_dir, report_dir = folders
    (in_dir / "a.persons").write_text(f"mdn,first_name\n{ADA_MDN},Augusta\n", encoding="utf-8")
    (in_dir / "b.persons.tmp").write_text("mdn\n", encoding="utf-8")
    (in_dir / "c.recipient_list").write_text("mdn\n", encoding="utf-8")
    pickup = ImportPickup(platform, in_dir, report_dir)
    (outcome,) = pickup.scan()
    assert sorted(path.name for path in in_dir.iterdir()) == ["b.persons.tmp", "c.recipient_list"]
    assert {path.name: path.read_text(encoding="utf-8") for path in report_dir.iterdir()} == {
        "a.persons.report.csv": outcome.report_csv,
        "a.persons.summary.csv": outcome.summary_csv,
    }
    assert pickup.scan() == []
    assert platform.audit.as_dict()["imports"] == {"files": 1, "rows": 1, "updated": 1}


def test_pickup_processes_the_oldest_file_first(
    platform: Platform, folders: tuple[Path, Path]
) -> None:
    in_dir, report_dir = folders
    for age, name in enumerate(("z", "a")):
        path = in_dir / f"{name}.persons"
        path.write_text(f"mdn,first_name\n{ADA_MDN},{name}\n", encoding="utf-8")
        os.utime(path, (age, age))
    ImportPickup(platform, in_dir, report_dir).scan()
    assert platform.persons[ADA_KEY].custom["first_name"] == "a"


def test_pickup_follows_the_reading_of_the_extension(
    platform: Platform, folders: tuple[Path, Path]
) -> None:
    in_dir, report_dir = folders
    for name in ("a.persons", "b.person"):
        (in_dir / name).write_text("mdn\n", encoding="utf-8")
    pickup = ImportPickup(platform, in_dir, report_dir, Switches(person_extension="person"))
    assert [outcome.name for outcome in pickup.scan()] == ["b.person"]
