"""What `init` guesses, and that the file it writes always loads."""

import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.sql.elements import quoted_name

from vibes_pipelines.cli.main import main
from vibes_pipelines.crm.database import CrmError
from vibes_pipelines.stages.init.files import _EXAMPLES, InitError, env_text, write_files
from vibes_pipelines.stages.init.guess import Guessed, guess
from vibes_pipelines.stages.init.look import (
    Column,
    CrmSeen,
    PlatformField,
    PlatformSeen,
    look_at_crm,
)
from vibes_pipelines.stages.init.write import scalar, sync_yaml
from vibes_pipelines.sync_config import SyncConfig, load_sync_config
from vibes_pipelines_tests.support.loop import EXAMPLE

TIERS = frozenset({"gold", "silver", "bronze"})
PLATFORM = PlatformSeen(
    fields=(
        PlatformField("first_name", frozenset({"Ada", "Grace", "Mary"})),
        PlatformField("birthdate"),
        PlatformField("tier", TIERS),
        PlatformField("interests", frozenset({"golf|tennis", "music"})),
        PlatformField("zip_code"),
    ),
    objects={"share/persons": "VIBES_SHARE.PUBLIC.PERSONS"},
    lists={"1234": ("Offers", ("777",))},
    has_share=True,
    has_lists=True,
)


def column(name: str, *values: str, kind: str = "text") -> Column:
    return Column(name, kind, values, len(values))


CRM = CrmSeen(
    "kunden",
    (
        column("kunden_nr", *(f"K{n}" for n in range(12))),
        column("handy", *(f"0151 2345 67{n:02d}" for n in range(12))),
        column("vorname", *["Ada", "Grace"] * 6),
        column("geburtsdatum", *["1990-01-31"] * 12),
        column("treue_stufe", *["Gold", "Silver", "Bronze"] * 4),
        column("hobbies", *["golf;tennis", "music", "golf;music"] * 4),
        column("plz", *["01067", "80331"] * 6),
        column("notiz", *(f"note {n}" for n in range(12))),
        column("sms_consent", *["J", "N"] * 6),
        column("sms_consent_at", *["2025-01-01T00:00:00Z"] * 12),
        column("email_consent", *["J", "N"] * 6),
    ),
)


def loaded(text: str) -> SyncConfig:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sync.yaml"
        path.write_text(text, encoding="utf-8")
        return load_sync_config(path)


def test_other_names_are_understood() -> None:
    guessed = guess(CRM, PLATFORM)
    config = loaded(sync_yaml(CRM, PLATFORM, guessed, "A1b2C3"))
    assert (config.contacts.table, config.contacts.key) == ("kunden", "kunden_nr")
    assert config.contacts.mdn is not None
    assert (config.contacts.mdn.column, config.contacts.mdn.default_region) == ("handy", "DE")
    assert {one.from_: (one.to, one.type) for one in config.fields} == {
        "vorname": ("first_name", "string"),
        "geburtsdatum": ("birthdate", "date"),
        "treue_stufe": ("tier", "single_select"),
        "hobbies": ("interests", "multi_select"),
        "plz": ("zip_code", "postal_code"),
    }
    tier = next(one for one in config.fields if one.to == "tier")
    assert tier.options == {"Gold": "gold", "Silver": "silver", "Bronze": "bronze"}
    (consent,) = config.consents
    assert (consent.from_, consent.list, consent.campaign) == ("sms_consent", "1234", "777")
    assert consent.changed_at == "sms_consent_at"
    assert (consent.opted_in, consent.opted_out) == (("j",), ("n",))


def test_what_is_not_known_stands_behind_a_mark_with_its_reason() -> None:
    text = sync_yaml(CRM, PLATFORM, guess(CRM, PLATFORM), None)
    assert "  # - {from: notiz, to: ?, type: string}  # left out: no field of the platform" in text
    assert "  # - {from: email_consent, to: ?" in text
    assert "company_key: REPLACE  # not known" in text
    every_guess = [line for line in text.splitlines() if line.startswith("  - ")]
    assert every_guess
    assert all("  # guess: " in line for line in every_guess)


def test_a_value_without_a_key_at_the_platform_is_no_option() -> None:
    crm = CrmSeen("c", (CRM.columns[0], column("tier", *["Gold", "Silver", "Platinum"] * 4)))
    (field,) = guess(crm, PLATFORM).fields
    assert field.options == {"Gold": "gold", "Silver": "silver"}
    assert "1 values have no key in use at the platform" in field.why


def test_without_the_platform_nothing_is_taken_for_certain() -> None:
    guessed = guess(CRM, PlatformSeen())
    text = sync_yaml(CRM, PlatformSeen(), guessed, None)
    config = loaded(text)
    assert config.consents == ()
    assert "  # - {from: sms_consent, list: " in text
    assert "the platform was not looked at" in text
    assert "# feeds:  # not known" in text


def test_without_a_column_of_consent_the_lists_are_told_all_the_same() -> None:
    crm = CrmSeen("c", CRM.columns[:1])
    lists = {"1234": ("Offers", ("777", "778")), "9": ("News: weekly", ())}
    platform = PlatformSeen(lists=lists, has_lists=True)
    text = sync_yaml(crm, platform, guess(crm, platform), None)
    assert loaded(text).consents == ()
    assert '  # list "1234" is Offers: campaigns 777, 778\n' in text
    assert '  # list "9" is "News: weekly": no campaign\n' in text
    unknown = sync_yaml(crm, PlatformSeen(), guess(crm, PlatformSeen()), None)
    assert "the platform's lists are not known: set VIBES_API_*" in unknown


