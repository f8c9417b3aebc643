"""Cases: the rows of the quarantine with what they rest on, and what was decided about them.

A case is one finding about one contact or person. Its `record` is the strongest identifier of that
row and stays the same over days; its `evidence` is a fingerprint of all that the doubt rests on:
its own identifiers, the detail, the other side's rows that it points to, who shares its number,
and for doubts about values these values. Creates `case_row`, from which quarantine.parquet
and cases.parquet are written; the latter is no part of the diff set.
"""

# ruff: noqa: S608  (SQL is composed here on purpose: names and texts go through reconcile.sql)

from pathlib import Path

import duckdb

from vibes_pipelines.reconcile.decisions import CONTACT_RECORD, OWN
from vibes_pipelines.reconcile.findings import OF_FIELDS
from vibes_pipelines.reconcile.payload import contact_values_sql
from vibes_pipelines.reconcile.sources import Source
from vibes_pipelines.reconcile.sql import literal, text_list
from vibes_pipelines.sync_config import SyncConfig

CASES = "cases.parquet"
SHOWN_OTHERS = 10
"""How many rows of the other side a case names."""


def build_cases(
    connection: duckdb.DuckDBPyConnection, config: SyncConfig, contacts: Source
) -> None:
    """Creates `case_row` from the findings and decisions of a finished reconcile."""
    if not connection.execute("SELECT 1 FROM finding LIMIT 1").fetchall():
        connection.execute(_NO_CASE)
        return
    connection.execute(_NAMED)
    connection.execute(_OTHERS)
    texts = "SELECT NULL::BIGINT AS row_number WHERE false"
    values = "NULL"
    if connection.execute(f"{_DOUBTED_VALUES} LIMIT 1").fetchall():
        texts = contact_values_sql(config, contacts, _DOUBTED_VALUES)
        values = ", ".join(
            f"CASE WHEN list_contains(n.fields, {literal(field.to)}) THEN v.value_{index} END"
            for index, field in enumerate(config.fields)
        )
    connection.execute(_CASE.format(values=values, texts=texts))


def write_cases(connection: duckdb.DuckDBPyConnection, folder: Path) -> None:
    """Writes cases.parquet, sorted."""
    connection.execute(
        f"COPY (SELECT {', '.join(_WRITTEN)} FROM case_row ORDER BY ALL)"
        f" TO {literal(str(folder / CASES))} (FORMAT parquet, COMPRESSION zstd)"
    )


_WRITTEN = (
    *("kind", "source", "record", "external_person_id", "person_key", "mdn", "detail"),
    *("evidence", "own", "others", "state"),
)

_NO_CASE = f"""
    CREATE TEMP TABLE case_row (
        {", ".join(f"{name} VARCHAR{'[]' if name == 'others' else ''}" for name in _WRITTEN)})"""

QUARANTINE = "SELECT kind, source, external_person_id, person_key, mdn, detail FROM case_row"
"""The rows of quarantine.parquet. A contact's mdn is shown as it was given when it is invalid."""


def record_of(source: str, key: str | None, person_key: str | None, mdn: str | None) -> str | None:
    """The record of a contact or person with these identifiers; None when it has none."""
    names = {CONTACT_RECORD: key, "mdn ": mdn}
    if source == "person":
        names = {"person_key ": person_key} | names
    return next((f"{name}{value}" for name, value in names.items() if value), None)


# `fields` are those that a doubt about values names at the end of its detail.
_NAMED = f"""
    CREATE TEMP TABLE named AS
    WITH person_of AS (
        SELECT contact_row, min(person_row) AS person_row
        FROM (SELECT contact_row, person_row FROM pair
              UNION ALL SELECT contact_row, person_row FROM claim)
        SEMI JOIN finding ON contact_row = finding.row_number AND finding.source = 'contact'
        GROUP BY contact_row HAVING count(DISTINCT person_row) = 1)
    SELECT f.kind, f.source, f.row_number, c.key AS external_person_id, p.person_key, c.mdn,
           f.detail, coalesce({literal(CONTACT_RECORD)} || c.key, 'mdn ' || c.mdn) AS record,
           {OWN.format(row="c")} AS own,
           CASE WHEN f.kind IN {text_list(OF_FIELDS)}
                THEN string_split(regexp_replace(f.detail, '^.* (of|in) ', ''), ', ')
           END AS fields
    FROM finding f JOIN contact_name c USING (row_number)
    LEFT JOIN person_of o ON o.contact_row = f.row_number
    LEFT JOIN person_name p ON p.row_number = o.person_row
    WHERE f.source = 'contact'
    UNION ALL
    SELECT f.kind, f.source, f.row_number, p.key, p.person_key, p.mdn, f.detail,
           coalesce('person_key ' || p.person_key, {literal(CONTACT_RECORD)} || p.key,
                    'mdn ' || p.mdn),
           {OWN.format(row="p")}, NULL
    FROM finding f JOIN person_name p USING (row_number)
    WHERE f.source = 'person'"""

