"""Error classes at the edges: names that only look known, numbers just long enough."""

import pytest

from vibes_pipelines.vibes.error_classes import (
    DEFAULT,
    api_error_class,
    lookup,
    without_personal_data,
)


@pytest.mark.parametrize(
    "name", ["HTTP 5000", "HTTP 50", "HTTP 500 OK", "HTTP 5xx", "http 500", "HTTP 3010"]
)
def test_what_is_no_status_is_unknown(name: str) -> None:
    assert lookup(name) is DEFAULT


@pytest.mark.parametrize(
    ("message", "safe"),
    [
        ("5550142 is taken", "[removed] is taken"),
        ("row 123456", "row 123456"),
        ("+1 (312) 555-0142.", "[removed]."),
        ("a@b", "[removed]"),
        ("by ada@example.com, twice", "by [removed] twice"),
        ("@", "@"),
    ],
)
def test_seven_digits_are_a_number_and_six_are_none(message: str, safe: str) -> None:
    assert without_personal_data(message) == safe


def test_a_refusal_without_words_has_its_status() -> None:
    assert api_error_class(409, None) == api_error_class(409, "") == "HTTP 409"
