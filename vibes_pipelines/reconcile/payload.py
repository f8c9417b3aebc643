"""Phase two: the values of the mapped fields, read only for the rows that need them.

Creates `candidate` (contact_row, person_row or NULL for an add, matched_by), and `contact_raw` and
`person_raw`: how each row is named (row_number, key, person_key, mdn, and bad_mdn of a contact),
and its values as they are: `contact_i` in the order of `scan.raw_columns`, `person_i` in the order
of the fields; where an authority is `newest`, also the person's `updated_at`. A contact whose value
is an unknown option or cannot be read becomes a finding. Semi-joins, because the scan then skips
what no row needs; a join would have it decode every value.
"""

# ruff: noqa: S608  (SQL is composed here on purpose: names and texts go through reconcile.sql)

from dataclasses import dataclass

import duckdb

from vibes_pipelines.reconcile.consent import UNREADABLE
from vibes_pipelines.reconcile.home_numbers import numbered
from vibes_pipelines.reconcile.identifiers import NONE, Identifiers, texts_sql
from vibes_pipelines.reconcile.moments import moment_of
from vibes_pipelines.reconcile.narrow import region_of
from vibes_pipelines.reconcile.phone import e164_number
from vibes_pipelines.reconcile.scan import Sides, raw_columns
from vibes_pipelines.reconcile.sources import ROW, Source
from vibes_pipelines.reconcile.sql import clean, literal
from vibes_pipelines.reconcile.values import (
    INVALID_VALUE,
    UNKNOWN_OPTION,
    as_text,
    can_be_marked,
    contact_text,
    platform_text,
    quick_difference,
)
from vibes_pipelines.sync_config import SyncConfig

NO_TIME = "NULL::TIMESTAMP"


def build_values(
    connection: duckdb.DuckDBPyConnection,
    config: SyncConfig,
    sides: Sides,
) -> None:
    """Creates the tables above and adds the findings on values."""
    connection.execute(_CANDIDATE)
    if sides.is_landed:
        connection.execute(_DOUBTFUL)
    connection.execute(_contact_raw_sql(config, sides))
    if connection.execute("SELECT 1 FROM contact WHERE has_issue LIMIT 1").fetchall():
        _find_bad_values(connection, config, sides.contacts)
    connection.execute(_person_raw_sql(config, sides))
    if sides.is_landed:
        for side in ("contact", "person"):
            connection.execute(_JUDGED.format(side=side))
            connection.execute(f"CREATE TEMP VIEW {side}_name AS SELECT {_NAME} FROM {side}_raw")


@dataclass(frozen=True)
class Compared:
    """SQL over a row of `contact_raw` and one of `person_raw`: the texts of one field.

    Once cleaned they are canonical. Where `may_differ`, which costs less, is false the two are
    equal then. `changed_at` is when the contact's value was set.
    """

    contact: str
    person: str
    may_differ: str
    changed_at: str


def compared_fields(config: SyncConfig, sides: Sides) -> list[Compared]:
    """Every mapped field, in their order."""
    return [_compared(config, sides, index) for index in range(len(config.fields))]


def _compared(config: SyncConfig, sides: Sides, index: int) -> Compared:
    field = config.fields[index]
    contact = _of_contact(config, sides.contacts, field.from_)
    person = f"person_{index}", sides.persons.column(field.to, f"fields.to: {field.to}")[1]
    text, platform = contact_text(field, *contact), platform_text(field.type, *person)
    if (text, platform) == (clean(contact[0]), clean(person[0])):
        text, platform = contact[0], person[0]
        may_differ = f"{text} IS DISTINCT FROM {platform}"
    else:
        may_differ = quick_difference(field, contact, person)
    changed_at = NO_TIME
    if field.changed_at is not None:
        changed_at = moment_of(*_of_contact(config, sides.contacts, field.changed_at))
    return Compared(text, platform, may_differ, changed_at)


