"""What to change per contact: three-way comparison by authority, as lists of changes in SQL.

Creates the view `compared`, one wide row per candidate with the three texts of every field
(`contact_i`, `person_i`, `base_i`), and from it `proposal` with the lists `changes` and
`crm_changes`, and `drift` (field, kind, contacts), where the platform's value moved. A change is
{field, action, before, after, reason}; identifiers that an update sets appear as fields too, and in
an add they stand in the list until `settle` has compared it with what is under way.
"""

# ruff: noqa: S608  (SQL is composed here on purpose: names and texts go through reconcile.sql)

from collections.abc import Mapping

import duckdb

from vibes_pipelines.reconcile.base import Base, build_base_value, without_base
from vibes_pipelines.reconcile.identifiers import refuse_collision
from vibes_pipelines.reconcile.joins import joins_as_written
from vibes_pipelines.reconcile.moments import latest_possible
from vibes_pipelines.reconcile.payload import contact_times
from vibes_pipelines.reconcile.sql import literal
from vibes_pipelines.sync_config import MappedField, SyncConfig

CHANGES = "STRUCT(field VARCHAR, action VARCHAR, before VARCHAR, after VARCHAR, reason VARCHAR)[]"
_NULL = "NULL::VARCHAR"


def build_proposal(
    connection: duckdb.DuckDBPyConnection, config: SyncConfig, base: Base | None
) -> None:
    """Creates the tables above, three-way in the fields that the base can tell of.

    Raises:
        HashCollision: a contact was paired with a person whose key only has the same hash.
    """
    connection.execute(_IDENTIFIED)
    refuse_collision(connection, "SELECT 1 FROM identified WHERE contact_key <> person_external_id")
    if base is not None:
        build_base_value(connection, config, base)
    without = without_base(config, base)
    connection.execute(_compared_sql(config, has_base=base is not None))
    with joins_as_written(connection):
        connection.execute(_proposal_sql(config, without))
        connection.execute(_drift_sql(config, without))


def _proposal_sql(config: SyncConfig, without: Mapping[str, str]) -> str:
    changes = {
        field.to: _change(field, index, without.get(field.to))
        for index, field in enumerate(config.fields)
    }
    changes["external_person_id"] = _identifier(
        "external_person_id", "person_external_id", "contact_key", "adopt"
    )
    changes["mdn"] = _mdn(replaces_numbers=config.replaces_numbers)
    crm_changes = {
        field.to: _crm_change(field, index, without.get(field.to))
        for index, field in enumerate(config.fields)
        if field.authority in {"platform", "newest"}
    }
    return f"""
        CREATE TEMP TABLE proposal AS
        SELECT contact_row, contact_key, person_key, coalesce(person_mdn, contact_mdn) AS mdn,
               matched_by, person_row IS NULL AS is_add, false AS is_unmatched,
               {present(changes)} AS changes, {present(crm_changes)} AS crm_changes
        FROM compared"""


def _drift_sql(config: SyncConfig, without: Mapping[str, str]) -> str:
    """Contacts per field whose person has a value that only, or also, the platform changed."""
    counted = [
        (field.to, kind, f"coalesce(sum(CASE WHEN {condition} THEN 1 END), 0)")
        for index, field in enumerate(config.fields)
        if field.to not in without
        for kind, condition in _Cells(field, index, None).drift.items()
    ]
    if not counted:
        return "CREATE TEMP TABLE drift (field VARCHAR, kind VARCHAR, contacts BIGINT)"
    rows = ", ".join(
        f"{{'field': {literal(name)}, 'kind': {literal(kind)}, 'contacts': {rows}::BIGINT}}"
        for name, kind, rows in counted
    )
    return f"""
        CREATE TEMP TABLE drift AS
        SELECT unnest([{rows}], recursive := true) FROM compared WHERE person_row IS NOT NULL"""


# The number of a contact whose person was decided is not carried; see `decisions`.
# The narrow joins and the wide one are apart because joined at once they take ten times as long.
_IDENTIFIED = """
    CREATE TEMP TABLE identified AS
    SELECT k.contact_row, k.person_row, k.matched_by, c.key AS contact_key,
           CASE WHEN c.bad_mdn OR coalesce(k.matched_by = 'link', false) THEN NULL ELSE c.mdn
           END AS contact_mdn,
           p.person_key, p.key AS person_external_id, p.mdn AS person_mdn
    FROM candidate k
    JOIN contact_name c ON c.row_number = k.contact_row
    LEFT JOIN person_name p ON p.row_number = k.person_row"""


def _compared_sql(config: SyncConfig, *, has_base: bool) -> str:
    sides = [("v", "contact"), ("q", "person")]
    base, join = "false AS has_base", ""
    if has_base:
        sides.append(("b", "base"))
        base = "b.row_number IS NOT NULL AS has_base, b.unknown AS base_unknown"
        join = "LEFT JOIN base_value b ON b.row_number = i.person_row"
    texts = [
        f"{alias}.value_{index} AS {side}_{index}"
        for index in range(len(config.fields))
        for alias, side in sides
    ]
    times = [f"v.{name}" for name in contact_times(config)]
    texts += [*times, "q.updated_at AS person_time"] if times else []
    return f"""
        CREATE TEMP VIEW compared AS
        SELECT i.*, {base}, {", ".join(texts)}
        FROM contact_value v
        JOIN identified i ON v.row_number = i.contact_row
        LEFT JOIN person_value q ON q.row_number = i.person_row
        {join}"""


