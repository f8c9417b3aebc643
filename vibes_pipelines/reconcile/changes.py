"""What to change per contact: three-way comparison by authority, as lists of changes in SQL.

Creates `difference`, one row per candidate with `cells`, the list of what differs: each {field,
contact, person, base, time}, the texts of the three sides and when the contact's was set; without
base, or time, where no field has any. From it, and from `unmatched_proposal`, the view `proposal`
with the lists `changes` and `crm_changes`, and `drift` (field, kind, contacts), where the
platform's value moved. A change is {field, action, before, after, reason}; identifiers that an
update sets appear as fields too, and in an add they stand in the list until `settle` has compared
it with what is under way.
"""

# ruff: noqa: S608  (SQL is composed here on purpose: names and texts go through reconcile.sql)

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import duckdb

from vibes_pipelines.reconcile.base import Base, build_base_value, without_base
from vibes_pipelines.reconcile.characters import find_wrong_texts
from vibes_pipelines.reconcile.decisions import LINKED
from vibes_pipelines.reconcile.identifiers import refuse_collision
from vibes_pipelines.reconcile.joins import joins_as_written
from vibes_pipelines.reconcile.moments import latest_possible
from vibes_pipelines.reconcile.payload import NO_TIME, Compared, compared_fields, has_times
from vibes_pipelines.reconcile.scan import Sides
from vibes_pipelines.reconcile.sql import clean, literal, text_list
from vibes_pipelines.sync_config import MappedField, SyncConfig

CHANGES = "STRUCT(field VARCHAR, action VARCHAR, before VARCHAR, after VARCHAR, reason VARCHAR)[]"
_CLEANED = ("contact", "person")
_NULL = "NULL::VARCHAR"


def build_proposal(
    connection: duckdb.DuckDBPyConnection, config: SyncConfig, sides: Sides, base: Base | None
) -> None:
    """Creates the tables above, three-way in the fields that the base can tell of.

    A text that cannot be right becomes a finding, and its contact is no candidate any more.

    Raises:
        HashCollision: a contact was paired with a person whose key only has the same hash.
    """
    if base is not None:
        build_base_value(connection, config, base)
    without = without_base(config, base)
    with joins_as_written(connection):
        connection.execute(_difference_sql(config, sides, without, has_base=base is not None))
    refuse_collision(connection, "SELECT 1 FROM difference WHERE contact_key <> person_external_id")
    connection.execute(_proposal_sql(config, without))
    find_wrong_texts(connection, config)
    connection.execute(_drift_sql(config, without))


@dataclass(frozen=True)
class _Cell:
    """SQL for what there is to tell of one field or identifier, if it `may_differ`."""

    field: str
    contact: str
    person: str
    may_differ: str
    base: str = _NULL
    time: str = NO_TIME


def _difference_sql(
    config: SyncConfig, sides: Sides, without: Mapping[str, str], *, has_base: bool
) -> str:
    """Few of a candidate's values differ: all that costs something is done to those alone."""
    base, join = f"false AS has_base, {_NULL}[] AS base_unknown", ""
    if has_base:
        base = r"""b.row_number IS NOT NULL AS has_base, b.unknown AS base_unknown,
                   b.* SIMILAR TO 'value_\d+'"""
        join = "LEFT JOIN base_value b ON b.row_number = k.person_row"
    person_time = "q.updated_at" if has_times(config) else NO_TIME
    cells = _cells(config, compared_fields(config, sides), without)
    return rf"""
        CREATE TEMP TABLE difference AS
        SELECT {_KEPT}, {_told(cells)} AS cells
        FROM (
            SELECT k.*, v.key AS contact_key, {_CARRIED_MDN} AS contact_mdn, q.person_key,
                   q.key AS person_external_id, q.mdn AS person_mdn,
                   {person_time} AS person_time, {base},
                   v.* SIMILAR TO 'contact_\d+', q.* SIMILAR TO 'person_\d+'
            FROM contact_raw v
            JOIN candidate k ON v.row_number = k.contact_row
            LEFT JOIN person_raw q ON q.row_number = k.person_row
            {join})"""


# The number of a contact whose person was decided is not carried; see `decisions`.
_CARRIED_MDN = (
    f"CASE WHEN NOT v.bad_mdn AND k.matched_by IS DISTINCT FROM {literal(LINKED)} THEN v.mdn END"
)

_KEPT = """contact_row, person_row, matched_by, contact_key, contact_mdn, person_key,
           person_external_id, person_mdn, has_base, base_unknown, person_time"""


