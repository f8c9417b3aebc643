"""What bodies of callbacks and data of events tell of whom: whose they are, and mentions in them.

A number has others after its person. Therefore it tells a person only where nothing else does; what
names somebody else is somebody else's, whatever numbers of the erased person stand in it.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from vibes_pipelines.blanks import trimmed
from vibes_pipelines.stages.erasing_files import NUMBERS, Naming
from vibes_pipelines.stages.erasing_subject import Subject
from vibes_pipelines.stages.pseudonyms import KEYS, pseudonym

_KEY_FIELDS = KEYS | {"external_id"}


def is_named(row: Mapping[str, Any]) -> bool:
    """Whether a row of the inbox was read so far that it names anybody."""
    return any(row.get(name) is not None for name in (*KEYS, *NUMBERS))


def is_theirs(row: Mapping[str, Any], subject: Subject) -> bool:
    """Whether a callback has a key of the person, or no key at all and is known to be its own."""
    if any(row.get(name) is not None for name in KEYS):
        return (
            row.get("external_person_id") in {subject.external_person_id} - {None}
            or (row.get("person_key") or "").lower() in subject.person_keys
        )
    return row["id"] in subject.own_callbacks


def without_mentions(body: bytes, naming: Naming) -> bytes:
    """Another person's body with pseudonyms for keys of the erased one; the same when it has none.

    One that is not JSON comes back as it was.
    """
    try:
        document = json.loads(body)
    except ValueError:
        return body
    cleaned = _without(document, None, naming)
    return body if cleaned == document else json.dumps(cleaned).encode()


def tells_of_them(documents: list[object], naming: Naming) -> bool:
    """Whether data without columns of their own are the person's.

    Fields that name a person decide; where there are none, a key or a number anywhere does.
    """
    leaves = [leaf for document in documents for leaf in _leaves(document, None)]
    keys = [text for name, text in leaves if name in _KEY_FIELDS]
    if keys:
        return any(naming.is_key(text) for text in keys)
    numbers = [text for name, text in leaves if name in NUMBERS]
    if numbers:
        return any(text in naming.subject.mdns for text in numbers)
    return any(naming.is_key(text) or text in naming.subject.mdns for _, text in leaves)


def _leaves(value: object, name: str | None) -> Iterator[tuple[str | None, str]]:
    """(field, text) of every filled value."""
    if isinstance(value, dict):
        for field, inner in value.items():
            yield from _leaves(inner, field)
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(inner, name)
    elif value is not None and (text := trimmed(str(value))):
        yield name, text


def _without(value: Any, name: str | None, naming: Naming) -> Any:
    if isinstance(value, dict):
        return {field: _without(inner, field, naming) for field, inner in value.items()}
    if isinstance(value, list):
        return [_without(inner, name, naming) for inner in value]
    text = trimmed(str(value)) or ""
    if text.lower() in naming.subject.person_keys:
        return pseudonym(text.lower(), naming.key)
    if name in _KEY_FIELDS and naming.is_key(text):
        return pseudonym(text, naming.key)
    return value
