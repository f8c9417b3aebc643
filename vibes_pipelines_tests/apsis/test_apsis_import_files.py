"""Import files of APSIS One: a blank never clears unless it is meant, whatever the rows."""

import csv
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vibes_pipelines.apsis.definitions import Attribute, Definition, Definitions, Keyspace
from vibes_pipelines.apsis.errors import ApsisError, ApsisSetupError, ValueRefused
from vibes_pipelines.apsis.import_files import (
    CLEAR,
    Clear,
    ConsentRow,
    ImportFile,
    ProfileRow,
    write_consent_files,
    write_profile_files,
)
from vibes_pipelines.sandbox.apsis_account import ApsisAccount
from vibes_pipelines.sandbox.apsis_clock import RunningClock
from vibes_pipelines.sandbox.apsis_import_rows import bring_in
from vibes_pipelines.sandbox.apsis_imports import ImportManner, Imports
from vibes_pipelines.sandbox.apsis_records import CRM_KEYSPACE, SECTION, Catalogue, ConsentState
from vibes_pipelines.sandbox.apsis_switches import ApsisSwitches
from vibes_pipelines_tests.apsis.apsis_parts import (
    CRM_ID,
    EMAIL_CHANNEL,
    FIRST_NAME,
    NEWS,
    OFFERS,
    PLACE,
    SCORE,
    TIER,
)

CATALOGUE = Catalogue()
KNOWN = Definitions(
    PLACE,
    (Keyspace(PLACE.keyspace, "CRM ID", manage_subscriptions=True),),
    (),
    (Definition(PLACE.section, "Main"),),
    tuple(Attribute(a.discriminator, a.name, a.version_id) for a in CATALOGUE.attributes),
)

# Quotes, commas, line ends and letters of every kind have to survive the file.
TEXTS = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=8
).filter(str.strip) | st.sampled_from(['a"b', "a,b", "a\nb", "a\r\nb", ";", "=1+1", "'"])
VALUES = {FIRST_NAME: TEXTS, TIER: TEXTS, SCORE: st.integers(-99, 99)}


def fields(cleared: bool) -> st.SearchStrategy[dict[str, Any]]:
    wishes = {name: (one | st.just(CLEAR)) if cleared else one for name, one in VALUES.items()}
    return st.fixed_dictionaries({}, optional=wishes)


def account() -> ApsisAccount:
    return ApsisAccount(CATALOGUE, ApsisSwitches(), RunningClock())


def bring(there: ApsisAccount, file: ImportFile) -> dict[str, int]:
    """One file through the stand-in's own reading of the request and of the rows."""
    imports = Imports(there, ImportManner())
    plan = imports._read_plan(SECTION, file.mapping.as_body(CRM_KEYSPACE))
    return bring_in(there, SECTION, plan, file.path.read_bytes())


@settings(
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    before=st.dictionaries(st.sampled_from("abcdef"), fields(cleared=False)),
    wanted=st.dictionaries(st.sampled_from("abcdef"), fields(cleared=True)),
    max_bytes=st.sampled_from([300, 10_000]),
)
def test_a_blank_cell_never_clears_unless_it_is_meant(
    before: dict[str, Any], wanted: dict[str, Any], max_bytes: int, tmp_path: Path
) -> None:
    """Every file replayed on what is stored gives exactly what was planned."""
    there = account()
    keyspace = CATALOGUE.keyspace(CRM_KEYSPACE)
    for key, values in before.items():
        profile = there.create(keyspace, key, SECTION)
        there.set_values(profile, SECTION, values, "begin")
    rows = [
        ProfileRow(key, {name: v if v is CLEAR else str(v) for name, v in values.items()})
        for key, values in wanted.items()
    ]
    for file in write_profile_files(rows, KNOWN, tmp_path, max_bytes):
        assert file.path.stat().st_size <= max_bytes
        assert bring(there, file)["failed"] == 0
    for key in before.keys() | wanted.keys():
        planned = {CRM_ID: key, **before.get(key, {}), **wanted.get(key, {})}
        found = there.find(CRM_KEYSPACE, key).values(SECTION)
        assert found == {name: value for name, value in planned.items() if value is not CLEAR}


