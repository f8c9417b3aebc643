"""Judging phone numbers against phonenumbers alone: how many times faster is it?

    python -m benchmarks.phones --rows 5000000 --region US --region SE

The numbers are a mix: most of the region itself in its usual spellings, 4 % null, 4 % of other
countries, 4 % with an extension, 4 % junk. The reference is the library alone, on a sample of the
same texts, in one process; ours runs in one process too. Rounds alternate; the medians of the rates
are compared.
"""

import argparse
import random
import statistics
import time
from collections.abc import Callable

import duckdb
import phonenumbers
from phonenumbers import NumberParseException, PhoneNumberFormat, PhoneNumberType

from vibes_pipelines.reconcile.home_numbers import numbered
from vibes_pipelines.reconcile.judged_phones import judge_phones
from vibes_pipelines.reconcile.sql import clean

BUDGET = 12.0
"""How many times the library's rate ours must reach."""

_FORMS = (
    PhoneNumberFormat.NATIONAL,
    PhoneNumberFormat.NATIONAL,
    PhoneNumberFormat.INTERNATIONAL,
    PhoneNumberFormat.E164,
)
_ABROAD = ("DE", "FR", "GB", "IN", "BR", "JP", "MX", "NL", "PL", "ES", "NO", "CA", "AU", "CO")
_HOME_TEXTS = 300_000
_ODD_TEXTS = 390_000
"""Of these some 250,000 are distinct."""
_SAMPLE = 40_000


def _spelt(drawn: random.Random, region: str, form: int) -> str:
    """A number like the region's example of a mobile, with the last five digits drawn."""
    example = phonenumbers.example_number_for_type(region, PhoneNumberType.MOBILE)
    if example is None or example.national_number is None:
        raise SystemExit(f"phonenumbers has no example of a mobile number of region {region}")
    digits = example.national_number // 100_000 * 100_000 + drawn.randrange(100_000)
    number = phonenumbers.PhoneNumber(example.country_code, digits)
    return str(phonenumbers.format_number(number, form))


def _home(drawn: random.Random, region: str) -> str:
    """Of country code 1 the area and exchange vary too, as there are too few numbers otherwise."""
    if phonenumbers.country_code_for_region(region) != 1:
        text = _spelt(drawn, region, drawn.choice(_FORMS))
        return text if drawn.random() < 0.7 else text.replace(" ", "")
    area, line = drawn.choice((212, 312, 415, 602, 713)), drawn.randrange(10_000)
    exchange = drawn.randrange(220, 990)
    shape = drawn.choice(("({}) {}-{:04d}", "{}-{}-{:04d}", "{}.{}.{:04d}", "+1{}{}{:04d}"))
    return shape.format(area, exchange, line)


def _odd(drawn: random.Random, region: str) -> str:
    kind = drawn.randrange(3)
    if kind == 0:
        return _spelt(drawn, drawn.choice(_ABROAD), PhoneNumberFormat.INTERNATIONAL)
    if kind == 1:
        return f"{_home(drawn, region)} x{drawn.randrange(1000)}"
    short, too_long = f"{drawn.randrange(100_000)}", f"{_home(drawn, region)}9"
    return drawn.choice(("n/a", "unknown", short, too_long))


def _write_texts(connection: duckdb.DuckDBPyConnection, rows: int, region: str) -> None:
    """Creates `cell`, its texts drawn from a stock of the region's own and a stock of odd ones."""
    drawn = random.Random(5)
    texts = [_home(drawn, region) for _ in range(_HOME_TEXTS)]
    texts += [_odd(drawn, region) for _ in range(_ODD_TEXTS)]
    connection.execute(
        "CREATE TABLE text AS SELECT unnest(?::VARCHAR[]) AS phone, unnest(?::BIGINT[]) AS number",
        [texts, list(range(len(texts)))],
    )
    connection.execute(
        """
        CREATE TABLE cell AS
        SELECT text.phone FROM (
            SELECT CASE WHEN hash(i, 'null') % 100 < 4 THEN NULL
                        WHEN hash(i, 'odd') % 100 < 12 THEN $home + hash(i) % $odd
                        ELSE hash(i) % $home END AS number
            FROM range($rows) r(i)) drawn
        LEFT JOIN text USING (number)""",
        {"rows": rows, "odd": _ODD_TEXTS, "home": _HOME_TEXTS},
    )


def _ours(connection: duckdb.DuckDBPyConnection, region: str) -> None:
    """Every row, as the reconcile does it."""
    connection.execute("DROP TABLE IF EXISTS judged_phone")
    connection.execute(f"""
        CREATE OR REPLACE TABLE result AS
        WITH {numbered("cell", "phone", region)}
        SELECT mdn, CASE WHEN mdn IS NULL THEN {clean("phone")} END AS phone FROM numbered""")
    judge_phones(connection, "SELECT phone FROM result WHERE phone IS NOT NULL", region)
    connection.execute("""
        UPDATE result SET mdn = judged.mdn, phone = NULL
        FROM judged_phone judged WHERE judged.mdn IS NOT NULL AND result.phone = judged.phone""")


def _library(texts: list[str | None], region: str) -> None:
    """These texts by phonenumbers alone."""
    for text in texts:
        if text is None:
            continue
        try:
            number = phonenumbers.parse(text, region)
        except NumberParseException:
            continue
        if phonenumbers.is_valid_number(number) and not number.extension:
            phonenumbers.format_number(number, PhoneNumberFormat.E164)


def _rates(rows: int, work: Callable[[], None]) -> tuple[float, float]:
    """Rows per second of wall time, and of CPU time of all threads."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return rows / (time.perf_counter() - wall), rows / (time.process_time() - cpu)


def _compare(region: str, rows: int, rounds: int) -> None:
    connection = duckdb.connect()
    _write_texts(connection, rows, region)
    sample = connection.execute(f"SELECT phone FROM cell USING SAMPLE {_SAMPLE}").fetchall()
    texts = [text for (text,) in sample]
    library, ours = [], []
    for _ in range(rounds):
        library.append(_rates(len(texts), lambda: _library(texts, region)))
        ours.append(_rates(rows, lambda: _ours(connection, region)))
    [(mdns, distinct)] = connection.execute(
        "SELECT (SELECT count(mdn) FROM result), (SELECT count(*) FROM judged_phone)"
    ).fetchall()
    connection.close()
    print(f"{region}: {rows} numbers, {mdns} of them MDNs, {distinct} distinct odd texts")
    for index, name in enumerate(("wall", "CPU")):
        rate, reference = (statistics.median(one[index] for one in of) for of in (ours, library))
        print(
            f"  {name:4s} phonenumbers alone {reference:8,.0f}/s   ours {rate:10,.0f}/s"
            f"   ratio {rate / reference:.1f} (budget at least {BUDGET})"
        )


def main() -> None:
    """Prints both rates and their ratio, for each region."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--region", action="append", help="default: US and SE")
    arguments = parser.parse_args()
    for region in arguments.region or ["US", "SE"]:
        _compare(region, arguments.rows, arguments.rounds)


if __name__ == "__main__":
    main()
