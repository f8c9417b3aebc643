"""Each kind of import file says what its rows say, and refuses what it could not say safely."""

import re
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vibes_pipelines.vibes.import_errors import ImportFileError, MissingEvidence
from vibes_pipelines.vibes.import_files import (
    Member,
    Named,
    OnboardingEvidence,
    Recipient,
    WalletUpdate,
    write_incentives,
    write_opt_outs,
    write_recipients,
    write_subscriptions,
    write_wallet_updates,
)
from vibes_pipelines.vibes.import_reader import (
    ListRow,
    list_name,
    read_file,
    read_incentives,
    read_list_file,
    read_named,
    read_wallet_file,
)
from vibes_pipelines.vibes.import_writer import PartLimits, WrittenFile
from vibes_pipelines_tests.support.examples import examples

ADA = Named("person_key", "0b6c5e0e")
GRACE = Named("mdn", "+13125550142")
ALAN = Named("external_person_id", "007")
EVIDENCE = OnboardingEvidence("consents-2025.pdf", "Ada", date(2025, 12, 1), frozenset({"12"}), 2)

printable = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=10)
persons = st.one_of(
    st.builds(Named, st.just("mdn"), st.integers(10**9, 10**14).map(lambda n: f"+{n}")),
    st.builds(Named, st.just("person_key"), st.from_regex(r"[0-9a-f-]{4,8}", fullmatch=True)),
    st.builds(
        Named,
        st.just("external_person_id"),
        printable.filter(lambda text: bool(text.strip()) and text != "[null]"),
    ),
)
members = st.builds(Member, persons, st.sampled_from(["12", "13"]))


def read_all(parts: list[WrittenFile]) -> list[ListRow]:
    return [row for part in parts for row in read_list_file(part.path)]


@settings(max_examples=examples(60))
@given(st.lists(members, unique=True, max_size=8), st.integers(1, 4))
def test_opt_outs_name_exactly_the_members(
    tmp_path_factory: pytest.TempPathFactory, wanted: list[Member], max_rows: int
) -> None:
    folder = tmp_path_factory.mktemp("out")
    parts = write_opt_outs(folder, "day", wanted, PartLimits(max_rows))
    assert read_all(parts) == [
        ListRow(member.person.identifier, member.person.value, member.list_id) for member in wanted
    ]


def test_one_list_stands_in_the_header(tmp_path: Path) -> None:
    (part,) = write_opt_outs(tmp_path, "day", [Member(ADA, "12"), Member(GRACE, "12")])
    assert part.path.name == "day-001.opt_outs"
    assert part.path.read_text(encoding="utf-8") == (
        "Content-Type: TEXT\nSubscription-List-ID: 12\nFields: person_key,mdn\n\n"
        "0b6c5e0e,\n,+13125550142\n"
    )


def test_several_lists_stand_in_the_rows(tmp_path: Path) -> None:
    (part,) = write_opt_outs(tmp_path, "day", [Member(ALAN, "12"), Member(ALAN, "13")])
    assert part.path.read_text(encoding="utf-8") == (
        "Content-Type: TEXT\nFields: external_person_id,subscription_list_id\n\n007,12\n007,13\n"
    )


def test_nobody_makes_no_file(tmp_path: Path) -> None:
    assert write_opt_outs(tmp_path, "day", []) == []
    assert write_recipients(tmp_path, "day", []) == []
    assert write_wallet_updates(tmp_path, "day", []) == []
    assert list(tmp_path.iterdir()) == []


def test_a_row_of_its_own_list_wins_over_the_header(tmp_path: Path) -> None:
    path = tmp_path / "a.opt_outs"
    path.write_text(
        "Subscription-List-ID: 12\n\nmdn,person_id,subscription_list_id\n+1,7,13\n+1,,\n",
        encoding="utf-8",
    )
    assert read_list_file(path) == [ListRow("person_id", "7", "13"), ListRow("mdn", "+1", "12")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mdn\n+1\n", "row 1 names no numeric subscription list"),
        ("Subscription-List-ID: abc\n\nmdn\n+1\n", "row 1 names no numeric subscription list"),
        ("Subscription-List-ID: 1\n\nmdn,person_key\n,\n", "row 1 names nobody; fill one of"),
    ],
)
def test_a_row_about_nobody_or_no_list_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.opt_outs"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ImportFileError, match=message):
        read_list_file(path)


