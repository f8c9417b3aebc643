"""The doctor: what is broken is named with its cure, and hides nothing else."""

import ctypes
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from vibes_pipelines.sandbox.population import build_world
from vibes_pipelines.sandbox.service import Sandbox
from vibes_pipelines.stages.doctor.registry import CHECKS, table
from vibes_pipelines.store.ledger import Ledger
from vibes_pipelines_tests.sandbox.receiver import eventually
from vibes_pipelines_tests.support.doctoring import Patient, header_eater, the_failure
from vibes_pipelines_tests.support.loop import EXAMPLE
from vibes_pipelines_tests.support.real_parts import refusing_port

LIST = 'list: "1234"'


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with Sandbox(tmp_path_factory.mktemp("sandbox"), build_world(150, seed=4)) as sandbox:
        yield sandbox


@pytest.fixture
def patient(served: Sandbox, tmp_path: Path) -> Patient:
    home = tmp_path / "dagster"
    home.mkdir()
    shutil.copy(EXAMPLE.with_name("dagster.yaml"), home)
    environment = {
        **served.environment(),
        "VIBES_HOME": str(tmp_path / "data"),
        "VIBES_LEDGER_URL": "",
        "VIBES_SYNC_CONFIG": str(EXAMPLE),
        "DAGSTER_HOME": str(home),
        "VIBES_DAGSTER_STORAGE": str(tmp_path / "runs"),
    }
    return Patient(served, tmp_path, environment)


@contextmanager
def crm_file(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path)) as connection, connection:
        yield connection


def test_a_set_up_that_is_well_has_no_failure_and_changes_nothing(patient: Patient) -> None:
    lines = patient.account()
    assert [line.text for line in lines if line.status in {"fail", "not checked"}] == []
    assert len({line.check for line in lines}) >= 30
    written = [path.name for path in (patient.folder / "data").iterdir()]
    assert written == ["sftp_session.json"]  # the account's gap is kept by every command
    assert not list(patient.sandbox.home.sftp_folder("/files/in").iterdir())


def test_one_that_fails_hides_no_other(patient: Patient) -> None:
    lines = patient.account(VIBES_API_PASSWORD="wrong", SNOWFLAKE_PASSWORD="wrong")
    by_check = {line.check: line for line in lines}
    assert {line.check for line in lines if line.status == "fail"} == {"api/login", "share/login"}
    assert by_check["share/age"].told == "waits for share/login"
    assert by_check["api/lists"].status == "not checked"
    assert by_check["sftp/clock"].status == "ok"


def test_no_secret_and_no_personal_value_is_told(patient: Patient) -> None:
    lines = patient.account(CRM_URL="postgresql+psycopg://ada:hunter2@127.0.0.1:1/crm")
    told = "\n".join(line.text for line in lines)
    secrets = [patient.environment[f"{name}_PASSWORD"] for name in ("VIBES_API", "SNOWFLAKE")]
    assert not [secret for secret in [*secrets, "hunter2"] if secret in told]
    people = patient.sandbox.crm.rows()
    assert not [row["mobile"] for row in people if row["mobile"] and str(row["mobile"]) in told]


