"""Canonical text of values, per field type and side, as SQL; NULL is blank.

Two values agree when their canonical texts are equal, so everything the reconcile compares, writes
or explains goes through here. Field types: the Vibes documentation, Person Import.
"""

import re
from dataclasses import dataclass

from vibes_pipelines.blanks import trimmed
from vibes_pipelines.reconcile.errors import ReconcileError
from vibes_pipelines.reconcile.moments import (
    is_day_text,
    is_in_range,
    is_moment_type,
    moment,
    moment_text,
    typed_moment_text,
)
from vibes_pipelines.reconcile.numerals import decimal_text, is_canonical_whole, number_text
from vibes_pipelines.reconcile.sql import clean, let, literal, nullable_literal
from vibes_pipelines.sync_config import FieldType, MappedField

RULES = 5
"""Raise it when a rule of canonical texts changes: hashes made before are then not used, and what
both sides agreed on under the older rules is no base."""
UNKNOWN_OPTION = "\x01o"
"""Starts the text of a contact's value that is not among the field's options."""
INVALID_VALUE = "\x01v"
"""Starts the text of a contact's value that cannot be read as the field's type."""

_NEVER_IN_KEYS = "[|\x01]"
"""What joins option keys, and what starts a mark."""
_FLOATS = frozenset(("DOUBLE", "FLOAT"))
_NESTED = ("STRUCT", "MAP", "UNION")
_INTEGERS = frozenset(
    f"{sign}{size}"
    for sign in ("", "U")
    for size in ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT")
)


def as_text(column: str, column_type: str) -> str:
    """SQL for the clean text of a column of any type; typed columns without float noise.

    Raises:
        ReconcileError: the column holds lists, objects or bytes, which no text stands for.
    """
    if column_type == "VARCHAR":
        return clean(column)
    if column_type.endswith("]") or column_type.startswith(_NESTED):
        msg = (
            f"column {column} holds {column_type}: lists are for fields of type multi_select, and"
            " objects for none; map a column of plain values"
        )
        raise ReconcileError(msg)
    if column_type == "BLOB":  # the engine would write its escape codes
        msg = f"column {column} holds bytes; map a column of plain values"
        raise ReconcileError(msg)
    if column_type.startswith("DECIMAL"):
        return decimal_text(column, column_type)
    text = f"CAST({column} AS VARCHAR)"
    if column_type in _FLOATS:
        return number_text(text, "t")
    if is_moment_type(column_type):
        return typed_moment_text(column, text)
    if column_type in _INTEGERS or column_type in {"BOOLEAN", "UUID"}:
        return text
    return clean(text)


def date_text(column: str, column_type: str, otherwise: str) -> str:
    """SQL for the canonical text of a date; `otherwise` is for what is none, as text called `t`."""
    if is_moment_type(column_type):
        return typed_moment_text(column, let("t", f"CAST({column} AS VARCHAR)", otherwise))
    text = as_text(column, column_type)
    slow = let("m", moment("t", "VARCHAR"), f"coalesce({moment_text('m')}, {otherwise})")
    return (
        f"CASE WHEN {is_day_text(text)} THEN {text}"
        f" WHEN {text} IS NOT NULL THEN {let('t', text, slow)} END"
    )


def contact_text(field: MappedField, column: str, column_type: str) -> str:
    """SQL for a contact column's canonical text; a value in doubt starts with a mark."""
    if field.type in {"string", "postal_code"}:
        return as_text(column, column_type)
    if field.type == "number":
        return _number_of(column, column_type, _marked(INVALID_VALUE, "t"))
    if field.type == "date":
        return date_text(column, column_type, _marked(INVALID_VALUE, "t"))
    if field.type == "single_select":
        return _option(field, as_text(column, column_type))
    return _contact_set(field, column, column_type)


def platform_text(field_type: FieldType, column: str, column_type: str) -> str:
    """SQL for the canonical text of a custom field's column in persons or in a base.

    What the platform holds is never invalid: unreadable text stands as it is.
    """
    if field_type == "multi_select":
        return _platform_set(column, column_type)
    if field_type == "date":
        return date_text(column, column_type, "t")
    if field_type == "number":
        return _number_of(column, column_type, "t")
    return as_text(column, column_type)


def can_be_marked(field: MappedField) -> bool:
    """Whether a contact's value of this field can be invalid or an unknown option."""
    plain = field.type == "single_select" and field.options is None
    return field.type not in {"string", "postal_code"} and not plain