@pytest.mark.parametrize(
    ("identifier", "value"),
    [
        ("mdn", "3125550142"),
        ("mdn", "+1 312 555 0142"),
        ("mdn", "+١٣١٢٥٥٥٠١٤٢"),
        ("mdn", ""),
        ("person_id", "abc"),
        ("person_key", "ABC"),
        ("external_person_id", "[null]"),
        ("external_person_id", " "),
        ("external_person_id", "x" * 129),
        ("external_person_id", "a\nb"),
        ("vibes_device_id", ""),
        ("email", "ada"),
    ],
)
def test_a_value_that_names_nobody_is_refused_and_not_shown(identifier: str, value: str) -> None:
    with pytest.raises(ImportFileError, match=f"no {identifier} that an import can") as error:
        Named(identifier, value)  # type: ignore[arg-type]
    assert not value.strip() or value not in str(error.value)


def test_lists_are_named_by_number() -> None:
    with pytest.raises(ImportFileError, match="list 'ABC': imports take the list's number"):
        Member(ADA, "ABC")


def test_a_person_named_twice_for_a_list_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImportFileError, match="1 rows name a person twice for one list"):
        write_opt_outs(tmp_path, "day", [Member(ADA, "12"), Member(ADA, "12")])


def test_subscriptions_are_written_with_evidence_only(tmp_path: Path) -> None:
    wanted = [Member(ADA, "12"), Member(GRACE, "12")]
    (part,) = write_subscriptions(tmp_path, "onboarding", wanted, EVIDENCE)
    assert part.path.name == "onboarding-001.subscriptions"
    assert [row.list_id for row in read_list_file(part.path)] == ["12", "12"]


@pytest.mark.parametrize(
    ("wanted", "evidence", "message"),
    [
        ([Member(ADA, "12")], None, "need the evidence of consent; invite the persons"),
        ([Member(ADA, "13")], EVIDENCE, "does not cover list 13"),
        ([Member(p, "12") for p in (ADA, GRACE, ALAN)], EVIDENCE, "does not cover 3 members"),
    ],
)
def test_without_evidence_that_covers_them_nobody_is_subscribed(
    tmp_path: Path, wanted: list[Member], evidence: OnboardingEvidence | None, message: str
) -> None:
    with pytest.raises(MissingEvidence, match=message):
        write_subscriptions(tmp_path, "onboarding", wanted, evidence)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "blank",
    [{"reference": " "}, {"approved_by": ""}, {"lists": frozenset()}, {"members": 0}],
)
def test_evidence_without_a_part_is_none(blank: dict[str, object]) -> None:
    with pytest.raises(MissingEvidence, match=f"evidence without {next(iter(blank))}"):
        replace(EVIDENCE, **blank)  # type: ignore[arg-type]


@given(st.lists(st.tuples(persons, printable), max_size=6), st.none() | st.just("Spring 👋"))
def test_recipients_keep_their_variables(
    tmp_path_factory: pytest.TempPathFactory, wanted: list[tuple[Named, str]], name: str | None
) -> None:
    recipients = [Recipient(person, {"offer": text, "code": "=1+1"}) for person, text in wanted]
    for part in write_recipients(tmp_path_factory.mktemp("out"), "spring", recipients, name):
        file = read_file(part.path)
        assert list_name(file) == (name or "spring-001")
        assert [(row.identifier, row.value, row.others) for row in read_named(file)] == [
            (one.person.identifier, one.person.value, one.variables) for one in recipients
        ]


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"other": "1"}, "recipient 2 differs from the first in offer, other"),
        ({}, "recipient 2 differs from the first in offer"),
    ],
)
def test_recipients_of_one_file_have_the_same_variables(
    tmp_path: Path, second: dict[str, str], message: str
) -> None:
    with pytest.raises(ImportFileError, match=message):
        write_recipients(tmp_path, "a", [Recipient(ADA, {"offer": "1"}), Recipient(GRACE, second)])


def test_a_variable_cannot_take_the_place_of_an_identifier(tmp_path: Path) -> None:
    with pytest.raises(ImportFileError, match="a variable cannot be called mdn"):
        write_recipients(tmp_path, "a", [Recipient(GRACE, {"mdn": "1"})])


