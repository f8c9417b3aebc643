"""Every error class, from the sandbox that says it to the row of failures that an operator reads.

Import classes come from the sandbox's own reports, API classes from its answers over HTTP. The
classes that are not the platform's own words are noted as a delivery notes them; what leads to
each is in the tests of the client, the delivery and the write-back.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pyarrow.parquet as pq
import pytest

from vibes_pipelines.delivery.api_push import push
from vibes_pipelines.delivery.file_import import collect_reports, deliver_files
from vibes_pipelines.sandbox.account import Account
from vibes_pipelines.sandbox.acts import act
from vibes_pipelines.sandbox.imports import ImportOutcome, process_import, process_kind
from vibes_pipelines.stages import failures
from vibes_pipelines.stages.failures import write_failures
from vibes_pipelines.stages.project import Project
from vibes_pipelines.store.ledger import Ledger
from vibes_pipelines.vibes.api_calls import Answer
from vibes_pipelines.vibes.api_transport import Limits, VibesAuthError, VibesForbidden
from vibes_pipelines.vibes.campaign_api import Invitation
from vibes_pipelines.vibes.error_classes import ERROR_CLASSES, lookup
from vibes_pipelines.vibes.vibes_api import VibesApi
from vibes_pipelines_tests.sandbox.stand_in import (
    ADA_KEY,
    ADA_MDN,
    BEA_KEY,
    BEA_MDN,
    COMPANY_KEY,
    CREDENTIALS,
    LANDLINE,
    NEW_MDN,
    StandIn,
    build_platform,
    served_platform,
)
from vibes_pipelines_tests.support.deliveries import (
    BY_API,
    BY_FILE,
    DAY,
    DIFF_SET,
    FOLDERS,
    TYPES,
    FakeAnswer,
    FakePlatform,
    FakeServer,
    change,
    planned,
    update,
)

ROW = update("C1", change("first_name", "Ada"))

IMPORTED: dict[str, tuple[str, str]] = {
    "MobilePhoneErrors::InvalidMDNFormat": ("mdn", "555"),
    "PersonErrors::CustomFieldNotFound": ("mdn,shoe_size", f"{ADA_MDN},43"),
    "PersonErrors::InvalidSelectCustomFieldValue": ("mdn,tier", f"{ADA_MDN},Gold"),
    "PersonErrors::PersonNotFound": ("person_id,mdn", f"999,{ADA_MDN}"),
    "PersonErrors::MobilePhoneAlreadyAssigned": ("external_person_id,mdn", f"CRM-3,{ADA_MDN}"),
    "PersonErrors::InvalidPersonID": ("person_id,mdn", f"x,{ADA_MDN}"),
    "PersonErrors::MdnChangeNotAllowed": ("external_person_id,mdn", f"CRM-1,{NEW_MDN}"),
    "PersonErrors::PersonCreateRequiresDeviceOrExternalPersonId": (
        "external_person_id,first_name",
        ",Ada",
    ),
    "PG::UniqueViolation": ("person_key,external_person_id", f"{BEA_KEY},CRM-1"),
    "CarrierLookupService::TransientLookupFailureError": ("mdn", NEW_MDN),
    "CarrierLookupService::PermanentLookupFailureError": ("mdn", LANDLINE),
    "PersonErrors::InvalidImportFileFormat": ("first_name,tier", "Ada,gold"),
    "FileEngine::EncodingDetection::Unknown8BitEncodingDetected": ("mdn,first_name", "x,Zoë"),
    "IncentiveCodesImportErrors::CodeAlreadyExists": ("", "AB1"),
}
"""A file's columns and its one row, which make the sandbox say the class."""

Ask = Callable[[VibesApi, StandIn], Awaitable[Answer]]


def adding(external: str, mdn: str) -> Ask:
    body = {"external_person_id": external, "mobile_phone": {"mdn": mdn}}
    return lambda api, _: api.persons.add(body)


def struck(action: str, status: int = 503) -> Ask:
    """Any write, while a fault of the API is in force."""

    async def ask(api: VibesApi, there: StandIn) -> Answer:
        there.script({"action": action, "status": status})
        return await api.persons.upsert("CRM-1", {"custom_fields": {"first_name": "Ada"}})

    return ask


