"""Bodies of Person API writes: omitted keeps, present replaces, null clears."""

from typing import Any

import pytest

from vibes_pipelines.sync_config import FieldType
from vibes_pipelines.vibes.bodies import UnknownField, json_value, person_body

TYPES: dict[str, FieldType] = {
    "first_name": "string",
    "birthdate": "date",
    "score": "number",
    "tier": "single_select",
    "interests": "multi_select",
    "zip_code": "postal_code",
}


def changed(field: str, after: str) -> dict[str, Any]:
    return {"field": field, "action": "set", "before": None, "after": after, "reason": "fill"}


def cleared(field: str) -> dict[str, Any]:
    return {"field": field, "action": "clear", "before": "x", "after": None, "reason": "clear"}


def test_an_add_carries_both_identifiers_and_every_type_in_its_form() -> None:
    changes = [
        changed("first_name", "Ada"),
        changed("birthdate", "1990-12-01"),
        changed("score", "12.5"),
        changed("tier", "gold"),
        changed("interests", "golf|hockey"),
        changed("zip_code", "01234"),
    ]
    assert person_body(changes, TYPES, "C-1", "+13125550142") == {
        "external_person_id": "C-1",
        "mobile_phone": {"mdn": "+13125550142"},
        "custom_fields": {
            "first_name": "Ada",
            "birthdate": "1990-12-01T00:00:00Z",
            "score": "12.5",
            "tier": "gold",
            "interests": ["golf", "hockey"],
            "zip_code": "01234",
        },
    }


def test_an_update_holds_only_what_changed() -> None:
    assert person_body([changed("first_name", "Ada")], TYPES) == {
        "custom_fields": {"first_name": "Ada"}
    }


def test_a_clear_is_null_and_an_empty_list_for_a_multi_select() -> None:
    fields = person_body([cleared(name) for name in TYPES], TYPES)["custom_fields"]
    assert fields == dict.fromkeys(TYPES, None) | {"interests": []}


def test_changed_identifiers_stand_beside_the_custom_fields() -> None:
    body = person_body([changed("external_person_id", "C-1"), changed("mdn", "+13125550142")], {})
    assert body == {"external_person_id": "C-1", "mobile_phone": {"mdn": "+13125550142"}}


def test_an_instant_keeps_its_time() -> None:
    assert json_value("1990-12-01T08:30:00Z", "date") == "1990-12-01T08:30:00Z"


def test_a_field_without_a_type_is_refused() -> None:
    with pytest.raises(UnknownField, match="'nickname' has no type; map it in `fields`"):
        person_body([changed("nickname", "Al")], TYPES)
