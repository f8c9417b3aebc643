"""The sandbox's answers, judged by the API description that the vendor publishes.

The description is no part of this project: the environment variable `VIBES_OPENAPI` has its path.
Where a deviation is meant it stands in `MEANT`, with the reason; any other fails, and so does one
that no longer happens.
"""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from vibes_pipelines.sandbox.acts import act
from vibes_pipelines_tests.sandbox.receiver import Receiver, receiving
from vibes_pipelines_tests.sandbox.stand_in import (
    ADA_KEY,
    ADA_MDN,
    BEA_KEY,
    BEA_MDN,
    CAL_KEY,
    NEW_MDN,
    ApiClient,
    StandIn,
    served_platform,
)

PATH = os.environ.get("VIBES_OPENAPI")
pytestmark = pytest.mark.skipif(
    PATH is None, reason="VIBES_OPENAPI does not name the vendor's API description"
)

COMPANY = "/companies/{company_key}"
PERSONS = f"{COMPANY}/mobiledb/persons"
LISTS = f"{COMPANY}/mobiledb/subscription_lists"
ACQUISITION = f"{COMPANY}/campaigns/acquisition"
WALLET = f"{COMPANY}/campaigns/wallet"
CALLBACKS = f"{COMPANY}/config/callbacks/"
ITEM = f"{WALLET}/{{wallet_id}}/items/{{wallet_item_id}}"
DEVICE = "/mobile_apps/{app_id}/devices/{vibes_device_id}"
EVENT = {"event_type": "order_shipped", "event_data": {"mdn": ADA_MDN}}

Calls = list[tuple[str, str, Mapping[str, str], object]]
"""Method, path of the description with `?query`, its variables, and the body."""

MEANT: Mapping[str, str] = {
    "custom_fields": "described as text; other pages show selects as objects, unset ones null",
    "external_person_id": "described as text; the sandbox shows one that is not set as null",
    "mobile_phone": "described as an object; the sandbox shows one that is not set as null",
    "status 422": "a refused body, where none is described",
}


