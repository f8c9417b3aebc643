"""What to change per contact: three-way comparison by authority, as lists of changes in SQL.

Creates the view `compared`, one wide row per candidate with the three texts of every field
(`contact_i`, `person_i`, `base_i`), and from it `proposal` with the lists `changes` and
`crm_changes`. A change is {field, action, before, after, reason}; identifiers that an update sets
appear as fields too, and in an add they stand in the list until `settle` has compared it with what
is under way.
"""

# ruff: noqa: S608  (SQL is composed here on purpose: names and texts go through reconcile.sql)

import duckdb

from vibes_pipelines.reconcile.identifiers import refuse_collision
from vibes_pipelines.reconcile.joins import joins_as_written
from vibes_pipelines.reconcile.sql import literal
from vibes_pipelines.sync_config import MappedField, SyncConfig


def build_proposal(
    connection: duckdb.DuckDBPyConnection, config: SyncConfig, base_fields: frozenset[str] | None
) -> None:
    """Creates the tables above; `base_fields` are the mapped fields a base knows, if any.

    Raises:
        HashCollision: a contact was paired with a person whose key only has the same hash.
    """
    connection.execute(_IDENTIFIED)
    refuse_collision(connection, "SELECT 1 FROM identified WHERE contact_key <> person_external_id")
    connection.execute(_compared_sql(len(config.fields), has_base=base_fields is not None))
    with joins_as_written(connection):
        connection.execute(_proposal_sql(config, base_fields or frozenset()))


def _proposal_sql(config: SyncConfig, base_fields: frozenset[str]) -> str:
    changes = {
        field.to: _change(field, index, has_base=field.to in base_fields)
        for index, field in enumerate(config.fields)
    }
    changes["external_person_id"] = _identifier(
        "external_person_id", "person_external_id", "contact_key", "adopt"
    )
    changes["mdn"] = _identifier("mdn", "person_mdn", "contact_mdn", "mdn_added")
    crm_changes = {
        field.to: _crm_change(field, index, has_base=field.to in base_fields)
        for index, field in enumerate(config.fields)
        if field.authority == "platform"
    }
    return f"""
        CREATE TEMP TABLE proposal AS
        SELECT contact_row, contact_key, person_key, coalesce(person_mdn, contact_mdn) AS mdn,
               matched_by, person_row IS NULL AS is_add,
               {_present(changes)} AS changes, {_present(crm_changes)} AS crm_changes
        FROM compared"""


# The narrow joins and the wide one are apart because joined at once they take ten times as long.
_IDENTIFIED = """
    CREATE TEMP TABLE identified AS
    SELECT k.contact_row, k.person_row, k.matched_by, c.key AS contact_key, c.mdn AS contact_mdn,
           p.person_key, p.key AS person_external_id, p.mdn AS person_mdn
    FROM candidate k
    JOIN contact_text c ON c.row_number = k.contact_row
    LEFT JOIN person_text p ON p.row_number = k.person_row"""


def _compared_sql(fields: int, *, has_base: bool) -> str:
    sides = [("v", "contact"), ("q", "person")]
    base, join = "false AS has_base", ""
    if has_base:
        sides.append(("b", "base"))
        base = "b.row_number IS NOT NULL AS has_base"
        join = "LEFT JOIN base_value b ON b.row_number = i.person_row"
    texts = [
        f"{alias}.value_{index} AS {side}_{index}"
        for index in range(fields)
        for alias, side in sides
    ]
    return f"""
        CREATE TEMP VIEW compared AS
        SELECT i.*, {base}, {", ".join(texts)}
        FROM contact_value v
        JOIN identified i ON v.row_number = i.contact_row
        LEFT JOIN person_value q ON q.row_number = i.person_row
        {join}"""


def _present(by_field: dict[str, str]) -> str:
    entries = ", ".join(by_field[name] for name in sorted(by_field))
    if not entries:
        return f"CAST([] AS {_LIST})"
    return f"list_filter([{entries}], lambda change: change IS NOT NULL)"


_LIST = "STRUCT(field VARCHAR, action VARCHAR, before VARCHAR, after VARCHAR, reason VARCHAR)[]"
_NULL = "NULL::VARCHAR"


def _entry(field: str, action: str, before: str, after: str, reason: str) -> str:
    return (
        f"{{'field': {literal(field)}, 'action': {literal(action)}, 'before': {before},"
        f" 'after': {after}, 'reason': {reason}}}"
    )


def _identifier(field: str, person: str, contact: str, reason: str) -> str:
    why = f"CASE WHEN person_row IS NULL THEN 'new_contact' ELSE {literal(reason)} END"
    return (
        f"CASE WHEN {person} IS NULL AND {contact} IS NOT NULL"
        f" THEN {_entry(field, 'set', _NULL, contact, why)} END"
    )


class _Cells:
    """The three texts of one field, and what the base says of them, as SQL."""

    def __init__(self, index: int, *, has_base: bool) -> None:
        self.contact, self.person = f"contact_{index}", f"person_{index}"
        base = f"base_{index}" if has_base else "NULL"
        known = "has_base" if has_base else "false"
        self.only_crm_changed = f"({known} AND {base} IS NOT DISTINCT FROM {self.person})"
        self.reason = (
            f"CASE WHEN NOT ({known}) THEN 'no_base'"
            f" WHEN {self.only_crm_changed} THEN 'crm_changed'"
            f" WHEN {base} IS NOT DISTINCT FROM {self.contact} THEN 'platform_changed'"
            " ELSE 'both_changed' END"
        )


def _change(field: MappedField, index: int, *, has_base: bool) -> str:
    """SQL for the change of one field at Vibes, or NULL."""
    cells = _Cells(index, has_base=has_base)
    contact, person = cells.contact, cells.person
    new = _entry(field.to, "set", _NULL, contact, "'new_contact'")
    branches = [
        f"WHEN {contact} IS NOT DISTINCT FROM {person} THEN NULL",
        f"WHEN person_row IS NULL THEN {new}",
    ]
    if field.authority == "fill":
        filled = _entry(field.to, "set", _NULL, contact, "'fill'")
        branches.append(f"WHEN {person} IS NULL THEN {filled}")
    else:
        allowed = cells.only_crm_changed if field.authority == "platform" else "true"
        value = _entry(field.to, "set", person, contact, cells.reason)
        branches.append(f"WHEN {contact} IS NOT NULL AND {allowed} THEN {value}")
        if field.when_null == "clear":
            cleared = _entry(field.to, "clear", person, _NULL, "'clear'")
            branches.append(f"WHEN {contact} IS NULL AND {allowed} THEN {cleared}")
    return f"CASE {' '.join(branches)} END"


def _crm_change(field: MappedField, index: int, *, has_base: bool) -> str:
    """SQL for the platform's value that the CRM has to take over, or NULL.

    `when_null` holds in this direction too: with `keep`, a blank says nothing, on neither side.
    """
    cells = _Cells(index, has_base=has_base)
    contact, person = cells.contact, cells.person
    carried = f"{cells.only_crm_changed} AND {contact} IS NOT NULL"
    says_something = f"{person} IS NOT NULL"
    if field.when_null == "clear":
        carried, says_something = cells.only_crm_changed, "true"
    entry = _entry(field.to, "set", contact, person, cells.reason)
    return (
        f"CASE WHEN person_row IS NOT NULL AND {contact} IS DISTINCT FROM {person}"
        f" AND {says_something} AND NOT ({carried}) THEN {entry} END"
    )
