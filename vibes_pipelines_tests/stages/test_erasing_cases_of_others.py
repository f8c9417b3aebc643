"""Two contacts of the CRM with one number: erasing one leaves the other's cases what they were."""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from vibes_pipelines.callbacks.intake import posted, read_arrival
from vibes_pipelines.stages.erasing import erase
from vibes_pipelines.stages.masking import hash_key
from vibes_pipelines.stages.project import Project
from vibes_pipelines.stages.pseudonyms import pseudonym
from vibes_pipelines.store.inbox import Inbox
from vibes_pipelines_tests.support.landed_days import SYNC, Row, landed_project, reconciled

DAY = "2026-01-01"
KEY, OTHER, PERSON_KEY, NUMBER = "Quentin-42", "Quincy-43", "c0ffee-42", "+13125550042"
CONTACTS: list[Row] = [
    {"id": KEY, "phone": "(312) 555-0042", "name": "Quentinius"},
    {"id": OTHER, "phone": NUMBER, "name": "Quincius"},
]
PERSONS: list[Row] = [{"person_key": PERSON_KEY, "external_person_id": KEY, "mdn": NUMBER}]
ALONE = SYNC.replace("max_age_h: 300", "max_age_h: 300, erasure: none")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    with landed_project(tmp_path, monkeypatch, ALONE) as opened:
        yield opened


def cases(project: Project, file: str, contact: str) -> list[Row]:
    rows = pq.read_table(project.diff_set_folder(DAY) / f"{file}.parquet").to_pylist()
    return [row for row in rows if row["external_person_id"] == contact]


@pytest.mark.parametrize("file", ["quarantine", "cases"])
def test_the_others_cases_lose_the_mention_and_nothing_else(project: Project, file: str) -> None:
    reconciled(project, DAY, CONTACTS, PERSONS)
    before = cases(project, file, OTHER)
    assert PERSON_KEY in {row["person_key"] for row in before}
    erase(project, KEY, "asked for", "ann")
    hidden = pseudonym(PERSON_KEY, hash_key(project.settings.home))
    mention = {"person_key": hidden} | ({"others": ["erased"]} if file == "cases" else {})
    assert cases(project, file, OTHER) == [row | mention for row in before]
    assert cases(project, file, KEY) == []


def test_who_has_the_number_now_keeps_its_rows_and_nothing_is_said_to_be_left(
    project: Project,
) -> None:
    contacts = [{"id": KEY}, {"id": OTHER, "phone": "+13125550043", "name": "Quincius"}]
    persons: list[Row] = [
        {"person_key": PERSON_KEY, "external_person_id": KEY},
        {"person_key": "decaf-43", "external_person_id": OTHER, "mdn": NUMBER},
        {"person_key": "decaf-44", "mdn": "+13125550043"},
    ]
    reconciled(project, DAY, contacts, persons)
    before = cases(project, "cases", OTHER)
    assert any(NUMBER in other for row in before for other in row["others"])
    for day, person in ("2025-12-30", {**persons[0], "mdn": NUMBER}), ("2025-12-31", persons[1]):
        told = {"event_type": "person_updated", "event_id": day, "event_date": f"{day}T10:00Z"}
        body = json.dumps({**told, "person": person}).encode()
        with closing(Inbox(project.settings.ledger_url)) as inbox:
            inbox.store([read_arrival(posted("127.0.0.1", "/callbacks", body))])
    assert erase(project, KEY, "asked for", "ann").left == ()
    assert cases(project, "cases", OTHER) == before


def test_of_the_person_itself_nothing_is_left(project: Project) -> None:
    reconciled(project, DAY, CONTACTS, PERSONS)
    erase(project, KEY, "asked for", "ann")
    folder = project.settings.home
    texts = {str(pq.read_table(path).to_pylist()) for path in folder.rglob("*.parquet")}
    for word in (KEY, PERSON_KEY, "Quentinius"):
        assert not [text for text in texts if word in text]
    assert [text for text in texts if "Quincius" in text]
