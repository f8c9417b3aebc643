"""The sections `signup` and `events` of `sync.yaml`: what is accepted, and what is told if not."""

from pathlib import Path

import pytest

from vibes_pipelines.sync_config import SyncConfig, SyncConfigError, load_sync_config

EXAMPLE = Path(__file__).parents[2] / "sync.example.yaml"
SIGNUP = "signup: {campaign: 777, fields: [{from: name, to: first_name}]}"
EVENTS = "events: {table: shop, contact: who, data: [item, who]}"


def load(folder: Path, *sections: str) -> SyncConfig:
    path = folder / "sync.yaml"
    text = EXAMPLE.read_text(encoding="utf-8")
    path.write_text("\n".join([text, *sections, ""]), encoding="utf-8")
    return load_sync_config(path)


def test_both_sections_are_optional_and_decide_nothing_of_a_reconcile(tmp_path: Path) -> None:
    without, having = load(tmp_path), load(tmp_path, SIGNUP, EVENTS)
    assert (without.signup, without.events) == (None, None)
    assert having.signup is not None
    assert having.events is not None
    assert (without.config_hash, without.mapping_hash) == (having.config_hash, having.mapping_hash)


def test_numbers_may_stand_for_texts_and_each_column_is_read_once(tmp_path: Path) -> None:
    config = load(tmp_path, SIGNUP, EVENTS)
    assert config.signup is not None
    assert config.signup.campaign == "777"
    assert config.events is not None
    assert config.events.columns == ("id", "event_type", "who", "item")


@pytest.mark.parametrize(
    ("section", "told"),
    [
        ("signup: {}", "signup.campaign: is missing"),
        ("signup: {campaign: 1, mdn: a, fields: [{from: a, to: b}]}", "each from may stand once"),
        (
            "signup: {campaign: 1, fields: [{from: a, to: b}, {from: c, to: b}]}",
            "each to may stand once; repeated: b",
        ),
        ("signup: {campaign: 1, fields: [{from: a, to: b, options: {x: y}}]}", "options belong"),
        ("signup: {campaign: 1, fields: [{from: a, to: b, type: single_select}]}", "needs them"),
        (
            "signup: {campaign: 1, fields: "
            "[{from: a, to: b, type: single_select, options: {x: ' '}}]}",
            "an option key may not be blank",
        ),
        ("signup: {campaign: 1, max_per_mdn_per_day: 0}", "max_per_mdn_per_day"),
        ("signup: {campaign: 1, subscribe: true}", "is not a known setting"),
        ("events: {table: t}", "name the person: contact, mdn or both"),
        ("events: {table: t, contact: c, data: [person_key]}", "names a person at the platform"),
        ("events: {table: t, contact: c, max_per_run: 0}", "max_per_run"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(tmp_path: Path, section: str, told: str) -> None:
    with pytest.raises(SyncConfigError) as raised:
        load(tmp_path, section)
    assert told in str(raised.value)