def present(by_field: dict[str, str]) -> str:
    """SQL for the list of these changes, in the order of their fields, without what is NULL."""
    entries = ", ".join(by_field[name] for name in sorted(by_field))
    if not entries:
        return f"CAST([] AS {CHANGES})"
    return f"list_filter([{entries}], lambda change: change IS NOT NULL)"


def entry(field: str, action: str, before: str, after: str, reason: str) -> str:
    """SQL for one change; all but the field and the action are SQL themselves."""
    return (
        f"{{'field': {literal(field)}, 'action': {literal(action)}, 'before': {before},"
        f" 'after': {after}, 'reason': {reason}}}"
    )


def _identifier(field: str, person: str, contact: str, reason: str) -> str:
    why = f"CASE WHEN person_row IS NULL THEN 'new_contact' ELSE {literal(reason)} END"
    return (
        f"CASE WHEN {person} IS NULL AND {contact} IS NOT NULL"
        f" THEN {entry(field, 'set', _NULL, contact, why)} END"
    )


def _mdn(*, replaces_numbers: bool) -> str:
    """SQL for the number that a person without one is given, or by policy in place of its own.

    A replacement has a `before`: the platform takes a number only where there is none, so that it
    is carried in two steps (the Vibes documentation, Person API).
    """
    added = _identifier("mdn", "person_mdn", "contact_mdn", "mdn_added")
    if not replaces_numbers:
        return added
    replaced = entry("mdn", "set", "person_mdn", "contact_mdn", "'mdn_replaced'")
    return f"CASE WHEN person_mdn <> contact_mdn THEN {replaced} ELSE {added} END"


class _Cells:
    """The three texts of one field, and what base and times say of them, as SQL.

    `no_base`: why the base cannot tell of the field, None where it can.
    """

    def __init__(self, field: MappedField, index: int, no_base: str | None) -> None:
        self.contact, self.person = f"contact_{index}", f"person_{index}"
        known, base = "false", "NULL"
        if no_base is None:
            base = f"base_{index}"
            known = f"(has_base AND NOT list_contains(base_unknown, {literal(field.to)}))"
        self.only_crm_changed = f"({known} AND {base} IS NOT DISTINCT FROM {self.person})"
        only_platform_changed = f"({known} AND {base} IS NOT DISTINCT FROM {self.contact})"
        differ = f"{self.contact} IS DISTINCT FROM {self.person}"
        self.drift = {
            "platform_changed": f"{differ} AND {only_platform_changed}",
            "both_changed": f"{differ} AND {known} AND NOT {self.only_crm_changed}"
            f" AND NOT {only_platform_changed}",
        }
        no_time, self.platform_is_newer = "", "false"
        if field.authority == "newest":
            time = f"changed_at_{index}"
            no_time = f" WHEN {time} IS NULL OR person_time IS NULL THEN 'no_time'"
            self.platform_is_newer = (
                f"CASE WHEN {self.only_crm_changed} THEN false WHEN {only_platform_changed}"
                f" THEN true ELSE coalesce(person_time > {latest_possible(time)}, false) END"
            )
        unknown = f"CASE WHEN has_base THEN {literal(no_base or 'no_base')} ELSE 'no_base' END"
        self.reason = (
            f"CASE WHEN {self.only_crm_changed} THEN 'crm_changed'"
            f" WHEN {only_platform_changed} THEN 'platform_changed'{no_time}"
            f" WHEN {known} THEN 'both_changed' ELSE {unknown} END"
        )


def _change(field: MappedField, index: int, no_base: str | None) -> str:
    """SQL for the change of one field at Vibes, or NULL."""
    cells = _Cells(field, index, no_base)
    contact, person = cells.contact, cells.person
    new = entry(field.to, "set", _NULL, contact, "'new_contact'")
    branches = [
        f"WHEN {contact} IS NOT DISTINCT FROM {person} THEN NULL",
        f"WHEN person_row IS NULL THEN {new}",
    ]
    if field.authority == "fill":
        filled = entry(field.to, "set", _NULL, contact, "'fill'")
        branches.append(f"WHEN {person} IS NULL THEN {filled}")
    else:
        allowed = {
            "crm": "true",
            "platform": cells.only_crm_changed,
            "newest": f"NOT ({cells.platform_is_newer})",
        }[field.authority]
        value = entry(field.to, "set", person, contact, cells.reason)
        branches.append(f"WHEN {contact} IS NOT NULL AND {allowed} THEN {value}")
        if field.when_null == "clear":
            cleared = entry(field.to, "clear", person, _NULL, "'clear'")
            branches.append(f"WHEN {contact} IS NULL AND {allowed} THEN {cleared}")
    return f"CASE {' '.join(branches)} END"


def _crm_change(field: MappedField, index: int, no_base: str | None) -> str:
    """SQL for the platform's value that the CRM has to take over, or NULL.

    `when_null` holds in this direction too: with `keep`, a blank says nothing, on neither side.
    """
    cells = _Cells(field, index, no_base)
    contact, person = cells.contact, cells.person
    if field.authority == "newest":
        wins = cells.platform_is_newer
    elif field.when_null == "clear":
        wins = f"NOT {cells.only_crm_changed}"
    else:
        wins = f"NOT ({cells.only_crm_changed} AND {contact} IS NOT NULL)"
    says_something = "true" if field.when_null == "clear" else f"{person} IS NOT NULL"
    written = entry(field.to, "set", contact, person, cells.reason)
    return (
        f"CASE WHEN person_row IS NOT NULL AND {contact} IS DISTINCT FROM {person}"
        f" AND {says_something} AND ({wins}) THEN {written} END"
    )
