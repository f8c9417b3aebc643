"""Phone numbers: everything here must agree with phonenumbers, the field's reference.

The oracle below is written once more from the library's public functions. The short cut and the
plans may leave a text to the library; they may never answer differently.
"""

import functools
import random
from collections.abc import Iterator

import duckdb
import phonenumbers
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from phonenumbers import PhoneNumberFormat as Format
from phonenumbers import PhoneNumberType

from vibes_pipelines.reconcile import findings, judged_phones
from vibes_pipelines.reconcile.home_numbers import numbered, quick_number
from vibes_pipelines.reconcile.judged_phones import judge_phones
from vibes_pipelines.reconcile.phone import Refusal, is_e164_text, judge, to_e164
from vibes_pipelines_tests.support.examples import examples

REGIONS = sorted(phonenumbers.SUPPORTED_REGIONS)
SOME = sorted({"US", "SE", "IT", "AR", "GG", *random.Random(11).sample(REGIONS, 40)})
some_or_all = pytest.mark.parametrize(
    "regions",
    [pytest.param(SOME, id="some"), pytest.param(REGIONS, id="all", marks=pytest.mark.slow)],
)
FORMATS = (Format.E164, Format.INTERNATIONAL, Format.NATIONAL, Format.RFC3966)


def examples_of(region):
    kinds = PhoneNumberType.values()
    drawn = (phonenumbers.example_number_for_type(region, kind) for kind in kinds)
    return [number for number in drawn if number is not None]


def digits_of(text):
    return "".join(mark for mark in text if mark in "+0123456789")


def spelt_as(number):
    """Every format, each also without punctuation, and without the national prefix."""
    texts = {phonenumbers.format_number(number, form) for form in FORMATS}
    national = phonenumbers.national_significant_number(number)
    texts |= {national, f"{number.country_code}{national}", f"00{number.country_code}{national}"}
    return texts | {digits_of(text) for text in texts}


@functools.cache
def spelt(region):
    """Every spelling of the examples of a region."""
    return sorted({text for number in examples_of(region) for text in spelt_as(number)})


@functools.cache
def everybodys():
    return sorted({text for region in REGIONS for text in spelt(region)})


def rule(text, region):
    """The E.164 that the library gives for an MDN, else None."""
    try:
        number = phonenumbers.parse(text, region)
    except phonenumbers.NumberParseException:
        return None
    if number.extension or not phonenumbers.is_valid_number(number):
        return None
    kind = phonenumbers.number_type(number)
    if kind == PhoneNumberType.FIXED_LINE and number.country_code != 1:
        return None
    return phonenumbers.format_number(number, Format.E164)


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    connected = duckdb.connect()
    yield connected
    connected.close()


def quickly(connection, texts, region):
    """What the short cut says of each text: an E.164 or None."""
    rows = connection.execute(
        f"WITH cell AS (SELECT unnest(?::VARCHAR[]) AS phone), {numbered('cell', 'phone', region)}"
        " SELECT phone, '+' || mdn FROM numbered",
        [list(texts)],
    ).fetchall()
    return dict(rows)


def judged(connection, texts, region):
    """The verdict on each text: an E.164 or a refusal."""
    connection.execute("DROP TABLE IF EXISTS judged_phone")
    connection.execute("CREATE OR REPLACE TEMP TABLE given AS SELECT unnest(?::VARCHAR[])", [texts])
    judge_phones(connection, "FROM given", region)
    rows = connection.execute("SELECT phone, coalesce('+' || mdn, refusal) FROM judged_phone")
    return dict(rows.fetchall())


def expected(text, region):
    said = judge(text, region)
    return f"+{said}" if isinstance(said, int) else str(said)


@pytest.fixture
def every_plan(monkeypatch):
    """Makes every country code worth a query; counts the texts that the library is asked."""
    asked = []
    monkeypatch.setattr(judged_phones, "_WORTH_A_QUERY", 1)
    monkeypatch.setattr(
        judged_phones, "judge", lambda text, region: (asked.append(text), judge(text, region))[1]
    )
    return asked


