"""Tribe's webhooks: whose they are, whom they are about, and that nothing of them is lost."""

import base64
import hashlib
import hmac
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.hmac import HMAC
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from vibes_pipelines.callbacks.receiver import Rules
from vibes_pipelines.callbacks.tribe import PATH, REFUSED, TribeGate
from vibes_pipelines.sandbox.tribe_population import OFFERS
from vibes_pipelines.sandbox.tribe_sandbox import TribeSandbox
from vibes_pipelines.sandbox.tribe_switches import TribeSwitches
from vibes_pipelines.settings import Settings, TribeWebhookSettings
from vibes_pipelines.stages.parked import DecisionError, retry_parked
from vibes_pipelines.stages.project import open_project
from vibes_pipelines.store.inbox import Inbox
from vibes_pipelines.tribe.errors import TribeWebhookError
from vibes_pipelines.tribe.webhooks import (
    EVENT_TYPES,
    judge_signature,
    read_message,
    sign,
)
from vibes_pipelines_tests.support.callbacks import (
    RunningReceiver,
    as_bytes,
    running_receiver,
    stored_rows,
    subscription_body,
)
from vibes_pipelines_tests.support.loop import EXAMPLE
from vibes_pipelines_tests.support.real_parts import refusing_port

PERSON = "0f8fad5b-d9cb-469f-a165-70867728950e"
SECRET, HEADER = "a secret of the webhook", "X-Signed"


def body(**payload: Any) -> bytes:
    return json.dumps({"webhookId": "w1", "payload": payload}).encode()


class TestSignature:
    @given(st.binary(max_size=300), st.text(min_size=1, max_size=40))
    def test_a_signature_is_valid_for_its_body_and_secret_only(
        self, content: bytes, secret: str
    ) -> None:
        signature = sign(content, secret)
        assert judge_signature(content, signature, secret) == "valid"
        assert judge_signature(content + b" ", signature, secret) == "invalid"
        assert judge_signature(content, signature, secret + "x") == "invalid"
        assert judge_signature(content, None, secret) == "missing"
        assert judge_signature(content, signature, None) == "unconfigured"

    @given(st.binary(max_size=100), st.text(max_size=120))
    def test_no_other_text_is_taken_for_a_signature(self, content: bytes, signature: str) -> None:
        right = sign(content, SECRET)
        if signature.strip() != right:
            assert judge_signature(content, signature, SECRET) in {"invalid", "missing"}

    def test_it_is_the_base64_of_the_bytes_and_not_of_their_hexadecimal_text(self) -> None:
        content = body(entityId=PERSON)
        hexadecimal = hmac.new(SECRET.encode(), content, hashlib.sha512).hexdigest()
        assert sign(content, SECRET) == base64.b64encode(bytes.fromhex(hexadecimal)).decode()
        of_the_text = base64.b64encode(hexadecimal.encode()).decode()
        assert judge_signature(content, of_the_text, SECRET) == "invalid"

    def test_another_library_comes_to_the_same(self) -> None:
        content = body(entityId=PERSON)
        other = HMAC(SECRET.encode(), SHA512())
        other.update(content)
        signature = base64.b64encode(other.finalize()).decode()
        assert judge_signature(content, signature, SECRET) == "valid"