def contact_values_sql(config: SyncConfig, contacts: Source, rows_sql: str) -> str:
    """SQL for row_number and the canonical texts `value_i` of these rows of `contact_raw`."""
    texts = "".join(
        f", {contact_text(field, *_of_contact(config, contacts, field.from_))} AS value_{index}"
        for index, field in enumerate(config.fields)
    )
    return f"""
        SELECT row_number{texts}
        FROM (SELECT * FROM contact_raw WHERE row_number IN ({rows_sql}))"""


def has_times(config: SyncConfig) -> bool:
    """Whether the time of a value decides which side is right."""
    return any(field.changed_at is not None for field in config.fields)


def _of_contact(config: SyncConfig, contacts: Source, name: str) -> tuple[str, str]:
    """A column of the contacts, and its type, as it stands in `contact_raw`."""
    column = contacts.column(name, f"fields: {name}")
    return f"contact_{raw_columns(config, contacts).index(column)}", column[1]


def _contact_raw_sql(config: SyncConfig, sides: Sides) -> str:
    """A table of its own, because texts made while it is unpacked take several times as long."""
    raw = raw_columns(config, sides.contacts)
    if sides.is_landed:
        columns = "".join(f", {column} AS contact_{index}" for index, (column, _) in enumerate(raw))
        values = "".join(f", contact_{index}" for index in range(len(raw)))
        return f"""
            CREATE TEMP TABLE contact_raw AS
            WITH wanted AS (
                SELECT {_identified(sides.contact_ids)}{columns} FROM {sides.contacts.relation}
                WHERE {ROW} IN (SELECT contact_row FROM candidate
                                UNION ALL SELECT contact_row FROM doubtful)),
            {numbered("wanted", "phone", region_of(config))}
            SELECT {_NAMED}{values} FROM numbered"""
    columns = "".join(
        f", {_typed(f'raw[{index + 1}]', kind)} AS contact_{index}"
        for index, (_, kind) in enumerate(raw)
    )
    return f"""
        CREATE TEMP TABLE contact_raw AS
        SELECT * EXCLUDE (raw){columns} FROM raw_contact
        WHERE row_number IN (SELECT contact_row FROM candidate
                             UNION ALL SELECT row_number FROM contact WHERE has_issue)"""


def _person_raw_sql(config: SyncConfig, sides: Sides) -> str:
    columns = "".join(
        f", {sides.persons.column(field.to, f'fields.to: {field.to}')[0]} AS person_{index}"
        for index, field in enumerate(config.fields)
    )
    values = "".join(f", person_{index}" for index in range(len(config.fields)))
    if has_times(config):
        columns += f", {_updated_at(sides.persons)} AS updated_at"
        values += ", updated_at"
    if not sides.is_landed:
        wanted = "SELECT person_row FROM candidate"
        return f"""
            CREATE TEMP TABLE person_raw AS
            SELECT * FROM ({texts_sql("person", wanted)}) JOIN (
                SELECT {ROW} AS row_number{columns} FROM {sides.persons.relation}
                WHERE {ROW} IN ({wanted}))
              USING (row_number)"""
    return f"""
        CREATE TEMP TABLE person_raw AS
        WITH wanted AS (
            SELECT {_identified(sides.person_ids)}{columns} FROM {sides.persons.relation}
            WHERE {ROW} IN (SELECT person_row FROM candidate
                            UNION ALL SELECT person_row FROM doubtful
                            UNION ALL SELECT row_number FROM finding WHERE source = 'person')),
        numbered AS (SELECT *, {e164_number("phone")} AS mdn FROM wanted)
        SELECT {_NAMED}{values} FROM numbered"""


_NAME = "row_number, key, person_key, bad_mdn, mdn"

# Where the text of a number is no E.164 yet, and needs the judgement that stands among the hashes.
_NAMED = """row_number, key, person_key, false AS bad_mdn, coalesce('+' || mdn, phone) AS mdn,
            mdn IS NULL AND phone IS NOT NULL AS is_spelt"""


def _typed(text: str, kind: str) -> str:
    """SQL for a value in its own type again; a record is only read as text."""
    is_record = kind.startswith(("STRUCT", "MAP", "UNION", "VARIANT")) and not kind.endswith("]")
    return text if is_record or kind == "VARCHAR" else f"CAST({text} AS {kind})"


