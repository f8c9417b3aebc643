"""Contacts as APSIS One is to have them: canonical values, and consents with the time they changed.

Made from the landed contacts. A label has no time of its own: it certainly appeared after the last
look that did not find it, and that look is its evidence.
"""

# ruff: noqa: S608  (SQL is composed here on purpose: names and texts go through reconcile.sql)

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from vibes_pipelines.apsis.errors import ValueRefused
from vibes_pipelines.apsis.values import canonical, json_value
from vibes_pipelines.reconcile.consent import OPTED_IN, OPTED_OUT, UNREADABLE, state_column
from vibes_pipelines.reconcile.engine import Limits, engine
from vibes_pipelines.reconcile.identifiers import contact_identifiers
from vibes_pipelines.reconcile.phone import to_e164
from vibes_pipelines.reconcile.sources import open_source
from vibes_pipelines.reconcile.sql import ident, literal
from vibes_pipelines.store.consent_looks import ConsentLooks, Look
from vibes_pipelines.sync_config import Consent, SyncConfig
from vibes_pipelines.sync_config.apsis import Apsis, ValueType
from vibes_pipelines.sync_config.tribe import LABEL

AFTER = timedelta(milliseconds=1)
"""What changed after a look did so at some later instant: evidence is that much younger."""

_MADE_CANONICAL: frozenset[ValueType] = frozenset({"mobile", "country", "email"})
_SEEN = pa.schema(
    [
        ("contact", pa.string()),
        ("consent", pa.string()),
        ("last_in_at", pa.timestamp("us")),
        ("last_out_at", pa.timestamp("us")),
    ]
)
_LOOK_ROWS = 10_000


def write_contacts(
    config: SyncConfig,
    section: Apsis,
    landed: Path,
    out: Path,
    *,
    looked_at: datetime,
    ledger_url: str,
) -> None:
    """Writes the contacts in `landed` to `out`, and notes what their consent cells show.

    `looked_at`: the instant at which the reading of the contacts began; a cell cannot have been
    seen earlier than that.

    Raises:
        ReconcileError: a column of the sync config is missing.
    """
    with (
        tempfile.TemporaryDirectory(prefix="apsis-contacts-") as workspace,
        engine(Limits(threads=1), Path(workspace)) as connection,
        closing(ConsentLooks(ledger_url)) as looks,
    ):
        source = open_source(connection, "contacts", landed, Path(workspace))
        key = contact_identifiers(config, source).key
        states = [state_column(consent, source) for consent in config.consents]
        connection.execute(f"""
            CREATE TEMP TABLE raw AS
            SELECT {key} AS contact_text{_listed(states)}, * FROM {source.relation}""")
        contacts = _contacts(connection)
        looks.note(_looks(connection, config.consents, looked_at))
        connection.register("seen", _seen_table(looks, contacts))
        for index, consent in enumerate(config.consents):
            connection.execute(_consent_columns(index, consent))
        columns = [name for name, *_ in source.columns.values()]
        made = [_made(index, consent) for index, consent in enumerate(config.consents)]
        query = f"SELECT {_selected(columns, config.consents)}{''.join(made)} FROM raw"
        for index, _ in enumerate(config.consents):
            query += f" LEFT JOIN time_{index} USING (contact_text)"
        table = connection.sql(f"{query} ORDER BY contact_text").to_arrow_table()
    pq.write_table(_canonical(table, section), out, compression="zstd")


def _listed(states: Sequence[str]) -> str:
    return "".join(f", {state} AS state_{index}" for index, state in enumerate(states))


def _contacts(connection: duckdb.DuckDBPyConnection) -> list[str]:
    query = "SELECT DISTINCT contact_text FROM raw WHERE contact_text IS NOT NULL"
    return [row[0] for row in connection.execute(query).fetchall()]


def _looks(
    connection: duckdb.DuckDBPyConnection, consents: Sequence[Consent], at: datetime
) -> Iterator[Look]:
    """An unreadable cell is no look; of contacts that share a key, one opted in is enough."""
    for index, consent in enumerate(consents):
        rows = connection.execute(f"""
            SELECT contact_text, bool_or(state_{index} = {OPTED_IN}) FROM raw
            WHERE contact_text IS NOT NULL AND state_{index} <> {UNREADABLE}
            GROUP BY contact_text ORDER BY contact_text""").fetchall()
        for contact, is_in in rows:
            yield Look(contact, consent.from_, is_in, at)


def _seen_table(looks: ConsentLooks, contacts: Iterable[str]) -> pa.Table:
    rows = (
        {
            "contact": seen.contact,
            "consent": seen.consent,
            "last_in_at": _naive(seen.last_in_at),
            "last_out_at": _naive(seen.last_out_at),
        }
        for seen in looks.seen(contacts)
    )
    return pa.Table.from_pylist(list(rows), _SEEN)


def _naive(instant: datetime | None) -> datetime | None:
    """Evidence lies after the look."""
    return None if instant is None else (instant + AFTER).astimezone(UTC).replace(tzinfo=None)


def _consent_columns(index: int, consent: Consent) -> str:
    """When a cell changed: it was last seen otherwise then."""
    return f"""
        CREATE TEMP TABLE time_{index} AS
        SELECT contact AS contact_text, last_in_at AS in_{index}, last_out_at AS out_{index}
        FROM seen WHERE consent = {literal(consent.from_)}"""


def _made(index: int, consent: Consent) -> str:
    """An absent label is a no where it is to be compared; a blank cell of a table is unknown."""
    state, spelt_out = f"state_{index}", literal(consent.opted_out[0])
    otherwise = spelt_out if consent.from_.startswith(LABEL) else "NULL"
    column = ident(consent.from_)
    return f""",
        CASE {state} WHEN {OPTED_IN} THEN {literal(consent.opted_in[0])}
                     WHEN {OPTED_OUT} THEN {spelt_out}
                     WHEN {UNREADABLE} THEN CAST({column} AS VARCHAR)
                     ELSE {otherwise} END AS {column},
        CASE WHEN {state} = {OPTED_IN} THEN out_{index} ELSE in_{index} END
            AS {ident(consent.changed_at or "")}"""


def _selected(columns: Sequence[str], consents: Sequence[Consent]) -> str:
    made = {ident(consent.from_) for consent in consents}
    return ", ".join(column for column in columns if column not in made)


def _canonical(table: pa.Table, section: Apsis) -> pa.Table:
    """Values as APSIS One gives them back; one that has no such form stays, and is refused later.

    A column that several attributes are made from is written as the first of them needs it.
    """
    done: set[str] = set()
    for field in section.all_fields:
        if field.type not in _MADE_CANONICAL or field.from_ in done:
            continue
        done.add(field.from_)
        place = table.schema.get_field_index(field.from_)
        values = table.column(place).to_pylist()
        known = {value: _text(field.type, value, section) for value in set(values)}
        column = pa.array([known[value] for value in values], pa.string())
        table = table.set_column(place, field.from_, column)
    return table


def _text(value_type: ValueType, value: object, section: Apsis) -> str | None:
    if value is None or not str(value).strip():
        return None
    text = str(value).strip()
    if value_type == "mobile":
        e164 = to_e164(text, section.default_region or "ZZ")
        return e164.removeprefix("+") if e164 else text
    if value_type == "country":
        return text.upper()
    try:
        return canonical(value_type, json_value(value_type, text))
    except ValueRefused:
        return text