@some_or_all
def test_the_rule_agrees_with_the_library_on_every_example_of_a_region(regions):
    assert sum(len(spelt(region)) for region in regions) > 30 * len(regions)
    for region in regions:
        for text in spelt(region):
            assert to_e164(text, region) == rule(text, region), (text, region)


@some_or_all
def test_the_short_cut_agrees_in_every_region_and_knows_most_of_its_own(connection, regions):
    """Each region reads its own examples and some of everybody's."""
    drawn = random.Random(3)
    known, valid = 0, 0
    for region in regions:
        own = spelt(region)
        foreign = drawn.sample(everybodys(), 30)
        for text, quick in quickly(connection, {*own, *foreign}, region).items():
            right = rule(text, region)
            assert quick in {None, right}, (text, region)
            if text in own and not text.startswith("tel:"):
                known += quick is not None
                valid += right is not None
    assert known / valid > 0.9


def test_regions_that_share_a_code_with_another_prefix_are_left_to_the_library(connection):
    for region in ("GG", "JE", "IM", "CX", "CC"):
        assert set(quickly(connection, spelt(region), region).values()) == {None}
    assert to_e164("07781 123456", "GG") == "+447781123456"


@pytest.mark.parametrize("size", [300, pytest.param(1500, marks=pytest.mark.slow)])
@pytest.mark.parametrize("region", ["US", "SE", "IT", "GB", "AR", "KZ", "GG"])
def test_plans_judge_examples_of_all_the_world_as_the_library_does(
    connection, region, every_plan, size
):
    drawn = random.Random(region)
    texts = sorted({*drawn.sample(everybodys(), size), *spelt(region)})
    verdicts = judged(connection, texts, region)
    assert set(verdicts) == set(texts)
    for text, verdict in verdicts.items():
        assert verdict == expected(text, region), (text, region)
    clear = [text for text in texts if text.startswith("+") and rule(text, region)]
    assert len(clear) > size / 5
    assert len(set(clear).intersection(every_plan)) < len(clear) / 20


@some_or_all
def test_landlines_are_told_without_the_library(connection, every_plan, regions):
    """A region's own landlines, in the national form and with the country code."""
    for region in regions:
        number = phonenumbers.example_number_for_type(region, PhoneNumberType.FIXED_LINE)
        texts = sorted(
            {phonenumbers.format_number(number, form) for form in (Format.E164, Format.NATIONAL)}
        )
        for text, verdict in judged(connection, texts, region).items():
            assert verdict == expected(text, region), (text, region)
    assert len(every_plan) < len(regions) / 3


@st.composite
def texts_around(draw):
    """A region and texts much like its numbers: other digits, prefixes, marks and tails."""
    region = draw(st.sampled_from(REGIONS))
    numbers = st.sampled_from([*examples_of(region), *examples_of("SE"), *examples_of("AR")])
    texts = []
    for _ in range(40):
        number = draw(numbers)
        national = phonenumbers.national_significant_number(number)
        kept = draw(st.integers(0, len(national)))
        longer = draw(st.integers(-1, 1)) if draw(st.booleans()) else 0
        size = max(len(national) - kept + longer, 0)
        tail = draw(st.text("0123456789", min_size=size, max_size=size))
        code = str(number.country_code)
        own = phonenumbers.ndd_prefix_for_region(region, strip_non_digits=True) or ""
        heads = ("", own, "0", f"00{code}", f"+{code}", f"+{code}{own}", code, "++", "+0", "011")
        text = draw(st.sampled_from(heads)) + national[:kept] + tail
        at = draw(st.integers(0, len(text)))
        mark = draw(st.sampled_from(["", *" -()./x+#\u00a0", ",,"]))
        texts.append((text[:at] + mark + text[at:]).strip() or "0")
    return region, sorted(set(texts))


@settings(max_examples=examples(40), deadline=None)
@given(drawn=texts_around())
def test_random_texts_around_examples(connection, drawn):
    region, texts = drawn
    quick = quickly(connection, texts, region)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(judged_phones, "_WORTH_A_QUERY", 1)
        verdicts = judged(connection, texts, region)
    for text in texts:
        assert quick[text] in {None, rule(text, region)}, (text, region)
        assert verdicts[text] == expected(text, region), (text, region)


