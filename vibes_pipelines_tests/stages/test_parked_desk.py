"""`callbacks parked`: what nobody could act on is listed, tried again, or ended with a reason."""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from click.testing import CliRunner, Result

from vibes_pipelines.callbacks.intake import posted, read_arrival
from vibes_pipelines.cli.main import main
from vibes_pipelines.settings import Settings
from vibes_pipelines.stages.inbox import drain
from vibes_pipelines.stages.project import Project, open_project
from vibes_pipelines.store.inbox import Inbox
from vibes_pipelines_tests.support.callbacks import (
    REMOVED,
    as_bytes,
    stored_rows,
    subscription_body,
)
from vibes_pipelines_tests.support.loop import EXAMPLE

AT = "2026-01-02T03:04:05Z"
NAME = "Anna Ambler"


class Desk:
    def __init__(self, project: Project, environment: dict[str, str]) -> None:
        self.project, self.environment = project, environment

    def crm(self, statement: str) -> list[Any]:
        engine = sa.create_engine(self.environment["CRM_URL"])
        try:
            with engine.begin() as connection:
                result = connection.exec_driver_sql(statement)
                return list(result.all()) if result.returns_rows else []
        finally:
            engine.dispose()

    def receive(self, *bodies: bytes) -> None:
        with closing(Inbox(self.project.settings.ledger_url)) as inbox:
            for body in bodies:
                inbox.store([read_arrival(posted("127.0.0.1", "/callbacks", body))])
        drain(self.project, dry_run=False)

    def run(self, *arguments: str) -> Result:
        command = ["callbacks", "parked", *arguments]
        return CliRunner().invoke(main, command, env=self.environment)

    def rows(self) -> list[dict[str, Any]]:
        return stored_rows(self.project.settings.ledger_url)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    environment = {
        "VIBES_HOME": str(tmp_path),
        "VIBES_LEDGER_URL": "",
        "VIBES_SYNC_CONFIG": str(EXAMPLE),
        "CRM_URL": f"sqlite:///{tmp_path / 'crm.db'}",
    }
    with open_project(Settings(environment)) as project:
        opened = Desk(project, environment)
        opened.crm("CREATE TABLE contacts (contact_id TEXT, sms_opt_in TEXT, sms_opt_in_at TEXT)")
        yield opened


def removed(contact: str) -> bytes:
    body = subscription_body(REMOVED, f"R{contact}", AT, external_person_id=contact)
    return as_bytes(body | {"note": NAME})


def unmatched(message: str) -> bytes:
    body = {"callback_type": "unmatched_message_received", "event_date": AT, "message": message}
    return as_bytes(body | {"participant": {"mdn": "+13125550142"}})


def test_the_list_names_kind_time_and_reason_and_nobody(desk: Desk) -> None:
    desk.receive(removed("C1"), f"garbage of {NAME}".encode(), unmatched("Please STOP this"))
    shown = desk.run("list")
    assert shown.exit_code == 0
    assert "subscription_removed" in shown.stdout
    assert "unknown_person" in shown.stdout
    assert "unreadable" in shown.stdout
    assert "a text that matched no campaign asks to stop" in shown.stdout
    assert not any(word in shown.stdout for word in (NAME, "C1", "555"))
    [first, *_] = json.loads(desk.run("list", "--json").stdout)
    assert first["reason"] == "unknown_person"
    assert first["event_at"] == AT


@pytest.mark.parametrize(
    ("message", "is_flagged"),
    [
        ("stop", True),
        ("Pls, STOP!!", True),
        ("opt-out", True),
        ("Remove me.", True),
        ("UNSUBSCRIBE me now", True),
        ("stopping by later", False),
        ("What time do you open?", False),
        ("", False),
    ],
)
def test_an_unmatched_text_with_an_opt_out_word_waits_for_a_person(
    desk: Desk, message: str, *, is_flagged: bool
) -> None:
    desk.receive(unmatched(message))
    [row] = desk.rows()
    assert row["status"] == ("parked" if is_flagged else "ignored")


def test_a_retry_acts_once_its_cause_is_gone_and_keeps_the_reason(desk: Desk) -> None:
    desk.receive(removed("C1"))
    desk.crm("INSERT INTO contacts VALUES ('C1', 'Y', '2020-01-01T00:00:00Z')")
    retried = desk.run("retry", "1", "--reason", "C1 was entered")
    assert retried.stdout == "1 wait for the next drain, 0 still parked\n"
    drain(desk.project, dry_run=False)
    assert desk.crm("SELECT * FROM contacts") == [("C1", "false", AT)]
    [row] = desk.rows()
    assert (row["status"], row["reason"]) == ("applied", "opted_out")
    assert (row["decided_reason"], row["decided_at"] is None) == ("C1 was entered", False)


def test_a_retry_of_what_cannot_be_read_leaves_it_parked(desk: Desk) -> None:
    desk.receive(b"garbage")
    assert (
        "0 wait for the next drain, 1 still parked"
        in desk.run("retry", "1", "--reason", "x").stdout
    )
    [row] = desk.rows()
    assert (row["status"], row["reason"]) == ("parked", "the body is not JSON: line 1, column 1")
    assert "[retried: x]" in desk.run("list").stdout


def test_what_is_dropped_is_over_and_is_not_dropped_twice(desk: Desk) -> None:
    desk.receive(removed("C1"), removed("C2"))
    assert desk.run("drop", "1", "--reason", "a test of the vendor").stdout == "1 dropped\n"
    assert [row["status"] for row in desk.rows()] == ["dropped", "parked"]
    assert desk.rows()[0]["reason"] == "unknown_person"  # why it was parked stays told
    again = desk.run("drop", "1", "2", "--reason", "again")
    assert again.exit_code == 1
    assert "not parked: 1; see `vibes-pipelines callbacks parked list`" in again.output
    assert [row["status"] for row in desk.rows()] == ["dropped", "parked"]


@pytest.mark.parametrize("command", ["retry", "drop"])
def test_no_decision_without_a_reason(desk: Desk, command: str) -> None:
    desk.receive(removed("C1"))
    blank = desk.run(command, "1", "--reason", "  ")
    assert blank.exit_code == 1
    assert "a decision needs a reason" in blank.output
    assert desk.run(command, "1").exit_code == 2


def person(event_id: str, at: str, custom: object) -> bytes:
    body = {"callback_type": "person_updated", "event_id": event_id, "event_date": at}
    return as_bytes(body | {"person": {"external_person_id": "C1", "custom_fields": custom}})


def test_a_person_in_no_known_form_is_parked_with_the_place(desk: Desk) -> None:
    desk.receive(person("E1", AT, {"tier": {"option_key": {"a": {}}}}), person("E2", AT, [1]))
    assert [(row["status"], row["reason"]) for row in desk.rows()] == [
        ("ignored", "left_to_daily"),  # what is no option key is no value
        ("parked", "person.custom_fields is not an object"),
    ]


def test_persons_are_left_to_the_daily_job_until_it_was_approved(desk: Desk) -> None:
    desk.receive(person("E1", "2026-01-02T04:00:00Z", {}), person("E2", AT, {}))
    assert {row["event_id"]: row["reason"] for row in desk.rows()} == {
        "E1": "left_to_daily",
        "E2": "overtaken",
    }