def test_a_table_that_is_not_there_was_named_on_the_command_line(tmp_path: Path) -> None:
    path = tmp_path / "crm.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE customers (id TEXT)")
    with pytest.raises(CrmError, match="no table nope; correct --table\\. The database has: cust"):
        look_at_crm(f"sqlite:///{path}", "nope")


def test_of_several_lists_none_is_chosen() -> None:
    several = PlatformSeen(lists={"1": ("Offers", ()), "2": ("News", ())}, has_lists=True)
    (consent,) = guess(CRM, several).consents
    assert consent.list is None
    assert "1 'Offers', 2 'News'" in consent.why


# What databases take as names: anything but NUL; the tests of YAML's own limits are the point.
NAMES = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12
) | st.sampled_from(["true", "null", "a: b", "# x", "- y", "{", "mdn", "Person_ID", "é", "\x85"])
VALUES = st.lists(st.text(max_size=6) | st.sampled_from(["Y", "N", "a;b", "gold"]), max_size=40)


@st.composite
def tables(draw: st.DrawFn) -> CrmSeen:
    names = draw(st.lists(NAMES, min_size=1, max_size=6, unique=True))
    kinds = st.sampled_from(["text", "number", "date", "time", "truth"])
    columns = []
    for name in names:
        values = tuple(value for value in draw(VALUES) if value.strip())
        columns.append(Column(name, draw(kinds), values, len(values) + draw(st.integers(0, 2))))
    keys = draw(st.lists(st.sampled_from(names), max_size=1))
    return CrmSeen(draw(NAMES), tuple(columns), tuple(keys), tuple(draw(st.lists(NAMES))))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(tables(), st.sampled_from([PLATFORM, PlatformSeen()]))
def test_the_file_always_loads_whatever_the_columns_are_called(
    crm: CrmSeen, platform: PlatformSeen
) -> None:
    guessed: Guessed = guess(crm, platform)
    config = loaded(sync_yaml(crm, platform, guessed, None))
    assert config.contacts.table == crm.table
    assert config.contacts.key == guessed.key
    assert [one.from_ for one in config.fields] == [one.column for one in guessed.fields]
    assert {one.column for one in guessed.fields} <= {one.name for one in crm.columns}


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_a_text_stays_itself_on_one_line(text: str) -> None:
    written = scalar(text)
    assert len(written.splitlines()) == 1
    config = f"version: 1\ncompany_key: A\ncontacts: {{key: {written}}}\n"
    config += "fields: [{from: a, to: b, type: string}]\n"
    assert loaded(config).contacts.key == text


def test_what_does_not_load_is_not_counted(tmp_path: Path) -> None:
    columns = "customer_no TEXT PRIMARY KEY, given_name TEXT, sms_consent TEXT"
    with closing(sqlite3.connect(tmp_path / "crm.db")) as connection, connection:
        connection.execute(f"CREATE TABLE customers ({columns})")
        connection.execute("INSERT INTO customers VALUES ('C1', 'Ada', 'true')")
    url = f"sqlite:///{tmp_path / 'crm.db'}"
    made = CliRunner().invoke(main, ["init", "--crm-url", url, "--out", str(tmp_path / "a new")])
    assert made.exit_code == 0, made.output
    assert f"next: cd '{tmp_path / 'a new'}'; $EDITOR sync.yaml" in made.output
    assert "1 field, 0 consents (1 more behind a #: the list is not known); " in made.output


def test_no_file_is_written_over_another(tmp_path: Path) -> None:
    write_files(tmp_path / "new", "version: 1\n", "sqlite://", {})
    assert (tmp_path / "new" / ".env").stat().st_mode & 0o777 == 0o600
    with pytest.raises(InitError, match=r"sync.yaml is there already; .* --out"):
        write_files(tmp_path / "new", "version: 2\n", None, {})
    assert (tmp_path / "new" / "sync.yaml").read_text(encoding="utf-8") == "version: 1\n"


@pytest.mark.parametrize("name", ["dagster.yaml", "workspace.yaml"])
def test_the_files_of_dagster_are_those_of_the_project(tmp_path: Path, name: str) -> None:
    write_files(tmp_path, "version: 1\n", None, {})
    assert (tmp_path / name).read_bytes() == EXAMPLE.with_name(name).read_bytes()


def test_env_copies_no_secret_of_the_environment_and_names_known_settings() -> None:
    text = env_text(Path("/data"), None, {"VIBES_API_PASSWORD": "hunter2"})
    assert "hunter2" not in text
    assert "# VIBES_API_PASSWORD=  # is in the environment" in text
    known = EXAMPLE.with_name(".env.example").read_text(encoding="utf-8")
    assert [
        name for name, _ in _EXAMPLES if f"{name}=" not in known and "KEY_PATH" not in name
    ] == []


def test_the_likeliest_table_and_its_primary_key_are_taken(tmp_path: Path) -> None:
    path = tmp_path / "crm.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE audit (id INTEGER)")
        connection.execute("CREATE TABLE all_customers (a TEXT, no INTEGER PRIMARY KEY)")
    seen = look_at_crm(f"sqlite:///{path}", None)
    assert (seen.table, seen.keys, seen.other_tables) == ("all_customers", ("no",), ("audit",))


def test_a_name_that_the_database_quotes_is_quoted_in_yaml() -> None:
    assert scalar(quoted_name("Cell Phone", quote=True)) == '"Cell Phone"'
