"""The receiver's routes as an OpenAPI description, made from what the receiver itself serves.

For tools that try an interface out by its description. Bodies are those of the contract: each type
of callback with the identifiers and dates that are read from it.
"""

from typing import Any

from starlette.routing import Route

from vibes_pipelines.callbacks.receiver import Receiver
from vibes_pipelines.callbacks.signup import ANSWERS
from vibes_pipelines.vibes.callbacks import SHAPES

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string"}
_PERSON: Schema = {
    "type": "object",
    "properties": {
        "person_key": _TEXT,
        "external_person_id": _TEXT,
        "id": {"type": ["string", "integer"]},
        "mobile_phone": {"type": "object", "properties": {"mdn": _TEXT}},
        "custom_fields": {"type": "object"},
    },
}
_CALLBACK: Schema = {
    "type": "object",
    "required": ["callback_type"],
    "properties": {
        "callback_type": {"enum": sorted(SHAPES)},
        "event_type": {"enum": sorted(SHAPES)},
        "event_id": {"type": ["string", "integer", "null"]},
        "event_date": {"anyOf": [{"type": "string", "format": "date-time"}, _TEXT]},
        "delivery_attempt": {"type": "integer"},
        "person": _PERSON,
        "participant": {"type": "object", "properties": {"person": _PERSON, "status": _TEXT}},
        "subscription": {
            "type": "object",
            "properties": {
                "person": _PERSON,
                "subscription_list": {
                    "type": "object",
                    "properties": {"id": {"type": ["string", "integer"]}, "url": _TEXT},
                },
                "opt_in_date": _TEXT,
                "opt_out_date": _TEXT,
            },
        },
        "event_processed": {"type": "object", "properties": {"event_id": _TEXT}},
        "message": _TEXT,
    },
}
_FORM: Schema = {
    "type": "object",
    "required": ["mdn"],
    "properties": {"mdn": _TEXT, "campaign": _TEXT, "first_name": _TEXT},
}
_BODIES = {"/callbacks": _CALLBACK, "/callbacks/{anything}": _CALLBACK, "/signup": _FORM}
_STATUSES = {
    "/callbacks": {200, 503},
    "/callbacks/{anything}": {200, 503},
    "/signup": {status for status, _ in ANSWERS.values()},
    "/health": {200, 503},
    "/metrics": {200},
}


def describe(receiver: Receiver) -> Schema:
    """The OpenAPI document of every route that this receiver serves."""
    paths: dict[str, Schema] = {}
    for route in receiver.app().routes:
        assert isinstance(route, Route)
        path = route.path.replace(":path}", "}")
        methods = sorted((route.methods or set()) - {"HEAD"})
        paths[path] = {method.lower(): _operation(path, method) for method in methods}
    info = {"title": "Receiver of callbacks", "version": "1"}
    return {"openapi": "3.1.0", "info": info, "paths": paths}


def _operation(path: str, method: str) -> Schema:
    statuses = sorted(_STATUSES[path])
    operation: Schema = {"responses": {str(status): {"description": "-"} for status in statuses}}
    if "{anything}" in path:
        place = {"name": "anything", "in": "path", "required": True, "schema": _TEXT}
        operation["parameters"] = [place]
    if method != "GET":
        content = {"application/json": {"schema": _BODIES[path]}}
        operation["requestBody"] = {"required": True, "content": content}
    return operation