class TestMessage:
    @pytest.mark.parametrize("key", ["type", "_type", "@odata.type", "mutationType"])
    @pytest.mark.parametrize(
        ("mutation", "kind"),
        [
            ("EntityCreationMutation", "tribe.person"),
            ("EntityUpdateMutation", "tribe.person"),
            ("EntityDeletionMutation", "tribe.person_deleted"),
        ],
    )
    def test_a_mutation_of_a_person(self, key: str, mutation: str, kind: str) -> None:
        message = read_message(
            body(entityId=PERSON, entityType="Relation.Person", **{key: mutation})
        )
        assert (message.event_type, message.person_id) == (kind, PERSON)
        assert message.webhook_id == "w1"

    def test_a_person_without_any_word_of_what_happened_is_read_anew(self) -> None:
        assert read_message(body(entityId=PERSON)).event_type == "tribe.person"

    def test_a_relationship_is_known_by_its_own_identifier(self) -> None:
        message = read_message(body(relationshipId=PERSON, type="RelationshipUpdateMutation"))
        assert (message.event_type, message.person_id) == ("tribe.relationship", None)
        assert message.relationship_id == PERSON

    @pytest.mark.parametrize(
        "payload",
        [
            {"entityId": PERSON, "entityType": "Relation.Organization"},
            {"entityId": "no guid"},
            {"entityId": 12},
            {},
            {"type": "SomethingNewMutation"},
        ],
    )
    def test_what_is_not_understood_is_kept_and_never_guessed(self, payload: Any) -> None:
        message = read_message(body(**payload))
        assert (message.event_type, message.person_id) == ("tribe.unknown", None)

    @given(st.binary(max_size=100))
    def test_garbage_is_a_typed_error(self, content: bytes) -> None:
        with pytest.raises(TribeWebhookError):
            read_message(content)

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=8),
            lambda inner: (
                st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
            ),
        )
    )
    def test_any_payload_is_read_or_refused(self, payload: Any) -> None:
        content = json.dumps({"payload": payload}).encode()
        try:
            assert read_message(content).event_type in EVENT_TYPES
        except TribeWebhookError:
            assert not isinstance(payload, dict)


@contextmanager
def receiving(tmp_path: Path, secret: str = SECRET) -> Iterator[tuple[RunningReceiver, str]]:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    gate = TribeGate(TribeWebhookSettings(SecretStr(secret), HEADER))
    with Inbox(url) as inbox, running_receiver(inbox, Rules(max_body_bytes=900), tribe=gate) as one:
        yield one, url


class TestReceiver:
    def test_a_signed_message_is_stored_for_its_own_drain(self, tmp_path: Path) -> None:
        content = body(entityId=PERSON, type="EntityUpdateMutation")
        with receiving(tmp_path) as (receiver, url):
            assert receiver.post(content, PATH, **{HEADER: sign(content, SECRET)}) == 200
            [row] = stored_rows(url)
            assert (row["status"], row["event_type"]) == ("stored", "tribe.person")
            assert (row["external_person_id"], row["body"], row["path"]) == (PERSON, content, PATH)
            with Inbox(url) as inbox:
                assert [one.external_person_id for one in inbox.stored(EVENT_TYPES)] == [PERSON]
                assert list(inbox.waiting()) == []  # what Vibes sent is worked off without it
                assert inbox.newest_waiting() is None

    def test_equal_bodies_are_different_changes(self, tmp_path: Path) -> None:
        content = body(entityId=PERSON)
        with receiving(tmp_path) as (receiver, url):
            for _ in range(3):
                assert receiver.post(content, PATH, **{HEADER: sign(content, SECRET)}) == 200
            assert [row["status"] for row in stored_rows(url)] == ["stored"] * 3

    @pytest.mark.parametrize("signature", ["", "bm90IGl0", sign(b"another body", SECRET)])
    def test_a_wrong_signature_is_stored_as_refused_and_answered(
        self, tmp_path: Path, signature: str
    ) -> None:
        with receiving(tmp_path) as (receiver, url):
            assert receiver.post(body(entityId=PERSON), PATH, **{HEADER: signature}) == 200
            [row] = stored_rows(url)
            assert (row["status"], row["event_type"]) == ("parked", REFUSED)
            assert row["reason"].startswith("refused: ")
            assert row["external_person_id"] is None

    def test_a_body_that_was_cut_is_never_taken_for_tribes(self, tmp_path: Path) -> None:
        content = body(entityId=PERSON, filling="x" * 1000)
        with receiving(tmp_path) as (receiver, url):
            assert receiver.post(content, PATH, **{HEADER: sign(content, SECRET)}) == 200
            assert [row["event_type"] for row in stored_rows(url)] == [REFUSED]

    def test_what_is_signed_but_not_understood_is_kept(self, tmp_path: Path) -> None:
        content = b"not even JSON"
        with receiving(tmp_path) as (receiver, url):
            assert receiver.post(content, PATH, **{HEADER: sign(content, SECRET)}) == 200
            [row] = stored_rows(url)
            assert (row["status"], row["event_type"]) == ("stored", "tribe.unknown")

    def test_without_a_secret_there_is_no_such_path(self, tmp_path: Path) -> None:
        url = f"sqlite:///{tmp_path / 'ledger.db'}"
        with Inbox(url) as inbox, running_receiver(inbox) as receiver:
            assert receiver.post(body(entityId=PERSON), PATH) == 404


