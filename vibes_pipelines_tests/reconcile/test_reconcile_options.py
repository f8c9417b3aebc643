"""Option keys that the platform shows and nothing maps are counted, and trouble nobody."""

import pytest

from vibes_pipelines.reconcile.options import count_unknown_options, unknown_options
from vibes_pipelines_tests.reconcile.conftest import PERSON, build_config, write_parquet

TIER = {"from": "tier", "to": "tier", "type": "single_select", "options": {"Gold": "gold"}}
LIKES = {
    "from": "likes",
    "to": "likes",
    "type": "multi_select",
    "options": {"Tea": "tea", "Caf\u00e9": "cafe\u0301"},
}
FREE = {"from": "shop", "to": "shop", "type": "single_select"}
CONFIG = build_config(fields=[TIER, LIKES, FREE])


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        ({}, {}),
        ({"tier": {"gold"}}, {}),
        ({"tier": {"gold", "Gold"}}, {"tier": {"Gold"}}),
        ({"likes": {"tea", "caf\u00e9"}}, {}),
        ({"shop": {"anything"}, "elsewhere": {"x"}}, {}),
    ],
)
def test_a_key_is_known_when_some_option_maps_to_it(seen, expected):
    assert unknown_options(CONFIG, seen) == expected


def test_persons_are_counted_per_field(tmp_path):
    rows = [
        {"tier": "gold", "likes": "tea|coffee"},
        {"tier": "platinum", "likes": "coffee", "shop": "x"},
        {"tier": " platinum ", "likes": "tea"},
        {"tier": None},
    ]
    persons = write_parquet(tmp_path / "p.parquet", rows, [*PERSON, "tier", "likes", "shop"])
    assert count_unknown_options(CONFIG, persons) == {"tier": 2, "likes": 2}


def test_without_option_catalogues_nothing_is_read(tmp_path):
    assert count_unknown_options(build_config(fields=[FREE]), tmp_path / "absent") == {}


def test_an_unknown_key_at_the_platform_is_no_doubt(run):
    contact = {"id": "C1", "tier": "Gold"}
    person = {"person_key": "k1", "external_person_id": "C1", "tier": "platinum"}
    done = run(CONFIG, [contact], [person])
    assert done.quarantine == set()
    assert done.changes_of("C1")["tier"][1:3] == ("platinum", "gold")
