"""JSON from outside, read so that each of its texts can be written again.

JSON may escape half of a character, as where a text was cut in the middle of an emoji. Python reads
that, but no file and no database takes it.
"""

import json
import re
from typing import Any

_MAY_BE_HALF = re.compile(r"\\u[dD][89a-fA-F]|[\ud800-\udfff]")
_HALF = re.compile(r"[\ud800-\udfff]")
_REPLACEMENT = "\ufffd"


def read_json(content: str | bytes) -> Any:
    """As `json.loads`, with U+FFFD for each half of a character, which no field takes as a value.

    Raises:
        ValueError: it is no JSON, or nested too deeply to be read.
    """
    if isinstance(content, bytes):
        content = content.decode(json.detect_encoding(content), "surrogatepass")
    try:
        return _with_whole_characters(json.loads(content), content)
    except RecursionError:
        msg = "the JSON is nested too deeply"
        raise ValueError(msg) from None


def _with_whole_characters(document: Any, content: str) -> Any:
    if not _MAY_BE_HALF.search(content):
        return document
    # Two halves beside each other are one character by now: what is left has no other half.
    whole, halves = _HALF.subn(_REPLACEMENT, json.dumps(document, ensure_ascii=False))
    return json.loads(whole) if halves else document
