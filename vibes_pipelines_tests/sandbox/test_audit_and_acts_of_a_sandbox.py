"""The audit one by one, and the control API's acts, of a whole sandbox over its real protocols."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import paramiko
import pytest

from vibes_pipelines.sandbox.platform import PersonPatch
from vibes_pipelines.sandbox.population import build_world
from vibes_pipelines.sandbox.service import Sandbox
from vibes_pipelines.sandbox.switches import Switches
from vibes_pipelines_tests.sandbox.receiver import eventually


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    home = tmp_path_factory.mktemp("sandbox") / "home"
    switches = Switches(extract_kinds="all")
    with Sandbox(home, build_world(100, 7), switches=switches, seed=7) as running:
        yield running


def control(sandbox: Sandbox, path: str, body: object = None) -> tuple[int, Any]:
    url = f"{sandbox.environment()['VIBES_API_URL']}/sandbox/{path}"
    request = urllib.request.Request(url, None if body is None else json.dumps(body).encode())
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def upload(sandbox: Sandbox, remote: str, text: str) -> None:
    environment = sandbox.environment()
    with paramiko.SSHClient() as client:
        client.load_host_keys(environment["VIBES_SFTP_KNOWN_HOSTS"])
        client.connect(
            "127.0.0.1",
            int(environment["VIBES_SFTP_PORT"]),
            environment["VIBES_SFTP_USER"],
            key_filename=environment["VIBES_SFTP_KEY_FILE"],
            look_for_keys=False,
            allow_agent=False,
        )
        with closing(client.open_sftp()) as sftp, sftp.open(f"{remote}.tmp", "w") as file:
            file.write(text)
        with closing(client.open_sftp()) as sftp:
            sftp.posix_rename(f"{remote}.tmp", remote)


def somebody(sandbox: Sandbox) -> dict[str, str]:
    """A person with a mobile number who is on no list."""
    for person in sandbox.platform.persons.values():
        stays = sandbox.platform.subscriptions_of(person.person_key, active_only=False)
        if person.mdn and not stays:
            return {"mdn": person.mdn}
    raise AssertionError("the world has nobody to invite")


def entries(sandbox: Sandbox, kind: str) -> list[dict[str, Any]]:
    status, body = control(sandbox, f"audit/log?kind={kind}&count=1000")
    assert status == 200
    found: list[dict[str, Any]] = body["entries"]
    return found


def test_every_request_row_and_session_is_told_one_by_one(sandbox: Sandbox) -> None:
    number = somebody(sandbox)["mdn"]
    sandbox.platform.audit.request("GET", "/mobiledb/persons/*", 200)
    upload(sandbox, "/files/in/a.opt_outs", f"mdn,subscription_list_id\n{number},1234\nx,1234\n")
    summary = sandbox.home.sftp_folder("/files/reports") / "a.opt_outs.summary.csv"
    eventually(summary.exists, "the import's summary")

    assert entries(sandbox, "request")[-1] == {
        "at": sandbox.now().isoformat(),
        "kind": "request",
        "method": "GET",
        "route": "/mobiledb/persons/*",
        "status": 200,
    }
    rows = [(row["file"], row["row"], row["outcome"]) for row in entries(sandbox, "import_row")]
    assert rows == [
        ("a.opt_outs", 1, "unchanged"),
        ("a.opt_outs", 2, "MobilePhoneErrors::InvalidMDNFormat"),
    ]
    assert entries(sandbox, "session")[0]["outcome"] == "opened"
    text = sandbox.home.audit_log.read_text("utf-8")
    assert number not in text
    assert [json.loads(line)["kind"] for line in text.splitlines()].count("import_row") == 2
    assert control(sandbox, "audit/log?count=few")[0] == 400


def test_a_person_answers_and_a_carrier_deactivates_over_the_control_api(sandbox: Sandbox) -> None:
    person = somebody(sandbox)
    answer = {"campaign_id": "777", "word": "YES", **person}
    assert control(sandbox, "texts/reply", answer) == (200, {"status": None})
    found = sandbox.platform.find(**person)
    assert found is not None
    invited, _ = sandbox.account.acquisition.add("777", PersonPatch(), person_key=found.person_key)
    assert control(sandbox, "texts/reply", answer) == (200, {"status": "CONFIRMED"})
    assert invited.status == "PENDING"
    assert control(sandbox, "numbers/deactivate", person) == (200, {"changed": True})
    wish = {**person, "carrier_code": "105", "list_id": "1234"}
    status, owner = control(sandbox, "numbers/recycle", wish)
    assert (status, owner["person_key"] != found.person_key) == (200, True)


@pytest.mark.parametrize(
    ("path", "wish", "error"),
    [
        ("texts/reply", {"word": "Y"}, "names the person by one of"),
        ("texts/reply", {"mdn": "+13125550000", "campaign_id": "777", "word": "Y"}, "no person"),
        ("numbers/deactivate", {"mdn": "312"}, "E.164"),
        ("numbers/recycle", {"mdn": "+13125550142", "carrier_code": 5}, "carrier_code"),
        ("numbers/fail-lookups", {"times": "often"}, "times (int)"),
        ("numbers/fail-lookups", {"times": -1}, "at least 0"),
        ("devices/open-app", {"app_id": "APP1", "os": "CPM"}, "ANDROID, IOS"),
        ("wallet/remove", {"token": "r3zhm8", "uuid": "none"}, "cannot be found"),
        ("wallet/install", {"token": "r3zhm8", "uuid": "1"}, "provider"),
    ],
)
def test_acts_that_cannot_be_are_refused(
    sandbox: Sandbox, path: str, wish: dict[str, object], error: str
) -> None:
    status, body = control(sandbox, path, wish)
    assert (status, error in body["error"]) == (400, True), body


def test_every_extract_and_a_privacy_status_come_by_sftp(sandbox: Sandbox) -> None:
    upload(sandbox, "/files/in_cpr/a.csv", "RequestID,MDN,Type\nR1,3125550000,0\n")
    status = sandbox.home.sftp_folder("/files/out_cpr") / "a.status.csv"
    eventually(status.exists, "the privacy request's status")
    assert status.read_text("utf-8").splitlines()[1] == "R1,3125550000,0,NOT_FOUND"
    out = sandbox.home.sftp_folder("/files/out")
    assert len(list(out.glob("*.txt"))) == 7
    assert control(sandbox, "extracts/cut-next", {"kinds": ["messages"]})[0] == 200
    sandbox.next_day(edits=False)
    assert len(list(out.glob("*.done"))) == 13


def test_the_audit_begins_anew_with_a_new_world(tmp_path: Path) -> None:
    for _ in range(2):
        with Sandbox(tmp_path / "home", build_world(20, 1)) as sandbox:
            sandbox.platform.audit.session("opened")
        assert len(sandbox.home.audit_log.read_text("utf-8").splitlines()) == 1