# Sums of hashes, because lists of everybody who shares a number grow with its square. Only rows in
# doubt and what they point to are marked: a mark costs more than all that is done with it.
_OTHERS = f"""
    CREATE TEMP TABLE others AS
    WITH doubt AS (SELECT DISTINCT source, row_number FROM finding),
         link AS NOT MATERIALIZED (
            SELECT contact_row, person_row FROM pair
            UNION ALL SELECT contact_row, person_row FROM claim),
         of_contact AS (
            SELECT DISTINCT contact_row, person_row FROM link
            SEMI JOIN doubt ON doubt.source = 'contact' AND doubt.row_number = contact_row),
         of_person AS (
            SELECT DISTINCT contact_row, person_row FROM link
            SEMI JOIN doubt ON doubt.source = 'person' AND doubt.row_number = person_row),
         person_mark AS MATERIALIZED (
            SELECT row_number, to_json([person_key, key, mdn])::VARCHAR AS text,
                   md5_number_lower(text)::HUGEINT AS mark FROM person_name
            SEMI JOIN of_contact ON person_row = row_number),
         contact_mark AS MATERIALIZED (
            SELECT row_number, to_json([key, mdn])::VARCHAR AS text,
                   md5_number_lower(text)::HUGEINT AS mark FROM contact_name
            SEMI JOIN of_person ON contact_row = row_number
            SEMI JOIN doubt ON doubt.source = 'contact'
                AND doubt.row_number = contact_name.row_number)
    SELECT 'contact' AS source, contact_row AS row_number, sum(p.mark) AS mark,
           min(p.text, {SHOWN_OTHERS}) AS texts
    FROM of_contact JOIN person_mark p ON p.row_number = person_row GROUP BY ALL
    UNION ALL
    SELECT 'person', person_row, sum(c.mark), min(c.text, {SHOWN_OTHERS})
    FROM of_person JOIN contact_mark c ON c.row_number = contact_row GROUP BY ALL"""

_DOUBTED_VALUES = f"""
    SELECT row_number FROM finding WHERE source = 'contact' AND kind IN {text_list(OF_FIELDS)}"""

# The state is open, ignored, or lapsed: a decision stands and does not hold (any more).
_CASE = """
    CREATE TEMP TABLE case_row AS
    WITH sharing AS (
        SELECT source, mdn, sum(md5_number_lower(record)::HUGEINT) AS mark FROM named
        WHERE kind = 'shared_mdn' GROUP BY ALL),
    based AS (
        SELECT n.*, others.texts AS others,
               sha256(to_json([n.detail, n.own, others.mark::VARCHAR,
                               CASE WHEN n.kind = 'shared_mdn' THEN sharing.mark::VARCHAR END,
                               CASE WHEN n.fields IS NOT NULL AND v.row_number IS NOT NULL
                                    THEN to_json([{values}])::VARCHAR END])::VARCHAR) AS evidence
        FROM named n
        LEFT JOIN others USING (source, row_number)
        LEFT JOIN sharing ON sharing.source = n.source AND sharing.mdn = n.mdn
        LEFT JOIN ({texts}) v ON n.source = 'contact' AND v.row_number = n.row_number),
    whole AS (
        SELECT kind, source, record, sha256(string_agg(evidence, '' ORDER BY evidence)) AS evidence
        FROM based WHERE record IS NOT NULL GROUP BY ALL),
    ignored AS (
        SELECT kind, source, record,
               unnest(min({{'since': since, 'reason': reason, 'evidence': evidence}}))
        FROM decision WHERE action = 'ignore' GROUP BY kind, source, record),
    unheld AS (
        SELECT contact_row, unnest(min({{'what': action || ' of ' || since, 'why': why}}))
        FROM decided WHERE why IS NOT NULL GROUP BY contact_row)
    SELECT b.* EXCLUDE (detail),
           CASE WHEN i.record IS NOT NULL AND i.evidence = b.evidence THEN 'ignored'
                WHEN i.record IS NOT NULL OR u.what IS NOT NULL THEN 'lapsed'
                ELSE 'open' END AS state,
           b.detail
           || CASE WHEN i.record IS NULL THEN ''
                   WHEN i.evidence = b.evidence
                   THEN '; ignored since ' || i.since || ': ' || i.reason
                   ELSE '; ignored since ' || i.since || ', which lapsed: the evidence changed' END
           || CASE WHEN u.what IS NULL THEN ''
                   ELSE '; the ' || u.what || ' does not hold: ' || u.why END AS detail
    FROM (SELECT based.* REPLACE (coalesce(whole.evidence, based.evidence) AS evidence)
          FROM based LEFT JOIN whole ON whole.kind = based.kind
              AND whole.source = based.source AND whole.record = based.record) b
    LEFT JOIN ignored i ON i.kind = b.kind AND i.source = b.source AND i.record = b.record
    LEFT JOIN unheld u ON b.source = 'contact' AND u.contact_row = b.row_number"""
