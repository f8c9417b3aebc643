"""The sandbox as a whole, reached through the real protocols that its users speak."""

import base64
import json
import os
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import paramiko
import pytest
import snowflake.connector

from vibes_pipelines.sandbox.home import SandboxHomeError
from vibes_pipelines.sandbox.population import build_world
from vibes_pipelines.sandbox.service import Sandbox

PEOPLE = 1_000
SUBSCRIPTIONS = "SELECT * FROM SUBSCRIPTIONS ORDER BY PERSON_KEY, OPT_IN_DATE"


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    with Sandbox(tmp_path / "home", build_world(PEOPLE, seed=7), seed=7) as running:
        yield running


def query(environment: dict[str, str], statement: str) -> list[tuple[Any, ...]]:
    with (
        closing(
            snowflake.connector.connect(
                account=environment["SNOWFLAKE_ACCOUNT"],
                user=environment["SNOWFLAKE_USER"],
                password=environment["SNOWFLAKE_PASSWORD"],
                warehouse=environment["SNOWFLAKE_WAREHOUSE"],
                role=environment["SNOWFLAKE_ROLE"],
                database=environment["SNOWFLAKE_DATABASE"],
                schema=environment["SNOWFLAKE_SCHEMA"],
                host=environment["SNOWFLAKE_HOST"],
                port=int(environment["SNOWFLAKE_PORT"]),
                protocol=environment["SNOWFLAKE_PROTOCOL"],
                login_timeout=60,
                network_timeout=60,
            )
        ) as connection,
        closing(connection.cursor()) as cursor,
    ):
        cursor.execute(statement)
        rows: list[tuple[Any, ...]] = cursor.fetchall()
        return rows


def as_of(sandbox: Sandbox) -> datetime:
    shown = query(sandbox.environment(), "SELECT AS_OF FROM REFRESHES")[0][0]
    assert isinstance(shown, datetime)
    return shown.replace(tzinfo=UTC)


@contextmanager
def sftp(environment: dict[str, str]) -> Iterator[paramiko.SFTPClient]:
    with paramiko.SSHClient() as client:
        client.load_host_keys(environment["VIBES_SFTP_KNOWN_HOSTS"])
        client.connect(
            environment["VIBES_SFTP_HOST"],
            int(environment["VIBES_SFTP_PORT"]),
            environment["VIBES_SFTP_USER"],
            key_filename=environment["VIBES_SFTP_KEY_FILE"],
            look_for_keys=False,
            allow_agent=False,
        )
        with client.open_sftp() as session:
            yield session


def extracts(environment: dict[str, str]) -> list[str]:
    with sftp(environment) as session:
        return sorted(session.listdir(environment["VIBES_EXTRACT_DIR"]))


def call(
    environment: dict[str, str], method: str, path: str, body: object = None
) -> tuple[int, Any]:
    pair = f"{environment['VIBES_API_USER']}:{environment['VIBES_API_PASSWORD']}"
    request = urllib.request.Request(
        environment["VIBES_API_URL"] + path,
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={
            "Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}",
            "Content-Type": "application/json",
            "X-API-Version": "2",
        },
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            content = answer.read()
            return answer.status, json.loads(content) if content else None
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read() or b"null")


def person_path(sandbox: Sandbox) -> tuple[str, str]:
    person = next(
        p for p in sandbox.platform.persons.values() if p.external_person_id and p.mdn is not None
    )
    return person.person_key, f"/companies/A1b2C3/mobiledb/persons/{person.person_key}"


def crm_dump(sandbox: Sandbox) -> list[str]:
    with closing(sqlite3.connect(sandbox.crm.path)) as connection:
        return list(connection.iterdump())


