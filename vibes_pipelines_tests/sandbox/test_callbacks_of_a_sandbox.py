"""Callbacks of a whole sandbox: what its days, imports and texts set off, over real HTTP."""

import base64
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from vibes_pipelines.sandbox.population import build_world
from vibes_pipelines.sandbox.service import Sandbox
from vibes_pipelines_tests.sandbox.callback_parts import PATIENT_S, registration
from vibes_pipelines_tests.sandbox.receiver import Receiver, eventually, receiving

COMPANY = "/companies/A1b2C3"
ON_OFFERS = {"list_id": "1234"}


@dataclass(frozen=True)
class Caller:
    """Speaks to a sandbox as another process would: by its environment alone."""

    sandbox: Sandbox

    def call(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        environment = self.sandbox.environment()
        pair = f"{environment['VIBES_API_USER']}:{environment['VIBES_API_PASSWORD']}"
        connection = HTTPConnection(environment["VIBES_API_URL"].removeprefix("http://"))
        headers = {
            "Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}",
            "Content-Type": "application/json",
            "X-API-Version": "2",
        }
        try:
            connection.request(method, path, json.dumps(body).encode(), headers)
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    def register(self, kind: str, receiver: Receiver, config: dict[str, str] | None = None) -> None:
        path = f"{COMPANY}/config/callbacks/"
        status, _ = self.call("POST", path, registration(kind, receiver.url, config))
        assert status == 201

    def set_manner(self, **manner: object) -> None:
        """A receiver may think for long, unless told otherwise."""
        status, _ = self.call("POST", "/sandbox/callbacks", {"timeout_s": PATIENT_S, **manner})
        assert status == 200

    def audit(self) -> dict[str, Any]:
        status, audit = self.call("GET", "/sandbox/audit")
        assert (status, isinstance(audit, dict)) == (200, True)
        return dict(audit)

    def wait_until_waiting(self, count: int) -> None:
        eventually(lambda: self.audit()["callbacks_waiting"] == count, f"{count} to wait")

    def settle(self) -> dict[str, int]:
        self.wait_until_waiting(0)
        return dict(self.audit()["callbacks"])


@pytest.fixture(scope="module")
def served_sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    home = tmp_path_factory.mktemp("callbacks") / "home"
    with Sandbox(home, build_world(300, seed=5), seed=5, rate_per_s=None) as running:
        yield running


@pytest.fixture
def caller(served_sandbox: Sandbox) -> Iterator[Caller]:
    served_sandbox.platform.audit.clear()
    caller = Caller(served_sandbox)
    caller.set_manner()
    yield caller
    for entity in caller.call("GET", f"{COMPANY}/config/callbacks/")[1]:
        caller.call("DELETE", f"{COMPANY}/config/callbacks/{entity['callback_id']}")
    caller.set_manner()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as running:
        yield running


def subscriber(sandbox: Sandbox) -> dict[str, str]:
    """An identifier of somebody on the offers list."""
    for row in sandbox.platform.subscriptions:
        person = sandbox.platform.persons[row.person_key]
        if row.is_active and person.mdn and person.external_person_id:
            return {"external_person_id": person.external_person_id}
    raise AssertionError("the world has no subscriber")


def test_a_stop_word_ends_the_subscription_and_calls(caller: Caller, receiver: Receiver) -> None:
    caller.register("subscription_removed", receiver, ON_OFFERS)
    who = subscriber(caller.sandbox)
    stop = ("POST", "/sandbox/texts/stop", who | ON_OFFERS)
    assert caller.call(*stop) == (200, {"changed": True})
    assert caller.call(*stop) == (200, {"changed": False})
    assert caller.settle() == {"delivered": 1, "queued": 1}
    (body,) = receiver.bodies
    assert body["subscription"]["opt_out_reason"] == "user_opt_out"
    assert who.items() <= body["subscription"]["person"].items()


def test_a_keyword_subscribes_and_calls(caller: Caller, receiver: Receiver) -> None:
    caller.register("subscription_added", receiver, ON_OFFERS)
    who = subscriber(caller.sandbox)
    join = ("POST", "/sandbox/texts/join", who | ON_OFFERS)
    assert caller.call(*join) == (200, {"changed": False})
    caller.call("POST", "/sandbox/texts/stop", who | ON_OFFERS)
    assert caller.call(*join) == (200, {"changed": True})
    assert caller.settle() == {"delivered": 1, "queued": 1}


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"mdn": "+13125550142"},
        {"list_id": "1234"},
        {"list_id": "1234", "mdn": "+10000000000"},
        {"list_id": "1234", "external_person_id": 7},
        {"list_id": "1234", "name": "Ada"},
        {"list_id": "1234", "person_key": "x", "mdn": "y"},
        {"list_id": "99", "mdn": "+13125550142"},
        ["1234"],
    ],
)
@pytest.mark.parametrize("word", ["stop", "join"])
def test_texts_that_nobody_can_send(caller: Caller, word: str, body: object) -> None:
    status, answer = caller.call("POST", f"/sandbox/texts/{word}", body)
    assert (status, bool(answer["error"])) == (400, True)