# Each broken set-up: environment, edits of sync.yaml, the check, what it tells, the cure.
NOWHERE = "https://127.0.0.1:1/callbacks"
BROKEN: dict[str, tuple[dict[str, str], tuple[tuple[str, str], ...], str, str, str]] = {
    "malformed sync.yaml": (
        {},
        (("type: date", "type: dat"),),
        "files/sync.yaml",
        r"sync.yaml:\d+: fields\[2\].type: 'dat' is not allowed",
        "allowed: 'string'",
    ),
    "no sync.yaml": (
        {"VIBES_SYNC_CONFIG": "/nowhere/sync.yaml"},
        (),
        "files/sync.yaml",
        "no such file",
        "VIBES_SYNC_CONFIG",
    ),
    "a company key that nobody wrote": (
        {},
        (("A1b2C3", "REPLACE"),),
        "files/sync.yaml",
        "placeholder",
        "company_key of sync.yaml",
    ),
    "a file in place of the data folder": (
        {"VIBES_HOME": "/etc/hostname/data"},
        (),
        "files/home",
        "is not a folder",
        "set VIBES_HOME",
    ),
    "no CRM_URL": (
        {"CRM_URL": ""},
        (),
        "settings/crm",
        "CRM_URL is not set",
        "set it in the environment",
    ),
    "a ledger that is nowhere": (
        {"VIBES_LEDGER_URL": "postgresql+psycopg://ada:pw@127.0.0.1:1/vibes"},
        (),
        "ledger/tables",
        r"ada:\*\*\*@.* cannot be opened",
        "check VIBES_LEDGER_URL",
    ),
    "no DAGSTER_HOME": ({"DAGSTER_HOME": ""}, (), "machine/dagster", "not set", "DAGSTER_HOME"),
    "a relative Dagster storage": (
        {"VIBES_DAGSTER_STORAGE": "runs"},
        (),
        "machine/dagster",
        "no absolute path",
        "from the root",
    ),
    "a CRM file that is not there": (
        {"CRM_URL": "sqlite:////nowhere/crm.db"},
        (),
        "crm/connection",
        "no such file",
        "CRM_URL",
    ),
    "no login for the share": (
        {"SNOWFLAKE_PASSWORD": ""},
        (),
        "settings/share",
        "not complete",
        "SNOWFLAKE_PASSWORD or SNOWFLAKE_PRIVATE_KEY_PATH",
    ),
    "a CRM that does not answer": (
        {"CRM_URL": "postgresql+psycopg://ada:pw@127.0.0.1:1/crm"},
        (),
        "crm/connection",
        r"ada:\*\*\*@127.0.0.1:1/crm",
        "check host, port, database, user and password in CRM_URL",
    ),
    "a renamed column": (
        {},
        (("from: zip,", "from: postcode,"),),
        "crm/columns",
        r"fields\[6\].from: contacts has no column 'postcode'",
        "correct the name in sync.yaml; it has: contact_id, .*zip",
    ),
    "a table that is not there": (
        {},
        (("table: contacts", "table: customers"),),
        "crm/columns",
        "no table customers",
        "correct contacts.table",
    ),
    "a value without an option": (
        {},
        (("Silver: silver, ", ""),),
        "crm/options",
        "tier: .* in no option",
        "add each to options",
    ),
    "a consent in a spelling that is not accepted": (
        {},
        (('list: "1234"', 'list: "1234", opted_out: [nej]'),),
        "crm/consents",
        "sms_opt_in: values that mean neither opted in nor opted out",
        "go to quarantine, and a no among them is carried nowhere",
    ),
    "the wrong password of the share": (
        {"SNOWFLAKE_PASSWORD": "wrong"},
        (),
        "share/login",
        "logging in",
        "SNOWFLAKE_USER and SNOWFLAKE_PASSWORD",
    ),
    "a renamed object of the share": (
        {},
        (("PUBLIC.PERSONS", "PUBLIC.PEOPLE"),),
        "share/objects",
        "VIBES_SHARE.PUBLIC.PEOPLE does not exist or SNOWFLAKE_ROLE may not read it",
        "correct feeds.share/persons.object",
    ),
    "a column that the share lacks": (
        {},
        (("to: score", "to: points"),),
        "share/objects",
        "no column POINTS",
        "map it in sync.yaml. The object has: ",
    ),
    "an option key in the wrong case": (
        {},
        (("Gold: gold", "Gold: GOLD"),),
        "share/option keys",
        "'GOLD' is 'gold' at the platform",
        "write the key as it is there",
    ),
    "an unknown option key": (
        {},
        (("Gold: gold", "Gold: golden"),),
        "share/option keys",
        "'golden' is no key of any person",
        "in use: bronze, gold, silver",
    ),
    "an unreachable SFTP server": (
        {"VIBES_SFTP_PORT": "1"},
        (),
        "sftp/login",
        "cannot connect",
        "check VIBES_SFTP_HOST and _PORT",
    ),
    "no SFTP key": (
        {"VIBES_SFTP_KEY_FILE": "/nowhere/key"},
        (),
        "sftp/login",
        "no such file",
        "set VIBES_SFTP_KEY_FILE",
    ),
    "a missing SFTP folder": (
        {"VIBES_IMPORT_DIR": "/files/incoming"},
        (),
        "sftp/folders",
        "/files/incoming: no such file or folder",
        "correct VIBES_IMPORT_DIR, or ask Vibes",
    ),
    "a wrong name pattern": (
        {},
        (("subscriptions_{company_key}_{date}.txt", "subs_{date}.txt"),),
        "sftp/extracts",
        r"no file of /files/out has the form subs_\{date\}.txt; it holds e.g. current_",
        "correct feeds: extract/subscriptions: pattern",
    ),
    "an API that is nowhere": (
        {"VIBES_API_URL": "http://127.0.0.1:1"},
        (),
        "api/address",
        "does not answer",
        "check VIBES_API_URL",
    ),
    "the wrong password of the API": (
        {"VIBES_API_PASSWORD": "wrong"},
        (),
        "api/login",
        "the login was refused",
        "VIBES_API_USER and VIBES_API_PASSWORD",
    ),
    "the wrong company key": (
        {},
        (("A1b2C3", "Z9y8X7"),),
        "api/login",
        "no subscription list for company Z9y8X7",
        "correct company_key",
    ),
    "a rate above the platform's": (
        {"VIBES_API_RATE_PER_S": "500"},
        (),
        "api/rate",
        "is 500; the platform allows 100",
        "lower it",
    ),
    "an unknown list": ({}, ((LIST, 'list: "4321"'),), "api/lists", "no list 4321", "1234 .Offers"),
    "an unknown campaign": (
        {},
        ((LIST, f'{LIST}, campaign: "778899"'),),
        "api/campaigns",
        "no acquisition campaign 778899",
        "one of: .*777",
    ),
    "an unregistered callback": (
        {},
        (("policies:", f"callbacks: {{url: '{NOWHERE}'}}\npolicies:"),),
        "callbacks/registered",
        "opt-outs from list 1234 are told to nobody",
        "callbacks apply",
    ),
    "a list of consents that nobody listens to": (
        {},
        (("policies:", f"callbacks: {{url: '{NOWHERE}', lists: []}}\npolicies:"),),
        "callbacks/registered",
        "opt-outs from list 1234 are told to nobody: callbacks.lists leaves it out",
        "add it to callbacks.lists",
    ),
    "a receiver that does not answer": (
        {},
        (("policies:", f"callbacks: {{url: '{NOWHERE}'}}\npolicies:"),),
        "callbacks/receiver",
        "does not answer from here",
        "callbacks serve",
    ),
    "callbacks over plain HTTP": (
        {},
        (("policies:", "callbacks: {url: 'http://receiver.test/callbacks'}\npolicies:"),),
        "callbacks/receiver",
        "is not https",
        "posts to https:// only",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_named_with_its_cure(patient: Patient, name: str) -> None:
    environment, edits, check, told, cure = BROKEN[name]
    if edits:
        environment = {**environment, "VIBES_SYNC_CONFIG": patient.sync_config(*edits)}
    the_failure(patient.account(check, **environment), check, told, cure)


def test_an_env_file_that_says_another_thing(patient: Patient) -> None:
    lines = patient.account("files/.env", env_file={"VIBES_HOME": "/elsewhere", "NEW": "1"})
    the_failure(lines, "files/.env", "VIBES_HOME: .env says another", "remove the line of .env")


def test_a_full_disk(patient: Patient) -> None:
    lines = patient.account("files/home", free_bytes=lambda _path: 5 << 20)
    the_failure(lines, "files/home", "5 MiB free", "free at least 1 GiB")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_data_folder_that_may_not_be_written(patient: Patient) -> None:
    with tempfile.TemporaryDirectory() as home:
        Path(home).chmod(0o755)
        # Of this thread alone: the sandbox beside it looks into folders of its own all the time.
        ctypes.CDLL(None).setfsuid(65534)
        try:
            lines = patient.account("files/home", VIBES_HOME=home, VIBES_SYNC_CONFIG="/nowhere")
        finally:
            ctypes.CDLL(None).setfsuid(0)
    the_failure(lines, "files/home", "cannot be written", "let the user of this process write")


def test_a_ledger_of_an_earlier_version(patient: Patient) -> None:
    file = patient.folder / "ledger.db"
    with Ledger(f"sqlite:///{file}"):
        pass
    with crm_file(file) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '0001'")
    lines = patient.account("ledger/tables", VIBES_LEDGER_URL=f"sqlite:///{file}")
    the_failure(lines, "ledger/tables", "is of shape 0001", "back it up")


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("UPDATE contacts SET contact_id = NULL WHERE rowid < 50", r"49 of \d+ contacts have none"),
        ("UPDATE contacts SET contact_id = 'C1' WHERE rowid < 50", "repeat another's"),
    ],
)
def test_a_key_that_is_none(patient: Patient, statement: str, told: str) -> None:
    path = patient.crm_copy()
    with crm_file(path) as connection:
        connection.execute(statement)
    lines = patient.account("crm/key", CRM_URL=f"sqlite:///{path}")
    the_failure(lines, "crm/key", told, "name a column in contacts.key that is filled and unique")