def _cells(
    config: SyncConfig, compared: Sequence[Compared], without: Mapping[str, str]
) -> list[_Cell]:
    """In the order of their names, which is the one of the changes."""
    cells = [
        _Cell(
            field.to,
            one.contact,
            one.person,
            one.may_differ,
            base=_NULL if field.to in without else f"value_{index}",
            time=one.changed_at,
        )
        for index, (field, one) in enumerate(zip(config.fields, compared, strict=True))
    ]
    is_new = "{1} IS NULL AND {0} IS NOT NULL"
    key, mdn = ("contact_key", "person_external_id"), ("contact_mdn", "person_mdn")
    cells.append(_Cell("external_person_id", *key, is_new.format(*key)))
    # The platform takes a number only where there is none: a replacement is carried in two steps
    # (the Vibes documentation, Person API).
    is_replaced = " OR {1} <> {0}" if config.replaces_numbers else ""
    cells.append(_Cell("mdn", *mdn, (is_new + is_replaced).format(*mdn)))
    return sorted(cells, key=lambda cell: cell.field)


def _told(cells: Sequence[_Cell]) -> str:
    """SQL for the list of what differs. To clean a canonical text again changes nothing."""
    parts = ["contact", "person", *_parts_of_some(cells)]
    told = ", ".join(
        f"CASE WHEN {cell.may_differ} THEN {_struct(cell, parts)} END" for cell in cells
    )
    cleaned = ", ".join(
        f"{literal(part)}: {clean(f'cell.{part}') if part in _CLEANED else f'cell.{part}'}"
        for part in ("field", *parts)
    )
    told = f"list_filter([{told}], lambda cell: cell.field IS NOT NULL)"
    told = f"list_transform({told}, lambda cell: {{{cleaned}}})"
    return f"list_filter({told}, lambda cell: cell.contact IS DISTINCT FROM cell.person)"


def _parts_of_some(cells: Sequence[_Cell]) -> list[str]:
    """Those of base and time that some cell has."""
    none = {"base": _NULL, "time": NO_TIME}
    return [part for part in none if {getattr(cell, part) for cell in cells} != {none[part]}]


def _struct(cell: _Cell, parts: Sequence[str]) -> str:
    given = "".join(f", {literal(part)}: {getattr(cell, part)}" for part in parts)
    return f"{{'field': {literal(cell.field)}{given}}}"


def _proposal_sql(config: SyncConfig, without: Mapping[str, str]) -> str:
    time = "cell.time" if has_times(config) else NO_TIME
    changes = {field.to: _change(field, without.get(field.to), time) for field in config.fields}
    changes["external_person_id"] = _identifier("'adopt'")
    changes["mdn"] = _identifier(
        "CASE WHEN cell.person IS NULL THEN 'mdn_added' ELSE 'mdn_replaced' END"
    )
    crm_changes = {
        field.to: _crm_change(field, without.get(field.to), time)
        for field in config.fields
        if field.is_written_back
    }
    return f"""
        CREATE TEMP VIEW proposal AS
        SELECT contact_row, contact_key, person_key, coalesce(person_mdn, contact_mdn) AS mdn,
               matched_by, person_row IS NULL AS is_add, false AS is_unmatched,
               {_called_for(changes)} AS changes, {_called_for(crm_changes)} AS crm_changes
        FROM difference
        UNION ALL BY NAME FROM unmatched_proposal"""


def _called_for(by_field: Mapping[str, str]) -> str:
    """SQL for the list of changes that the cells call for; of each field the SQL for its own."""
    if not by_field:
        return f"CAST([] AS {CHANGES})"
    alike: dict[str, list[str]] = {}
    for field, change in sorted(by_field.items()):
        alike.setdefault(change, []).append(field)
    branches = " ".join(
        f"WHEN cell.field IN {text_list(fields)} THEN {change}" for change, fields in alike.items()
    )
    changes = f"list_transform(cells, lambda cell: CASE {branches} END)"
    return f"list_filter({changes}, lambda change: change IS NOT NULL)"


