"""What was sent and has arrived is no change of the platform: a newer edit of the CRM stands."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from vibes_pipelines.delivery.apsis_sends import Outcome
from vibes_pipelines.delivery.plan import plan
from vibes_pipelines.delivery.receipts import receipt
from vibes_pipelines.reconcile.summary import Summary
from vibes_pipelines.stages.certifying import certify_day
from vibes_pipelines.stages.project import Project
from vibes_pipelines.stages.reconciling import reconcile_day
from vibes_pipelines_tests.support.landed_days import (
    SYNC,
    Row,
    land,
    landed_project,
    reconciled,
    rows_of,
)

DAYS = ("2026-01-01", "2026-01-02", "2026-01-03", "2026-01-04")
OWNED = SYNC.replace("type: string}", "type: string, authority: platform}")
OTHER = {"id": "C2", "name": "Bo"}
OTHER_PERSON = {"person_key": "K2", "external_person_id": "C2", "first_name": "Bo"}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    with landed_project(tmp_path, monkeypatch, OWNED) as opened:
        yield opened


def contact(name: str) -> Row:
    return {"id": "C1", "name": name}


def person(name: str) -> Row:
    return {"person_key": "K1", "external_person_id": "C1", "first_name": name}


def landed(project: Project, number: int, crm: str, platform: str | None) -> None:
    """A day on which the two sides show these names; the platform may lack the person."""
    persons = [OTHER_PERSON] if platform is None else [person(platform), OTHER_PERSON]
    land(project, DAYS[number], "crm/contacts", [contact(crm), OTHER])
    land(project, DAYS[number], "share/persons", persons)
    for feed in ("share/subscriptions", "extract/subscriptions"):
        land(project, DAYS[number], feed, [])
    certify_day(project, DAYS[number])


def day(project: Project, number: int, crm: str, platform: str | None) -> Summary:
    """Such a day, reconciled."""
    landed(project, number, crm, platform)
    return reconcile_day(project, DAYS[number])


def delivered(
    project: Project, summary: Summary, number: int, outcome: Outcome = "accepted"
) -> None:
    folder = project.diff_set_folder(DAYS[number])
    plan(summary.diff_set, folder, project.config, project.ledger)
    sent = [
        one.operation_id
        for one in project.ledger.open_operations(summary.diff_set, "persons", "api")
    ]
    project.ledger.mark_sent(sent)
    project.ledger.record([receipt(one, outcome) for one in sent], DAYS[number])


def told(project: Project, number: int) -> tuple[list[tuple[str | None, str, str]], list[str]]:
    """What goes to the platform, with before and reason, and what goes to the CRM."""
    rows = rows_of(project, DAYS[number], "person_changes")
    changes = [one for row in rows for one in row["changes"] if one["field"] == "first_name"]
    back = [row["after"] for row in rows_of(project, DAYS[number], "crm_changes")]
    return [(one["before"], one["after"], one["reason"]) for one in changes], back


def test_who_is_edited_on_two_days_in_a_row_keeps_the_second_edit(project: Project) -> None:
    day(project, 0, "Ann", "Ann")
    delivered(project, day(project, 1, "Eve", "Ann"), 1)
    assert told(project, 1) == ([("Ann", "Eve", "crm_changed")], [])
    summary = day(project, 2, "Zoe", "Eve")
    assert told(project, 2) == ([("Eve", "Zoe", "crm_changed")], [])
    assert summary.drift == {}


def test_a_held_day_between_does_not_change_that(project: Project) -> None:
    day(project, 0, "Ann", "Ann")
    delivered(project, day(project, 1, "Eve", "Ann"), 1)
    day(project, 2, "Zoe", "Eve")
    day(project, 3, "Ida", "Eve")
    assert told(project, 3) == ([("Eve", "Ida", "crm_changed")], [])


def test_an_edit_while_the_share_is_behind_is_not_set_back_when_the_first_arrives(
    project: Project,
) -> None:
    day(project, 0, "Ann", "Ann")
    delivered(project, day(project, 1, "Eve", "Ann"), 1)
    delivered(project, day(project, 2, "Zoe", "Ann"), 2)
    day(project, 3, "Zoe", "Eve")
    assert told(project, 3) == ([], [])


def test_a_day_between_that_was_certified_alone_does_not_change_that(project: Project) -> None:
    day(project, 0, "Ann", "Ann")
    delivered(project, day(project, 1, "Eve", "Ann"), 1)
    landed(project, 2, "Eve", "Eve")
    day(project, 3, "Zoe", "Eve")
    assert told(project, 3) == ([("Eve", "Zoe", "crm_changed")], [])


def test_a_day_that_is_landed_anew_shows_what_has_arrived_by_then(project: Project) -> None:
    day(project, 0, "Ann", "Ann")
    delivered(project, day(project, 1, "Eve", "Ann"), 1)
    day(project, 2, "Zoe", "Ann")
    before = project.snapshots.find("share/persons", DAYS[2])
    assert before is not None
    shutil.rmtree(before.folder)
    day(project, 2, "Zoe", "Eve")
    assert told(project, 2) == ([("Eve", "Zoe", "crm_changed")], [])


def test_what_the_platform_refused_tells_nothing(project: Project) -> None:
    day(project, 0, "Ann", "Ann")
    delivered(project, day(project, 1, "Eve", "Ann"), 1, "rejected")
    day(project, 2, "Ann", "Eve")
    assert told(project, 2) == ([], ["Eve"])


def test_who_was_added_is_in_the_base_as_landed_from_the_next_day_on(project: Project) -> None:
    delivered(project, day(project, 0, "Ann", None), 0)
    rows = []
    for number in (1, 2):
        day(project, number, "Ann", "Ann")
        file = project.base_folder(DAYS[number]) / "exceptions.parquet"
        rows.append([row["person_key"] for row in pq.read_table(file).to_pylist()])
    assert rows == [["k1"], []]


def test_who_was_added_has_no_new_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a yes that is older than the base would invite nobody who is new."""
    inviting = OWNED.replace("sms_at}", 'sms_at, campaign: "7", invites: true}')
    number = "+12025550123"
    yes = {"phone": number, "sms": "yes", "sms_at": "2025-12-01T00:00:00Z"}
    with landed_project(tmp_path, monkeypatch, inviting) as project:
        first = reconciled(project, DAYS[0], [contact("Ann") | yes, OTHER], [OTHER_PERSON])
        delivered(project, first, 0)
        persons = [person("Ann") | {"mdn": number}, OTHER_PERSON]
        reconciled(project, DAYS[1], [contact("Ann") | yes, OTHER], persons)
        [invitation] = rows_of(project, DAYS[1], "subscription_changes")
    assert invitation["action"] == "invite"


def test_a_person_added_yesterday_is_edited_today(project: Project) -> None:
    delivered(project, day(project, 0, "Ann", None), 0)
    assert told(project, 0) == ([(None, "Ann", "new_contact")], [])
    day(project, 1, "Eve", "Ann")
    assert told(project, 1) == ([("Ann", "Eve", "crm_changed")], [])


def test_what_the_platform_itself_changed_still_goes_to_the_crm(project: Project) -> None:
    day(project, 0, "Ann", "Ann")
    delivered(project, day(project, 1, "Eve", "Ann"), 1)
    day(project, 2, "Eve", "Pat")
    assert told(project, 2) == ([], ["Pat"])


def test_what_was_planned_and_never_left_tells_nothing(project: Project) -> None:
    day(project, 0, "Ann", "Ann")
    day(project, 1, "Eve", "Ann")
    summary = day(project, 2, "Zoe", "Eve")
    assert told(project, 2) == ([], ["Eve"])
    assert summary.drift == {"first_name": {"both_changed": 1}}
