"""A person as it was read shows what a body wrote, or it does not; doubt counts as no."""

from typing import Any

import pytest

from vibes_pipelines.vibes.bodies import mdn_of, shows

PERSON = {
    "person_key": "k1",
    "external_person_id": "C1",
    "mobile_phone": {"mdn": "+13125550142"},
    "custom_fields": {
        "first_name": "Ada",
        "score": 12,
        "tier": {"option_key": "gold", "label": "Gold"},
        "interests": [{"option_key": "golf"}, {"option_key": "hockey"}],
        "nickname": "",
        "hobbies": [],
        "size": {"id": "1", "name": "Large"},
        "colours": [{"id": "2", "name": "Red"}],
    },
}


def custom(**fields: object) -> dict[str, Any]:
    return {"custom_fields": fields}


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"external_person_id": "C1"},
        {"mobile_phone": {"mdn": "+13125550142"}},
        custom(first_name="Ada"),
        custom(score="12"),
        custom(tier="gold"),
        custom(interests=["hockey", "golf"]),
        custom(nickname=None),
        custom(unheard_of=None),
        custom(hobbies=[]),
        custom(unheard_of=[]),
        custom(first_name="Ada", tier="gold") | {"external_person_id": "C1"},
    ],
)
def test_a_person_shows_what_it_has(body: dict[str, Any]) -> None:
    assert shows(PERSON, body)


@pytest.mark.parametrize(
    "body",
    [
        {"external_person_id": "C2"},
        {"external_person_id": None},
        {"mobile_phone": {"mdn": "+13125550143"}},
        {"mobile_phone": {"mdn": None}},
        custom(first_name="Eda"),
        custom(first_name=None),
        custom(tier="Gold"),
        custom(size=None),
        custom(colours=[]),
        custom(interests=["golf"]),
        custom(interests=[]),
        custom(nickname="Al"),
        custom(first_name="Ada", tier="silver"),
        custom(tier="silver", first_name="Ada"),
    ],
)
def test_a_person_does_not_show_what_it_has_not(body: dict[str, Any]) -> None:
    assert not shows(PERSON, body)


@pytest.mark.parametrize("record", [{}, {"custom_fields": None}, {"custom_fields": ["x"]}])
def test_a_person_without_fields_shows_only_clears(record: dict[str, Any]) -> None:
    assert shows(record, custom(first_name=None, interests=[]))
    assert not shows(record, custom(first_name="Ada"))
    assert shows(record, {"custom_fields": None})


@pytest.mark.parametrize(
    ("record", "mdn"),
    [
        ({"mobile_phone": {"mdn": "+13125550142"}}, "+13125550142"),
        ({"mobile_phone": {"mdn": ""}}, None),
        ({"mobile_phone": {"mdn": None}}, None),
        ({"mobile_phone": {}}, None),
        ({"mobile_phone": None}, None),
        ({"mobile_phone": "+13125550142"}, None),
        ({}, None),
    ],
)
def test_the_number_of_a_person_or_of_a_body(record: dict[str, Any], mdn: str | None) -> None:
    assert mdn_of(record) == mdn
