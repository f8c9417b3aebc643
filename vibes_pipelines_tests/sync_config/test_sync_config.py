"""`sync.yaml`: what is accepted, and what a person is told when it is not."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vibes_pipelines.sync_config import SyncConfigError, load_sync_config

EXAMPLE = Path(__file__).parents[2] / "sync.example.yaml"


def _edited(folder: Path, before: str, after: str) -> Path:
    text = EXAMPLE.read_text(encoding="utf-8")
    assert before in text
    path = folder / "sync.yaml"
    path.write_text(text.replace(before, after, 1), encoding="utf-8")
    return path


def test_the_example_is_valid() -> None:
    config = load_sync_config(EXAMPLE)
    assert config.contacts.key == "contact_id"
    assert [field.to for field in config.fields][:2] == ["first_name", "last_name"]
    assert config.consents[0].list == "1234"


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("key: contact_id", 'key: " "', ":7: contacts.key: a blank text; write what is"),
        ("type: date", "type: dat", ":15: fields[2].type: 'dat' is not allowed; allowed: 'string'"),
        ("key: contact_id", "kay: contact_id", "contacts.key: is missing"),
        ("key: contact_id", "kay: contact_id", ":7: contacts.kay: is not a known setting"),
        ("max_share: 0.05", "max_share: 5", ":28: guards.opt_outs.max_share: input should be less"),
        ("max_rows: 1000", "max_rows: true", ":27: guards.clears.max_rows: 'true' is no number"),
        ("visibility_lag_h: 36", "visibility_lag_h: true", "visibility_lag_h: 'true' is no numb"),
        ("to: zip_code", "to: mdn", ":19: fields[6]: 'mdn' is an identifier"),
        ("to: zip_code", "to: Unknown", ":19: fields[6]: 'Unknown' is a column of the base's"),
        (
            "to: last_name",
            "to: first_name",
            ":14: fields[1]: each to may be mapped once; repeated: f",
        ),
        ("version: 1", "version: 2", ":2: version: 2 is not allowed; allowed: 1"),
        ("contacts:\n", "contacts\n", ":6: could not find expected ':'"),
        ("equals: A", "equals: A, in: [B]", ":9: contacts.conditions[0]: exactly one operator"),
        ("equals: A", "in: []", ":9: contacts.conditions[0].in: is empty; write at least one"),
        ("equals: A", "at_least: A", ":9: contacts.conditions[0]: at_least 'A' is no number or"),
        ("equals: A", "equals: A, type: date", ":9: contacts.conditions[0]: type belongs to"),
        ("equals: A", "in: A", ":9: contacts.conditions[0].in: must be a list, such as [A, B]"),
        (
            "mdn: {column: mobile, default_region: US}",
            "mdn: mobile",
            ":8: contacts.mdn: must hold se",
        ),
        (
            "updates:  {max_rows: 50000, max_share: 0.20}",
            "updates:",
            ":25: guards.updates: is empty",
        ),
        ('list: "1234"', "list: 12.0", ":22: consents[0].list: must be one text, in quotes"),
        (
            "subscriptions_{company_key}_{date}",
            "subs",
            ":46: feeds.extract/subscriptions.pattern: ",
        ),
        ("subscriptions_{company_key}_{date}", "s_{dat}_{date}", "'s_{dat}_{date}.txt' names no f"),
        ("subscriptions_{company_key}_{date}", "in/s_{date}", "'in/s_{date}.txt' names no file f"),
        ("subscriptions_{company_key}_{date}", "{date}_{date}", "write {date} once"),
        ("share/persons", "share/person", "feeds.share/person: 'share/person' is not allowed"),
        ("company_key: A1b2C3", "company_key: A1/C3", ":3: company_key: string should match"),
        ("default_region: US", "default_region: usa", ":8: contacts.mdn.default_region"),
        (
            "default_region: US",
            "default_region: UK",
            "'UK' is no region with phone numbers",
        ),
        ("default_region: US", "default_region: UK", "for the United Kingdom write GB"),
        ('list: "1234"', "opted_out: [yes], list: 12", "opted_in and opted_out both hold ['yes'"),
        ("key: contact_id", "key: {{ KEY }}", ":7: a list or a mapping cannot be a key"),
        ("version: 1", "version: !!int one", ": not YAML (invalid literal for int()"),
        ("version: 1", "version: &a [*a]", ": not YAML ("),
        ("version: 1", "version: 1\nversion: 1", ":3: the key 'version' stands twice"),
        ("type: string}", 'type: string, options: {A: "a"}}', "options belong to single_select"),
        ('list: "1234"', "list: 1, opted_in: ['N ']", "opted_in and opted_out both hold ['n']"),
        ('list: "1234"', "list: 1, opted_out: []", ":22: consents[0]: opted_out holds no sp"),
        (
            'list: "1234"',
            "list: 1, opted_out: [' ']",
            "opted_out holds no spelling, and",
        ),
        ("type: date", 'type: multi_select, options: {A: "a|b"}', ":15: fields[2]: a key of opti"),
        ("{Gold: gold", "{' ': gold", ":17: fields[4].options. : a blank text; write what is"),
        ("{Gold: gold", "{Gold: ' '", ":17: fields[4].options.Gold: an option key may not be bl"),
        (
            "{Gold: gold",
            r'{Gold: "go\nld"',
            "options.Gold: the option key 'go\\nld' holds a control",
        ),
        ("{Gold: gold", '{Gold: gold, " Gold": g', ":17: fields[4]: options name two keys for 'G"),
        ("{Gold: gold", r'{"\u00e9": a, "e\u0301": b', "options name two keys for 'é', as cells"),
        ("{Gold: gold", "{1: a, '1': b", ":17: the key '1' stands twice"),
        ("{Gold: gold", r'{"\ud83d": a', r":17: '\ud83d' holds half a character"),
        ("mdn: MDN", "carier_code: X", "feeds.share/persons.columns.carier_code: nothing reads"),
        ("as_of: AS_OF", "first_name: X", "columns.first_name: nothing reads this; allowed: as_of"),
        (
            "columns: {as_of: AS_OF}",
            "pattern: x",
            ":44: feeds.share/refreshes.pattern: belongs to extract",
        ),
        (
            "{pattern:",
            "{object: A.B.C, pattern:",
            ":45: feeds.extract/current_subscribers.object: belongs",
        ),
        ("type: date", "type: date, authority: newest", ":15: fields[2]: authority newest needs"),
        ("type: date", "type: date, changed_at: x", ":15: fields[2]: changed_at belongs to author"),
        ("mdn_change: quarantine", "mdn_change: merge", "policies.mdn_change: 'merge' is not all"),
        ("policies:", "policies:\n  onboarding: true", "policies.onboarding: is not a known"),
        ('list: "1234"', "list: 12, invites: true", ":22: consents[0]: invites: true needs camp"),
        ("when_unmatched: keep", "when_unmatched: drop", ":10: contacts.when_unmatched: 'drop' is"),
    ],
)
def test_a_fault_names_file_line_field_and_cure(
    tmp_path: Path, before: str, after: str, told: str
) -> None:
    path = _edited(tmp_path, before, after)
    with pytest.raises(SyncConfigError) as caught:
        load_sync_config(path)
    assert told in str(caught.value)
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize("authority", ["platform", "newest, changed_at: edited_at"])
@pytest.mark.parametrize(
    ("column", "place"),
    [
        ("contact_id", "contacts.key"),
        ("Mobile", "contacts.mdn"),
        ("sms_opt_in", "consents[0]"),
        ("sms_opt_in_at", "consents[0]"),
        ("first_name", "fields[0]"),
    ],
)
def test_what_the_platform_says_is_written_into_no_column_of_another_meaning(
    tmp_path: Path, authority: str, column: str, place: str
) -> None:
    first = "to: first_name, type: string"
    path = _edited(tmp_path, first, f"{first}, authority: platform")
    mapped = f"from: {column}, to: last_name, type: string, authority"
    text = path.read_text(encoding="utf-8")
    text = text.replace("from: last_name,  to: last_name,  type: string", f"{mapped}: crm")
    path.write_text(text, encoding="utf-8")
    assert not load_sync_config(path).fields[1].is_written_back
    path.write_text(text.replace("authority: crm", f"authority: {authority}"), encoding="utf-8")
    told = f":14: fields[1].from: with authority {authority.partition(',')[0]} values"
    with pytest.raises(SyncConfigError) as caught:
        load_sync_config(path)
    assert told in str(caught.value)
    assert f"{column!r}, which {place} is about" in str(caught.value)


def test_a_missing_file_says_where_to_begin(tmp_path: Path) -> None:
    with pytest.raises(SyncConfigError, match=r"copy sync\.example\.yaml"):
        load_sync_config(tmp_path / "absent.yaml")


def test_a_folder_is_no_config(tmp_path: Path) -> None:
    with pytest.raises(SyncConfigError, match=r"Is a directory; give a file as sync\.example"):
        load_sync_config(tmp_path)


def test_another_encoding_is_refused_plainly(tmp_path: Path) -> None:
    path = tmp_path / "sync.yaml"
    path.write_bytes("version: 1\ncompany_key: caf\xe9".encode("latin-1"))
    with pytest.raises(SyncConfigError, match=r"yaml:2: not UTF-8; save the file as UTF-8"):
        load_sync_config(path)


def test_a_byte_order_mark_is_read_over(tmp_path: Path) -> None:
    path = tmp_path / "sync.yaml"
    path.write_text("\ufeff" + EXAMPLE.read_text(encoding="utf-8"), encoding="utf-8")
    assert load_sync_config(path) == load_sync_config(EXAMPLE)


@pytest.mark.parametrize(
    "spelling", ["0777", "0x1F", "0b1", "1_000", "12:30", "+5", "-0", "007", "1e5", "yes", "NO"]
)
def test_an_identifier_keeps_its_spelling(tmp_path: Path, spelling: str) -> None:
    config = load_sync_config(_edited(tmp_path, 'list: "1234"', f"list: {spelling}"))
    assert config.consents[0].list == spelling


@pytest.mark.parametrize(
    "spelling",
    ["NO", "on", "True", "true", "2026-01-01", "1.10", "1.1", "0.00001", "12", "010", ".5", ".inf"],
)
def test_a_condition_compares_with_what_was_written(tmp_path: Path, spelling: str) -> None:
    config = load_sync_config(_edited(tmp_path, "equals: A", f"equals: {spelling}"))
    assert config.contacts.conditions[0].equals == spelling


def test_options_keep_the_spelling_of_yes_and_no(tmp_path: Path) -> None:
    config = load_sync_config(
        _edited(tmp_path, "options: {Gold: gold,", "options: {Yes: yes, 01: off,")
    )
    options = next(field.options for field in config.fields if field.to == "tier")
    assert options == {"Yes": "yes", "01": "off", "Silver": "silver", "Bronze": "bronze"}


def test_what_json_escapes_in_two_halves_is_one_character(tmp_path: Path) -> None:
    path = _edited(tmp_path, "{Gold: gold", r'{"\ud83d\ude00": gold, "Gold ": glad, Gold: glad')
    options = next(field.options for field in load_sync_config(path).fields if field.to == "tier")
    assert list((options or {}).items())[:2] == [("\U0001f600", "gold"), ("Gold ", "glad")]


def test_nothing_given_is_null(tmp_path: Path) -> None:
    for nothing in ("", "~", "null"):
        path = _edited(tmp_path, "  table: contacts", f"  query: {nothing}")
        assert load_sync_config(path).contacts.query is None


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("company_key: A1b2C3", "company_key: Z9"),
        ("PUBLIC.PERSONS", "PUBLIC.PEOPLE"),
        ("mdn: MDN", "mdn: PHONE"),
    ],
)
def test_another_account_object_or_column_is_another_mapping(
    tmp_path: Path, before: str, after: str
) -> None:
    changed = load_sync_config(_edited(tmp_path, before, after))
    assert changed.mapping_hash != load_sync_config(EXAMPLE).mapping_hash


def test_columns_of_fields_and_of_what_else_is_read_may_be_named(tmp_path: Path) -> None:
    named = "mdn: MDN, carrier_code: C, Updated_At: U, first_name: F"
    assert load_sync_config(_edited(tmp_path, "mdn: MDN", named)).feeds["share/persons"].columns


@pytest.mark.parametrize("region", ["GB", "SE", "ZZ"])
def test_a_region_has_numbers_or_says_that_all_are_international(
    tmp_path: Path, region: str
) -> None:
    path = _edited(tmp_path, "default_region: US", f"default_region: {region}")
    mdn = load_sync_config(path).contacts.mdn
    assert mdn is not None
    assert mdn.default_region == region


def test_numbers_may_stand_unquoted_where_text_is_meant(tmp_path: Path) -> None:
    config = load_sync_config(_edited(tmp_path, 'list: "1234"', "list: 1234"))
    assert config.consents[0].list == "1234"


def test_blanks_around_a_list_are_not_part_of_it(tmp_path: Path) -> None:
    config = load_sync_config(_edited(tmp_path, 'list: "1234"', 'list: " 1234\u00a0"'))
    assert config.consents[0].list == "1234"
    assert config.mapping_hash == load_sync_config(EXAMPLE).mapping_hash
    with pytest.raises(SyncConfigError, match="list"):
        load_sync_config(_edited(tmp_path, 'list: "1234"', 'list: " "'))


def test_newest_names_the_column_with_the_time_of_change(tmp_path: Path) -> None:
    newest = "type: date, authority: newest, changed_at: updated_at"
    field = load_sync_config(_edited(tmp_path, "type: date", newest)).fields[2]
    assert (field.authority, field.contact_columns) == ("newest", ("birth_date", "updated_at"))


def test_opting_out_who_stops_matching_needs_a_list(tmp_path: Path) -> None:
    path = _edited(tmp_path, "when_unmatched: keep", "when_unmatched: opt_out")
    assert load_sync_config(path).contacts.when_unmatched == "opt_out"
    text = path.read_text(encoding="utf-8")
    start, end = text.index("consents:"), text.index("guards:")
    path.write_text(text[:start] + text[end:], encoding="utf-8")
    with pytest.raises(SyncConfigError, match="opt_out needs at least one entry in consents"):
        load_sync_config(path)


@pytest.mark.parametrize(
    ("before", "after", "is_same"),
    [
        ("type: date", "type: string", False),
        ("from: birth_date", "from: born", False),
        ("type: date", "type: date, authority: platform", True),
        ("type: date", "type: date, when_null: clear", True),
    ],
)
def test_what_a_field_means_does_not_depend_on_who_decides(
    tmp_path: Path, before: str, after: str, is_same: bool
) -> None:
    changed = load_sync_config(_edited(tmp_path, before, after)).fields[2]
    assert (changed.meaning_hash == load_sync_config(EXAMPLE).fields[2].meaning_hash) == is_same


def test_a_condition_does_not_change_the_mapping_but_a_field_does(tmp_path: Path) -> None:
    example = load_sync_config(EXAMPLE)
    condition = load_sync_config(_edited(tmp_path, "equals: A", "equals: B"))
    assert condition.mapping_hash == example.mapping_hash
    assert condition.config_hash != example.config_hash
    field = load_sync_config(_edited(tmp_path, "to: zip_code", "to: postcode"))
    assert field.mapping_hash != example.mapping_hash


@given(st.text(max_size=200))
def test_any_text_is_either_read_or_refused_with_a_place(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    path = tmp_path_factory.mktemp("odd") / "sync.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SyncConfigError, match=r"sync\.yaml:\d+: "):
        load_sync_config(path)