def test_updates_of_passes_go_to_the_campaigns_of_the_header(tmp_path: Path) -> None:
    updates = [
        WalletUpdate("u-1", {"tier": "gold", "balance": "007"}),
        WalletUpdate("u,2", {"tier": "", "balance": "1"}),
    ]
    (part,) = write_wallet_updates(tmp_path, "passes", updates, ["r3zhm8", "abc"])
    assert part.path.read_text(encoding="utf-8") == (
        'Campaign-Token: r3zhm8,abc\nFields: uuid,tier,balance\n\nu-1,gold,007\n"u,2",,1\n'
    )
    first, second = read_wallet_file(part.path)
    assert (first.campaign_tokens, first.tokens) == (("r3zhm8", "abc"), updates[0].tokens)
    assert (second.uuid, second.expiration_date) == ("u,2", None)


def test_updates_of_passes_name_their_own_campaign(tmp_path: Path) -> None:
    updates = [WalletUpdate("u-1", {}, "r3zhm8", "2020-01-01T00:00:00Z")]
    (part,) = write_wallet_updates(tmp_path, "passes", updates)
    (row,) = read_wallet_file(part.path)
    assert (row.campaign_tokens, row.expiration_date) == (("r3zhm8",), "2020-01-01T00:00:00Z")


@pytest.mark.parametrize(
    ("updates", "message"),
    [
        ([WalletUpdate("u-1", {"tier": "gold"})], "a pass without campaign"),
        ([WalletUpdate(" ", {}, "r3")], "a pass without uuid"),
        ([WalletUpdate("u", {"uuid": "v"}, "r3")], "a token cannot be called uuid"),
        (
            [WalletUpdate("u", {"a": "1"}, "r3"), WalletUpdate("v", {"b": "1"}, "r3")],
            "update 2 differs from the first in a, b; write it to another file",
        ),
    ],
)
def test_updates_that_could_be_misread_are_refused(
    tmp_path: Path, updates: list[WalletUpdate], message: str
) -> None:
    with pytest.raises(ImportFileError, match=message):
        write_wallet_updates(tmp_path, "passes", updates)


def test_a_row_without_a_campaign_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "a.wallet_update"
    path.write_text("uuid\nu-1\n", encoding="utf-8")
    with pytest.raises(ImportFileError, match="row 1 names no campaign"):
        read_wallet_file(path)


@given(
    st.lists(
        st.from_regex(re.compile(r"[A-Z0-9:+=-]{1,14}", re.ASCII), fullmatch=True), unique=True
    )
)
def test_codes_are_read_as_they_were_written(
    tmp_path_factory: pytest.TempPathFactory, codes: list[str]
) -> None:
    parts = write_incentives(tmp_path_factory.mktemp("out"), "17", codes)
    assert all(part.path.name == "17.incentives" for part in parts)
    assert [code for part in parts for code in read_incentives(part.path)[1]] == codes
    assert all(read_incentives(part.path)[0] == "17" for part in parts)


def test_more_codes_than_a_file_takes_go_to_more_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vibes_pipelines.vibes.import_files.MAX_LONG_CODES", 3)
    monkeypatch.setattr("vibes_pipelines.vibes.import_files.MAX_CODES", 5)
    long = [f"CODE-NUMBER-{number}" for number in range(5)]
    parts = write_incentives(tmp_path, "17", long)
    assert [str(part.path.relative_to(tmp_path)) for part in parts] == [
        "001/17.incentives",
        "002/17.incentives",
        "003/17.incentives",
    ]
    assert [part.rows for part in write_incentives(tmp_path, "18", list("ABCDE"))] == [4, 1]


@pytest.mark.parametrize(
    ("pool", "codes", "message"),
    [
        ("1/2", ["A"], "incentive pool '1/2': use its id"),
        ("1", ["A", " "], "incentive code 2 is blank, or holds a quote, a comma or a space"),
        ("1", ["A,B"], "incentive code 1"),
        ("1", ['A"'], "incentive code 1"),
        ("1", ["\ufeffA"], "incentive code 1"),
        ("1", ["A", "B", "A"], "1 incentive codes stand twice"),
    ],
)
def test_codes_that_could_be_misread_are_refused(
    tmp_path: Path, pool: str, codes: list[str], message: str
) -> None:
    with pytest.raises(ImportFileError, match=message):
        write_incentives(tmp_path, pool, codes)