def test_an_empty_crm(patient: Patient) -> None:
    path = patient.crm_copy()
    with crm_file(path) as connection:
        connection.execute("DELETE FROM contacts")
    lines = patient.account("crm/read", CRM_URL=f"sqlite:///{path}")
    the_failure(lines, "crm/read", "holds no contact", "check CRM_URL")


def test_a_stale_share(patient: Patient) -> None:
    late = (patient.sandbox.today + timedelta(days=9)).isoformat()
    lines = patient.account("share/age", day=late)
    the_failure(lines, "share/age", "older than policies.max_age_h", "ask Vibes")


def test_a_missing_extract(patient: Patient) -> None:
    late = (patient.sandbox.today + timedelta(days=9)).isoformat()
    lines = patient.account("sftp/extracts", day=late)
    the_failure(lines, "sftp/extracts", "the newest there is", "ask Vibes why")


def test_a_host_key_of_somebody_else(patient: Patient) -> None:
    mine = Path(patient.environment["VIBES_SFTP_KNOWN_HOSTS"]).read_text(encoding="utf-8")
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDyqOqJiKmIJnkvS5LQ5dmPdZ4xCZHGYzZyZk1vKkHkK"
    known_hosts = patient.folder / "known_hosts"
    known_hosts.write_text(f"{mine.split(' ')[0]} {key}\n", encoding="utf-8")
    lines = patient.account("sftp/login", VIBES_SFTP_KNOWN_HOSTS=known_hosts)
    the_failure(lines, "sftp/login", "host key", "Vibes representative|someone may be listening")