def test_every_part_answers_through_its_real_protocol(sandbox: Sandbox) -> None:
    environment = sandbox.environment()
    key, path = person_path(sandbox)

    assert query(environment, "SELECT count(*) FROM PERSONS") == [(len(sandbox.platform.persons),)]
    assert query(environment, "SELECT count(*) FROM SUBSCRIPTIONS") == [
        (len(sandbox.platform.subscriptions),)
    ]
    assert as_of(sandbox) == datetime(2026, 1, 1, 6, tzinfo=UTC) == sandbox.now()
    assert extracts(environment) == [
        "current_subscribers_A1b2C3_2026-01-01.txt",
        "current_subscribers_A1b2C3_2026-01-01.txt.done",
        "subscriptions_A1b2C3_2026-01-01.txt",
        "subscriptions_A1b2C3_2026-01-01.txt.done",
    ]
    status, person = call(environment, "GET", path)
    assert (status, person["person_key"]) == (200, key)
    mdn = quote(person["mobile_phone"]["mdn"], safe="")
    assert call(environment, "GET", f"/companies/A1b2C3/mobiledb/persons?mdn={mdn}")[0] == 200
    assert environment["CRM_URL"] == f"sqlite:///{sandbox.crm.path}"
    assert len(sandbox.crm.rows()) > 900


def test_a_new_day_refreshes_everything(sandbox: Sandbox) -> None:
    environment = sandbox.environment()
    crm, active = crm_dump(sandbox), "SELECT count(*) FROM SUBSCRIPTIONS WHERE OPT_OUT_DATE IS NULL"
    before = query(environment, active)

    status, answer = call(environment, "POST", "/sandbox/next-day", {"edits": True})

    assert (status, answer) == (200, {"date": "2026-01-02", "now": "2026-01-02T06:00:00+00:00"})
    assert as_of(sandbox) == datetime(2026, 1, 2, 6, tzinfo=UTC)
    assert query(environment, active)[0][0] < before[0][0]
    assert crm_dump(sandbox) != crm
    assert "subscriptions_A1b2C3_2026-01-02.txt.done" in extracts(environment)


def test_a_day_without_edits_moves_only_the_date(sandbox: Sandbox) -> None:
    environment = sandbox.environment()
    crm = crm_dump(sandbox)
    persons = query(environment, "SELECT * FROM PERSONS ORDER BY PERSON_KEY")
    subscriptions = query(environment, SUBSCRIPTIONS)

    call(environment, "POST", "/sandbox/next-day", {"edits": False})

    assert sandbox.today == date(2026, 1, 2)
    assert crm_dump(sandbox) == crm
    assert query(environment, "SELECT * FROM PERSONS ORDER BY PERSON_KEY") == persons
    assert query(environment, SUBSCRIPTIONS) == subscriptions
    assert as_of(sandbox) == datetime(2026, 1, 2, 6, tzinfo=UTC)
    name = "/files/out/subscriptions_A1b2C3_2026-01-02.txt"
    with sftp(environment) as session, session.open(name) as extract:
        assert len(extract.read().splitlines()) == 1


def test_two_sandboxes_with_one_seed_live_the_same_days(tmp_path: Path) -> None:
    lives = []
    for name in ("one", "other"):
        with Sandbox(tmp_path / name, build_world(300, seed=3), seed=3) as sandbox:
            sandbox.next_day()
            sandbox.next_day()
            statement = "SELECT * FROM PERSONS ORDER BY PERSON_KEY"
            folder = sandbox.home.sftp / "files" / "out"
            files = {path.name: path.read_bytes() for path in folder.iterdir()}
            lives.append((crm_dump(sandbox), query(sandbox.environment(), statement), files))
    assert lives[0] == lives[1]


def test_what_the_api_changes_is_in_the_next_share(sandbox: Sandbox) -> None:
    environment = sandbox.environment()
    key, path = person_path(sandbox)
    statement = f"SELECT FIRST_NAME FROM PERSONS WHERE PERSON_KEY = '{key}'"

    call(environment, "PUT", path, {"custom_fields": {"first_name": "Changed"}})
    assert query(environment, statement) != [("Changed",)]
    sandbox.next_day(edits=False)

    assert query(environment, statement) == [("Changed",)]


