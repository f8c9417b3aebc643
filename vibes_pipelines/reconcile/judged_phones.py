"""Texts that the short cut left: each distinct one is judged once, by SQL where that is certain.

The table `judged_phone` keeps every text with its verdict: `mdn`, the number of its E.164, or
`refusal`. All texts of one connection are read with one default region.
"""

# ruff: noqa: S608  (SQL is composed here on purpose: names and texts go through reconcile.sql)

import duckdb
import phonenumbers

from vibes_pipelines.reconcile.home_numbers import rest_of, without_punctuation
from vibes_pipelines.reconcile.numbering import Plan, country_code, home_plan, plan_of_code
from vibes_pipelines.reconcile.phone import NANP, Refusal, judge
from vibes_pipelines.reconcile.sql import literal

_BATCH = 50_000
_WORTH_A_QUERY = 200
"""The library judges fewer texts in less time than a query of their own takes to plan."""


def judge_phones(connection: duckdb.DuckDBPyConnection, texts_sql: str, region: str) -> None:
    """Sees to it that `judged_phone` has each text of `texts_sql`, one column of clean texts."""
    connection.execute("""
        CREATE TEMP TABLE IF NOT EXISTS judged_phone (
            phone VARCHAR, mdn BIGINT, refusal VARCHAR)""")
    given = f"FROM ({texts_sql}) given(phone)"
    if not connection.execute(f"SELECT 1 {given} WHERE phone IS NOT NULL LIMIT 1").fetchall():
        return
    connection.execute(f"""
        CREATE OR REPLACE TEMP TABLE odd_phone AS
        SELECT DISTINCT given.phone {given}
        ANTI JOIN judged_phone USING (phone) WHERE given.phone IS NOT NULL""")
    if _count(connection, "odd_phone") >= _WORTH_A_QUERY:
        _judge_by_plans(connection, region)
    _ask_the_library(connection, region)


def _judge_by_plans(connection: duckdb.DuckDBPyConnection, region: str) -> None:
    """Country by country, for those that many texts belong to."""
    digits = without_punctuation("phone")
    code, home = country_code("abroad"), home_plan(region)
    connection.execute(f"""
        CREATE OR REPLACE TEMP TABLE spelt_phone AS
        WITH spelt AS (SELECT phone, {digits} AS digits FROM odd_phone),
             called AS (SELECT *, {_abroad(region)} AS abroad FROM spelt)
        SELECT phone, digits, {code} AS code, substr(abroad, strlen({code}) + 1) AS rest
        FROM called""")
    codes = connection.execute(f"""
        SELECT code, count(*) FROM spelt_phone WHERE regexp_full_match(digits, '[+]?[0-9]+')
        GROUP BY code HAVING count(*) >= {_WORTH_A_QUERY} ORDER BY code NULLS FIRST""").fetchall()
    known = {str(code) for code in phonenumbers.COUNTRY_CODE_TO_REGION_CODE}
    for found, _ in codes:
        if found in known:
            _judge_by_plan(connection, plan_of_code(int(found)), "rest", f"code = {literal(found)}")
        elif found is None and home is not None and home.code != NANP:
            _judge_by_plan(connection, home, rest_of(home, "digits"), "code IS NULL")


def _abroad(region: str) -> str:
    """SQL for the digits from the country code on, of a number that begins with one for certain."""
    branches = ["WHEN starts_with(digits, '+') THEN substr(digits, 2)"]
    metadata = phonenumbers.PhoneMetadata.metadata_for_region(region, None)
    prefix = metadata.international_prefix if metadata else None
    if prefix and prefix.isdigit():
        pattern = literal(f"^{prefix}[1-9]")
        branches.append(
            f"WHEN regexp_matches(digits, {pattern}) THEN substr(digits, {len(prefix) + 1})"
        )
    return f"CASE {' '.join(branches)} END"


def _judge_by_plan(
    connection: duckdb.DuckDBPyConnection, plan: Plan, rest: str, condition: str
) -> None:
    connection.execute(f"""
        INSERT INTO judged_phone
        WITH rest_of AS (SELECT phone, {rest} AS rest FROM spelt_phone WHERE {condition}),
             bare_of AS (SELECT *, {plan.without_prefix("rest")} AS bare FROM rest_of),
             national_of AS (SELECT *, {plan.national("rest", "bare")} AS national FROM bare_of),
             verdict AS (SELECT *, {plan.is_mdn("national")} AS is_mdn FROM national_of)
        SELECT phone, CASE WHEN is_mdn THEN {plan.number("national")} END,
               CASE WHEN NOT is_mdn THEN {literal(Refusal.LANDLINE)} END
        FROM verdict WHERE is_mdn IS NOT NULL""")


def _ask_the_library(connection: duckdb.DuckDBPyConnection, region: str) -> None:
    connection.execute("""
        CREATE OR REPLACE TEMP TABLE asked_phone AS
        SELECT phone, row_number() OVER () AS position
        FROM odd_phone ANTI JOIN judged_phone USING (phone)""")
    for first in range(1, _count(connection, "asked_phone") + 1, _BATCH):
        rows = connection.execute(
            "SELECT phone FROM asked_phone WHERE position BETWEEN ? AND ?",
            [first, first + _BATCH - 1],
        ).fetchall()
        texts = [text for (text,) in rows]
        verdicts = [judge(text, region) for text in texts]
        connection.execute(
            "INSERT INTO judged_phone"
            " SELECT unnest(?::VARCHAR[]), unnest(?::BIGINT[]), unnest(?::VARCHAR[])",
            [
                texts,
                [one if isinstance(one, int) else None for one in verdicts],
                [str(one) if isinstance(one, Refusal) else None for one in verdicts],
            ],
        )


def _count(connection: duckdb.DuckDBPyConnection, table: str) -> int:
    [(rows,)] = connection.execute(f"SELECT count(*) FROM {table}").fetchall()
    return int(rows)
