"""`explain` of a contact of whom the quarantine desk says who it is."""

from pathlib import Path

import pytest

from vibes_pipelines.delivery.plan import plan
from vibes_pipelines.report.explain import explain
from vibes_pipelines.stages.quarantine_desk import list_cases, resolve
from vibes_pipelines.store.records import Receipt
from vibes_pipelines_tests.support.deliveries import BY_API
from vibes_pipelines_tests.support.landed_days import landed_project, reconciled

DAYS = ("2026-01-02", "2026-01-03", "2026-01-04")
CONTACT = {"id": "S1", "phone": "+13125550002", "name": "Sue"}
PERSONS = [
    {"person_key": "p-1", "external_person_id": "S1", "mdn": "+13125550001"},
    {"person_key": "p-2", "mdn": "+13125550002"},
]


def test_a_linked_contact_ends_as_its_day_ended_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with landed_project(tmp_path, monkeypatch) as project:
        reconciled(project, DAYS[0], [CONTACT], PERSONS)
        case = next(one for one in list_cases(project) if one.source == "contact")
        resolve(project, case.case_id, "link", "looked it up", "ann", "p-1")
        summary = reconciled(project, DAYS[1], [CONTACT], PERSONS)
        folder = project.diff_set_folder(DAYS[1])
        plan(summary.diff_set, folder, project.config, project.ledger, BY_API)
        [operation] = project.ledger.open_operations(summary.diff_set, "persons", "api")
        project.ledger.mark_sent([operation.operation_id])
        project.ledger.record([Receipt(operation.operation_id, "accepted")], DAYS[1])
        assert reconciled(project, DAYS[2], [CONTACT], PERSONS).pending == 1

        newest, linked, doubted = explain(project, "S1").days
    assert [day.end.status for day in (newest, linked, doubted)] == [
        *("pending", "updated", "quarantined"),
    ]
    for day in (newest, linked):
        [mdn] = [one for one in day.fields if one.field == "mdn"]
        assert mdn.why.endswith("its number is not looked at")