def _updated_at(persons: Source) -> str:
    """When anything of the person last changed, where the share's `updated_at` is mapped."""
    if not persons.has("updated_at"):
        return NO_TIME
    return moment_of(*persons.column("updated_at", "authority newest"))


def _identified(ids: Identifiers) -> str:
    """The columns that name a row: landed data is read once for names and values."""
    phone = as_text(*ids.phone) if ids.phone else NONE
    return f"""{ROW} AS row_number, {ids.key} AS key, {ids.person_key} AS person_key,
               {phone} AS phone"""


def _find_bad_values(
    connection: duckdb.DuckDBPyConnection, config: SyncConfig, contacts: Source
) -> None:
    values = contact_values_sql(config, contacts, "SELECT row_number FROM contact WHERE has_issue")
    for kind, mark, words in (
        ("unknown_option", UNKNOWN_OPTION, "not among the options of"),
        ("invalid_value", INVALID_VALUE, "cannot be read as the type of"),
    ):
        marked = [
            f"CASE WHEN starts_with(v.value_{index}, {literal(mark)}) THEN {literal(field.to)} END"
            for index, field in enumerate(config.fields)
            if can_be_marked(field)
        ]
        if kind == "invalid_value":
            marked += [
                f"CASE WHEN c.state_{index} = {UNREADABLE} OR c.is_unreadable_{index}"
                f" THEN {literal(consent.from_)} END"
                for index, consent in enumerate(config.consents)
            ]
        if marked:
            connection.execute(
                f"""
                INSERT INTO finding
                SELECT 'contact', v.row_number, ?, ? || ' ' || array_to_string(names, ', ')
                FROM (SELECT v.row_number,
                             list_sort(list_filter([{", ".join(marked)}],
                                                   lambda name: name IS NOT NULL)) AS names
                      FROM ({values}) v JOIN contact c USING (row_number)) v
                WHERE len(names) > 0""",
                [kind, words],
            )


# Every contact that passes, is not in doubt so far, and is new, loosely matched, or different. Who
# was linked by a decision alone is a match, and not new.
_CANDIDATE = """
    CREATE TEMP TABLE candidate AS
    SELECT contact_row, person_row, matched_by FROM match
    WHERE differs AND passes AND NOT is_odd
    UNION ALL
    SELECT l.contact_row, NULL, NULL
    FROM loose l
    ANTI JOIN claim ON claim.contact_row = l.contact_row
    ANTI JOIN finding ON finding.source = 'contact' AND finding.row_number = l.contact_row
    ANTI JOIN (SELECT contact_row FROM decided WHERE why IS NULL AND person_row IS NOT NULL) held
        ON held.contact_row = l.contact_row
    WHERE l.passes AND NOT l.has_issue"""

# Contacts in doubt, also those whose values are yet to be judged, with the one person they claim.
_DOUBTFUL = """
    CREATE TEMP TABLE doubtful AS
    WITH suspect AS (
        SELECT row_number AS contact_row FROM finding WHERE source = 'contact'
        UNION SELECT row_number FROM contact WHERE has_issue),
    link AS (
        SELECT contact_row, person_row FROM pair SEMI JOIN suspect USING (contact_row)
        UNION ALL SELECT contact_row, person_row FROM claim SEMI JOIN suspect USING (contact_row))
    SELECT contact_row, CASE WHEN count(DISTINCT person_row) = 1 THEN min(person_row) END
               AS person_row
    FROM suspect LEFT JOIN link USING (contact_row) GROUP BY contact_row"""

_JUDGED = """
    UPDATE {side}_raw
    SET bad_mdn = judged.bad_mdn,
        mdn = CASE WHEN judged.mdn > 0 THEN '+' || judged.mdn ELSE {side}_raw.mdn END
    FROM (SELECT row_number, mdn, bad_mdn FROM {side}
          WHERE row_number IN (SELECT row_number FROM {side}_raw WHERE is_spelt)) judged
    WHERE {side}_raw.row_number = judged.row_number"""
