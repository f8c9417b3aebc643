"""Who was erased and comes back: under the old key, another key, or in a line that is no row."""

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vibes_pipelines.callbacks.intake import posted, read_arrival
from vibes_pipelines.stages.erased_opt_outs import OPTED_OUT_ONCE, opted_out_before
from vibes_pipelines.stages.erasing import erase
from vibes_pipelines.stages.kept_out import ERASED_SINCE, named_erased
from vibes_pipelines.stages.project import Project
from vibes_pipelines.stages.quarantine_desk import list_cases, resolve, undo
from vibes_pipelines.stages.reconciling import reconcile_day
from vibes_pipelines.store.inbox import Inbox
from vibes_pipelines.store.records import Change, Kind, Operation
from vibes_pipelines.store.snapshots import DATA, Reject, Source, write_rejects
from vibes_pipelines_tests.support.callbacks import REMOVED, as_bytes, subscription_body
from vibes_pipelines_tests.support.landed_days import (
    COLUMNS,
    SYNC,
    Row,
    land,
    landed_project,
    reconciled,
)

DAYS = [f"2026-01-{number:02}" for number in range(1, 6)]
KEY, NUMBER = "abc-1001", "+13125550042"
BEA: Row = {"id": "B-1000001", "phone": "+13125550001", "name": "Bea", "level": "Gold"}
QUENTIN: Row = {"id": KEY, "phone": "(312) 555-0042", "name": "Quentin", "level": "Gold"}
PERSONS: list[Row] = [
    {"person_key": "p-000001", "external_person_id": BEA["id"], "mdn": "+13125550001"},
    {"person_key": "p-00004A", "external_person_id": KEY, "mdn": NUMBER},
]
BY_CALLBACK = datetime(2026, 1, 3, 10, tzinfo=UTC)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """One reconciled day."""
    sync = SYNC.replace("max_age_h: 300", "max_age_h: 300, erasure: none")
    with landed_project(tmp_path, monkeypatch, sync) as opened:
        reconciled(opened, DAYS[0], [BEA, QUENTIN], PERSONS)
        yield opened


def opt_out_by_callback(project: Project) -> None:
    body = subscription_body(
        REMOVED, "so1", "2026-01-03 10:00:00 +0000", external_person_id=KEY, mdn=NUMBER
    )
    with closing(Inbox(project.settings.ledger_url)) as inbox:
        inbox.store([read_arrival(posted("127.0.0.1", "/callbacks", as_bytes(body)))])


def operation(
    kind: Kind, contact: str, *, said_yes: str = "2026-01-03T09:00:00+00:00", listed: str = "1234"
) -> Operation:
    return Operation(
        operation_id="o1",
        diff_set="d",
        day=DAYS[3],
        as_of=datetime(2026, 1, 4, tzinfo=UTC),
        lane="invites",
        route="api",
        route_reason="the only road",
        kind=kind,
        external_person_id=contact,
        person_key="p-000099",
        mdn=NUMBER,
        subscription_list_id=listed,
        changes=(Change("evidence_at", "set", None, said_yes, "crm_opted_in"),),
    )


def test_an_opt_out_outlives_the_erasure_of_who_said_it(project: Project) -> None:
    opt_out_by_callback(project)
    settings = project.settings
    assert opted_out_before(settings, [operation("invite", "NEW-1001")]) == {}
    erase(project, KEY, "asked for", "ann")
    refused = {"o1": OPTED_OUT_ONCE}
    assert opted_out_before(settings, [operation("invite", "NEW-1001")]) == refused
    same_instant = operation("invite", "NEW-1001", said_yes=BY_CALLBACK.isoformat())
    assert opted_out_before(settings, [same_instant]) == refused
    newer = operation("invite", "NEW-1001", said_yes="2026-01-03T10:00:01+00:00")
    assert opted_out_before(settings, [newer]) == {}
    assert opted_out_before(settings, [operation("invite", "NEW-1001", listed="9")]) == {}


def test_an_opt_out_that_arrives_after_the_erasure_is_remembered_by_erasing_again(
    project: Project,
) -> None:
    erase(project, KEY, "asked for", "ann")
    asked = operation("invite", "NEW-1001")
    assert opted_out_before(project.settings, [asked]) == {}
    opt_out_by_callback(project)
    erase(project, KEY, "asked for", "ann")
    assert opted_out_before(project.settings, [asked]) == {"o1": OPTED_OUT_ONCE}