def test_the_short_cut_accepts_nothing_that_the_library_refuses(connection):
    drawn = random.Random(7)
    spellings = ["{}", "1{}", "+1{}", "({:.3}) {}", " {} ", "1-{}", "+{}", "+1+{}", "{}x1"]
    spellings.append("1 (1){}")
    texts = {
        drawn.choice(spellings).format(number, number[3:])
        for number in (f"{drawn.randrange(10**10):010d}" for _ in range(4000))
    }
    quick = quickly(connection, texts, "US")
    for text, said in quick.items():
        assert said in {None, rule(text, "US")}, text
    assert sum(said is not None for said in quick.values()) > 200


@pytest.mark.parametrize(
    ("region", "e164", "texts"),
    [
        (
            "US",
            "+13125550142",
            ["(312) 555-0142", "312.555.0142", "+13125550142", "1 312 555 0142", "+1 312 5550142"],
        ),
        (
            "SE",
            "+46701234567",
            [
                "070-123 45 67",
                "0701234567",
                "+46 70 123 45 67",
                "+46 (0)70-1234567",
                "0046701234567",
            ],
        ),
        ("IT", "+393123456789", ["312 345 6789", "+39 312 345 6789", "0039 3123456789"]),
        ("RU", "+79123456789", ["8 (912) 345-67-89", "+7 912 345-67-89", "9123456789"]),
        ("KZ", "+77710009998", ["8 771 000 9998", "87710009998", "+77710009998"]),
        ("GB", "+447400123456", ["07400 123456", "+44 (0)7400 123456", "00447400123456"]),
        ("BR", "+5511961234567", ["(11) 96123-4567", "+55 11 96123-4567", "011 96123-4567"]),
        ("DE", "+4915123456789", ["0151/23456789", "0151 23456789", "+49-151-23456789"]),
    ],
)
def test_the_short_cut_takes_the_usual_spellings(connection, region, e164, texts):
    assert quickly(connection, texts, region) == dict.fromkeys(texts, e164)
    for text in texts:
        assert rule(text, region) == e164


def test_an_italian_number_keeps_its_leading_zero(connection):
    """Not a mobile, but also no landline: a number of a kind of its own."""
    number = phonenumbers.example_number_for_type("IT", PhoneNumberType.VOIP)
    zeros = phonenumbers.format_number(number, Format.E164)
    assert judge(zeros, "IT") == int(zeros)
    landline = phonenumbers.example_number_for_type("IT", PhoneNumberType.FIXED_LINE)
    text = phonenumbers.format_number(landline, Format.E164)
    assert text.startswith("+390")
    assert judged(connection, [text], "IT") == {text: "landline"}


def test_one_expression_says_the_same_as_the_steps(connection):
    for region in ("US", "SE", "AR", "GG"):
        rows = connection.execute(
            f"SELECT t, '+' || {quick_number('t', region)} FROM (SELECT unnest(?::VARCHAR[]) AS t)",
            [spelt(region)],
        ).fetchall()
        assert dict(rows) == quickly(connection, spelt(region), region)


@pytest.mark.parametrize("region", ["ZZ", "UK"])
def test_a_region_that_there_is_not_reads_only_international_numbers(connection, region):
    texts = ["+46701234567", "0701234567", "n/a"]
    assert set(quickly(connection, texts, region).values()) == {None}
    assert judged(connection, texts, region) == {
        "+46701234567": "+46701234567",
        "0701234567": "unknown_country",
        "n/a": "not_a_number",
    }


def test_a_text_longer_than_the_library_reads_is_refused(connection):
    for region, number in (("US", "3125550142"), ("SE", "0701234567")):
        texts = [f"{number[:4]}{' ' * 300}{number[4:]}"]
        assert quickly(connection, texts, region) == {texts[0]: None}
        assert judge(texts[0], region) == Refusal.TOO_LONG


