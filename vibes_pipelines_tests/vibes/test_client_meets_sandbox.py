"""The client and the stand-in, written apart from the same documentation, understand each other."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any, TypeVar

import pytest
from aiohttp import web

from vibes_pipelines.demo.sandbox_process import RunningSandbox, sandbox_process
from vibes_pipelines.vibes.api_version import ApiVersion
from vibes_pipelines.vibes.callback_api import TARGETS, CallbackSpec, Registration
from vibes_pipelines.vibes.event_api import Event
from vibes_pipelines.vibes.import_files import (
    Member,
    Named,
    OnboardingEvidence,
    Recipient,
    write_incentives,
    write_opt_outs,
    write_recipients,
    write_subscriptions,
)
from vibes_pipelines.vibes.import_kinds import report_name, summary_name
from vibes_pipelines.vibes.import_reports import ImportReport, read_report
from vibes_pipelines.vibes.import_writer import Layout
from vibes_pipelines.vibes.sftp import SftpAccount
from vibes_pipelines.vibes.vibes_api import VibesApi
from vibes_pipelines_tests.sandbox.stand_in import ADA_KEY, ADA_MDN, CREDENTIALS, served_platform
from vibes_pipelines_tests.support.import_rows import write_persons
from vibes_pipelines_tests.vibes.answering import FakePlatform, serve

Result = TypeVar("Result")
COMPANY, LIST, CAMPAIGN = "A1b2C3", "1234", "777"
PATIENCE_S = 60
TARGET = {"list_id": LIST, "campaign_id": CAMPAIGN, "campaign_token": "r3zhm8"}


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSandbox]:
    with sandbox_process(tmp_path_factory.mktemp("sandbox"), persons=20) as running:
        yield running


async def converse(
    sandbox: RunningSandbox, talk: Callable[[VibesApi], Awaitable[Result]], version: ApiVersion = 2
) -> Result:
    where = sandbox.environment
    login = where["VIBES_API_USER"], where["VIBES_API_PASSWORD"]
    async with VibesApi(where["VIBES_API_URL"], COMPANY, *login, version=version) as api:
        return await talk(api)


def ask_sandbox(
    sandbox: RunningSandbox, talk: Callable[[VibesApi], Awaitable[Result]], version: ApiVersion = 2
) -> Result:
    return asyncio.run(converse(sandbox, talk, version))


async def live(api: VibesApi, tag: int) -> None:
    """A person comes, changes number, is invited, has an event and is erased."""
    old, new, key = f"+131255570{tag:02d}", f"+131255580{tag:02d}", f"T-{tag}"
    body: dict[str, Any] = {"external_person_id": key, "mobile_phone": {"mdn": old}}
    assert (await api.persons.add(body)).outcome == "accepted"
    changed = await api.persons.replace_mdn(new, external_person_id=key, old_mdn=old)
    assert changed.outcome == "accepted"
    found = await api.persons.find_by_mdn(new)
    assert found is not None
    assert (found["external_person_id"], found["mobile_phone"]["mdn"]) == (key, new)
    assert (await api.campaigns.invite(CAMPAIGN, external_person_id=key)).state == "invited"
    assert (await api.campaigns.invite(CAMPAIGN, mdn=new)).state == "pending"
    assert len(await api.campaigns.pending(CAMPAIGN, mdn=new)) == 1
    assert await api.subscriptions.subscriber(LIST, external_person_id=key) is None
    event = Event(f"event-{tag}", "day_of_delivery", {"mdn": new})
    assert (await api.events.send(event)).outcome == "accepted"
    assert (await api.events.send(event)).outcome == "accepted"
    assert (await api.privacy.erase_by_mdn(new)).outcome == "accepted"
    assert await api.persons.find_by_mdn(new) is None


@pytest.mark.parametrize("version", [1, 2])
def test_a_person_lives_through_both_versions(sandbox: RunningSandbox, version: ApiVersion) -> None:
    ask_sandbox(sandbox, lambda api: live(api, version), version)


SECOND_READINGS: dict[str, Any] = {
    "find_by_mdn_body": "array",
    "empty_error_body": True,
    "unset_identifiers": "absent",
    "post_existing_mdn": "conflict",
    "put_external_unknown": "not_found",
    "delete_status": 200,
}
"""Of every switch of the Person API and of lists; the first ones hold in all other tests."""


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("switch", [*SECOND_READINGS, "all of them"])
def test_a_person_lives_under_both_readings(switch: str, version: ApiVersion) -> None:
    readings = {switch: SECOND_READINGS[switch]} if switch in SECOND_READINGS else SECOND_READINGS

    async def talk(api: VibesApi) -> None:
        await live(api, version)
        unknown = await api.persons.upsert("CRM-8", {"custom_fields": {"first_name": "Dee"}})
        is_refused = "put_external_unknown" in readings
        assert unknown.error_class == ("HTTP 404" if is_refused else None)
        taken = {"external_person_id": "CRM-7", "mobile_phone": {"mdn": ADA_MDN}}
        is_refused = "post_existing_mdn" in readings
        assert (await api.persons.add(taken)).error_class == ("HTTP 409" if is_refused else None)
        for _ in range(2):
            left = await api.subscriptions.unsubscribe(LIST, person_key=ADA_KEY)
            assert left.outcome == "accepted"
        assert await api.subscriptions.subscriber(LIST, mdn=ADA_MDN) is None
        without_number = await api.persons.get_external("CRM-3")
        assert without_number is not None
        assert without_number.get("mobile_phone") is None

    with served_platform(**readings) as there:
        login = {"VIBES_API_USER": CREDENTIALS.user, "VIBES_API_PASSWORD": CREDENTIALS.password}
        address = {"VIBES_API_URL": f"http://127.0.0.1:{there.client.port}"}
        ask_sandbox(RunningSandbox(address | login), talk, version)


def test_every_callback_can_be_registered_read_and_ended(sandbox: RunningSandbox) -> None:
    async def talk(port: int, api: VibesApi) -> None:
        for callback_type, names in TARGETS.items():
            target = {name: TARGET.get(name, "7") for name in names}
            spec = CallbackSpec(callback_type, f"http://127.0.0.1:{port}/in", target)
            answer = await api.callbacks.register(spec)
            assert answer.body, callback_type
            read = await api.callbacks.registration(Registration.read(answer.body).callback_id)
            assert read is not None
            assert spec.matches(read)
        for registration in await api.callbacks.registrations():
            assert (await api.callbacks.cancel(registration.callback_id)).outcome == "accepted"

    async def listen(port: int) -> None:
        await converse(sandbox, lambda api: talk(port, api))

    asyncio.run(serve(FakePlatform([web.Response()]), listen))


def test_import_files_are_taken_as_they_were_meant(sandbox: RunningSandbox, tmp_path: Path) -> None:
    ada, grace = "+13125559001", "+13125559002"
    persons = tmp_path / "a.persons"
    rows = [("X-1", ada, "=1+1"), ("X-2", grace, 'a"b;\n'), ("X-3", "+13", "")]
    layout = Layout(";", fields_in_header=True)
    write_persons(persons, ("external_person_id", "mdn", "first_name"), rows, layout)
    evidence = OnboardingEvidence("consents.pdf", "Ada", date(2025, 1, 1), frozenset({LIST}), 2)
    both = [Member(Named("mdn", ada), LIST), Member(Named("external_person_id", "X-2"), LIST)]
    (subscribed,) = write_subscriptions(tmp_path, "b", both, evidence)
    (opt_outs,) = write_opt_outs(tmp_path, "c", [*both[:1], Member(Named("mdn", grace), "999999")])
    (audience,) = write_recipients(tmp_path, "d", [Recipient(Named("mdn", ada), {"offer": "x"})])
    (codes,) = write_incentives(tmp_path, "1", ["AAAA1111", "BBBB2222"])
    files = [persons, subscribed.path, opt_outs.path, audience.path, codes.path]
    reports = [delivered(sandbox, path, tmp_path) for path in files]
    assert [(report.rows, sorted(report.errors)) for report in reports] == [
        (3, [3]),
        (2, []),
        (2, [2]),
        (1, []),
        (2, []),
    ]
    subscriber = ask_sandbox(sandbox, lambda api: api.subscriptions.subscriber(LIST, mdn=grace))
    assert subscriber is not None
    assert ask_sandbox(sandbox, lambda api: api.subscriptions.subscriber(LIST, mdn=ada)) is None
    found = ask_sandbox(sandbox, lambda api: api.persons.get_external("X-2"))
    assert found is not None
    assert found["custom_fields"]["first_name"] == 'a"b;\n'


def delivered(sandbox: RunningSandbox, path: Path, folder: Path) -> ImportReport:
    """The platform's report on a file, once it is there."""
    where = sandbox.environment
    account = SftpAccount(
        where["VIBES_SFTP_HOST"],
        int(where["VIBES_SFTP_PORT"]),
        where["VIBES_SFTP_USER"],
        Path(where["VIBES_SFTP_KEY_FILE"]),
        Path(where["VIBES_SFTP_KNOWN_HOSTS"]),
        0,
        folder / "sftp.state",
    )
    reports = where["VIBES_REPORT_DIR"]
    deadline = time.monotonic() + PATIENCE_S
    with account.session() as session:
        session.upload(path, where["VIBES_IMPORT_DIR"], path.name)
    while time.monotonic() < deadline:
        with account.session() as session:
            if summary_name(path.name) in {file.name for file in session.list(reports)}:
                return read_report(
                    session.read_text(f"{reports}/{report_name(path.name)}"),
                    session.read_text(f"{reports}/{summary_name(path.name)}"),
                )
        time.sleep(0.2)
    pytest.fail(f"no report on {path.name}")