def open_sessions(patient: Patient) -> int:
    """Sessions whose end the server has not noted; it does so a moment after the client's."""
    sessions = patient.sandbox.audit()["sessions"]
    assert isinstance(sessions, dict)
    return int(sessions["opened"] - sessions.get("closed", 0))


def test_no_session_is_begun_inside_the_gap(patient: Patient) -> None:
    patient.account("sftp/login", VIBES_SFTP_GAP_S=300)
    eventually(lambda: open_sessions(patient) == 0, "the end of the session to be noted")
    before = patient.sandbox.audit()
    lines = patient.account("sftp/folders", "api/rate", VIBES_SFTP_GAP_S=300)
    assert patient.sandbox.audit() == before
    the_failure(lines, "sftp/gap", "so none was begun", r"again in \d+ s")
    assert {line.check: line.status for line in lines}["sftp/folders"] == "not checked"


@pytest.mark.parametrize("off_s", [-3_600, 3_600])
def test_a_clock_that_is_off(patient: Patient, off_s: int) -> None:
    lines = patient.account(
        "api/address",
        "sftp/clock",
        now=lambda: datetime.now(UTC) + timedelta(seconds=off_s),
    )
    side = "ahead of" if off_s > 0 else "behind"
    for check in ("api/address", "sftp/clock"):
        the_failure(lines, check, side, "NTP")


def test_a_proxy_that_takes_the_version_away(patient: Patient) -> None:
    with header_eater(patient.environment["VIBES_API_URL"]) as address:
        lines = patient.account("api/version", VIBES_API_URL=address)
    the_failure(lines, "api/version", "answers as version 1", "let X-API-Version: 2 through")


def test_something_else_at_the_address_of_the_receiver(patient: Patient) -> None:
    url = f"{patient.environment['VIBES_API_URL']}/callbacks"
    config = patient.sync_config(("policies:", f"callbacks: {{url: '{url}'}}\npolicies:"))
    lines = patient.account("callbacks/receiver", VIBES_SYNC_CONFIG=config)
    the_failure(lines, "callbacks/receiver", "something else answers", "ends in /callbacks")


def test_a_check_that_breaks_is_a_line_and_no_end(patient: Patient) -> None:
    def broken(_path: Path) -> Any:
        raise ZeroDivisionError

    lines = patient.account("files/home", "machine/python", free_bytes=broken)
    the_failure(lines, "files/home", "the check itself broke", "report it")
    assert {line.check: line.status for line in lines}["machine/python"] == "ok"


def test_a_port_that_nobody_serves_is_told_at_once(patient: Patient) -> None:
    with refusing_port() as port:
        lines = patient.account("sftp/login", VIBES_SFTP_PORT=port)
    the_failure(lines, "sftp/login", "cannot connect", "VIBES_SFTP_HOST")


def test_the_documentation_lists_every_check() -> None:
    page = EXAMPLE.with_name("docs") / "doctor.md"
    assert table() in page.read_text(encoding="utf-8")
    names = [check.name for check in CHECKS]
    assert len(set(names)) == len(names)
    assert all(set(check.needs) <= set(names[:place]) for place, check in enumerate(CHECKS))