def calls(there: Receiver, device_id: str) -> Calls:
    """One call or more of every operation that the sandbox serves, in an order that works."""
    ada, nobody = {"person_key": ADA_KEY}, {"person_key": "nobody"}
    external, stranger = {"external_person_id": "CRM-1"}, {"external_person_id": "none"}
    offers, no_list = {"subscription_list_id": "1234"}, {"subscription_list_id": "9"}
    campaign, no_campaign = {"acquisition_id": "777"}, {"acquisition_id": "9"}
    card = {"wallet_id": "r3zhm8", "wallet_item_id": "card-1"}
    device = {"app_id": "APP1", "vibes_device_id": device_id}
    edit = {"custom_fields": {"first_name": "Augusta"}}
    taken = {"mobile_phone": {"mdn": BEA_MDN}}
    callback = {"callback_type": "person_added", "destination": {"url": there.url}}
    one = {"callback_id": "CB000001"}
    participants = f"{ACQUISITION}/{{acquisition_id}}/participants"
    by_external = f"{PERSONS}/external/{{external_person_id}}"
    return [
        ("POST", f"{PERSONS}/", {}, {"mobile_phone": {"mdn": NEW_MDN}}),
        ("POST", f"{PERSONS}/", {}, {"mobile_phone": {"mdn": NEW_MDN}, **edit}),
        ("POST", f"{PERSONS}/", {}, {"external_person_id": "CRM-1", **taken}),
        ("POST", f"{PERSONS}/", {}, {"nonsense": 1}),
        ("GET", f"{PERSONS}?mdn={quote(ADA_MDN)}", {}, None),
        ("GET", f"{PERSONS}?mdn=1", {}, None),
        ("GET", PERSONS, {}, None),
        *((("GET", f"{PERSONS}/{{person_key}}", who, None)) for who in (ada, nobody)),
        ("PUT", f"{PERSONS}/{{person_key}}", ada, edit),
        ("PUT", f"{PERSONS}/{{person_key}}", ada, taken),
        ("PUT", f"{PERSONS}/{{person_key}}", ada, {"nonsense": 1}),
        *((("GET", by_external, who, None)) for who in (external, stranger)),
        *((("PUT", by_external, who, edit)) for who in (external, {"external_person_id": "N"})),
        *(("GET", f"{PERSONS}/{{person_key}}/subscriptions", who, None) for who in (ada, nobody)),
        ("GET", f"{PERSONS}/{{person_key}}/subscriptions?active_only=false", ada, None),
        *(("GET", f"{by_external}/subscriptions", who, None) for who in (external, stranger)),
        *(
            (method, f"{PERSONS}/{{person_key}}/subscriptions/{{subscription_list_id}}", who, None)
            for method, who in (
                ("GET", ada | offers),
                ("GET", ada | no_list),
                ("DELETE", ada | offers),
                ("DELETE", ada | offers),
            )
        ),
        *(
            (
                method,
                f"{by_external}/subscriptions/{{subscription_list_id}}",
                external | offers,
                None,
            )
            for method in ("GET", "DELETE")
        ),
        ("GET", f"{LISTS}/", {}, None),
        *(("GET", f"{LISTS}/{{subscription_list_id}}", which, None) for which in (offers, no_list)),
        *(
            ("GET", f"{LISTS}/{{subscription_list_id}}/acquisition_campaigns/", which, None)
            for which in (offers, no_list)
        ),
        ("GET", f"{LISTS}/{{subscription_list_id}}/subscribers?mdn={quote(ADA_MDN)}", offers, None),
        ("GET", ACQUISITION, {}, None),
        *(("GET", f"{ACQUISITION}/{{acquisition_id}}", c, None) for c in (campaign, no_campaign)),
        ("POST", participants, campaign, {"person_id": "12"}),
        ("POST", participants, campaign, {"person_id": "12"}),
        ("POST", participants, {"acquisition_id": "778"}, {"mobile_phone": {"mdn": BEA_MDN}}),
        ("POST", participants, campaign, {"person_id": "12"}),
        ("POST", participants, campaign, {"mobile_phone": {"mdn": "1"}}),
        ("POST", participants, campaign, {"external_person_id": "CRM-3"}),
        ("GET", f"{participants}?person_id=13", campaign, None),
        ("GET", f"{participants}?mdn=1", campaign, None),
        ("GET", f"{LISTS}/{{subscription_list_id}}/subscribers?mdn={quote(BEA_MDN)}", offers, None),
        ("POST", f"{COMPANY}/events", {}, EVENT),
        ("POST", f"{COMPANY}/events", {}, {}),
        ("GET", f"{COMPANY}/mobiledb/broadcasts", {}, None),
        *(
            ("GET", f"{COMPANY}/mobiledb/broadcasts/{{broadcast_id}}", {"broadcast_id": n}, None)
            for n in ("501", "9")
        ),
        ("GET", f"{COMPANY}/sourcecodes", {}, None),
        ("GET", DEVICE, device, None),
        ("GET", DEVICE, device | {"vibes_device_id": "none"}, None),
        ("POST", f"{DEVICE}/assign", device, {"person_key": CAL_KEY}),
        ("POST", f"{DEVICE}/assign", device, {"person_key": "nobody"}),
        ("POST", f"{DEVICE}/assign", device, {}),
        ("GET", f"{PERSONS}/{{person_key}}/push_devices", {"person_key": CAL_KEY}, None),
        ("GET", f"{PERSONS}/{{person_key}}/push_devices", {"person_key": BEA_KEY}, None),
        ("GET", f"{by_external}/push_devices", {"external_person_id": "CRM-3"}, None),
        ("GET", WALLET, {}, None),
        ("GET", f"{WALLET}/{{wallet_id}}", card, None),
        ("GET", f"{WALLET}/{{wallet_id}}/items", card, None),
        ("GET", f"{WALLET}/{{wallet_id}}/items", {"wallet_id": "none"}, None),
        *(("GET", ITEM, item, None) for item in (card, card | {"wallet_item_id": "none"})),
        ("PUT", ITEM, card, {"tokens": {"tier": "gold"}}),
        ("POST", CALLBACKS, {}, callback),
        ("GET", CALLBACKS, {}, None),
        ("GET", f"{CALLBACKS}{{callback_id}}", one, None),
        ("GET", f"{CALLBACKS}{{callback_id}}", {"callback_id": "none"}, None),
        ("PUT", f"{CALLBACKS}{{callback_id}}", one, callback),
        (
            "POST",
            f"{COMPANY}/config/callback_events/test",
            {},
            {"callback_type": "person_added", "person": {"person_id": "1"}},
        ),
        ("DELETE", f"{CALLBACKS}{{callback_id}}", one, None),
    ]


