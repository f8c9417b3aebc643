"""The crash matrix: SIGKILL at every numbered step of a delivery: nothing is lost, nothing twice.

One delivery per road dies at each of its points in turn and is started again each time; the
sandbox counts the effects. A small version of it, and of each fault, runs with every test run.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from vibes_pipelines.sandbox.population import build_world
from vibes_pipelines.stages import delivering
from vibes_pipelines.stages.delivering import NoAnswerError
from vibes_pipelines.store.ledger import Ledger
from vibes_pipelines.vibes.api_transport import ApiTransport, Limits
from vibes_pipelines.vibes.sftp_errors import SftpError
from vibes_pipelines_tests.support.dying import (
    DELIVER,
    PUSH_API,
    PUSH_FILE,
    SMALL_STEPS,
    Point,
    run_to_death,
    run_to_the_end,
)
from vibes_pipelines_tests.support.loop import (
    SEND,
    Loop,
    agreed_keys,
    edited_sync_config,
)
from vibes_pipelines_tests.support.second_morning import running_second_morning

POPULATION = (400, 61)  # people and seed
AGREED = agreed_keys(build_world(*POPULATION))
LIST = "1234"

LEDGER = "vibes_pipelines.store.ledger"
LEASES = "vibes_pipelines.store.leases"
PUSH = "vibes_pipelines.delivery.api_push"
FILES = "vibes_pipelines.delivery.batch_files"
SESSION = "vibes_pipelines.vibes.sftp_session"
REQUESTS = "vibes_pipelines.vibes.sftp_requests"
PERSON_API = "vibes_pipelines.vibes.person_api"
CAMPAIGNS = "vibes_pipelines.vibes.campaign_api"
NUMBER = "vibes_pipelines.vibes.mdn_change"
RECORDS = "vibes_pipelines.store.diff_set_records"

API_POINTS = {
    "01 nothing is planned": Point(LEDGER, "Ledger.write_plan", 1, "before"),
    "02 all is planned": Point(LEDGER, "Ledger.write_plan", 1, "after"),
    "03 the lane is not leased": Point(LEASES, "Leases.take_lease", 1, "before"),
    "04 the lane is leased": Point(LEASES, "Leases.take_lease", 1, "after"),
    "05 no intent is recorded": Point(LEDGER, "Ledger.mark_sent", 1, "before"),
    "06 intents are recorded, nothing left": Point(LEDGER, "Ledger.mark_sent", 1, "after"),
    "07 an unsubscribe is about to leave": Point(PERSON_API, "PersonApi.unsubscribe", 1, "before"),
    "08 an unsubscribe is answered": Point(PERSON_API, "PersonApi.unsubscribe", 2, "after"),
    "09 the lease is not given back": Point(LEASES, "Leases.give_lease_back", 1, "before"),
    "10 a person is about to leave": Point(PERSON_API, "PersonApi.upsert", 1, "before"),
    "11 a person is answered": Point(PERSON_API, "PersonApi.upsert", 7, "after"),
    "12 an answer is no receipt yet": Point(PUSH, "receipt", 9, "before"),
    "13 receipts are gathered, not written": Point(LEDGER, "Ledger.record", 1, "before"),
    "14 receipts are written": Point(LEDGER, "Ledger.record", 1, "after"),
    "15 the next intents are not recorded": Point(LEDGER, "Ledger.mark_sent", 2, "before"),
    "16 the next intents are recorded": Point(LEDGER, "Ledger.mark_sent", 2, "after"),
    "17 a number is looked up": Point(NUMBER, "MdnChange._refusal", 1, "after"),
    "18 a number is removed, not set": Point(NUMBER, "MdnChange._put_and_expect", 1, "after"),
    "19 a number is set, nothing noted": Point(NUMBER, "MdnChange.run", 1, "after"),
    "20 an invitation is about to leave": Point(CAMPAIGNS, "CampaignApi.invite", 1, "before"),
    "21 an invitation is answered": Point(CAMPAIGNS, "CampaignApi.invite", 1, "after"),
    "22 an invitation is being read back": Point(CAMPAIGNS, "CampaignApi.standing", 1, "before"),
    "23 an invitation was read back": Point(CAMPAIGNS, "CampaignApi.standing", 1, "after"),
    "24 the last receipts are written": Point(LEDGER, "Ledger.take_back", 1, "before"),
    "25 the diff set is not closed": Point(RECORDS, "DiffSetRecords.mark_delivered", 1, "before"),
    "26 the diff set is closed": Point(RECORDS, "DiffSetRecords.mark_delivered", 1, "after"),
}
FILE_POINTS = {
    "01 nothing is planned": Point(LEDGER, "Ledger.write_plan", 1, "before"),
    "02 all is planned": Point(LEDGER, "Ledger.write_plan", 1, "after"),
    "03 no file is written": Point(FILES, "write_checked", 1, "before"),
    "04 a file is written and checked": Point(FILES, "write_checked", 1, "after"),
    "05 the lane is not leased": Point(LEASES, "Leases.take_lease", 1, "before"),
    "06 the lane is leased": Point(LEASES, "Leases.take_lease", 1, "after"),
    "07 the intent is not recorded": Point(LEDGER, "Ledger.mark_batch_sent", 1, "before"),
    "08 the intent is recorded": Point(LEDGER, "Ledger.mark_batch_sent", 1, "after"),
    "09 the upload is about to begin": Point(SESSION, "SftpSession.upload", 1, "before"),
    "10 half of a file is there": Point(REQUESTS, "Exchange.send", 1, "after"),
    "11 whole under its temporary name": Point("paramiko", "SFTPClient.posix_rename", 1, "before"),
    "12 in place, nothing noted": Point("paramiko", "SFTPClient.posix_rename", 1, "after"),
    "13 the next file is about to begin": Point(SESSION, "SftpSession.upload", 1, "before"),
    "14 uploaded": Point(SESSION, "SftpSession.upload", 1, "after"),
    "15 reports are being looked for": Point(SESSION, "SftpSession.list", 1, "before"),
    "16 a report is being read": Point(SESSION, "SftpSession.read_text", 1, "before"),
    "17 a report is read": Point(SESSION, "SftpSession.read_text", 2, "after"),
    "18 a report is not recorded": Point(LEDGER, "Ledger.finish_batch", 1, "before"),
    "19 a report is recorded": Point(LEDGER, "Ledger.finish_batch", 1, "after"),
    "20 the diff set is not closed": Point(RECORDS, "DiffSetRecords.mark_delivered", 1, "before"),
    "21 the diff set is closed": Point(RECORDS, "DiffSetRecords.mark_delivered", 1, "after"),
}
STAGES = (
    delivering.deliver_opt_outs,
    delivering.write_back,
    delivering.import_persons,
    delivering.push_persons,
    delivering.deliver_invites,
)
ALWAYS = (
    "18 a number is removed, not set",
    "21 an invitation is answered",
    "23 an invitation was read back",
)
BY_FILE = {**PUSH_FILE, "VIBES_API_RATE_PER_S": "10"}


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Loop]:
    """A second morning with changes of every kind, reconciled and approved; nothing is sent."""
    config = edited_sync_config(
        tmp_path,
        ("channel: sms, ", 'campaign: "777", invites: true, channel: sms, '),
        ("mdn_change: quarantine", "mdn_change: replace"),
    )
    with running_second_morning(tmp_path, POPULATION, config) as running:
        _edit(running)
        running.approve(running.reconcile())
        yield running


def _edit(loop: Loop) -> None:
    """Names, postal codes, numbers, opt-outs and opt-ins."""
    at = "2026-01-02 00:30:00"
    rows = {str(row["contact_id"]): row for row in loop.sandbox.crm.rows()}
    persons = {str(p.external_person_id): p for p in loop.sandbox.platform.persons.values()}
    known = [key for key in AGREED if key in persons and persons[key].mdn]
    of_list = {
        key: loop.sandbox.platform.subscriptions_of(persons[key].person_key, active_only=False)
        for key in known
    }
    strangers = [key for key in known if not any(s.list_id == LIST for s in of_list[key])]
    members = [key for key in known if rows[key]["sms_opt_in"] == "true"]
    loop.edit_contacts("last_name = 'Edited'", known[:120])
    loop.edit_contacts("zip = '60601'", known[120:160])
    for number, key in enumerate(known[160:172]):
        loop.edit_contacts(f"mobile = '+1312555{9100 + number}'", [key])
    loop.edit_contacts(f"sms_opt_in = 'false', sms_opt_in_at = '{at}'", members[-6:])
    loop.edit_contacts(f"sms_opt_in = 'true', sms_opt_in_at = '{at}'", strangers[:10])


def requests(loop: Loop) -> list[dict[str, Any]]:
    """What the API was asked, counted by its answer; 0 is none."""
    found: list[dict[str, Any]] = loop.sandbox.audit()["requests"]  # type: ignore[assignment]
    return found


def assert_exactly_once(loop: Loop) -> None:
    """One effect for each accepted operation (a replaced number has two), and none left open."""
    newest = loop.project.ledger.newest_diff_set()
    assert newest is not None
    assert newest.status == "delivered"
    counts = loop.project.ledger.operation_counts(newest.diff_set)
    assert {counted.status for counted in counts} <= {"accepted"}
    expected = sum(
        counted.rows * (2 if counted.kind == "mdn_replace" else 1)
        for counted in counts
        if counted.route != "crm"
    )
    audit = loop.sandbox.platform.audit
    assert audit.effects() == expected
    assert audit.effects("api_participant") == 10
    texts = loop.sandbox.account.activity.messages.values()
    assert len([text for text in texts if "Reply Y" in text.text]) == 10


def assert_next_day_is_quiet(loop: Loop) -> None:
    loop.sandbox.next_day(edits=False)
    account = loop.day()
    assert (account.added, account.updated, account.unexplained) == (0, 0, 0)
    assert account.confirmed >= 170


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("points", "road"), [(API_POINTS, PUSH_API), (FILE_POINTS, BY_FILE)], ids=["api", "file"]
)
def test_killed_at_every_step(loop: Loop, points: dict[str, Point], road: dict[str, str]) -> None:
    for point in points.values():
        run_to_death(loop, SMALL_STEPS + DELIVER, point, road)
    run_to_the_end(loop, DELIVER, road)
    assert_exactly_once(loop)
    assert_next_day_is_quiet(loop)


def test_killed_at_the_steps_that_are_not_idempotent(loop: Loop) -> None:
    points = [API_POINTS[name] for name in ALWAYS]
    for point in points:
        run_to_death(loop, SMALL_STEPS + DELIVER, point, PUSH_API)
    run_to_the_end(loop, DELIVER, PUSH_API)
    assert_exactly_once(loop)


class TestWithoutTheOthers:
    """The other side of a delivery goes away and comes back; the delivery is simply run again."""

    @pytest.mark.slow
    def test_the_ledger_goes_away_twice(self, loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
        record, calls = Ledger.record, []

        def gone(*arguments: object) -> None:
            calls.append(arguments)
            if len(calls) in {1, 3}:  # of the opt-outs, of the persons
                raise sa.exc.OperationalError("UPDATE", {}, Exception("server closed"))
            record(*arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(Ledger, "record", gone)
        with loop.changed(**PUSH_API) as by_api:
            for _ in range(2):
                with pytest.raises(sa.exc.OperationalError):
                    by_api.deliver()
            by_api.deliver()
        assert_exactly_once(loop)

    @pytest.mark.slow
    def test_the_api_hangs_before_and_after_effects(
        self, loop: Loop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Of every kind of operation; a client waits a second and asks twice."""
        patient = ApiTransport.__init__

        def impatient(
            self: ApiTransport,
            url: str,
            user: str,
            password: str,
            limits: Limits,
            *more: Any,
            **named: Any,
        ) -> None:
            limits = replace(limits, timeout_s=1, max_attempts=2, backoff_s=0.02)
            patient(self, url, user, password, limits, *more, **named)

        monkeypatch.setattr(ApiTransport, "__init__", impatient)
        loop.sandbox.set_faults(
            [
                {"action": "hang", "chance": 0.15},
                {"action": "hang", "chance": 0.15, "when": "after"},
            ]
        )
        with loop.changed(**PUSH_API) as by_api:
            for _ in range(3):
                for stage in STAGES:
                    with suppress(NoAnswerError):
                        stage(by_api.project, by_api.today, SEND)
            loop.sandbox.set_faults(None)
            by_api.deliver()
        unanswered = sum(request["count"] for request in requests(loop) if not request["status"])
        assert unanswered > 20
        assert_exactly_once(loop)
        assert_next_day_is_quiet(loop)

    def test_the_file_server_refuses_and_breaks_off(self, loop: Loop) -> None:
        loop.sandbox.set_faults(
            [
                {"on": "sftp", "action": "refuse", "times": 1},
                {"on": "sftp", "action": "reset", "times": 1, "match": {"path_regex": "persons"}},
            ]
        )
        with loop.changed(**PUSH_FILE, VIBES_API_RATE_PER_S=1) as by_file:
            for _ in range(2):
                with pytest.raises(SftpError):
                    delivering.import_persons(by_file.project, by_file.today, SEND)
        with loop.changed(**PUSH_FILE) as by_file:
            by_file.deliver()
        assert_exactly_once(loop)
