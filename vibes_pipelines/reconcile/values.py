"""Canonical text of values, per field type and side, as SQL; NULL is blank.

Two values agree when their canonical texts are equal, so everything the reconcile compares, writes
or explains goes through here. Field types: the Vibes documentation, Person Import.
"""

import unicodedata

from vibes_pipelines.reconcile.moments import is_day_text, is_moment_type, moment, moment_text
from vibes_pipelines.reconcile.numerals import decimal_text, is_canonical_whole, number_text
from vibes_pipelines.reconcile.sql import BLANKS, clean, literal, nullable_literal
from vibes_pipelines.sync_config import FieldType, MappedField

UNKNOWN_OPTION = "\x01o"
"""Starts the text of a contact's value that is not among the field's options."""
INVALID_VALUE = "\x01v"
"""Starts the text of a contact's value that cannot be read as the field's type."""

_INTEGERS = frozenset(
    ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT")
    + ("UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "UHUGEINT")
)


def clean_text(text: str) -> str | None:
    """The same cleaning as `sql.clean`, for texts of the sync config."""
    return unicodedata.normalize("NFC", text).strip(BLANKS) or None


def as_text(column: str, column_type: str) -> str:
    """SQL for the clean text of a column of any type; typed columns without float noise."""
    if column_type == "VARCHAR":
        return clean(column)
    text = f"CAST({column} AS VARCHAR)"
    if column_type.startswith("DECIMAL"):
        return decimal_text(text)
    if column_type in {"DOUBLE", "FLOAT"}:
        return number_text(text, text)
    if is_moment_type(column_type):
        return f"coalesce({moment_text(moment(column, column_type))}, {text})"
    if column_type in _INTEGERS or column_type in {"BOOLEAN", "UUID"}:
        return text
    return clean(text)


def contact_text(field: MappedField, column: str, column_type: str) -> str:
    """SQL for a contact column's canonical text, or a text that starts with one of the two marks."""
    if field.type in {"string", "postal_code"}:
        return as_text(column, column_type)
    if field.type == "number":
        text = as_text(column, column_type)
        return number_text(text, _marked(INVALID_VALUE, text))
    if field.type == "date":
        text = as_text(column, column_type)
        return _date_text(text, column, column_type, _marked(INVALID_VALUE, text))
    if field.type == "single_select":
        return _option(field, as_text(column, column_type))
    return _contact_set(field, column, column_type)


def platform_text(field_type: FieldType, column: str, column_type: str) -> str:
    """SQL for the canonical text of a custom field's column in persons or in a base.

    What the platform holds is never invalid: unreadable text stands as it is.
    """
    if field_type == "multi_select":
        return _platform_set(column, column_type)
    text = as_text(column, column_type)
    if field_type == "number":
        return number_text(text, text)
    if field_type == "date":
        return _date_text(text, column, column_type, text)
    return text


def can_be_marked(field: MappedField) -> bool:
    """Whether a contact's value of this field can be invalid or an unknown option."""
    plain = field.type == "single_select" and field.options is None
    return field.type not in {"string", "postal_code"} and not plain


def is_marked(text: str) -> str:
    """SQL for: this canonical text of a contact is marked as unknown option or invalid value."""
    return f"starts_with({text}, {literal(UNKNOWN_OPTION[0])})"


def quick_pair(
    field: MappedField, contact: tuple[str, str], person: tuple[str, str]
) -> tuple[str, str]:
    """SQL for a cheap stand-in of both canonical texts, each side given as (column, type).

    Equal stand-ins imply equal canonical texts, and a contact's mark is kept; unequal ones imply
    nothing, the canonical texts of those rows are compared afterwards.
    """
    both_text = contact[1] == person[1] == "VARCHAR"
    if both_text and field.type in {"string", "postal_code"}:
        return f"nullif({contact[0]}, '')", f"nullif({person[0]}, '')"
    if both_text and field.type == "single_select" and field.options is None:
        return f"nullif({contact[0]}, '')", f"nullif({person[0]}, '')"
    if field.type == "number" and _same_decimal(contact[1], person[1]):
        return contact[0], person[0]
    return _quick_contact(field, *contact), _quick_person(field.type, *person)


def _quick_contact(field: MappedField, column: str, column_type: str) -> str:
    """The canonical text itself, with a short cut for values that already are canonical."""
    full = contact_text(field, column, column_type)
    if column_type != "VARCHAR":
        return full
    if field.type == "number":
        return f"CASE WHEN {is_canonical_whole(column)} THEN {column} ELSE {full} END"
    if field.type == "date":
        return f"CASE WHEN {is_day_text(column)} THEN {column} ELSE {full} END"
    if field.options is not None:
        whole = {v: k for v, k in field.options.items() if not _is_split(field, v)}
        return _choose(column, whole, full)
    if field.type == "multi_select":
        one = f"NOT contains({column}, {literal(field.separator)}) AND NOT contains({column}, '|')"
        return f"CASE WHEN {one} THEN {clean(column)} ELSE {full} END"
    return full


def _quick_person(field_type: FieldType, column: str, column_type: str) -> str:
    """Plain text of selects: a canonical text on the other side can only equal it if it is one."""
    if column_type == "VARCHAR" and field_type not in {"number", "date"}:
        return f"nullif({column}, '')"
    full = platform_text(field_type, column, column_type)
    if column_type != "VARCHAR":
        return full
    short_cut = is_canonical_whole(column) if field_type == "number" else is_day_text(column)
    return f"CASE WHEN {short_cut} THEN {column} ELSE {full} END"


def _is_split(field: MappedField, value: str) -> bool:
    return field.type == "multi_select" and field.separator in value


def _same_decimal(one: str, other: str) -> bool:
    return one == other and (one in _INTEGERS or one.startswith("DECIMAL"))


def _marked(mark: str, text: str) -> str:
    return f"{literal(mark)} || {text}"


def _date_text(text: str, column: str, column_type: str, otherwise: str) -> str:
    source = column if is_moment_type(column_type) else text
    read = moment_text(moment(source, column_type))
    return f"CASE WHEN {text} IS NULL THEN NULL ELSE coalesce({read}, {otherwise}) END"


def _option(field: MappedField, text: str) -> str:
    if field.options is None:
        return text
    return _choose(text, field.options, _marked(UNKNOWN_OPTION, text))


def _choose(text: str, options: dict[str, str], otherwise: str) -> str:
    branches = " ".join(
        f"WHEN {nullable_literal(clean_text(value))} THEN {nullable_literal(clean_text(key))}"
        for value, key in options.items()
        if clean_text(value) is not None
    )
    return f"CASE {text} {branches} ELSE {otherwise} END" if branches else otherwise


def _contact_set(field: MappedField, column: str, column_type: str) -> str:
    chosen = _option(field, "item")
    if field.options is None and field.separator != "|":
        invalid = _marked(INVALID_VALUE, "item")
        chosen = f"CASE WHEN contains(item, '|') THEN {invalid} ELSE item END"
    items = f"list_transform({_items(column, column_type, field.separator)}, lambda item: {chosen})"
    joined = _joined(items)
    marked = f"list_filter({items}, lambda item: {is_marked('item')})"
    return f"CASE WHEN len({marked}) > 0 THEN list_min({marked}) ELSE {joined} END"


def _platform_set(column: str, column_type: str) -> str:
    return _joined(_items(column, column_type, "|"))


def _items(column: str, column_type: str, separator: str) -> str:
    if column_type.endswith("[]"):
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
