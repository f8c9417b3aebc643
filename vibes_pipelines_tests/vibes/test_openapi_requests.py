"""Every request of the client, judged by the vendor's own OpenAPI description.

The description is not part of this project: give its path in VIBES_OPENAPI. What it does not allow
and the vendor's prose does is listed here, with the page that says so.
"""

import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from vibes_pipelines.vibes.api_version import ApiVersion
from vibes_pipelines.vibes.callback_api import TARGETS, CallbackSpec
from vibes_pipelines.vibes.event_api import Event
from vibes_pipelines.vibes.vibes_api import VibesApi
from vibes_pipelines.vibes.wallet_api import ItemChange
from vibes_pipelines_tests.vibes.answering import FakePlatform, ask_vibes
from vibes_pipelines_tests.vibes.openapi_judge import Judge, Request

MDN = "+12995551234"
BODY = {
    "external_person_id": "C-1",
    "mobile_phone": {"mdn": MDN},
    "custom_fields": {"first_name": "Ada", "score": "7", "birthdate": "1990-12-01T00:00:00Z"},
}
CLEARING = {"custom_fields": {"first_name": None, "tags": ["a", "b"]}}
WHO: list[dict[str, str]] = [{"person_key": "p1"}, {"external_person_id": "C-1"}]

NOT_TESTED = {"wallet_item_install", "wallet_item_remove", "unmatched_message_received"}

ALLOWED_BY_PROSE = {
    # Person API: a number is removed, and a field cleared, by an explicit null.
    "body.mobile_phone.mdn: NoneType instead of string",
    "body.custom_fields.*: NoneType instead of string",
    # Person API reads multi selects as arrays; how they are written is not documented.
    "body.custom_fields.*: list instead of string",
    # Privacy: erasure nulls the external id and the carrier code too.
    "body.external_person_id: NoneType instead of string",
    "body.mobile_phone.carrier_code: NoneType instead of string",
    # Participant API names person_key among the identifiers.
    "body: unknown key person_key",
    # Event API: event_data holds any JSON, debug_data is carried along.
    "body.event_data.*: dict instead of string",
    "body: unknown key debug_data",
    # Subscription API: active_only holds for both routes.
    "unknown query active_only",
}


async def talk(api: VibesApi) -> None:
    """Every call of the client, in its several forms."""
    await talk_of_persons(api)
    for callback_type, names in TARGETS.items():
        target = dict.fromkeys(names, "7")
        spec = CallbackSpec(
            callback_type, "https://crm.example.com/in", target, "PUT", "2024", "2025"
        )
        await api.callbacks.register(spec)
        await api.callbacks.update("9", spec)
        if callback_type not in NOT_TESTED:
            await api.callbacks.test(callback_type)
    await api.callbacks.registrations()
    await api.callbacks.registration("9")
    await api.callbacks.cancel("9")
    await api.events.send(Event("e-1", "a", {"mdn": MDN, "order": {"id": 7}}, {"from": "crm"}))
    await api.campaigns.campaigns()
    await api.campaigns.campaign("777")
    identifiers: list[dict[str, Any]] = [{"mdn": MDN}, *WHO]
    for one in identifiers:
        await api.campaigns.invite("777", **one, custom_fields={"first_name": "Ada"})
    for one in ({"mdn": MDN}, {"external_person_id": "C-1"}, {"person_id": "7"}):
        await api.campaigns.pending("777", **one)
    await api.push.device("app", "d1")
    for key in WHO:
        await api.push.devices(**key)
        await api.push.assign("app", "d1", **key)
    await talk_of_wallets(api)


async def talk_of_persons(api: VibesApi) -> None:
    await api.persons.add(BODY)
    await api.persons.update("p1", CLEARING)
    await api.persons.upsert("C-1", BODY)
    await api.persons.get("p1")
    await api.persons.get_external("C-1")
    await api.persons.find_by_mdn(MDN)
    await api.privacy.erase("p1")
    await api.subscriptions.lists()
    await api.subscriptions.subscription_list("12")
    await api.subscriptions.campaigns_of("12")
    for key in WHO:
        unended: dict[str, Any] = {**key, "active_only": False}
        await api.persons.replace_mdn(MDN, **key)
        await api.subscriptions.subscriptions(**unended)
        await api.subscriptions.subscription("12", **key)
        await api.subscriptions.unsubscribe("12", **key)
        await api.subscriptions.subscriber("12", **key)
    await api.subscriptions.subscriber("12", mdn=MDN)