def test_rows_that_clear_nothing_share_a_file_and_those_that_do_are_apart(tmp_path: Path) -> None:
    rows: list[tuple[str, dict[str, str | Clear]]] = [
        ("a", {FIRST_NAME: "Ada"}),
        ("b", {SCORE: "7"}),
        ("c", {FIRST_NAME: CLEAR}),
        ("d", {FIRST_NAME: "Dora", TIER: CLEAR}),
        ("e", {FIRST_NAME: CLEAR, TIER: "gold"}),
    ]
    files = write_profile_files([ProfileRow(*row) for row in rows], KNOWN, tmp_path)
    assert [(file.rows, file.mapping.clear_existing) for file in files] == [
        (2, False),
        (1, True),
        (2, True),
    ]
    with files[0].path.open(encoding="utf-8", newline="") as content:
        assert list(csv.reader(content)) == [
            ["profile_key", FIRST_NAME, SCORE],
            ["a", "Ada", ""],
            ["b", "", "7"],
        ]


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        ([("a", {FIRST_NAME: " "})], ValueRefused, "say CLEAR"),
        ([(" ", {FIRST_NAME: "x"})], ValueRefused, "row 1 has a blank key"),
        ([("a", {FIRST_NAME: "x"}), ("a", {TIER: "y"})], ApsisError, "row 2 repeats"),
        ([("a", {"com.apsis1.attributes.nope": "x"})], ApsisSetupError, "no attribute"),
        ([("a", {FIRST_NAME: "x" * 500})], ApsisError, "fits into no import"),
    ],
)
def test_rows_with_two_meanings_are_refused(
    rows: Any, error: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        write_profile_files([ProfileRow(*row) for row in rows], KNOWN, tmp_path, 400)


def test_opt_outs_and_opt_ins_have_their_own_files_opt_outs_first(tmp_path: Path) -> None:
    rows = [
        ConsentRow("a", "a@example.com", NEWS, EMAIL_CHANNEL, "opt-in"),
        ConsentRow("b", "b@example.com", NEWS, EMAIL_CHANNEL, "opt-out"),
        ConsentRow("b", "b@example.com", OFFERS, EMAIL_CHANNEL, "opt-in"),
    ]
    files = write_consent_files(rows, tmp_path)
    assert [file.mapping.consent_type for file in files] == ["opt-out", "opt-in", "opt-in"]
    assert [file.path.name for file in files] == [
        "0001_opt-out.csv",
        "0002_opt-in.csv",
        "0003_opt-in.csv",
    ]
    assert files[0].path.read_text() == f"profile_key,address,{NEWS}\nb,b@example.com,1\n"


def test_a_profile_is_not_opted_in_and_out_at_once(tmp_path: Path) -> None:
    one = ConsentRow("a", "a@example.com", NEWS, EMAIL_CHANNEL, "opt-in")
    other = ConsentRow("a", "a@example.com", NEWS, EMAIL_CHANNEL, "opt-out")
    with pytest.raises(ApsisError, match="decide which"):
        write_consent_files([one, other], tmp_path)
    with pytest.raises(ValueRefused, match="blank key or address"):
        write_consent_files([ConsentRow("a", " ", NEWS, EMAIL_CHANNEL, "opt-in")], tmp_path)


@pytest.mark.parametrize("present", ["opt-out", "pending-opt-in", "confirmed-opt-in"])
def test_an_import_opts_nobody_in_again(present: Any, tmp_path: Path) -> None:
    there = account()
    profile = there.create(CATALOGUE.keyspace(CRM_KEYSPACE), "a", SECTION)
    at = (SECTION, NEWS, EMAIL_CHANNEL)
    profile.consents[at] = ConsentState(present, "act", "form", datetime.now(UTC))
    rows = [ConsentRow("a", "a@example.com", NEWS, EMAIL_CHANNEL, "opt-in")]
    (file,) = write_consent_files(rows, tmp_path)
    assert bring(there, file)["not_changed"] == 1
    assert profile.consents[at].type == present
