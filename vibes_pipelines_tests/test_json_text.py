"""JSON from outside, with texts that were cut in the middle of a character."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vibes_pipelines.json_text import read_json

PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False)


@pytest.mark.parametrize(
    ("content", "read"),
    [
        (r'"Ada \ud83d"', "Ada \ufffd"),
        (r'"\uDE00\uD83D"', "\ufffd\ufffd"),
        (r'{"\ud83d": ["\udfff", 1.50, null, "é"]}', {"\ufffd": ["\ufffd", 1.5, None, "é"]}),
        (r'"Ada \ud83d\ude00"', "Ada \U0001f600"),
        (r'"\\ud83d and \u00e9"', r"\ud83d and é"),
        (b'"Ada \xed\xa0\xbd"', "Ada \ufffd"),
        ('"Ada 😀"'.encode("utf-16"), "Ada 😀"),
    ],
)
def test_half_a_character_is_replaced_and_a_whole_one_is_not(
    content: str | bytes, read: object
) -> None:
    assert read_json(content) == read


@given(
    st.recursive(
        PLAIN | st.text(st.characters(codec=None)),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=8,
    ),
    st.booleans(),
)
def test_whatever_is_read_can_be_written(document: Any, ascii_only: bool) -> None:
    text = json.dumps(document, ensure_ascii=ascii_only)
    found = read_json(text)
    assert json.dumps(found, ensure_ascii=False).encode()
    with suppress(UnicodeEncodeError):
        json.dumps(document, ensure_ascii=False).encode()
        assert found == document


@pytest.mark.parametrize("content", [b"\xff\xfe\xff", "{", r'"\ud83'])
def test_what_is_no_json_is_refused_as_ever(content: str | bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - whichever of the two of json.loads
        read_json(content)


def test_what_is_nested_too_deeply_is_no_json() -> None:
    with pytest.raises(ValueError, match="nested too deeply"):
        read_json("[" * 200_000)