def test_a_lagging_share_shows_an_older_state_and_says_so(tmp_path: Path) -> None:
    world = build_world(PEOPLE, seed=7)
    with Sandbox(tmp_path / "home", world, lag_h=24, seed=7) as sandbox:
        environment = sandbox.environment()
        key, path = person_path(sandbox)
        statement = f"SELECT FIRST_NAME FROM PERSONS WHERE PERSON_KEY = '{key}'"
        assert as_of(sandbox) == datetime(2025, 12, 31, 6, tzinfo=UTC)

        call(environment, "PUT", path, {"custom_fields": {"first_name": "Changed"}})
        sandbox.next_day(edits=False)
        assert as_of(sandbox) == datetime(2026, 1, 1, 6, tzinfo=UTC)
        assert query(environment, statement) != [("Changed",)]

        sandbox.next_day(edits=False)
        assert as_of(sandbox) == datetime(2026, 1, 2, 6, tzinfo=UTC)
        assert query(environment, statement) == [("Changed",)]


def test_a_share_with_a_short_lag_shows_what_happened_before_the_night(tmp_path: Path) -> None:
    world = build_world(PEOPLE, seed=7)
    with Sandbox(tmp_path / "home", world, lag_h=12, seed=7) as sandbox:
        environment = sandbox.environment()
        key, path = person_path(sandbox)
        call(environment, "PUT", path, {"custom_fields": {"first_name": "Changed"}})
        sandbox.next_day()
        assert datetime(2026, 1, 1, 6, tzinfo=UTC) < as_of(sandbox) < sandbox.now()
        statement = f"SELECT FIRST_NAME FROM PERSONS WHERE PERSON_KEY = '{key}'"
        assert query(environment, statement) == [("Changed",)]


def test_an_import_is_picked_up_and_reported(sandbox: Sandbox) -> None:
    environment = sandbox.environment()
    with sftp(environment) as session:
        with session.open("/files/in/batch.persons.tmp", "w") as upload:
            upload.write("external_person_id,mdn,first_name\nNEW-1,,Ada\n")
        session.posix_rename("/files/in/batch.persons.tmp", "/files/in/batch.persons")

    sandbox.next_day(edits=False)

    with sftp(environment) as session:
        assert sorted(session.listdir("/files/reports")) == [
            "batch.persons.report.csv",
            "batch.persons.summary.csv",
        ]
    statement = "SELECT FIRST_NAME FROM PERSONS WHERE EXTERNAL_PERSON_ID = 'NEW-1'"
    assert query(environment, statement) == [("Ada",)]


def test_the_import_pickup_needs_no_new_day(sandbox: Sandbox) -> None:
    with sftp(sandbox.environment()) as session:
        with session.open("/files/in/a.persons.tmp", "w") as upload:
            upload.write("external_person_id,mdn,first_name\nNEW-2,,Eva\n")
        session.posix_rename("/files/in/a.persons.tmp", "/files/in/a.persons")
        deadline = time.monotonic() + 60
        while "a.persons.summary.csv" not in session.listdir("/files/reports"):
            assert time.monotonic() < deadline, "the import was not picked up"
            time.sleep(0.05)
    assert sandbox.platform.find(external_person_id="NEW-2") is not None


def test_a_cut_extract_has_no_done_until_it_is_completed(sandbox: Sandbox) -> None:
    environment = sandbox.environment()
    kinds = {"kinds": ["current_subscribers"]}
    name = "current_subscribers_A1b2C3_2026-01-02.txt"

    assert call(environment, "POST", "/sandbox/extracts/cut-next", kinds)[0] == 200
    sandbox.next_day(edits=False)
    folder = sandbox.home.sftp / "files" / "out"
    assert not (folder / f"{name}.done").exists()
    half = (folder / name).read_text()
    assert not half.endswith("\n")

    answer = call(environment, "POST", "/sandbox/extracts/complete")
    assert answer == (200, {"completed": [name]})
    whole = (folder / name).read_text()
    assert whole.startswith(half)
    rows = len(whole.splitlines()) - 1
    assert (folder / f"{name}.done").read_text() == f"rows={rows} bytes={len(whole.encode())}\n"


