"""Callbacks: one body that the platform posted, read into a typed `Callback`.

Bodies: the Vibes documentation, Callbacks; the old ones (2021 and before) and its malformed samples
are read too. Nothing is stored or decided here, and no error shows a value: they are personal data.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from vibes_pipelines import instants
from vibes_pipelines.blanks import trimmed
from vibes_pipelines.json_text import read_json

SUBSCRIPTION_ADDED = "subscription_added"
SUBSCRIPTION_REMOVED = "subscription_removed"
UNMATCHED = "unmatched_message_received"

_IDENTIFIERS = frozenset({"external_person_id", "external_id", "person_key"})

MAX_TEXT = 255
"""The longest identifier that is read; the documentation gives no limit."""

_Path = tuple[str, ...]
_Document = Mapping[str, Any]


class CallbackError(ValueError):
    """A body is no callback of the documented form; the message names the place, never a value."""


@dataclass(frozen=True, slots=True)
class Callback:
    """One event at the platform.

    `event_at` is when it happened: for a subscription its own opt-in or opt-out date, as the share
    shows it, else the event date; None when neither can be read. A date coarser than a second
    gives way to the event date, and is none for what may be a no. `raw_type` is the type as
    spelled. `content_hash` is of what the event says, and equal for each of its deliveries.
    """

    event_type: str
    raw_type: str
    event_id: str | None
    event_at: datetime | None
    content_hash: str
    company_key: str | None = None
    list: str | None = None
    external_person_id: str | None = None
    person_key: str | None = None
    person_id: str | None = None
    mdn: str | None = None
    opt_out_reason: str | None = None


class DoubtfulCallback(CallbackError):  # noqa: N818 - the name says what is wrong
    """A callback that nobody may act on; what could be read of it is in `callback`."""

    def __init__(self, doubt: str, callback: Callback) -> None:
        super().__init__(doubt)
        self.callback = callback


@dataclass(frozen=True, slots=True)
class _Shape:
    """Where a type has its person and its list, and which of its dates says when it happened.

    `may_be_a_no`: it ends a subscription, or is a text that may ask to.
    """

    persons: tuple[_Path, ...] = ()
    list: _Path = ()
    date: _Path = ()
    is_about_a_subscription: bool = False
    may_be_a_no: bool = False


_PARTICIPANT = _Shape(persons=(("participant", "person"), ("participant",)))
_PERSON = _Shape(persons=(("person",),))
_RECORDED = _Shape()


def _subscription(date: str, *, is_the_end: bool) -> _Shape:
    return _Shape(
        persons=(("subscription", "person"),),
        list=("subscription", "subscription_list"),
        date=("subscription", date),
        is_about_a_subscription=True,
        may_be_a_no=is_the_end,
    )


SHAPES: Mapping[str, _Shape] = {
    SUBSCRIPTION_ADDED: _subscription("opt_in_date", is_the_end=False),
    SUBSCRIPTION_REMOVED: _subscription("opt_out_date", is_the_end=True),
    "ack_participant_added": _PARTICIPANT,
    "ack_participant_changed": _PARTICIPANT,
    "company_participant_added": _PARTICIPANT,
    "company_participant_changed": _PARTICIPANT,
    "person_added": _PERSON,
    "person_updated": _PERSON,
    "device_added": _PERSON,
    "device_updated": _PERSON,
    "device_removed": _PERSON,
    "wallet_item_install": _RECORDED,
    "wallet_item_remove": _RECORDED,
    "subscription_list_added": _Shape(list=("subscription_list",)),
    "subscription_list_updated": _Shape(list=("subscription_list",)),
    UNMATCHED: replace(_PARTICIPANT, may_be_a_no=True),
    "event_processed": _RECORDED,
}
"""Every documented type. One that is not here is read as far as the envelope goes."""

# What belongs to a delivery and not to its event: an event delivered again differs in nothing else.
_OF_THE_DELIVERY = frozenset({"delivery_attempt", "callback_id", "callback:id"})


def read_callback(body: bytes) -> Callback:
    """Reads one body, of any documented type.

    An event id that cannot be read is none: the content tells deliveries of one event, too.

    Raises:
        DoubtfulCallback: a malformed text, a subscription without its list or its person, or a
            removal by its old event_type alone. What may be a no needs no more than its list and
            one readable name of its person.
        CallbackError: not JSON, or no type.
    """
    # As it stands: an identifier with half a character is refused, and names nobody else.
    document = _object(body, json.loads)
    named, other = _Texts(), _Texts()
    raw_type, contradiction = _raw_type(document, other)
    if raw_type is None:
        msg = other.fault or "the body has neither callback_type nor event_type"
        raise CallbackError(msg)
    event_type = raw_type.lower()
    if not _TYPE.fullmatch(event_type):
        msg = "callback_type is not the name of a type, such as subscription_added"
        raise CallbackError(msg)
    shape = SHAPES.get(event_type, _RECORDED)
    person_at, person = _person(document, shape)
    listed = _at(document, shape.list) if shape.list else {}
    callback = Callback(
        event_type=event_type,
        raw_type=raw_type,
        event_id=_Texts().read(document, "event_id"),
        event_at=_event_at(document, shape),
        content_hash=_content_hash(document),
        company_key=_company_key(listed),
        list=other.read(listed, "id", ".".join(shape.list)),
        external_person_id=_external_person_id(named, person, person_at),
        person_key=_lower(named.read(person, "person_key", person_at)),
        person_id=_person_id(other, person, person_at),
        mdn=_mdn(other, person, person_at),
        opt_out_reason=_reason(_at(document, ("subscription",)).get("opt_out_reason")),
    )
    doubt = contradiction or _doubt(callback, shape, named.fault, other.fault)
    if doubt is not None:
        raise DoubtfulCallback(doubt, callback)
    return callback


def read_instant(text: str) -> datetime | None:
    """An instant in any spelling met at Vibes, small letters too, in UTC; None when it is none."""
    instant = instants.read_instant(text.strip().upper())
    return instant and instant.astimezone(UTC)


_TO_THE_SECOND = re.compile(r"\d{2}:\d{2}:\d{2}", re.ASCII)
# What no text can rightly hold. Blanks and signs that are not seen stand in keys of a CRM, too.
_WRONG = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffd-\uffff]")
_TYPE = re.compile(r"[a-z][a-z0-9_]*", re.ASCII)
_E164 = re.compile(r"\+[1-9][0-9]{6,14}", re.ASCII)
_NATIONAL = re.compile(r"[2-9][0-9]{9}", re.ASCII)
_COMPANY = re.compile(r"/companies/([A-Za-z0-9]+)/", re.ASCII)

# Slips of the documentation's own samples: comments, commas before a bracket, and a first key whose
# colon is a comma. Strings are matched first, so that nothing inside one is touched; one that does
# not end reaches to the end of the text, or each quote of it would be tried as a beginning.
_STRING = r'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)'
_COMMENT = re.compile(rf'({_STRING})|//[^"\n]*', re.DOTALL)
_TRAILING_COMMA = re.compile(rf"({_STRING})|,(?=\s*[}}\]])", re.DOTALL)
_KEY_WITHOUT_COLON = re.compile(r'\A(\s*\{\s*"callback[:_]id"\s*),')


def body_document(body: bytes) -> _Document:
    """The JSON object of a body, the slips of the documented samples forgiven.

    Half a character in a text is U+FFFD.

    Raises:
        CallbackError: it is not one.
    """
    return _object(body, read_json)


def _object(body: bytes, load: Callable[[str], Any]) -> _Document:
    try:
        document = _parse(body, load)
    except RecursionError:
        msg = "the body is nested too deeply"
        raise CallbackError(msg) from None
    if not isinstance(document, dict):
        msg = "the body is JSON, but not an object"
        raise CallbackError(msg)
    return document


def _parse(body: bytes, load: Callable[[str], Any]) -> Any:
    try:
        text = body.decode(json.detect_encoding(body))
    except UnicodeDecodeError:
        msg = "the body is not text in UTF-8"
        raise CallbackError(msg) from None  # the cause holds the body
    try:
        return load(text)
    except ValueError:
        pass
    try:
        return load(_without_slips(text))
    except json.JSONDecodeError as malformed:
        msg = f"the body is not JSON: line {malformed.lineno}, column {malformed.colno}"
        raise CallbackError(msg) from None
    except ValueError:
        msg = "the body is not JSON: a number is too long, or it is nested too deeply"
        raise CallbackError(msg) from None


def _without_slips(text: str) -> str:
    text = _COMMENT.sub(lambda found: found[1] or "", text)
    text = _TRAILING_COMMA.sub(lambda found: found[1] or "", text)
    return _KEY_WITHOUT_COLON.sub(r"\1:", text)


def _content_hash(document: _Document) -> str:
    event = {key: value for key, value in document.items() if key not in _OF_THE_DELIVERY}
    canonical = json.dumps(event, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _at(document: _Document, path: _Path) -> _Document:
    """The object at a path; an empty one where there is none."""
    found: Any = document
    for key in path:
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}


def _person(document: _Document, shape: _Shape) -> tuple[str, _Document]:
    """Where the person stands, and what is said of it."""
    for path in shape.persons:
        person = _at(document, path)
        if person:
            return ".".join(path), person
    return "", {}


class _Texts:
    """Reads texts. One that cannot be read is None, and the first of them is told in `fault`."""

    def __init__(self) -> None:
        self.fault: str | None = None

    def read(self, record: _Document, key: str, place: str = "") -> str | None:
        try:
            return _text(record, key, place)
        except CallbackError as malformed:
            self.fault = self.fault or str(malformed)
            return None


def _text(record: _Document, key: str, place: str) -> str | None:
    """A text, or a whole number as text; None when it is absent or blank."""
    value = record.get(key)
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if value is None:
        return None
    name = f"{place}.{key}" if place else key
    if not isinstance(value, str):
        msg = f"{name} is neither a text nor a whole number"
        raise CallbackError(msg)
    # Blanks tell identifiers apart; of all else they say nothing.
    value = (trimmed(value) or "") if key in _IDENTIFIERS else value.strip()
    if len(value) > MAX_TEXT:
        msg = f"{name} is longer than {MAX_TEXT} characters"
        raise CallbackError(msg)
    if _WRONG.search(value):
        msg = f"{name} holds a character that cannot be printed"
        raise CallbackError(msg)
    return value or None


def _lower(text: str | None) -> str | None:
    return None if text is None else text.lower()


def _event_at(document: _Document, shape: _Shape) -> datetime | None:
    path = shape.date
    own = _at(document, path[:-1]).get(path[-1]) if path else None
    spelled = [value for value in (own, document.get("event_date")) if isinstance(value, str)]
    exact = [text for text in spelled if _TO_THE_SECOND.search(text)]
    # A coarse date is first in its minute or day: an opt-out would pass for older than it is.
    coarse = [] if shape.may_be_a_no else [text for text in spelled if text not in exact]
    return next((instant for text in exact + coarse if (instant := read_instant(text))), None)


def _raw_type(document: _Document, texts: _Texts) -> tuple[str | None, str | None]:
    """The type as spelled, and what speaks against it.

    A removal that `event_type`, the old name, alone tells of is kept as one: nobody may act on it,
    and it must not pass for what `callback_type` says.
    """
    today = texts.read(document, "callback_type")
    if today is not None:
        old = _Texts().read(document, "event_type")
        if old and old.lower() == SUBSCRIPTION_REMOVED != today.lower():
            return old, "callback_type and event_type differ, and event_type is a removal"
        return today, None
    return texts.read(document, "event_type"), None


def _external_person_id(texts: _Texts, person: _Document, place: str) -> str | None:
    """The external id, under its name of today or of old; both hold the same value."""
    today = texts.read(person, "external_person_id", place)
    old = texts.read(person, "external_id", place)
    if today and old and today != old:
        texts.fault = texts.fault or f"{place}: external_person_id and external_id differ"
        return None
    return today or old


def _person_id(texts: _Texts, person: _Document, place: str) -> str | None:
    """The legacy id. A participant that stands for a person has an `id` of its own."""
    return texts.read(person, "person_id", place) or (
        texts.read(person, "id", place) if place.endswith("person") else None
    )


def _mdn(texts: _Texts, person: _Document, place: str) -> str | None:
    """The MDN as E.164; None for any other form.

    A callback registered under version 1 shows national digits, and version 1 knows no country but
    those of code 1 (the Vibes documentation, Versions and Compatibility).
    """
    mobile = person.get("mobile_phone")
    text = texts.read(mobile if isinstance(mobile, dict) else person, "mdn", place)
    if text is None or _E164.fullmatch(text):
        return text
    return f"+1{text}" if _NATIONAL.fullmatch(text) else None


def _reason(value: object) -> str | None:
    """In lower case. One that is no text must not keep an opt-out from being read."""
    return value.strip().lower()[:MAX_TEXT] or None if isinstance(value, str) else None


def _company_key(record: _Document) -> str | None:
    """The company that a record's own address names."""
    url = record.get("url")
    found = _COMPANY.search(url) if isinstance(url, str) else None
    return found[1][:MAX_TEXT] if found else None


def _doubt(
    callback: Callback, shape: _Shape, misnamed: str | None, other: str | None
) -> str | None:
    """Why nobody may act on a callback; None when nothing stands against it.

    `misnamed`: what is wrong with the names that tell a person, by which it is known that a number
    alone may mean somebody else; `other`: what is wrong with the other texts.
    """
    missing = _missing(callback) if shape.is_about_a_subscription else None
    if not shape.may_be_a_no:
        # An opt-in that is not surely of its person must not speak against an opt-out.
        return misnamed or other or missing
    if callback.external_person_id or callback.person_key:
        misnamed = None
    return misnamed or (missing and (other or missing))


def _missing(callback: Callback) -> str | None:
    """What a subscription cannot be without, and this one is."""
    if callback.list is None:
        return "subscription.subscription_list.id is missing"
    identifiers = (callback.external_person_id, callback.person_key, callback.person_id)
    if not any((*identifiers, callback.mdn)):
        return "subscription.person has no identifier"
    return None
