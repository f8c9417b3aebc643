"""The APSIS One stand-in by plain HTTP: what it refuses, its limits, states and counts."""

import json
from collections.abc import Iterator
from datetime import timedelta
from http.client import HTTPConnection
from typing import Any, NamedTuple

import pytest

from vibes_pipelines.sandbox.apsis_access import ApsisLimits
from vibes_pipelines.sandbox.apsis_clock import RunningClock
from vibes_pipelines.sandbox.apsis_records import CRM_KEYSPACE, SECTION
from vibes_pipelines.sandbox.apsis_service import ApsisSandbox
from vibes_pipelines.sandbox.apsis_switches import ApsisSwitches
from vibes_pipelines_tests.apsis.apsis_parts import BoardedSandbox

KEYSPACES = "/audience/keyspaces"
PROFILE = f"{KEYSPACES}/{CRM_KEYSPACE}/profiles/C-1"
ATTRIBUTES = f"{PROFILE}/sections/{SECTION}/attributes"
CONSENTS = f"/v2{PROFILE}/sections/{SECTION}/consents"
TAGS = f"{PROFILE}/sections/{SECTION}/tags"
IMPORTS = f"/v2/audience/sections/{SECTION}/imports"
FIRST_NAME, SCORE = "700000", "700007"
MERGE_PATCH = "application/merge-patch+json"
FREE = ApsisLimits(calls_per_s=None, tokens_per_min=10_000, imports_per_min=10_000)


class Told(NamedTuple):
    status: int
    body: Any


class Caller:
    """Plain requests over one connection, with a token of its own."""

    def __init__(self, box: ApsisSandbox) -> None:
        self.connection = HTTPConnection(box.url.removeprefix("http://"), timeout=60)
        environment = box.environment()
        self.key = {
            "grant_type": "client_credentials",
            "client_id": environment["APSIS_CLIENT_ID"],
            "client_secret": environment["APSIS_CLIENT_SECRET"],
        }
        self.token: str | None = None

    def __call__(
        self, method: str, path: str, body: Any = None, media_type: str | None = None
    ) -> Told:
        usual = MERGE_PATCH if method == "PATCH" else "application/json"
        headers = {"Content-Type": media_type or usual} if body is not None else {}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        self.connection.request(method, path, content, headers)
        answer = self.connection.getresponse()
        read = answer.read()
        return Told(answer.status, json.loads(read) if read else None)

    def log_in(self) -> None:
        self.token = self("POST", "/oauth/token", self.key).body["access_token"]


@pytest.fixture
def box() -> Iterator[ApsisSandbox]:
    with BoardedSandbox(limits=FREE) as started:
        yield started


@pytest.fixture
def call(box: ApsisSandbox) -> Iterator[Caller]:
    caller = Caller(box)
    caller.log_in()
    yield caller
    caller.connection.close()


def consent(consent_type: str = "opt-in", **more: Any) -> dict[str, Any]:
    return {
        "topic_discriminator": "usercreated.topics.newsletter-m2k7",
        "channel_discriminator": "com.apsis1.channels.email",
        "type": consent_type,
        "reason": "test",
        **more,
    }


def an_import(**more: Any) -> dict[str, Any]:
    keyspace = {"keyspace_discriminator": CRM_KEYSPACE, "field_selector": "key"}
    options = {"update_existing_profiles": True, "clear_existing_attributes": False}
    return {"keyspace_mapping": keyspace, "options": options, **more}


def created_in(keyspace: str) -> str:
    return f"{KEYSPACES}/{keyspace}/sections/{SECTION}/profiles"


def test_no_call_without_a_token_and_no_token_without_the_key(
    box: ApsisSandbox, call: Caller
) -> None:
    good, call.token = call.token, None
    assert call("GET", KEYSPACES).status == 401
    assert call("POST", "/oauth/token", {**call.key, "client_secret": "x"}).status == 401
    assert call("POST", "/oauth/token", {**call.key, "grant_type": "password"}).status == 400
    call.token = good
    assert call("GET", KEYSPACES).status == 200
    box.clock.advance(timedelta(hours=24))
    assert call("GET", KEYSPACES).status == 401


def test_a_refusal_is_problem_json(call: Caller) -> None:
    told = call("GET", ATTRIBUTES)
    assert told.status == 404
    assert set(told.body) == {"type", "title", "status", "detail"}
    assert told.body["status"] == 404