def test_opt_outs_of_the_platform_and_of_the_crm_are_remembered_too(project: Project) -> None:
    land_two = [BEA, QUENTIN | {"sms": "false", "sms_at": "2026-01-02 08:00:00"}]
    ended: Row = {
        "person_key": "P-00004a",
        "subscription_list_id": "77",
        "opt_in_date": "2025-01-01",
    }
    reconciled(
        project, DAYS[1], land_two, PERSONS, [ended | {"opt_out_date": "2026-01-02 09:00:00"}]
    )
    erase(project, KEY, "asked for", "ann")
    for listed, at in (("1234", "2026-01-02T08:00:00+00:00"), ("77", "2026-01-02T09:00:00+00:00")):
        asked = operation("invite", "NEW-1001", said_yes=at, listed=listed)
        assert opted_out_before(project.settings, [asked]) == {"o1": OPTED_OUT_ONCE}
        later = operation("invite", "NEW-1001", said_yes="2026-01-02T09:00:01+00:00", listed=listed)
        assert opted_out_before(project.settings, [later]) == {}


def test_what_was_planned_for_an_erased_person_does_not_leave_but_opt_outs_do(
    project: Project,
) -> None:
    assert named_erased(project.settings, [operation("update", KEY)]) == {}
    erase(project, KEY, "asked for", "ann")
    assert named_erased(project.settings, [operation("update", KEY)]) == {"o1": ERASED_SINCE}
    assert named_erased(project.settings, [operation("opt_out", KEY)]) == {}
    assert named_erased(project.settings, [operation("update", BEA["id"])]) == {}


def test_a_new_contact_with_an_erased_number_waits_for_a_person(project: Project) -> None:
    erase(project, KEY, "asked for", "ann")
    returned = [BEA, QUENTIN | {"id": "NEW-1001"}]
    summary = reconciled(project, DAYS[1], returned, PERSONS[:1])
    assert summary.quarantine_kinds == {"erased_number": 1}
    assert summary.added == 0
    assert reconcile_day(project, DAYS[0]).quarantine_kinds == {"erased": 2}
    reconcile_day(project, DAYS[1])
    [case] = list_cases(project, "erased_number")
    resolve(project, case.case_id, "new-person", "she is her sister", "ann")
    assert reconciled(project, DAYS[2], returned, PERSONS[:1]).added == 1


def test_who_was_let_in_again_is_not_in_doubt_and_the_opt_out_stays(project: Project) -> None:
    opt_out_by_callback(project)
    erase(project, KEY, "asked for", "ann")
    reconciled(project, DAYS[1], [BEA, QUENTIN], PERSONS[:1])
    [case] = list_cases(project, "erased")
    undo(project, case.case_id, "came back by herself", "bob")
    summary = reconciled(project, DAYS[2], [BEA, QUENTIN], PERSONS[:1])
    assert summary.quarantine_kinds == {}
    assert opted_out_before(project.settings, [operation("invite", KEY)]) == {"o1": OPTED_OUT_ONCE}


def test_a_rejected_line_about_an_erased_person_is_blank(project: Project) -> None:
    erase(project, KEY, "asked for", "ann")
    lines = [f"{KEY},{NUMBER},too,many", f'"{KEY}"|x', "x;P-00004a;y", "B-1000001,stays"]

    def write(folder: Path) -> Source:
        schema = pa.schema([(name, pa.string()) for name in COLUMNS["extract/subscriptions"]])
        pq.write_table(pa.Table.from_pylist([], schema), folder / DATA)
        write_rejects(folder, [Reject(n, raw, "no row") for n, raw in enumerate(lines, 2)])
        return Source("extract", datetime.fromisoformat(f"{DAYS[1]}T06:00:00+00:00"))

    snapshot, _ = project.snapshots.land("extract/subscriptions", DAYS[1], write)
    rejected = pq.read_table(snapshot.rejects).column("raw").to_pylist()
    assert rejected == ["erased", "erased", "erased", "B-1000001,stays"]
    assert snapshot.manifest.rejected == 4


def test_a_stranger_whose_key_differs_in_case_only_stays(project: Project) -> None:
    """Contact keys are compared as they are spelt; a person_key in any case."""
    erase(project, KEY, "asked for", "ann")
    land(project, DAYS[1], "crm/contacts", [QUENTIN | {"id": KEY.upper()}, QUENTIN])
    land(project, DAYS[1], "share/persons", [PERSONS[1] | {"external_person_id": KEY.upper()}])
    found = project.snapshots.find("crm/contacts", DAYS[1])
    assert found is not None
    assert [row["name"] for row in pq.read_table(found.data).to_pylist()] == ["Quentin", None]
    persons = project.snapshots.find("share/persons", DAYS[1])
    assert persons is not None
    assert persons.manifest.erased == 1
