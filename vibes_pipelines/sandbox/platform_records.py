"""The records of the platform's mobile database: plain data, no rules.

`platform` re-exports these names; rules that change records live there, and how values are written
and read in `platform_values`.
"""

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import Enum
from typing import Any, Final, Literal

FieldType = Literal["string", "number", "date", "single_select", "multi_select", "postal_code"]
"""Types of custom fields (Vibes documentation, Person Import)."""

Value = str | Decimal | datetime | tuple[str, ...] | None
"""A custom field's value: dates aware UTC, selects as option keys, multi selects sorted."""

Charset = Literal["ascii", "utf8"]

_PERSON_KEYS = uuid.UUID("6f1d3c52-7f5b-5b0a-9d55-2a8f0a4c1e77")


@dataclass(frozen=True)
class CustomField:
    """A custom field that the customer created in the platform.

    `options` are the option keys of a select, case-sensitive. `charset` limits what a string may
    hold.
    """

    name: str
    type: FieldType
    options: tuple[str, ...] = ()
    charset: Charset = "utf8"


@dataclass(frozen=True)
class SubscriptionList:
    """A subscription list; its id is numeric, held as text."""

    id: str
    name: str


@dataclass(slots=True)
class Person:
    """A person record: `mdn` E.164, `person_id` the deprecated numeric id, instants aware UTC."""

    person_key: str
    person_id: str
    external_person_id: str | None
    mdn: str | None
    carrier_code: str | None
    custom: dict[str, Value]
    created_at: datetime
    updated_at: datetime


@dataclass(slots=True)
class Subscription:
    """One stay of a person on a list, ended when `opt_out_date` is set; a return makes another.

    `activity_id` is the acquisition campaign that it came by, when it came by one.
    """

    person_key: str
    list_id: str
    opt_in_date: datetime
    opt_out_date: datetime | None = None
    opt_out_reason: str | None = None
    activity_id: str | None = None

    @property
    def is_active(self) -> bool:
        """Whether the stay has not ended."""
        return self.opt_out_date is None


class Omitted(Enum):
    """The one marker of "not mentioned", which is something else than `None`, "remove"."""

    OMITTED = "omitted"


OMITTED: Final = Omitted.OMITTED


@dataclass(frozen=True, slots=True)
class PersonPatch:
    """What one write asks for: only what it mentions. `None` removes; `mdn` is E.164."""

    external_person_id: str | Omitted | None = OMITTED
    mdn: str | Omitted | None = OMITTED
    custom: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Written:
    """What an accepted write came to: the record, whether it is new, whether anything changed."""

    person: Person
    created: bool
    changed: bool


HappeningKind = Literal[
    "person_added",
    "person_updated",
    "person_erased",
    "subscription_added",
    "subscription_removed",
]


@dataclass(frozen=True, slots=True)
class Happening:
    """Something that happened to a person, told at once and under the platform's lock.

    `changed` is False for a write that found everything as it asks for.
    """

    kind: HappeningKind
    at: datetime
    person: Person
    subscription: Subscription | None = None
    changed: bool = True


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that callbacks tell beside changes of persons and subscriptions.

    Registrations of `kind` whose configuration agrees with `config` are told what `show` gives for
    their API version. `stage` and `is_failure` are those of an event that is being processed.
    """

    kind: str
    at: datetime
    config: Mapping[str, str]
    show: Callable[[Literal[1, 2]], dict[str, Any]]
    stage: str = ""
    is_failure: bool = False


def person_key_of(seed: int, number: int) -> str:
    """The person key that the platform gives to its person of this number, the same every time."""
    return str(uuid.uuid5(_PERSON_KEYS, f"{seed}/{number}"))