@pytest.mark.parametrize(
    ("method", "path", "body", "media_type", "status"),
    [
        ("GET", "/audience/nothing", None, None, 404),
        ("POST", KEYSPACES, {}, None, 405),
        ("GET", "/audience/sections/nowhere/attributes", None, None, 404),
        ("GET", f"{KEYSPACES}/nowhere/profiles/C-1/sections/{SECTION}/attributes", None, None, 404),
        ("PATCH", ATTRIBUTES, {FIRST_NAME: "Ada"}, "application/json", 415),
        ("PATCH", ATTRIBUTES, b"{", None, 400),
        ("PATCH", ATTRIBUTES, b'{"700000": "a", "700000": "b"}', None, 400),
        ("PATCH", ATTRIBUTES, [], None, 400),
        ("PATCH", ATTRIBUTES, {FIRST_NAME: "a" * 100_000}, None, 413),
        ("PATCH", ATTRIBUTES, {FIRST_NAME: "a" * 1001}, None, 400),
        ("PATCH", ATTRIBUTES, {FIRST_NAME: None}, None, 400),
        ("PATCH", ATTRIBUTES, {SCORE: "7"}, None, 400),
        ("PATCH", ATTRIBUTES, {"699999": "gold"}, None, 400),
        ("PATCH", ATTRIBUTES, {"1": "x"}, None, 404),
        ("PATCH", f"/v2{ATTRIBUTES}", {"com.apsis1.attributes.firstname": "Ada"}, None, 404),
        ("PATCH", f"/v2{ATTRIBUTES}", {FIRST_NAME: "Ada"}, None, 404),
        ("PATCH", ATTRIBUTES.replace("C-1", ""), {FIRST_NAME: "Ada"}, None, 404),
        ("POST", created_in("com.apsis1.keyspaces.email"), {"profile_key": "ada"}, None, 400),
        ("POST", created_in("com.apsis1.keyspaces.mobile"), {"profile_key": "0046"}, None, 400),
        ("POST", created_in(CRM_KEYSPACE), {"profile_key": "C" * 1001}, None, 400),
        ("PATCH", TAGS, {"usercreated.tags.unknown": True}, None, 400),
        ("PATCH", TAGS, {"usercreated.tags.member-d4s6": 1}, None, 400),
        ("POST", CONSENTS, consent("confirmed-opt-in"), None, 400),
        ("POST", CONSENTS, consent("pending-opt-in"), None, 400),
        ("POST", CONSENTS, consent(reason=""), None, 400),
        ("POST", CONSENTS, consent(more=1), None, 400),
        ("POST", CONSENTS, consent(topic_discriminator="x"), None, 404),
        ("POST", CONSENTS, consent(channel_discriminator="x"), None, 404),
        ("POST", IMPORTS, an_import(options={}), None, 400),
        ("POST", IMPORTS, an_import(more=[]), None, 400),
        ("POST", IMPORTS, {**an_import(), "attribute_mappings": [{}]}, None, 400),
        ("PUT", "/audience/profiles/merges", {"profiles": []}, None, 400),
    ],
)
def test_what_no_page_allows_is_refused_and_changes_nothing(
    box: ApsisSandbox,
    call: Caller,
    method: str,
    path: str,
    body: Any,
    media_type: str | None,
    status: int,
) -> None:
    assert call(method, path, body, media_type).status == status
    assert box.account.profiles() == []


def test_the_export_keyspace_is_read_only_and_keeps_its_consents_to_itself(call: Caller) -> None:
    export = "com.apsis1.keyspaces.export"
    create = f"{KEYSPACES}/{export}/sections/{SECTION}/profiles"
    assert call("POST", create, {"profile_key": "E-1"}).status == 403
    path = f"/v2{KEYSPACES}/{export}/profiles/E-1/sections/{SECTION}/consents"
    assert call("GET", path).status == 403


def test_a_lock_is_for_ever(box: ApsisSandbox, call: Caller) -> None:
    assert call("PATCH", ATTRIBUTES, {FIRST_NAME: "Ada"}).status == 204
    assert call("PUT", f"{PROFILE}/locks").status == 204
    assert call("GET", ATTRIBUTES).status == 410
    assert call("PATCH", ATTRIBUTES, {FIRST_NAME: "Ada"}).status == 410
    assert box.account.profiles() == []


def test_one_attribute_is_cleared_by_its_version(call: Caller) -> None:
    call("PATCH", ATTRIBUTES, {FIRST_NAME: "Ada", SCORE: 7})
    assert call("DELETE", f"{ATTRIBUTES}/{SCORE}").status == 204
    assert call("GET", ATTRIBUTES).body == {"700005": "C-1", FIRST_NAME: "Ada"}


def test_without_asking_for_types_only_opt_ins_are_told(call: Caller) -> None:
    call("PATCH", ATTRIBUTES, {FIRST_NAME: "Ada"})
    assert call("POST", CONSENTS, consent("opt-out")).status == 201
    assert call("GET", CONSENTS).body == {"items": []}
    assert len(call("GET", f"{CONSENTS}?consent_types=opt-out").body["items"]) == 1
    assert call("GET", f"{CONSENTS}?consent_types=maybe").status == 400


def hammer(box: ApsisSandbox, path: str, times: int) -> list[int]:
    caller = Caller(box)
    try:
        caller.log_in()
        return [caller("GET", path).status for _ in range(times)]
    finally:
        caller.connection.close()


