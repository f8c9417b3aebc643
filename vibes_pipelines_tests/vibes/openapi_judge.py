"""Judges HTTP requests by an OpenAPI description: operation, query, headers, body.

Only what the vendor's description uses of JSON Schema. Stricter than JSON Schema: a key that an
object with `properties` does not list is a finding, because the vendor ignores or refuses it.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlsplit

Schema = Mapping[str, Any]


@dataclass(frozen=True)
class Request:
    """One request as it arrived, path and query still encoded."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: Any


class Judge:
    """One description; `document` is its JSON."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document

    def operation(self, request: Request) -> str | None:
        """`METHOD /path/{template}` of the request; None when there is no such operation."""
        path = urlsplit(request.path).path
        # A literal segment is nearer than a parameter: /persons/external/… is no person key.
        matches = [
            (template.count("{"), template)
            for template, item in self._document["paths"].items()
            if request.method.lower() in item and _fits(template, path)
        ]
        return f"{request.method} {min(matches)[1]}" if matches else None

    def findings(self, request: Request) -> Iterator[str]:
        """What the description does not allow, without values."""
        name = self.operation(request)
        if name is None:
            yield f"no such operation: {request.method} {urlsplit(request.path).path}"
            return
        method, template = name.split(" ", 1)
        item = self._document["paths"][template]
        operation = item[method.lower()]
        parameters = [*item.get("parameters", []), *operation.get("parameters", [])]
        yield from (f"{name}: {what}" for what in self._of_parameters(request, parameters))
        yield from (f"{name}: {what}" for what in self._of_body(request, operation))

    def _of_parameters(self, request: Request, parameters: list[Schema]) -> Iterator[str]:
        known = [self._resolved(parameter) for parameter in parameters]
        asked = {key for key, _ in parse_qsl(urlsplit(request.path).query, strict_parsing=False)}
        queries = {one["name"]: one for one in known if one["in"] == "query"}
        for name in sorted(asked - queries.keys()):
            yield f"unknown query {name}"
        given = {name.lower() for name in request.headers}
        for one in known:
            is_missing = one["name"] not in asked and one["in"] == "query"
            is_missing |= one["name"].lower() not in given and one["in"] == "header"
            if one.get("required") and is_missing:
                yield f"missing {one['in']} {one['name']}"

    def _of_body(self, request: Request, operation: Schema) -> Iterator[str]:
        described = operation.get("requestBody")
        if described is None:
            if request.body is not None:
                yield "unexpected body"
            return
        if request.body is None:
            if described.get("required"):
                yield "missing body"
            return
        schema = described["content"]["application/json"]["schema"]
        yield from self._of_value(request.body, schema, "body")

    def _of_value(self, value: Any, schema: Schema, place: str) -> Iterator[str]:
        schema = self._resolved(schema)
        if "oneOf" in schema:
            found = [list(self._of_value(value, one, place)) for one in schema["oneOf"]]
            yield from min(found, key=len)
            return
        if "enum" in schema and value not in schema["enum"]:
            yield f"{place}: not one of the values"
        kind = schema.get("type")
        if kind is not None and not _is(value, kind):
            yield f"{place}: {type(value).__name__} instead of {kind}"
        elif kind == "object":
            yield from self._of_object(value, schema, place)
        elif kind == "array":
            for item in value:
                yield from self._of_value(item, schema.get("items", {}), f"{place}[]")

    def _of_object(self, value: Mapping[str, Any], schema: Schema, place: str) -> Iterator[str]:
        properties, others = schema.get("properties", {}), schema.get("additionalProperties")
        for name in schema.get("required", []):
            if name not in value:
                yield f"{place}: missing {name}"
        for name, item in value.items():
            if name in properties:
                yield from self._of_value(item, properties[name], f"{place}.{name}")
            elif isinstance(others, Mapping):
                yield from self._of_value(item, others, f"{place}.*")
            elif properties and not others:
                yield f"{place}: unknown key {name}"

    def _resolved(self, schema: Schema) -> Schema:
        while "$ref" in schema:
            found: Any = self._document
            for step in schema["$ref"].removeprefix("#/").split("/"):
                found = found[step.replace("~1", "/")]
            schema = found
        return schema


def _fits(template: str, path: str) -> bool:
    parts = (
        ".+" if "{" in part else re.escape(part) for part in re.split(r"(\{[^}]*\})", template)
    )
    return re.fullmatch("".join(parts).replace(".+", "[^/]+"), path) is not None


def _is(value: Any, kind: str) -> bool:
    kinds: dict[str, tuple[type, ...]] = {
        "object": (dict,),
        "array": (list,),
        "string": (str,),
        "number": (int, float),
        "integer": (int,),
        "boolean": (bool,),
    }
    return isinstance(value, kinds[kind]) and (kind == "boolean" or not isinstance(value, bool))