@pytest.mark.parametrize("label_mutation", ["entity", "relationship", "none"])
@pytest.mark.parametrize("mutation_key", ["type", ""])
def test_tribe_tells_the_receiver_of_changes(
    tmp_path: Path, label_mutation: Any, mutation_key: str
) -> None:
    switches = TribeSwitches(
        label_mutation=label_mutation, mutation_key=mutation_key, signature_header=HEADER
    )
    with (
        TribeSandbox.of_people(5, switches) as tribe,
        receiving(tmp_path, tribe.webhooks.secret) as (receiver, url),
    ):
        address = f"http://127.0.0.1:{receiver.port}{PATH}"
        tribe.webhooks.register({"url": address, "entityType": "Relation.Person"})
        person = tribe.world.create("Relation_Person", {"LastName": "New"})["ID"]
        tribe.world.update("Relation_Person", person, {"FirstName": "Ann"})
        tribe.world.attach(person, tribe.world.label_id(OFFERS))
        tribe.world.delete("Relation_Person", person)
        assert tribe.webhooks.wait_until_sent(60)
        kinds = [row["event_type"] for row in stored_rows(url)]
    of_label = {"entity": ["tribe.person"], "relationship": ["tribe.relationship"], "none": []}
    last = "tribe.person_deleted" if mutation_key else "tribe.person"
    assert kinds == ["tribe.person", "tribe.person", *of_label[label_mutation], last]


def test_a_webhook_is_sent_again_until_it_is_taken() -> None:
    switches = TribeSwitches(signature_header=HEADER, webhook_attempts=3)
    with TribeSandbox.of_people(5, switches) as tribe:
        with refusing_port() as port:
            address = f"http://127.0.0.1:{port}{PATH}"
            tribe.webhooks.register({"url": address, "entityType": "Relation.Person"})
            person = next(tribe.world.persons())["ID"]
            tribe.world.update("Relation_Person", person, {"FirstName": "Ann"})
            assert tribe.webhooks.wait_until_sent(60)
        assert tribe.audit.as_dict()["callbacks"] == {"given_up": 1, "retried": 2}


def test_a_refused_message_cannot_be_retried_as_if_somebody_else_had_sent_it(
    tmp_path: Path,
) -> None:
    forged = as_bytes(
        subscription_body(
            "subscription_removed", "E1", "2026-01-02T03:04:05Z", external_person_id="C1"
        )
    )
    environment = {
        "VIBES_HOME": str(tmp_path),
        "VIBES_LEDGER_URL": f"sqlite:///{tmp_path / 'ledger.db'}",
        "VIBES_SYNC_CONFIG": str(EXAMPLE),
    }
    with receiving(tmp_path) as (receiver, url):
        assert receiver.post(forged, PATH) == 200
        [row] = stored_rows(url)

        with (
            open_project(Settings(environment)) as project,
            pytest.raises(DecisionError, match="not Tribe's own"),
        ):
            retry_parked(project, [row["id"]], "let it in")
        assert [row["status"] for row in stored_rows(url)] == ["parked"]