def is_marked(text: str) -> str:
    """SQL for: this canonical text of a contact is marked as unknown option or invalid value."""
    return f"starts_with({text}, {literal(UNKNOWN_OPTION[0])})"


@dataclass(frozen=True)
class Quick:
    """SQL for a cheap stand-in of both canonical texts of one field.

    Equal stand-ins imply equal canonical texts; unequal ones imply nothing, the canonical texts of
    those rows are compared afterwards. `doubt` is SQL for: the contact's canonical text is marked;
    it may read the contact's stand-in under the name given to `quick`.
    """

    contact: str
    person: str
    doubt: str | None


def quick(
    field: MappedField, contact: tuple[str, str], person: tuple[str, str], name: str
) -> Quick:
    """The stand-ins of one field, whose sides are given as (column, type)."""
    both_text = contact[1] == person[1] == "VARCHAR"
    if both_text and not can_be_marked(field):
        return Quick(f"nullif({contact[0]}, '')", f"nullif({person[0]}, '')", None)
    if field.type == "number" and _is_same_decimal(contact[1], person[1]):
        return Quick(contact[0], person[0], None)
    if field.type == "date" and is_moment_type(contact[1]) and is_moment_type(person[1]):
        sides = [f"CAST({column} AS TIMESTAMP)" for column in (contact[0], person[0])]
        return Quick(sides[0], sides[1], f"{name} IS NOT NULL AND NOT {is_in_range(name)}")
    value, doubt = quick_contact(field, *contact, name)
    return Quick(value, quick_person(field.type, *person), doubt)


def quick_contact(
    field: MappedField, column: str, column_type: str, name: str
) -> tuple[str, str | None]:
    """The contact's stand-in, whatever the person's column is, and its doubt; see `Quick`."""
    if not can_be_marked(field):
        plain = column_type == "VARCHAR"
        return f"nullif({column}, '')" if plain else contact_text(field, column, column_type), None
    return _quick_contact(field, column, column_type), is_marked(name)


def quick_difference(field: MappedField, contact: tuple[str, str], person: tuple[str, str]) -> str:
    """SQL that is true wherever the canonical texts of both sides differ, and seldom elsewhere.

    Of a contact without a mark, that is: others are no candidates. It is true of every contact's
    text that has to be looked at closely: to plan how that is done takes longer, once for every
    reconcile, than to do it for the few that differ.
    """
    short_cut = _short_cut(field, *contact)
    if short_cut is None:
        stand_ins = quick(field, contact, person, "unused")
        return f"{stand_ins.contact} IS DISTINCT FROM {stand_ins.person}"
    is_odd, value = short_cut
    return f"({is_odd}) OR {value} IS DISTINCT FROM {quick_person(field.type, *person)}"


def _quick_contact(field: MappedField, column: str, column_type: str) -> str:
    """The canonical text, with a short cut where it is plain; of sets without options, the keys."""
    full = contact_text(field, column, column_type)
    if column_type == "VARCHAR" and field.options is not None:
        return _choose(column, _whole_options(field), full)
    short_cut = _short_cut(field, column, column_type)
    if short_cut is None:
        return full
    is_odd, value = short_cut
    return f"CASE WHEN {is_odd} THEN {full} ELSE {value} END"


def _short_cut(field: MappedField, column: str, column_type: str) -> tuple[str, str] | None:
    """SQL for: this contact's text has to be looked at closely; and its stand-in where not."""
    if column_type != "VARCHAR" or not can_be_marked(field):
        return None
    if field.type == "number":
        return f"NOT {is_canonical_whole(column)}", column
    if field.type == "date":
        return f"{column} IS NOT NULL AND NOT {is_day_text(column)}", column
    if field.options is not None:
        key = _choose(column, _whole_options(field), "NULL::VARCHAR")
        return f"{column} IS NOT NULL AND {key} IS NULL", key
    joined = f"nullif(replace({column}, {literal(field.separator)}, '|'), '')"
    return f"contains({column}, '|') OR contains({column}, {literal(UNKNOWN_OPTION[0])})", joined


def _whole_options(field: MappedField) -> dict[str, str]:
    """Those that a text can be as a whole."""
    is_set = field.type == "multi_select"
    options = field.options or {}
    return {v: k for v, k in options.items() if not (is_set and field.separator in v)}