def read(said: Invitation) -> Answer:
    """An invitation's answer as a delivery notes it."""
    return Answer(said.status, said.outcome, said.error_class, said.message)


async def invited_too_late(api: VibesApi, _: StandIn) -> Answer:
    """To a campaign that is over."""
    return read(await api.campaigns.invite("779", mdn=BEA_MDN))


async def invited_after_a_no(api: VibesApi, there: StandIn) -> Answer:
    await api.campaigns.invite("777", mdn=BEA_MDN)
    act(there.account, "texts/reply", {"campaign_id": "777", "mdn": BEA_MDN, "word": "No"})
    return read(await api.campaigns.invite("777", mdn=BEA_MDN))


ANSWERED: dict[str, Ask] = {
    "EXTERNALPERSONIDMISMATCH": lambda api, _: api.persons.update(
        ADA_KEY, {"external_person_id": "CRM-3"}
    ),
    "MDNHASCONFIRMATIONBLOCK": invited_after_a_no,
    "UNPROCESSABLE ENTITY": invited_too_late,
    "countrynotsupported": adding("CRM-9", "3125550199"),
    "CarrierNotProvisioned": adding("CRM-9", LANDLINE),
    "HTTP 404": lambda api, _: api.persons.update("nobody", {"custom_fields": {}}),
    "HTTP 409": adding("CRM-3", ADA_MDN),
    "HTTP 422": lambda api, _: api.persons.update(ADA_KEY, {"custom_fields": {"tier": "x"}}),
    **{f"HTTP {status}": struck("status", status) for status in (400, 413, 415, 429)},
    "Timeout": struck("hang"),
    "ConnectionLost": struck("reset"),
}
"""A call that makes the sandbox answer so."""

NOTED = {
    "NotYetVisible",
    "Unreadable",
    "UnreadableAnswer",
    "NoActiveCallback",
    "ReportMissing",
    "HandedOver",
    "ContactNotFound",
    "ChangedMeanwhile",
    "ValueDoesNotFit",
    "RefusedByCrm",
    "LockedInCrm",
}

ENDING = "HTTP 401"
"""The refusal of the login, which ends the whole delivery: an error, and no row."""

OF_RIGHTS = "HTTP 403"
"""About one person, until person after person gets it: then it ends the delivery too."""

ELSEWHERE = {"et127_no_incentive_codes", "KeptDifferently"}
"""About an event, which is no row of a delivery: in the tests of events. About values that no
delivery refused: in those of values without effect."""


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(f"sqlite:///{tmp_path / 'ledger.db'}") as opened:
        yield opened


@pytest.fixture(scope="module")
def served() -> Iterator[StandIn]:
    with served_platform() as there:
        yield there


@dataclass(frozen=True)
class Desk:
    """What the operator has: the failures of the day."""

    ledger: Ledger
    folder: Path

    def shows(self, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str, str]:
        """Error class, category and advice of the one row."""
        monkeypatch.setattr(failures, "read_summary", lambda *_: SimpleNamespace(diff_set=DIFF_SET))
        project = SimpleNamespace(ledger=self.ledger, work_folder=lambda _: self.folder)
        found = write_failures(cast("Project", project), DAY)
        (row,) = pq.read_table(found.path).to_pylist()
        told = row["error_class"], row["category"], row["advice"]
        assert found.advised == [(told[0], 1, *told[1:])]
        return told


@pytest.fixture
def desk(ledger: Ledger, tmp_path: Path) -> Desk:
    return Desk(ledger, tmp_path / "work")


def meaning(name: str) -> tuple[str, str, str]:
    return name, ERROR_CLASSES[name].category, ERROR_CLASSES[name].advice


def test_every_class_is_shown_by_a_test() -> None:
    here = IMPORTED.keys() | ANSWERED.keys() | NOTED | {ENDING, OF_RIGHTS}
    assert here | ELSEWHERE == ERROR_CLASSES.keys()


def imported(name: str) -> ImportOutcome:
    """The sandbox's report on the file of this class."""
    columns, cells = IMPORTED[name]
    account = Account(build_platform())
    text = f"{columns}\n{cells}\n"
    if name.startswith("Incentive"):
        process_kind(account, "1.incentives", f"{cells}\n".encode())
        return process_kind(account, "1.incentives", f"{cells}\n".encode())
    if "Transient" in name:
        act(account, "numbers/fail-lookups", {"times": 1})
    encoding = "latin-1" if "Encoding" in name else "utf-8"
    return process_import(account.platform, "a.persons", text.encode(encoding))


