"""Rows of an import file that no report tells of: no job sends them, and the words say so."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from vibes_pipelines.delivery.plan import Plan, plan
from vibes_pipelines.report.day_blocks import Table
from vibes_pipelines.report.day_loop import pending_section
from vibes_pipelines.report.day_view import open_reading
from vibes_pipelines.stages.erasing import erase
from vibes_pipelines.stages.erasing_subject import ErasureError
from vibes_pipelines.stages.preview_left import what_is_left
from vibes_pipelines.stages.project import Project
from vibes_pipelines.store.records import Receipt
from vibes_pipelines_tests.support.deliveries import BY_FILE
from vibes_pipelines_tests.support.landed_days import Row, landed_project, reconciled

DAY = "2026-01-01"
CONTACTS: list[Row] = [
    {"id": f"C{n}", "phone": f"+1312555000{n}", "name": f"Ada {n}"} for n in range(3)
]
PERSONS: list[Row] = [
    {"person_key": f"p{n}", "external_person_id": f"C{n}", "mdn": f"+1312555000{n}"}
    for n in range(3)
]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    with landed_project(tmp_path, monkeypatch) as opened:
        yield opened


@pytest.fixture
def handed_over(project: Project) -> Plan:
    """A plan of one import file, which was handed over to be uploaded by a person."""
    summary = reconciled(project, DAY, CONTACTS, PERSONS)
    folder, ledger = project.diff_set_folder(DAY), project.ledger
    made = plan(summary.diff_set, folder, project.config, ledger, BY_FILE)
    [batch] = made.batches
    rows = list(ledger.open_operations(made.diff_set, "persons", "file"))
    assert len(rows) == 3
    receipts = [Receipt(row.operation_id, "unknown", "HandedOver") for row in rows]
    ledger.hand_over_batch(batch, {"handed_over": True}, receipts, DAY)
    return made


def test_nothing_of_them_is_left_to_be_sent(project: Project, handed_over: Plan) -> None:
    left = what_is_left(handed_over, project.ledger)
    assert (left.operations, left.went, left.unanswered) == ({}, {"unknown": 3}, 0)
    assert left.is_through


def test_the_page_promises_no_repush(project: Project, handed_over: Plan) -> None:
    with open_reading(project) as reading:
        section = pending_section(reading.day(DAY))
    [under_way] = [
        block
        for block in section.blocks
        if isinstance(block, Table) and block.caption.startswith("Under way")
    ]
    [(*_, rows, standing)] = under_way.rows
    assert rows == 3
    assert "the certificates do" in standing


@pytest.mark.usefixtures("handed_over")
def test_an_erasure_waits_for_the_next_certificate(project: Project) -> None:
    with pytest.raises(ErasureError, match=r"1 operations .* without a report; .* certificate"):
        erase(project, "C1", "asked for", "ann")