def quick_person(field_type: FieldType, column: str, column_type: str) -> str:
    """The person's stand-in, whatever the contact's column is; see `Quick`.

    Plain text where it can be: a canonical text on the other side can only equal it if it is one.
    """
    if column_type == "VARCHAR" and field_type not in {"number", "date"}:
        return f"nullif({column}, '')"
    full = platform_text(field_type, column, column_type)
    if column_type != "VARCHAR":
        return full
    short_cut = is_canonical_whole(column) if field_type == "number" else is_day_text(column)
    return f"CASE WHEN {short_cut} THEN {column} ELSE {full} END"


def _is_same_decimal(one: str, other: str) -> bool:
    return one == other and (one in _INTEGERS or one.startswith("DECIMAL"))


def _marked(mark: str, text: str) -> str:
    return f"{literal(mark)} || {text}"


def _number_of(column: str, column_type: str, otherwise: str) -> str:
    if column_type in _INTEGERS or column_type.startswith("DECIMAL"):
        return as_text(column, column_type)
    if column_type in _FLOATS:
        return number_text(f"CAST({column} AS VARCHAR)", otherwise)
    return number_text(as_text(column, column_type), otherwise)


def _option(field: MappedField, text: str) -> str:
    if field.options is None:
        return text
    return _choose(text, field.options, _marked(UNKNOWN_OPTION, text))


def _choose(text: str, options: dict[str, str], otherwise: str) -> str:
    branches = " ".join(
        f"WHEN {nullable_literal(trimmed(value))} THEN {nullable_literal(trimmed(key))}"
        for value, key in options.items()
        if trimmed(value) is not None
    )
    return f"CASE {text} {branches} ELSE {otherwise} END" if branches else otherwise


def _contact_set(field: MappedField, column: str, column_type: str) -> str:
    chosen = _contact_key(field, "item")
    keys = f"list_transform({_items(column, column_type, field.separator)}, lambda item: {chosen})"
    marked = f"list_min(list_filter(keys, lambda key: {is_marked('key')}))"
    several = let("keys", keys, f"coalesce({marked}, {_joined('keys')})")
    alone = _contact_key(field, clean(column))
    if field.options is None:
        several = _if_plain(column, column_type, field.separator, several)
    return _if_alone(column, column_type, field.separator, alone, several)


def _contact_key(field: MappedField, item: str) -> str:
    """SQL for the option key of one clean item; an item in doubt is marked."""
    if field.options is not None:
        return _option(field, item)
    odd = f"regexp_matches({item}, {literal(_NEVER_IN_KEYS)})"
    return f"CASE WHEN {odd} THEN {_marked(INVALID_VALUE, item)} ELSE {item} END"


def _platform_set(column: str, column_type: str) -> str:
    several = _if_plain(column, column_type, "|", _joined(_items(column, column_type, "|")))
    return _if_alone(column, column_type, "|", clean(column), several)


def _if_plain(column: str, column_type: str, separator: str, otherwise: str) -> str:
    """SQL that only saves time: items of visible ASCII are clean, and are not looked at singly."""
    if column_type != "VARCHAR" or len(separator) > 1:
        return otherwise
    mark = re.escape(separator)
    item = rf"[^{mark}|\x00-\x20\x7F-\x{{10FFFF}}]+"
    is_plain = f"regexp_full_match({column}, {literal(f'{item}(?:{mark}{item})*')})"
    keys = f"list_sort(list_distinct(string_split({column}, {literal(separator)})))"
    return f"CASE WHEN {is_plain} THEN array_to_string({keys}, '|') ELSE {otherwise} END"


def _if_alone(column: str, column_type: str, separator: str, alone: str, several: str) -> str:
    """SQL that takes a text of one item for what it is, without making a list of it."""
    if column_type != "VARCHAR":
        return several
    return f"CASE WHEN contains({column}, {literal(separator)}) THEN {several} ELSE {alone} END"


def _items(column: str, column_type: str, separator: str) -> str:
    if column_type.endswith("[]"):
        as_text(column, column_type.removesuffix("[]"))  # refuses items that no text stands for
        parts = f"list_transform({column}, lambda part: CAST(part AS VARCHAR))"
    else:
        text = column if column_type == "VARCHAR" else as_text(column, column_type)
        parts = f"string_split({text}, {literal(separator)})"
    cleaned = f"list_transform({parts}, lambda part: {clean('part')})"
    return f"list_filter({cleaned}, lambda part: part IS NOT NULL)"


def _joined(items: str) -> str:
    """A set has no order: distinct keys in the order of their code points."""
    present = f"list_filter({items}, lambda key: key IS NOT NULL)"
    return f"nullif(array_to_string(list_sort(list_distinct({present})), '|'), '')"