@pytest.mark.parametrize(
    ("text", "region", "refusal"),
    [
        ("312 555 0142 x12", "US", Refusal.EXTENSION),
        ("+13125550142;ext=5", "US", Refusal.EXTENSION),
        ("1-800-FLOWERS x2", "US", Refusal.EXTENSION),
        ("070-123 45 67 ankn. 3", "SE", Refusal.TOO_LONG),
        ("n/a", "US", Refusal.NOT_A_NUMBER),
        ("911", "US", Refusal.SHORT_CODE),
        ("112", "SE", Refusal.SHORT_CODE),
        ("312", "US", Refusal.TOO_SHORT),
        ("555 0142", "US", Refusal.NO_AREA_CODE),
        ("+1 312 555 01422", "US", Refusal.TOO_LONG),
        ("012 555 0142", "US", Refusal.UNASSIGNED),
        ("+999 12345678", "US", Refusal.UNKNOWN_COUNTRY),
        ("08-123 456 78", "SE", Refusal.LANDLINE),
        ("+46 8 123 456 78", "US", Refusal.LANDLINE),
    ],
)
def test_every_text_that_is_no_mdn_has_a_verdict(connection, text, region, refusal):
    assert judge(text, region) == refusal
    assert quickly(connection, [text], region) == {text: None}
    assert judged(connection, [text], region) == {text: str(refusal)}


def test_a_zero_before_the_country_code_is_not_passed_over(connection, every_plan):
    assert rule("+66985123435", "VA") == "+66985123435"
    texts = ["+066985123435", "+046701234567"]
    assert judged(connection, texts, "VA") == dict.fromkeys(texts, "unknown_country")


def test_country_code_1_does_not_tell_landlines(connection):
    """Also where an island's metadata would: the platform's carrier look-up decides."""
    landline = phonenumbers.example_number_for_type("BB", PhoneNumberType.FIXED_LINE)
    assert phonenumbers.number_type(landline) == PhoneNumberType.FIXED_LINE
    text = phonenumbers.format_number(landline, Format.E164)
    assert to_e164(text, "BB") == text
    assert quickly(connection, [text], "US") == {text: text}


def test_a_text_is_judged_once(connection, every_plan):
    judged(connection, ["n/a", "n/a", "12"], "US")
    judge_phones(connection, "SELECT unnest(['n/a', '12', 'x', NULL])", "US")
    assert sorted(every_plan) == ["12", "n/a", "x"]


def test_the_form_of_e164(connection):
    texts = ["+13125550142", "+4930123456", "13125550142", "+0312", "+1 312", "+1312555014212345"]
    rows = connection.execute(
        f"SELECT {is_e164_text('t')} FROM (SELECT unnest(?::VARCHAR[]) AS t)", [texts]
    ).fetchall()
    assert [value for (value,) in rows] == [True, True, False, False, False, False]


def test_quarantine_shows_the_text_as_given_and_the_verdict_on_it(run, make_config):
    texts = {
        "C1": ("08-123 456 78", "the mdn is a landline"),
        "C2": ("070-123 45 67 x12", "the mdn carries an extension"),
        "C3": ("n/a", "the mdn is not a phone number"),
        "C4": ("0701", "the mdn is too short"),
        "C5": ("070-123 45 67", None),
    }
    config = make_config(contacts={"key": "id", "mdn": {"column": "phone", "default_region": "SE"}})
    contacts = [{"id": key, "phone": text} for key, (text, _) in texts.items()]
    done = run(config, contacts, [])
    shown = {
        row["external_person_id"]: (row["kind"], row["mdn"], row["detail"])
        for row in done.rows("quarantine")
    }
    assert shown == {
        key: ("invalid_mdn", text, detail) for key, (text, detail) in texts.items() if detail
    }
    [added] = done.person_changes
    assert (added["external_person_id"], added["mdn"]) == ("C5", "+46701234567")


def test_every_refusal_has_a_text_of_its_own():
    texts = [findings.REFUSED_MDNS[one] for one in Refusal]
    assert len(set(texts)) == len(Refusal)
