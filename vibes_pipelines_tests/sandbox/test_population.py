"""The synthetic world: sizes, agreement, and the troubles that were put into it on purpose."""

import os
import subprocess
import sys
import unicodedata
from collections import Counter
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import cache
from pathlib import Path

import phonenumbers
import pytest
import yaml

from vibes_pipelines.sandbox.clock import midnight
from vibes_pipelines.sandbox.numbers import landline_number, mobile_number, spelled
from vibes_pipelines.sandbox.platform import Person, Platform, Value
from vibes_pipelines.sandbox.population import build_world
from vibes_pipelines.sandbox.world import ContactRow, World

PEOPLE = 2_000
TROUBLES = (
    "duplicate_contact",
    "shared_mobile",
    "invalid_mobile",
    "moved_number",
    "unknown_tier",
    "landline",
    "cleared_tier",
)


@cache
def world() -> World:
    return build_world(PEOPLE, seed=5)


def persons_by_external_id() -> dict[str, Person]:
    return {p.external_person_id: p for p in world().persons if p.external_person_id}


def contacts_by_id() -> dict[str, ContactRow]:
    return {str(row["contact_id"]): row for row in world().contacts}


def e164(mobile: object) -> str | None:
    """The number that a CRM cell means to the phonenumbers library; None for an unusable one."""
    try:
        number = phonenumbers.parse(str(mobile), "US")
    except phonenumbers.NumberParseException:
        return None
    if not phonenumbers.is_valid_number(number):
        return None
    return str(phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164))


def text(cell: object) -> str | None:
    return None if cell is None else unicodedata.normalize("NFC", str(cell)).strip()


def meant(row: ContactRow) -> dict[str, Value]:
    """The custom fields that a CRM row means."""
    birth_date, score, tier = row["birth_date"], row["score"], row["tier"]
    return {
        "first_name": text(row["first_name"]),
        "last_name": text(row["last_name"]),
        "birthdate": None
        if birth_date is None
        else datetime.fromisoformat(f"{birth_date}T00:00:00Z"),
        "score": None if score is None else Decimal(str(score)),
        "tier": None if tier is None else str(tier).lower(),
        "interests": tuple(sorted(str(row["interests"]).split(";"))) if row["interests"] else None,
        "zip_code": text(row["zip"]),
    }


def special() -> set[str]:
    return {key for kind, keys in world().kinds.items() if kind != "other_customer" for key in keys}


def test_the_same_size_and_seed_give_the_same_world() -> None:
    assert build_world(500, seed=9) == build_world(500, seed=9)


def test_the_world_fits_the_example_configuration() -> None:
    example = yaml.safe_load(
        (Path(__file__).parents[2] / "sync.example.yaml").read_text(encoding="utf-8")
    )
    columns = {name for name, _ in world().contacts_schema}
    options = {field.name: (field.type, set(field.options)) for field in world().custom_fields}

    contacts = example["contacts"]
    assert {contacts["key"], contacts["mdn"]["column"]} <= columns
    assert {entry["from"] for entry in example["fields"] + example["consents"]} <= columns
    assert {entry["changed_at"] for entry in example["consents"]} <= columns
    assert {entry["list"] for entry in example["consents"]} == {lst.id for lst in world().lists}
    for entry in example["fields"]:
        field_type, keys = options[entry["to"]]
        assert entry["type"] == field_type
        assert set((entry.get("options") or {}).values()) <= keys


def test_another_seed_gives_other_people() -> None:
    assert build_world(500, seed=9).contacts != build_world(500, seed=10).contacts


