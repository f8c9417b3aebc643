"""Custom fields of synthetic people: drawn as the platform holds them, spelled as a CRM does."""

import unicodedata
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from random import Random

from vibes_pipelines.sandbox.names import FIRST_NAMES, LAST_NAMES
from vibes_pipelines.sandbox.platform import Value

Profile = dict[str, Value]

TIERS: tuple[str, ...] = ("gold", "silver", "bronze")
INTERESTS: tuple[str, ...] = ("golf", "tennis", "running", "cooking", "music")

CRM_COLUMNS: Mapping[str, str] = {
    "first_name": "first_name",
    "last_name": "last_name",
    "birthdate": "birth_date",
    "score": "score",
    "tier": "tier",
    "interests": "interests",
    "zip_code": "zip",
}
"""The CRM's column for each custom field."""

_OPTIONAL = {"birthdate": 0.15, "score": 0.25, "tier": 0.20, "interests": 0.25, "zip_code": 0.10}
"""Share of people of whom a field is unknown on both sides."""


def draw_profile(rng: Random) -> Profile:
    """A person's custom fields; the optional ones are sometimes unknown."""
    profile: Profile = {}
    for field in CRM_COLUMNS:
        unknown = field in _OPTIONAL and rng.random() < _OPTIONAL[field]
        profile[field] = None if unknown else draw_value(field, rng)
    return profile


def draw_value(field: str, rng: Random) -> Value:
    """A value that suits the field, never unknown."""
    return _DRAWERS[field](rng)


def _birthdate(rng: Random) -> datetime:
    return datetime(rng.randint(1940, 2005), rng.randint(1, 12), rng.randint(1, 28), tzinfo=UTC)


_DRAWERS: Mapping[str, Callable[[Random], Value]] = {
    "first_name": lambda rng: rng.choice(FIRST_NAMES),
    "last_name": lambda rng: rng.choice(LAST_NAMES),
    "birthdate": _birthdate,
    "score": lambda rng: (Decimal(rng.randint(0, 4_000)) / 4).quantize(Decimal("0.0001")),
    "tier": lambda rng: rng.choice(TIERS),
    "interests": lambda rng: tuple(sorted(rng.sample(INTERESTS, rng.randint(1, 3)))),
    "zip_code": lambda rng: f"{rng.randint(501, 99_950):05d}",
}


def draw_other(field: str, present: Value, rng: Random) -> Value:
    """A known value that differs from the present one."""
    value = draw_value(field, rng)
    while value == present:
        value = draw_value(field, rng)
    return value


def crm_cell(field: str, value: Value, rng: Random) -> str | float | None:
    """The same value as a CRM holds it: other case, other order, stray blanks, loose accents."""
    match value:
        case None:
            return None
        case datetime():
            return f"{value:%Y-%m-%d}"
        case Decimal():
            return float(value)
        case tuple():
            return ";".join(rng.sample(value, len(value)))
        case _ if field == "tier":
            return value.capitalize()
        case _:
            return _typed_by_hand(value, rng)


def crm_cells(profile: Mapping[str, Value], rng: Random) -> dict[str, str | float | None]:
    """A profile's values by the CRM's column names."""
    return {
        column: crm_cell(field, profile[field], rng)
        for field, column in CRM_COLUMNS.items()
        if field in profile
    }


def meaning(cell: str | float | None) -> str | float | None:
    """What a CRM cell says, seen through its spelling; equal meanings are no change."""
    if not isinstance(cell, str):
        return cell
    return ";".join(sorted(unicodedata.normalize("NFC", cell).strip().split(";")))


def _typed_by_hand(text: str, rng: Random) -> str:
    habit = rng.random()
    if habit < 0.05:
        return f"{text} "
    if habit < 0.07:
        return f" {text}"
    if habit < 0.30:
        return unicodedata.normalize("NFD", text)
    return text
