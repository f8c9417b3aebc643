"""Phone numbers: everything here must agree with phonenumbers, the field's reference."""

import random

import duckdb
import phonenumbers
import pytest
from phonenumbers import PhoneNumberFormat as Format

from vibes_pipelines.reconcile.phone import is_e164_text, national_digits, quick_number, to_e164

TYPES = list(phonenumbers.PhoneNumberType.values())


def examples():
    for region in sorted(phonenumbers.SUPPORTED_REGIONS):
        for kind in TYPES:
            number = phonenumbers.example_number_for_type(region, kind)
            if number is not None:
                yield region, number


def rule(text, region):
    try:
        number = phonenumbers.parse(text, region)
    except phonenumbers.NumberParseException:
        return None
    valid = phonenumbers.is_valid_number(number) and not number.extension
    return phonenumbers.format_number(number, Format.E164) if valid else None


def quickly(texts, region):
    connection = duckdb.connect()
    try:
        rows = connection.execute(
            f"SELECT '+' || {quick_number('d')} FROM (SELECT {national_digits('t', region)} AS d"
            " FROM (SELECT unnest(?::VARCHAR[]) AS t))",
            [texts],
        ).fetchall()
    finally:
        connection.close()
    return [value for (value,) in rows]


def test_every_example_number_of_every_region_in_every_format():
    spelt = {
        (phonenumbers.format_number(number, form), region)
        for region, number in examples()
        for form in (Format.E164, Format.INTERNATIONAL, Format.NATIONAL)
    }
    assert len(spelt) > 3000
    for text, region in spelt:
        assert to_e164(text, region) == rule(text, region)
    for region in ("US", "CA", "DE"):
        texts = sorted({text for text, _ in spelt})
        for text, quick in zip(texts, quickly(texts, region), strict=True):
            assert quick is None or quick == rule(text, region), (text, region)


def test_the_short_cut_accepts_nothing_that_the_library_refuses():
    drawn = random.Random(7)
    spellings = [
        "{}",
        "1{}",
        "+1{}",
        "({:.3}) {}",
        " {} ",
        "1-{}",
        "+{}",
        "+1+{}",
        "{}x1",
        "1 (1){}",
    ]
    texts = [
        drawn.choice(spellings).format(number, number[3:])
        for number in (f"{drawn.randrange(10**10):010d}" for _ in range(4000))
    ]
    accepted = 0
    for text, quick in zip(texts, quickly(texts, "US"), strict=True):
        accepted += quick is not None
        assert quick is None or quick == rule(text, "US"), text
    assert accepted > 200


def test_the_short_cut_takes_the_usual_spellings():
    texts = ["(312) 555-0142", "312.555.0142", "+13125550142", "1 312 555 0142", "+1 312 5550142"]
    assert quickly(texts, "US") == ["+13125550142"] * 5


@pytest.mark.parametrize(
    "text", ["312 555 0142 x12", "+13125550142;ext=5", "312-555-0142 ext. 3", "1-800-FLOWERS x2"]
)
def test_extensions_are_refused(text):
    assert to_e164(text, "US") is None
    assert quickly([text], "US") == [None]


def test_the_form_of_e164():
    connection = duckdb.connect()
    try:
        texts = [
            "+13125550142",
            "+4930123456",
            "13125550142",
            "+0312",
            "+1 312",
            "+1312555014212345",
        ]
        rows = connection.execute(
            f"SELECT {is_e164_text('t')} FROM (SELECT unnest(?::VARCHAR[]) AS t)", [texts]
        ).fetchall()
    finally:
        connection.close()
    assert [value for (value,) in rows] == [True, True, False, False, False, False]