def test_the_limits_hold_over_a_sliding_window() -> None:
    """In a clock that hardly moves: 100 calls, 10 for one key, 10 tokens; then one second on."""
    with BoardedSandbox(clock=RunningClock(0.001)) as box:
        assert hammer(box, KEYSPACES, 102) == [200] * 100 + [429] * 2
        box.clock.advance(timedelta(seconds=1))
        assert hammer(box, ATTRIBUTES, 12) == [404] * 10 + [429] * 2
        caller = Caller(box)
        tokens = [caller("POST", "/oauth/token", caller.key).status for _ in range(9)]
        assert tokens == [200] * 8 + [429]
        box.clock.advance(timedelta(seconds=60))
        assert caller("POST", "/oauth/token", caller.key).status == 200
        caller.connection.close()


def test_three_imports_may_wait_and_an_expired_one_waits_no_more(
    box: ApsisSandbox, call: Caller
) -> None:
    assert [call("POST", IMPORTS, an_import()).status for _ in range(4)] == [200, 200, 200, 429]
    box.clock.advance(timedelta(minutes=15))
    assert call("POST", IMPORTS, an_import()).status == 200


def test_ten_imports_a_minute() -> None:
    limits = ApsisLimits(calls_per_s=None, imports_per_min=2)
    with BoardedSandbox(limits=limits) as box:
        caller = Caller(box)
        caller.log_in()
        answers = [caller("POST", IMPORTS, an_import()).status for _ in range(3)]
        caller.connection.close()
    assert answers == [200, 200, 429]


def test_an_import_goes_through_its_states_by_the_clock(box: ApsisSandbox, call: Caller) -> None:
    asked = call("POST", IMPORTS, an_import()).body
    status = IMPORTS.removeprefix("/v2") + "/" + asked["import_id"]
    states = [call("GET", status).body["result"]["status"]]
    form = "".join(
        f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in asked["file_upload_body"].items()
    )
    file = '--x\r\nContent-Disposition: form-data; name="file"\r\nContent-Type: text/csv\r\n\r\n'
    body = f"{form}{file}key\nC-1\n\r\n--x--\r\n".encode()
    where, kind = f"/uploads/{asked['import_id']}", "multipart/form-data; boundary=x"
    with_token = call("POST", where, body, kind).status
    call.token, token = None, call.token
    unreadable = body.replace(asked["file_upload_body"]["key"].encode(), b"\xff")
    answers = [call("POST", where, sent, kind).status for sent in (unreadable, body, body)]
    call.token = token
    for _ in range(3):
        states.append(call("GET", status).body["result"]["status"])
        box.clock.advance(timedelta(seconds=2.5))
    assert (with_token, answers) == (400, [403, 204, 409])
    assert states == ["waiting_for_file", "queued", "in_progress", "completed"]
    assert len(box.account.profiles()) == 1


def test_the_audit_keeps_effects_and_repeats_apart(box: ApsisSandbox, call: Caller) -> None:
    for _ in range(3):
        call("PATCH", ATTRIBUTES, {FIRST_NAME: "Ada"})
    audit = call("GET", "/sandbox/audit").body
    assert audit["effects"] == {"attributes": 1, "profile_created": 1}
    assert audit["repeats"] == {"attributes": 2}
    assert "Ada" not in json.dumps(audit)
    assert "C-1" not in json.dumps(audit)


def test_people_act_through_the_control_api(box: ApsisSandbox, call: Caller) -> None:
    call("PATCH", ATTRIBUTES, {FIRST_NAME: "Ada"})
    who = {"profile_key": "C-1"}
    assert call("POST", "/sandbox/consent", {**consent(), **who}).body == {"changed": True}
    unsubscribed = {k: v for k, v in consent().items() if k != "type"}
    assert call("POST", "/sandbox/consent", {**unsubscribed, **who}).body == {"changed": True}
    assert call("POST", "/sandbox/sign-up", {"email": "a@example.com"}).body == {"created": True}
    edit = {**who, "attributes": {"com.apsis1.attributes.firstname": "Adele"}}
    assert call("POST", "/sandbox/edit", edit).body == {"changed": True}
    shown = call("GET", "/sandbox/profiles").body["profiles"]
    assert [profile["consents"] and profile["consents"][0]["type"] for profile in shown] == [
        "opt-out",
        [],
    ]
    assert call("POST", "/sandbox/advance", {"seconds": -1}).status == 400
    assert call("POST", "/sandbox/faults", {"faults": [{"action": "x"}]}).status == 400
    assert call("POST", "/sandbox/dance", {}).status == 404
    assert call("POST", "/sandbox/lock", who).body == {"locked": True}
    assert call("POST", "/sandbox/revoke-tokens", {}).body == {"revoked": True}
    assert call("GET", KEYSPACES).status == 401


def test_retry_after_is_told_when_switched_on() -> None:
    switches = ApsisSwitches(retry_after="present")
    with BoardedSandbox(switches, ApsisLimits(calls_per_s=1), clock=RunningClock(0.001)) as box:
        caller = Caller(box)
        caller.log_in()
        caller("GET", KEYSPACES)
        headers = {"Authorization": f"Bearer {caller.token}"}
        caller.connection.request("GET", KEYSPACES, headers=headers)
        answer = caller.connection.getresponse()
        answer.read()
        caller.connection.close()
    assert (answer.status, answer.headers["Retry-After"]) == (429, "1")