def test_a_person_without_a_phone_texts_nothing(caller: Caller) -> None:
    key = "NO-PHONE"
    caller.call("PUT", f"{COMPANY}/mobiledb/persons/external/{key}", {})
    body = {"external_person_id": key} | ON_OFFERS
    assert caller.call("POST", "/sandbox/texts/stop", body)[0] == 400


def test_an_import_calls_once_a_row(caller: Caller, receiver: Receiver) -> None:
    caller.register("person_added", receiver)
    caller.register("person_updated", receiver)
    caller.set_manner(connections=8)
    rows = [f"BURST-{number},Ada" for number in range(300)]
    folder = caller.sandbox.home.sftp_folder("/files/in")
    for name, first_name in (("a", "Ada"), ("b", "Eva")):
        text = "external_person_id,first_name\n" + "\n".join(rows).replace("Ada", first_name)
        (folder / f"{name}.persons.tmp").write_text(f"{text}\n", encoding="utf-8")
        (folder / f"{name}.persons.tmp").rename(folder / f"{name}.persons")
        reports = caller.sandbox.home.sftp_folder("/files/reports")
        eventually((reports / f"{name}.persons.summary.csv").exists, "the import")
    assert caller.settle() == {"delivered": 600, "queued": 600}
    kinds = Counter(body["callback_type"] for body in receiver.bodies)
    assert kinds == {"person_added": 300, "person_updated": 300}
    assert len(set(receiver.ids)) == 600


def test_a_night_calls_for_what_it_changes(caller: Caller, receiver: Receiver) -> None:
    caller.register("subscription_removed", receiver, ON_OFFERS)
    caller.register("person_updated", receiver)
    before = caller.sandbox.platform
    active = sum(row.is_active for row in before.subscriptions)
    status, _ = caller.call("POST", "/sandbox/next-day", {"edits": True})
    assert status == 200
    caller.settle()
    ended = active - sum(row.is_active for row in before.subscriptions)
    removed = [b for b in receiver.bodies if b["callback_type"] == "subscription_removed"]
    assert len(removed) == ended > 0
    assert len(receiver.bodies) > ended
    today = caller.sandbox.today.isoformat()
    assert all(body["event_date"].startswith(today) for body in receiver.bodies)


def test_a_new_day_is_long_enough_for_the_next_attempt(caller: Caller, receiver: Receiver) -> None:
    caller.register("subscription_removed", receiver, ON_OFFERS)
    receiver.answers.append(503)
    caller.call("POST", "/sandbox/texts/stop", subscriber(caller.sandbox) | ON_OFFERS)
    eventually(lambda: caller.audit()["callbacks"].get("retried") == 1, "a failed attempt")
    assert caller.audit()["callbacks_waiting"] == 1
    caller.call("POST", "/sandbox/next-day", {"edits": False})
    assert caller.settle() == {"delivered": 1, "queued": 1, "retried": 1}


def test_the_audit_tells_callbacks_by_type(caller: Caller, receiver: Receiver) -> None:
    caller.register("subscription_removed", receiver, ON_OFFERS)
    receiver.answers.append(404)
    caller.call("POST", "/sandbox/texts/stop", subscriber(caller.sandbox) | ON_OFFERS)
    caller.settle()
    assert caller.audit()["callbacks_by_type"] == {"subscription_removed": {"lost": 1, "queued": 1}}


def test_the_manner_is_set_over_the_control_api(caller: Caller, receiver: Receiver) -> None:
    caller.set_manner(hold=True)
    caller.register("subscription_removed", receiver, ON_OFFERS)
    caller.call("POST", "/sandbox/texts/stop", subscriber(caller.sandbox) | ON_OFFERS)
    assert (receiver.received, caller.audit()["callbacks_waiting"]) == ([], 1)
    status, answer = caller.call("POST", "/sandbox/callbacks", {"order": "random"})
    assert (status, "order" in answer["error"]) == (400, True)
    caller.set_manner(duplicates=1)
    assert caller.settle() == {"delivered": 1, "queued": 1}


def test_a_new_start_is_a_new_world_with_nothing_registered(
    tmp_path: Path, receiver: Receiver
) -> None:
    sandbox = Sandbox(tmp_path / "home", build_world(50, seed=5), seed=5)
    for _ in range(2):
        with sandbox:
            caller = Caller(sandbox)
            assert caller.call("GET", f"{COMPANY}/config/callbacks/") == (200, [])
            assert caller.audit()["callbacks_waiting"] == 0
            caller.register("subscription_removed", receiver, ON_OFFERS)
            receiver.otherwise = 503
            caller.call("POST", "/sandbox/texts/stop", subscriber(sandbox) | ON_OFFERS)
            caller.wait_until_waiting(1)


def test_a_sandbox_stops_although_a_receiver_is_silent(tmp_path: Path, receiver: Receiver) -> None:
    receiver.otherwise = 0
    with Sandbox(tmp_path / "home", build_world(50, seed=5), seed=5) as sandbox:
        caller = Caller(sandbox)
        caller.set_manner()
        caller.register("subscription_removed", receiver, ON_OFFERS)
        caller.call("POST", "/sandbox/texts/stop", subscriber(sandbox) | ON_OFFERS)
        receiver.wait_for(1)
    assert receiver.busy == 1, "it is silent still"
