"""Groups of landed records that share identifiers, directly or through one another."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from vibes_pipelines.reconcile.engine import Limits, engine
from vibes_pipelines.reconcile.groups import Sought, gather_group
from vibes_pipelines.reconcile.landed import write_contact_hashes, write_person_hashes
from vibes_pipelines.reconcile.sources import open_source
from vibes_pipelines_tests.reconcile.conftest import build_config, write_parquet
from vibes_pipelines_tests.reconcile.test_reconcile_next_base import Row, land

CONFIG = build_config(
    contacts={"key": "id", "person_key": "vkey", "mdn": {"column": "phone", "default_region": "US"}}
)
MDNS = [f"+1312555010{digit}" for digit in range(10)]


def contact(key: str, mdn: int | None = None, person_key: str | None = None) -> Row:
    """Its number is written as people do."""
    phone = None if mdn is None else f"(312) 555-010{mdn}"
    return {"id": key, "phone": phone, "vkey": person_key}


def person(person_key: str, key: str | None = None, mdn: int | None = None) -> Row:
    number = None if mdn is None else MDNS[mdn]
    return {"person_key": person_key, "external_person_id": key, "mdn": number}


@pytest.fixture(params=[True, False], ids=["hashed", "scanned"])
def group(tmp_path: Path, request: pytest.FixtureRequest):
    def group(
        changed: Sequence[Row],
        contacts: Sequence[Row],
        persons: Sequence[Row],
        *,
        keys: Sequence[str] = (),
        person_keys: Sequence[str] = (),
        mdns: Sequence[str] = (),
        most: int = 100,
    ) -> tuple[set[str], set[str], bool]:
        """Keys of the contacts, person_keys of the persons, and whether that is all of them."""
        fields = [field.from_ for field in CONFIG.fields]
        names = ["id", "phone", "vkey", *fields]
        folders = (
            land(tmp_path / "c", contacts, names),
            land(
                tmp_path / "p",
                persons,
                ["person_key", "external_person_id", "mdn", *(field.to for field in CONFIG.fields)],
            ),
        )
        if request.param:
            write_contact_hashes(CONFIG, folders[0])
            write_person_hashes(CONFIG, folders[1])
        now = write_parquet(tmp_path / "now.parquet", changed, names)
        with engine(Limits(threads=1), tmp_path) as connection:
            sides = [
                open_source(connection, role, path, tmp_path)
                for role, path in zip(("contacts", "persons"), folders, strict=True)
            ]
            fresh = open_source(connection, "contacts", now, tmp_path)
            sought = Sought(fresh, [*(row["id"] for row in changed), *keys], person_keys, mdns)
            is_whole = gather_group(connection, CONFIG, sought, *sides, most)
            found = [
                {rows[number][name] for (number,) in connection.sql(f"FROM {table}").fetchall()}
                for table, rows, name in (
                    ("group_contact", contacts, "id"),
                    ("group_person", persons, "person_key"),
                )
            ]
        return found[0], found[1], is_whole

    return group


def test_who_shares_nothing_is_not_of_the_group(group):
    contacts = [contact("A", 1), contact("B", 2), contact("C")]
    persons = [person("k1", "A", 1), person("k2", "B", 2), person("k3")]
    assert group([contact("A", 1)], contacts, persons) == (set(), {"k1"}, True)


def test_whoever_points_to_a_person_of_the_group_is_of_it(group):
    contacts = [contact("A"), contact("B", 1), contact("C", None, "K1"), contact("D", 2)]
    persons = [person("k1", "A", 1), person("k2", "D", 2)]
    assert group([contact("A")], contacts, persons) == ({"B", "C"}, {"k1"}, True)


def test_a_chain_is_followed_to_its_end(group):
    contacts = [contact("A"), *(contact(f"B{one}", one + 1, f"k{one}") for one in range(6))]
    persons = [person(f"k{one}", "A" if one == 0 else None, one) for one in range(8)]
    others = {f"B{one}" for one in range(6)}
    found = group([contact("A")], contacts, persons)
    assert found == (others, {f"k{one}" for one in range(7)}, True)


def test_persons_who_share_an_identifier_are_of_one_group(group):
    persons = [person("k1", "A", 1), person("k2", None, 1), person("k2", "E"), person("k3", "A")]
    assert group([contact("A")], [contact("E")], persons) == ({"E"}, {"k1", "k2", "k3"}, True)


def test_what_was_landed_of_a_contact_that_is_sought_is_out_of_date(group):
    contacts, persons = [contact("A", 1), contact("B", 1)], [person("k1", None, 1)]
    assert group([contact("A", 2)], contacts, persons) == (set(), set(), True)


@pytest.mark.parametrize(
    "named",
    [{"keys": ["A"]}, {"person_keys": ["K1"]}, {"mdns": [MDNS[1]]}],
    ids=lambda one: next(iter(one)),
)
def test_what_else_names_a_person_is_looked_for(group, named):
    assert group([contact("Z")], [], [person("k1", "A", 1)], **named) == (set(), {"k1"}, True)


def test_beyond_the_bound_a_group_is_cut_and_keys_come_first(group):
    contacts = [contact(f"B{number}", 1) for number in range(20)]
    persons = [*(person(f"k{number}", None, 1) for number in range(20)), person("own", "A")]
    found, people, is_whole = group([contact("A", 1)], contacts, persons, most=10)
    assert not is_whole
    assert "own" in people
    assert len(found) + len(people) <= 11


def test_a_group_of_just_as_many_as_the_bound_is_whole(group):
    assert group([contact("A", 1)], [], [person("own", "A")], most=1)[1:] == ({"own"}, True)