def test_faults_are_set_over_the_control_api(sandbox: Sandbox) -> None:
    environment = sandbox.environment()
    _, path = person_path(sandbox)
    fault = {"match": {"path_regex": "persons"}, "action": "status", "status": 503, "times": 1}

    assert call(environment, "POST", "/sandbox/faults", [fault])[0] == 200

    assert [call(environment, "GET", path)[0] for _ in range(2)] == [503, 200]


def test_a_control_request_that_makes_no_sense_is_refused(sandbox: Sandbox) -> None:
    for path, body in (
        ("/sandbox/next-day", {"edits": "yes"}),
        ("/sandbox/next-day", ["edits"]),
        ("/sandbox/faults", [{"action": "explode"}]),
        ("/sandbox/extracts/cut-next", {"kinds": ["messages"]}),
        ("/sandbox/extracts/cut-next", {}),
    ):
        status, answer = call(sandbox.environment(), "POST", path, body)
        assert status == 400, (path, body)
        assert answer["error"]
    assert sandbox.today == date(2026, 1, 1)


def test_the_audit_counts_what_the_api_did(sandbox: Sandbox) -> None:
    environment = sandbox.environment()
    _, path = person_path(sandbox)
    body = {"custom_fields": {"first_name": "Changed"}}

    for _ in range(2):
        call(environment, "PUT", path, body)

    _, audit = call(environment, "GET", "/sandbox/audit")
    assert sum(audit["effects"].values()) == 1
    assert sum(audit["repeats"].values()) == 1


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    precious = tmp_path / "precious.txt"
    precious.write_text("mine")
    with pytest.raises(SandboxHomeError, match="empty folder"):
        Sandbox(tmp_path, build_world(10, seed=1)).start()
    assert list(tmp_path.iterdir()) == [precious]


def test_a_folder_in_which_a_sandbox_runs_is_left_to_it(tmp_path: Path) -> None:
    with Sandbox(tmp_path, build_world(10, seed=1)) as first:
        for resume in (False, True):
            with pytest.raises(SandboxHomeError, match="a sandbox runs in"):
                Sandbox(tmp_path, build_world(20, seed=2)).start(resume=resume)

        assert first.home.crm.is_file()


def test_a_folder_that_the_share_cannot_be_served_from_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SandboxHomeError, match="apostrophe"):
        Sandbox(tmp_path / "it's home", build_world(10, seed=1)).start()


def test_starting_again_in_the_same_folder_is_a_new_world(tmp_path: Path) -> None:
    for seed in (1, 2):
        with Sandbox(tmp_path / "home", build_world(200, seed), seed=seed) as sandbox:
            assert len(extracts(sandbox.environment())) == 4
            assert sandbox.crm.rows() == build_world(200, seed).contacts
            sandbox.next_day()


def test_serving_prints_the_environment_and_ends_on_sigterm(tmp_path: Path) -> None:
    home = tmp_path / "sandbox home"
    program = (
        "import sys, pathlib; from vibes_pipelines.sandbox.service import serve;"
        "serve(pathlib.Path(sys.argv[1]), 200)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(home)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line == "# ready\n":
                break
        process.terminate()
        _, progress = process.communicate(timeout=120)
    assert process.returncode == 0, progress
    assert "Traceback" not in progress
    file = home / "environment.env"
    assert file.read_text() == "".join(lines[:-1])
    assert file.stat().st_mode & 0o777 == 0o600
    shell = subprocess.run(
        ["sh", "-c", '. "$0"; printf %s "$CRM_URL"', str(file)],
        check=True,
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"]},
    )
    assert shell.stdout == f"sqlite:///{home}/crm.db"
