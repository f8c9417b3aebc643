"""Kinds: which type of custom field suits the values of a column, and with which options."""

import re

from vibes_pipelines.stages.init.look import Column
from vibes_pipelines.stages.init.names import key_of, mean_the_same
from vibes_pipelines.sync_config.config import FieldType

MOST_OPTIONS = 12
LONGEST_OPTION = 40
DATE = re.compile(r"\d{4}-\d{2}-\d{2}([T ].*)?")
_NUMBER = re.compile(r"-?(0|[1-9]\d{0,14})([.]\d{1,6})?")
_SEPARATORS = ";|,"


def parts_of(column: Column) -> set[str]:
    """The different parts of the values, in lower case."""
    separator = separator_of(column)
    every = (v.split(separator) if separator else [v] for v in column.different)
    return {part.strip().lower() for parts in every for part in parts if part.strip()}


def type_of(column: Column, to: str, platform_values: frozenset[str]) -> tuple[FieldType, str]:
    """The type of the field `to` that carries a column, and for a multi-select its separator."""
    if any(mean_the_same(name, "zip_code") for name in (column.name, to)):
        return "postal_code", ""
    if column.kind in {"date", "time"} or are_all(column, DATE):
        return "date", ""
    if column.kind == "number" or are_all(column, _NUMBER):
        return "number", ""
    separator = separator_of(column)
    if separator and _is_small(parts_of(column), column):
        return "multi_select", separator
    if _is_small(column.different, column) and _is_choice(column, platform_values):
        return "single_select", ""
    return "string", ""


def _is_small(options: set[str] | frozenset[str], column: Column) -> bool:
    """Whether these can be the options of a select: few, short, and used again and again."""
    few = 1 < len(options) <= MOST_OPTIONS and len(column.values) >= 3 * len(options)
    return few and all(0 < len(one.strip()) <= LONGEST_OPTION for one in options)


def _is_choice(column: Column, platform_values: frozenset[str]) -> bool:
    """Where the platform holds just the CRM's own words, text is the safer reading."""
    return not platform_values or not column.different <= platform_values


def are_all(column: Column, form: re.Pattern[str]) -> bool:
    """Whether every value has this form."""
    return bool(column.values) and all(form.fullmatch(value.strip()) for value in column.values)


def separator_of(column: Column) -> str:
    """What stands between the parts of the values; empty when nothing seems to."""
    if column.kind != "text":
        return ""
    for separator in _SEPARATORS:
        if sum(separator in value for value in column.values) >= 0.2 * max(len(column.values), 1):
            return separator
    return ""


def options_of(column: Column, separator: str, platform_values: frozenset[str]) -> dict[str, str]:
    """Each spelling of the CRM with the platform's key, or one made of the spelling."""
    every = (v.split(separator) if separator else [v] for v in sorted(column.different))
    spelled = dict.fromkeys(part.strip() for parts in every for part in parts if part.strip())
    by_key = {key_of(key) or key: key for key in keys_of(platform_values)}
    return {one: by_key.get(key_of(one), key_of(one) or one) for one in spelled}


def keys_of(platform_values: frozenset[str]) -> set[str]:
    """The option keys in the platform's values."""
    return {key for value in platform_values for key in value.split("|")}