async def talk_of_wallets(api: VibesApi) -> None:
    await api.wallet.campaigns()
    await api.wallet.campaign("r3")
    await api.wallet.items("r3", group_code="a", expiration_date="2024", provider="passbook")
    await api.wallet.item("r3", "u1")
    change = ItemChange({"tier": "gold"}, [{"latitude": 1.5, "longitude": 2.5}], "Hi", "Hi", "Ada")
    await api.wallet.update_item("r3", "u1", change)


class Anything(FakePlatform):
    """Answers as if every record were there; the person's number is another one, so it changes."""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        await super().handle(request)
        is_owner = "mdn" in request.query
        number = None if is_owner else "+12995550000"
        body = self.requests[-1].body
        if isinstance(body, dict) and "mobile_phone" in body:
            self.mdn = body["mobile_phone"]["mdn"]
        person = {"person_key": "p1", "mobile_phone": {"mdn": getattr(self, "mdn", number)}}
        if is_owner:
            return web.Response(status=404)
        return web.json_response(person | {"custom_fields": {"first_name": "Ada"}})


def requests(version: ApiVersion, talking: Callable[[VibesApi], Awaitable[None]]) -> list[Request]:
    platform = Anything([web.Response()])
    ask_vibes(platform, talking, version)
    return [Request(seen.method, seen.path, seen.headers, seen.body) for seen in platform.requests]


@pytest.fixture(scope="module")
def judge() -> Judge:
    place = os.environ.get("VIBES_OPENAPI")
    if not place:
        pytest.skip("VIBES_OPENAPI is not set: it is the path of the vendor's OpenAPI description")
    return Judge(json.loads(Path(place).read_text(encoding="utf-8")))


@pytest.mark.parametrize("version", [1, 2])
def test_the_vendor_describes_every_request(judge: Judge, version: ApiVersion) -> None:
    found = {what for request in requests(version, talk) for what in judge.findings(request)}
    surprising = [what for what in sorted(found) if what.split(": ", 1)[1] not in ALLOWED_BY_PROSE]
    assert surprising == []


def test_every_exception_is_needed(judge: Judge) -> None:
    found = {
        what.split(": ", 1)[1] for request in requests(2, talk) for what in judge.findings(request)
    }
    assert ALLOWED_BY_PROSE - found == set()


DESCRIPTION: dict[str, Any] = {
    "paths": {
        "/a/{id}": {"get": {"parameters": [{"name": "q", "in": "query", "required": True}]}},
        "/a/{id}/b": {
            "post": {
                "requestBody": {
                    "required": True,
                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/b"}}},
                }
            }
        },
    },
    "components": {
        "schemas": {
            "b": {
                "type": "object",
                "required": ["kind"],
                "properties": {
                    "kind": {"type": "string", "enum": ["x"]},
                    "n": {
                        "oneOf": [
                            {"type": "number"},
                            {"type": "array", "items": {"type": "string"}},
                        ]
                    },
                },
            }
        }
    },
}


@pytest.mark.parametrize(
    ("method", "path", "body", "expected"),
    [
        ("GET", "/a/1?q=2", None, []),
        ("GET", "/a/1", None, ["GET /a/{id}: missing query q"]),
        ("GET", "/a/1?q=2&r=3", None, ["GET /a/{id}: unknown query r"]),
        ("GET", "/a/1?q=2", {}, ["GET /a/{id}: unexpected body"]),
        ("GET", "/a/1/", None, ["no such operation: GET /a/1/"]),
        ("PUT", "/a/1", None, ["no such operation: PUT /a/1"]),
        ("POST", "/a/1/b", None, ["POST /a/{id}/b: missing body"]),
        ("POST", "/a/1/b", {"kind": "x", "n": 1.5}, []),
        ("POST", "/a/1/b", {"kind": "x", "n": ["1"]}, []),
        ("POST", "/a/1/b", {"kind": "y"}, ["POST /a/{id}/b: body.kind: not one of the values"]),
        ("POST", "/a/1/b", {}, ["POST /a/{id}/b: body: missing kind"]),
        ("POST", "/a/1/b", {"kind": "x", "z": 1}, ["POST /a/{id}/b: body: unknown key z"]),
        (
            "POST",
            "/a/1/b",
            {"kind": "x", "n": "1"},
            ["POST /a/{id}/b: body.n: str instead of number"],
        ),
    ],
)
def test_the_judge_finds_what_is_not_described(
    method: str, path: str, body: Any, expected: list[str]
) -> None:
    assert list(Judge(DESCRIPTION).findings(Request(method, path, {}, body))) == expected