def _drift_sql(config: SyncConfig, without: Mapping[str, str]) -> str:
    """Contacts per field whose person has a value that only, or also, the platform changed."""
    three_way = [field.to for field in config.fields if field.to not in without]
    if not three_way:
        return "CREATE TEMP TABLE drift (field VARCHAR, kind VARCHAR, contacts BIGINT)"
    return f"""
        CREATE TEMP TABLE drift AS
        SELECT cell.field AS field,
               CASE WHEN {_ONLY_PLATFORM_CHANGED} THEN 'platform_changed' ELSE 'both_changed'
               END AS kind,
               count(*) AS contacts
        FROM (SELECT unnest(cells) AS cell, has_base, base_unknown
              FROM difference WHERE person_row IS NOT NULL)
        WHERE cell.field IN {text_list(three_way)} AND {_KNOWN} AND NOT {_ONLY_CRM_CHANGED}
        GROUP BY ALL"""


def present(by_field: dict[str, str]) -> str:
    """SQL for the list of these, in the order of their fields, without what is NULL."""
    entries = ", ".join(by_field[name] for name in sorted(by_field))
    if not entries:
        return f"CAST([] AS {CHANGES})"
    return f"list_filter([{entries}], lambda one: one IS NOT NULL)"


def entry(field: str, action: str, before: str, after: str, reason: str) -> str:
    """SQL for one change; all but the action are SQL themselves."""
    return (
        f"{{'field': {field}, 'action': {literal(action)}, 'before': {before},"
        f" 'after': {after}, 'reason': {reason}}}"
    )


def _set(before: str, after: str, reason: str) -> str:
    """SQL for setting the field of a cell."""
    return entry("cell.field", "set", before, after, reason)


def _identifier(reason: str) -> str:
    """SQL for giving the person an identifier that it lacks, or by policy another number."""
    why = f"CASE WHEN person_row IS NULL THEN 'new_contact' ELSE {reason} END"
    return _set("cell.person", "cell.contact", why)


_KNOWN = "(has_base AND NOT list_contains(base_unknown, cell.field))"
_ONLY_CRM_CHANGED = f"({_KNOWN} AND cell.base IS NOT DISTINCT FROM cell.person)"
_ONLY_PLATFORM_CHANGED = f"({_KNOWN} AND cell.base IS NOT DISTINCT FROM cell.contact)"


class _Judged:
    """What base and times say of a cell of one field, as SQL.

    `no_base`: why the base cannot tell of the field, None where it can. `time`: SQL for when the
    contact's value was set.
    """

    def __init__(self, field: MappedField, no_base: str | None, time: str) -> None:
        known = _KNOWN if no_base is None else "false"
        self.only_crm_changed = _ONLY_CRM_CHANGED if no_base is None else "false"
        only_platform_changed = _ONLY_PLATFORM_CHANGED if no_base is None else "false"
        no_time, self.platform_is_newer = "", "false"
        if field.authority == "newest":
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


def _change(field: MappedField, no_base: str | None, time: str) -> str:
    """SQL for the change at Vibes that a cell calls for, or NULL."""
    judged = _Judged(field, no_base, time)
    new = _set(_NULL, "cell.contact", "'new_contact'")
    branches = [f"WHEN person_row IS NULL THEN {new}"]
    if field.authority == "fill":
        filled = _set(_NULL, "cell.contact", "'fill'")
        branches.append(f"WHEN cell.person IS NULL THEN {filled}")
    else:
        allowed = {
            "crm": "true",
            "platform": judged.only_crm_changed,
            "newest": f"NOT ({judged.platform_is_newer})",
        }[field.authority]
        value = _set("cell.person", "cell.contact", judged.reason)
        branches.append(f"WHEN cell.contact IS NOT NULL AND {allowed} THEN {value}")
        if field.when_null == "clear":
            cleared = entry("cell.field", "clear", "cell.person", _NULL, "'clear'")
            branches.append(f"WHEN cell.contact IS NULL AND {allowed} THEN {cleared}")
    return f"CASE {' '.join(branches)} END"


def _crm_change(field: MappedField, no_base: str | None, time: str) -> str:
    """SQL for the platform's value that the CRM has to take over, or NULL.

    `when_null` holds in this direction too: with `keep`, a blank says nothing, on neither side.
    """
    judged = _Judged(field, no_base, time)
    if field.authority == "newest":
        wins = judged.platform_is_newer
    elif field.when_null == "clear":
        wins = f"NOT {judged.only_crm_changed}"
    else:
        wins = f"NOT ({judged.only_crm_changed} AND cell.contact IS NOT NULL)"
    says_something = "true" if field.when_null == "clear" else "cell.person IS NOT NULL"
    written = _set("cell.contact", "cell.person", judged.reason)
    return f"CASE WHEN person_row IS NOT NULL AND {says_something} AND ({wins}) THEN {written} END"