@pytest.mark.parametrize("name", IMPORTED)
def test_a_refusal_in_a_report_is_shown_with_what_to_do(
    name: str, desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned(desk.ledger, tmp_path, persons=[ROW], estimates=BY_FILE)
    server, batches = FakeServer(), desk.ledger.batches(diff_set=DIFF_SET)
    work = desk.folder
    deliver_files(batches, server.session, FOLDERS, desk.ledger, TYPES, work, dry_run=False)
    (sent,) = server.files["/in"]
    report = imported(name)
    server.files["/reports"] = {
        f"{sent}.report.csv": report.report_csv,
        f"{sent}.summary.csv": report.summary_csv,
    }
    assert collect_reports(desk.ledger, server.session, FOLDERS, DAY).error_classes == {name: 1}
    assert desk.shows(monkeypatch) == meaning(name)


def asked(there: StandIn, ask: Ask) -> Answer:
    """What the client makes of the sandbox's answer."""
    limits = Limits(timeout_s=2, max_attempts=1)
    url = f"http://127.0.0.1:{there.client.port}"

    async def talk() -> Answer:
        login = CREDENTIALS.user, CREDENTIALS.password
        async with VibesApi(url, COMPANY_KEY, *login, limits=limits) as api:
            return await ask(api, there)

    there.reset()
    try:
        return asyncio.run(talk())
    finally:
        there.reset()


def pushed(desk: Desk, folder: Path, answer: Any) -> None:
    """One person is sent by API and answered so."""
    planned(desk.ledger, folder, persons=[ROW], estimates=BY_API)
    operations = desk.ledger.open_operations(DIFF_SET, "persons", "api")
    platform = FakePlatform(answers={"C1": answer})
    asyncio.run(push(operations, platform, desk.ledger, TYPES, dry_run=False))


@pytest.mark.parametrize("name", ANSWERED)
def test_a_refusal_by_api_is_shown_with_what_to_do(
    name: str, desk: Desk, served: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = asked(served, ANSWERED[name])
    assert answer.error_class == name
    pushed(desk, tmp_path, answer)
    assert desk.shows(monkeypatch) == meaning(name)


def test_a_refused_login_ends_the_delivery_and_says_what_to_do(
    desk: Desk, served: StandIn, tmp_path: Path
) -> None:
    with pytest.raises(VibesAuthError) as said:
        asked(served, struck("status", 401))
    assert said.value.error_class == ENDING
    assert not isinstance(said.value, VibesForbidden)
    with pytest.raises(VibesAuthError) as shown:
        pushed(desk, tmp_path, said.value)
    assert ENDING in str(shown.value)
    advice = lookup(ENDING).advice[1:].removesuffix(".")
    assert str(shown.value).endswith(advice), "the failure of the run is its text"
    assert desk.ledger.status_counts(DIFF_SET) == {("persons", "api", "planned"): 1}


def test_a_missing_right_to_one_person_is_shown_with_what_to_do(
    desk: Desk, served: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(VibesForbidden) as said:
        asked(served, struck("status", 403))
    assert said.value.error_class == OF_RIGHTS
    pushed(desk, tmp_path, said.value)
    assert desk.shows(monkeypatch) == meaning(OF_RIGHTS)
    advice = lookup(OF_RIGHTS).advice[1:].removesuffix(".")
    assert str(said.value).endswith(advice), "which ends the delivery after person upon person"


def test_a_missing_right_is_told_by_the_resource_and_never_by_the_person(served: StandIn) -> None:
    with pytest.raises(VibesForbidden) as said:
        asked(served, struck("status", 403))
    assert "HTTP 403 to PUT mobiledb/persons, " in str(said.value)
    assert "CRM-1" not in str(said.value)
    assert COMPANY_KEY not in str(said.value)


@pytest.mark.parametrize("name", sorted(NOTED))
def test_what_a_delivery_notes_itself_is_shown_with_what_to_do(
    name: str, desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pushed(desk, tmp_path, FakeAnswer(None, "rejected", name))
    assert desk.shows(monkeypatch) == meaning(name)