@pytest.fixture(scope="module")
def description() -> dict[str, Any]:
    assert PATH is not None
    loaded: dict[str, Any] = json.loads(Path(PATH).read_text("utf-8"))
    return loaded


@pytest.fixture(scope="module")
def judged(description: dict[str, Any]) -> list[str]:
    """Every deviation as `METHOD path: where: what`."""
    with served_platform() as api, receiving() as there:
        wish = {"token": "r3zhm8", "uuid": "card-1", "provider": "passbook"}
        act(api.account, "wallet/install", wish)
        opened = act(api.account, "devices/open-app", {"app_id": "APP1", "os": "IOS"})
        made = calls(there, str(opened["vibes_device_id"]))
        return [fault for call in made for fault in judge(description, api, *call)]


def judge(
    description: dict[str, Any],
    api: StandIn,
    method: str,
    path: str,
    variables: Mapping[str, str],
    body: object,
) -> Iterator[str]:
    template = path.partition("?")[0]
    operation = description["paths"][template][method.lower()]
    filled = path.replace("{company_key}", "A1b2C3")
    for name, value in variables.items():
        filled = filled.replace(f"{{{name}}}", value)
    _, prefix, owner, rest = filled.split("/", 3)
    client = ApiClient(api.client.port, owner, prefix=f"/{prefix}")
    reply = client.call(method, f"/{rest}", body)
    where = f"{method} {path}"
    if str(reply.status) not in operation["responses"]:
        yield f"{where}: status {reply.status}: not described"
        return
    if reply.status >= 300:
        return
    described = schema_of(operation, reply.status)
    if described is not None and reply.raw:
        for fault in faults(reply.body, described, description, "body"):
            yield f"{where}: {fault}"


def schema_of(operation: dict[str, Any], status: int) -> dict[str, Any] | None:
    """The schema of an answer; a 201 or 202 without one is described under 200."""
    for code in (str(status), "200"):
        content = operation["responses"].get(code, {}).get("content", {})
        for media in content.values():
            schema: dict[str, Any] | None = media.get("schema")
            return schema
    return None


def faults(
    value: Any, schema: dict[str, Any], description: dict[str, Any], where: str
) -> Iterator[str]:
    """What stands against a value, by the part of JSON Schema that the description uses."""
    if "$ref" in schema:
        schema = description["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    kinds: dict[str, type | tuple[type, ...]] = {
        "string": str,
        "object": dict,
        "array": list,
        "boolean": bool,
        "integer": int,
        "number": (int, float),
    }
    wanted = schema.get("type", "object" if "properties" in schema else None)
    if wanted is not None and not isinstance(value, kinds[wanted]):
        yield f"{where}: {type(value).__name__} instead of {wanted}"
        return
    if "enum" in schema and value not in schema["enum"]:
        yield f"{where}: {value!r} is none of {schema['enum']}"
    if isinstance(value, list):
        for place, entry in enumerate(value):
            yield from faults(entry, schema.get("items", {}), description, f"{where}[{place}]")
    if isinstance(value, dict):
        properties, more = schema.get("properties", {}), schema.get("additionalProperties")
        required = schema.get("required", [])
        for name in required if isinstance(required, list) else []:
            if name not in value:
                yield f"{where}.{name}: missing"
        for name, entry in value.items():
            inner = properties.get(name, more if isinstance(more, dict) else {})
            yield from faults(entry, inner, description, f"{where}.{name}")


def reason(fault: str) -> str | None:
    return next((name for name in MEANT if f".{name}" in fault or f": {name}:" in fault), None)


def test_no_answer_deviates_unless_it_is_meant_to(judged: list[str]) -> None:
    assert [fault for fault in judged if reason(fault) is None] == []


def test_every_meant_deviation_happens(judged: list[str]) -> None:
    assert {reason(fault) for fault in judged} == set(MEANT)


def test_the_judge_finds_what_is_wrong(description: dict[str, Any]) -> None:
    schema = {
        "type": "object",
        "required": ["id"],
        "properties": {"id": {"type": "string"}, "os": {"type": "string", "enum": ["IOS"]}},
    }
    assert list(faults({"os": "CPM"}, schema, description, "body")) == [
        "body.id: missing",
        "body.os: 'CPM' is none of ['IOS']",
    ]
    assert list(faults({"id": 1}, schema, description, "body")) == [
        "body.id: int instead of string"
    ]