def test_the_world_does_not_depend_on_the_interpreters_hash_seed() -> None:
    program = (
        "import hashlib; from vibes_pipelines.sandbox.population import build_world;"
        "print(hashlib.sha256(repr(build_world(500, 9)).encode()).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            capture_output=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(digests) == 1


@pytest.mark.parametrize("people", [0, 1, 10, 150, 250])
def test_small_worlds_can_be_built_and_loaded(people: int) -> None:
    small = build_world(people, seed=1)
    platform = Platform("A1b2C3", small.custom_fields, small.lists, lambda: datetime.now(UTC))
    platform.load(small.persons, small.subscriptions)
    assert len(small.persons) <= people


def test_most_people_agree_though_they_are_spelled_differently() -> None:
    persons, agreed, spelled_differently = persons_by_external_id(), 0, 0
    exceptions = special()
    for contact_id, row in contacts_by_id().items():
        if contact_id in exceptions:
            continue
        person = persons[contact_id]
        assert meant(row) == {name: person.custom[name] for name in meant(row)}
        assert (e164(row["mobile"]) if row["mobile"] else None) == person.mdn
        agreed += 1
        spelled_differently += row["mobile"] != person.mdn
    assert agreed > 0.9 * PEOPLE
    assert spelled_differently > 0.5 * agreed


def test_all_mobile_numbers_are_valid_and_distinct() -> None:
    mdns = [person.mdn for person in world().persons if person.mdn]
    assert len(set(mdns)) == len(mdns)
    assert all(e164(mdn) == mdn for mdn in mdns)


def test_numbers_of_any_index_are_valid_whatever_their_spelling() -> None:
    for index in range(0, 400_000_000, 9_876_543):
        for number in (mobile_number(index), landline_number(index)):
            assert {e164(spelled(number, habit)) for habit in range(7)} == {number}
        assert not mobile_number(index)[-4:].startswith("99")
        assert landline_number(index)[-4:].startswith("99")


def test_every_trouble_is_there_at_least_twice_from_1000_people_on() -> None:
    kinds = build_world(1_000, seed=2).kinds
    assert all(len(kinds[trouble]) >= 2 for trouble in TROUBLES)


def test_every_trouble_is_what_it_says() -> None:
    kinds, contacts, persons = world().kinds, contacts_by_id(), persons_by_external_id()
    repeated = Counter(str(row["contact_id"]) for row in world().contacts)
    mobiles = Counter(e164(row["mobile"]) for row in world().contacts)
    assert all(repeated[key] == 2 for key in kinds["duplicate_contact"])
    assert all(mobiles[e164(contacts[key]["mobile"])] == 2 for key in kinds["shared_mobile"])
    assert all(e164(contacts[key]["mobile"]) is None for key in kinds["invalid_mobile"])
    for key in kinds["moved_number"]:
        assert e164(contacts[key]["mobile"]) not in {None, persons[key].mdn}
    assert {contacts[key]["tier"] for key in kinds["unknown_tier"]} == {"Platinum"}
    for key in kinds["landline"]:
        assert key not in persons
        assert 9900 <= int(str(e164(contacts[key]["mobile"]))[-4:]) <= 9999
    for key in kinds["cleared_tier"]:
        assert contacts[key]["tier"] is None
        assert persons[key].custom["tier"] is not None


def test_changed_people_differ_in_one_to_three_fields() -> None:
    persons, contacts = persons_by_external_id(), contacts_by_id()
    for key in world().kinds["changed"]:
        meaning = meant(contacts[key])
        changed = [name for name in meaning if meaning[name] != persons[key].custom[name]]
        assert 1 <= len(changed) <= 3
        assert changed != ["score"]


def test_people_on_one_side_only_and_people_matched_by_number_only() -> None:
    kinds, persons = world().kinds, persons_by_external_id()
    mdns = {person.mdn for person in world().persons}
    by_key = {person.person_key: person for person in world().persons}
    assert all(key not in persons for key in kinds["crm_only"] + kinds["mdn_only"])
    contacts = contacts_by_id()
    assert all(e164(contacts[key]["mobile"]) not in mdns for key in kinds["crm_only"])
    assert all(e164(contacts[key]["mobile"]) in mdns for key in kinds["mdn_only"])
    assert all(by_key[key].external_person_id is None for key in kinds["platform_only"])


def test_about_4_percent_of_the_contacts_are_of_another_customer_type() -> None:
    large = build_world(10_000, seed=1)
    others = [row for row in large.contacts if row["customer_type"] == "B"]
    assert 0.035 < len(others) / len(large.contacts) < 0.045
    assert {str(row["contact_id"]) for row in others} & set(large.kinds["crm_only"])


def test_consent_agrees_except_where_one_side_opted_out() -> None:
    kinds, contacts, persons = world().kinds, contacts_by_id(), persons_by_external_id()
    active = {row.person_key: row for row in world().subscriptions if row.is_active}
    for key, person in persons.items():
        row = contacts[key]
        is_active = person.person_key in active
        if key in kinds["crm_opt_out"]:
            assert (row["sms_opt_in"], is_active) == ("false", True)
            assert str(row["sms_opt_in_at"]) > str(active[person.person_key].opt_in_date)
        elif key in kinds["platform_opt_out"]:
            assert (row["sms_opt_in"], is_active) == ("true", False)
        else:
            assert is_active == (row["sms_opt_in"] == "true")
            if is_active:
                since = active[person.person_key].opt_in_date
                assert row["sms_opt_in_at"] == f"{since:%Y-%m-%d %H:%M:%S}"


def test_every_stamp_lies_before_the_start_and_every_opt_out_after_its_opt_in() -> None:
    start = date(2026, 1, 1).isoformat()
    for row in world().contacts:
        assert str(row["updated_at"]) < start
        assert str(row["sms_opt_in_at"] or "") < start
    for entry in world().subscriptions:
        assert entry.opt_in_date < (entry.opt_out_date or midnight(date(2026, 1, 1)))
        assert (entry.opt_out_date or entry.opt_in_date).isoformat() < start
    created = {person.person_key: person.created_at for person in world().persons}
    assert all(created[s.person_key] < s.opt_in_date for s in world().subscriptions)
