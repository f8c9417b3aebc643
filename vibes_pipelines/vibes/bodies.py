"""JSON bodies of Person API writes from changes in canonical text, and their comparison.

Rules: the Vibes documentation, Person API. Omitted = keep, present = replace, null = clear.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from vibes_pipelines.sync_config import FieldType

Change = Mapping[str, Any]
"""`field`, `action` (`set` or `clear`) and `after` (canonical text) of one change."""


class UnknownField(ValueError):  # noqa: N818 - the name says what is wrong
    """A change names a field whose type is not known."""


def person_body(
    changes: Iterable[Change],
    types: Mapping[str, FieldType],
    external_person_id: str | None = None,
    mdn: str | None = None,
) -> dict[str, Any]:
    """The body that carries `changes`, and the identifiers given, to one person.

    Changes of the identifiers themselves (`external_person_id`, `mdn`) stand where the API has
    them, beside the custom fields.

    Raises:
        UnknownField: a changed field has no type; map it in `fields` of sync.yaml.
    """
    identifiers = {"external_person_id": external_person_id, "mdn": mdn}
    wanted: dict[str, str | None] = {k: v for k, v in identifiers.items() if v is not None}
    custom: dict[str, Any] = {}
    for change in changes:
        field, value = change["field"], change["after"] if change["action"] == "set" else None
        if field in identifiers:
            wanted[field] = value
        else:
            custom[field] = json_value(value, _type_of(field, types))
    return _assemble(wanted, custom)


def json_value(value: str | None, field_type: FieldType) -> str | list[str] | None:
    """Canonical text as the API writes it; None clears (an empty list for a multi select).

    Numbers stay text: the published schema types every custom field value as a string. Selects are
    sent as their option key, an assumption: the documentation is silent on the form of writes.
    """
    if field_type == "multi_select":
        return value.split("|") if value else []
    if value is not None and field_type == "date":
        return api_date(value)
    return value


def api_date(value: str) -> str:
    """A canonical date (`YYYY-MM-DD`, or an instant ending in Z) as `YYYY-MM-DDTHH:MM:SSZ`."""
    return value if "T" in value else f"{value}T00:00:00Z"


def mdn_of(record: Mapping[str, Any]) -> str | None:
    """The number in a person or in a body; None when it has none."""
    phone = record.get("mobile_phone")
    mdn = phone.get("mdn") if isinstance(phone, Mapping) else None
    return mdn or None


def shows(record: Mapping[str, Any], body: Mapping[str, Any]) -> bool:
    """True when a person, as it was read, has everything that a body writes.

    Selects are read as objects and written as their option key. Doubt counts as no.
    """
    custom = record.get("custom_fields")
    has = custom if isinstance(custom, Mapping) else {}
    wanted = body.get("custom_fields") or {}
    external = "external_person_id"
    if external in body and record.get(external) != body[external]:
        return False
    if "mobile_phone" in body and mdn_of(record) != mdn_of(body):
        return False
    return all(_read_form(has.get(name)) == _read_form(value) for name, value in wanted.items())


_UNTOLD = object()
"""An option that is named without its key: nobody's value, and not none."""


def _read_form(value: Any) -> Any:
    """A custom value as read or as written, in one form: text, a set of keys, or None."""
    if isinstance(value, Mapping):
        key = value.get("option_key")
        return _UNTOLD if key is None else _read_form(key)
    if isinstance(value, list):
        return frozenset(_read_form(item) for item in value) or None
    return None if value is None or value == "" else str(value)


def _type_of(field: str, types: Mapping[str, FieldType]) -> FieldType:
    if field not in types:
        msg = f"field {field!r} has no type; map it in `fields` of sync.yaml"
        raise UnknownField(msg)
    return types[field]


def _assemble(identifiers: Mapping[str, str | None], custom: dict[str, Any]) -> dict[str, Any]:
    body: dict[str, Any] = {}
    if "external_person_id" in identifiers:
        body["external_person_id"] = identifiers["external_person_id"]
    if "mdn" in identifiers:
        body["mobile_phone"] = {"mdn": identifiers["mdn"]}
    if custom:
        body["custom_fields"] = custom
    return body
