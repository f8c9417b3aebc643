"""Contacts as APSIS One is to have them: canonical values, and consents with the time they changed.

Made from the landed contacts. A label has no time of its own: it certainly appeared after the last
look that did not find it, and that look is its evidence.
"""

# ruff: noqa: S608  (SQL is composed here on purpose: names and texts go through reconcile.sql)

import tempfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from vibes_pipelines.apsis.calls import can_stand_in_path
from vibes_pipelines.apsis.errors import ValueRefused
from vibes_pipelines.apsis.values import canonical, json_value
from vibes_pipelines.blanks import trimmed
from vibes_pipelines.reconcile.characters import LONGEST_KEY
from vibes_pipelines.reconcile.consent import (
    OPTED_IN,
    OPTED_OUT,
    UNKNOWN,
    UNREADABLE,
    state_column,
)
from vibes_pipelines.reconcile.engine import Limits, engine
from vibes_pipelines.reconcile.errors import ReconcileError
from vibes_pipelines.reconcile.identifiers import contact_identifiers
from vibes_pipelines.reconcile.phone import to_e164
from vibes_pipelines.reconcile.sources import open_source
from vibes_pipelines.reconcile.sql import ident, literal
from vibes_pipelines.store.consent_looks import ConsentLooks, Look
from vibes_pipelines.store.snapshots import Reject
from vibes_pipelines.sync_config import Consent, SyncConfig
from vibes_pipelines.sync_config.apsis import Apsis, ValueType
from vibes_pipelines.sync_config.apsis_view import GIVEN
from vibes_pipelines.sync_config.tribe import LABEL

UNNAMEABLE = "the contact is left out: no address of APSIS One can name this key; correct it"

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
_HAS_LOOKS = f"length(contact_text) <= {LONGEST_KEY} AND NOT contains(contact_text, chr(0))"
"""SQL for: there is a key, and one that the ledger can keep; the reconcile quarantines others."""


def write_contacts(
    config: SyncConfig,
    section: Apsis,
    landed: Path,
    out: Path,
    *,
    looked_at: datetime,
    ledger_url: str,
) -> list[Reject]:
    """Writes the contacts in `landed` to `out`, and notes what their consent cells show.

    `looked_at`: the instant at which the reading of the contacts began; a cell cannot have been
    seen earlier than that. Returns the values that no attribute of their type can hold: they are
    left out, and the contact goes without them. A contact whose key cannot name a profile is
    returned too, and left out as a whole.

    Raises:
        ReconcileError: a column of the sync config is missing, or two consents spell one column
            otherwise.
    """
    consents = _each_column(config.consents)
    with (
        tempfile.TemporaryDirectory(prefix="apsis-contacts-") as workspace,
        engine(Limits(threads=1), Path(workspace)) as connection,
        closing(ConsentLooks(ledger_url)) as looks,
    ):
        source = open_source(connection, "contacts", landed, Path(workspace))
        key = contact_identifiers(config, source).key
        states = [state_column(consent, source) for consent in consents]
        connection.execute(f"""
            CREATE TEMP TABLE raw AS
            SELECT {key} AS contact_text{_listed(states)}, * FROM {source.relation}""")
        contacts = _contacts(connection)
        looks.note(_looks(connection, consents, looked_at))
        connection.register("seen", _seen_table(looks, contacts))
        for index, consent in enumerate(consents):
            connection.execute(_consent_columns(index, consent))
        columns = [name for name, *_ in source.columns.values()]
        made = [_made(index, consent) for index, consent in enumerate(consents)]
        query = f"SELECT contact_text, {_selected(columns, consents)}{''.join(made)} FROM raw"
        for index, _ in enumerate(consents):
            query += f" LEFT JOIN time_{index} USING (contact_text)"
        table = connection.sql(f"{query} ORDER BY contact_text").to_arrow_table()
    for column in _given(config):
        table = table.append_column(column, table.column(column.removesuffix(GIVEN)))
    table, rejects = _canonical(table, section, _never_left_out(config))
    table, unnameable = _nameable(table)
    pq.write_table(table.drop_columns(["contact_text"]), out, compression="zstd")
    return rejects + unnameable


def _each_column(consents: Sequence[Consent]) -> list[Consent]:
    """The first consent of each column: one label may stand for several channels."""
    first: dict[str, Consent] = {}
    for consent in consents:
        spelt = first.setdefault(consent.from_, consent)
        if (spelt.opted_in, spelt.opted_out) != (consent.opted_in, consent.opted_out):
            msg = (
                f"destinations.apsis.consents: {consent.from_!r} is spelt in two ways; give all its"
                " entries the same opted_in and opted_out, or split the column"
            )
            raise ReconcileError(msg)
    return list(first.values())


def _never_left_out(config: SyncConfig) -> set[str]:
    """Columns that say more than a value: who the contact is, and whether it belongs here."""
    conditions = (one.column.removesuffix(GIVEN) for one in config.contacts.conditions)
    return {config.contacts.key, *conditions}


def _given(config: SyncConfig) -> list[str]:
    """The columns that conditions ask for as the CRM gives them, each once."""
    columns = (one.column for one in config.contacts.conditions)
    return list(dict.fromkeys(column for column in columns if column.endswith(GIVEN)))


def _listed(states: Sequence[str]) -> str:
    return "".join(f", {state} AS state_{index}" for index, state in enumerate(states))


def _contacts(connection: duckdb.DuckDBPyConnection) -> list[str]:
    query = f"SELECT DISTINCT contact_text FROM raw WHERE {_HAS_LOOKS}"
    return [row[0] for row in connection.execute(query).fetchall()]


def _looks(
    connection: duckdb.DuckDBPyConnection, consents: Sequence[Consent], at: datetime
) -> Iterator[Look]:
    """Of contacts that share a key, one opted in is enough.

    An unreadable cell is no look, and a blank one of a table neither: it says nothing. A label that
    is not there was taken off.
    """
    for index, consent in enumerate(consents):
        is_label = consent.from_.startswith(LABEL)
        silent = f"({UNREADABLE})" if is_label else f"({UNREADABLE}, {UNKNOWN})"
        rows = connection.execute(f"""
            SELECT contact_text, bool_or(state_{index} = {OPTED_IN}) FROM raw
            WHERE {_HAS_LOOKS} AND state_{index} NOT IN {silent}
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
    state, spelt_out = f"state_{index}", literal(consent.written_out[0])
    spelt_in = literal(next(iter(consent.written_in), ""))
    otherwise = spelt_out if consent.from_.startswith(LABEL) else "NULL"
    column = ident(consent.from_)
    return f""",
        CASE {state} WHEN {OPTED_IN} THEN {spelt_in}
                     WHEN {OPTED_OUT} THEN {spelt_out}
                     WHEN {UNREADABLE} THEN CAST({column} AS VARCHAR)
                     ELSE {otherwise} END AS {column},
        CASE WHEN {state} = {OPTED_IN} THEN out_{index} ELSE in_{index} END
            AS {ident(consent.changed_at or "")}"""


def _selected(columns: Sequence[str], consents: Sequence[Consent]) -> str:
    made = {ident(consent.from_) for consent in consents}
    return ", ".join(column for column in columns if column not in made)


def _nameable(table: pa.Table) -> tuple[pa.Table, list[Reject]]:
    """The contacts that can be named in an address, or have no key at all, and the others."""
    contacts = table.column("contact_text").to_pylist()
    kept = [contact is None or can_stand_in_path(contact) for contact in contacts]
    if all(kept):
        return table, []
    rejects = [
        Reject(line, contact, UNNAMEABLE)
        for line, (contact, is_kept) in enumerate(zip(contacts, kept, strict=True), 1)
        if not is_kept
    ]
    return table.filter(pa.array(kept)), rejects


def _canonical(
    table: pa.Table, section: Apsis, spared: Collection[str]
) -> tuple[pa.Table, list[Reject]]:
    """Values as APSIS One gives them back, and those that have no such form.

    These are left out, but for columns that are `spared` and fields where a blank clears what is
    there: they stay, and are refused when they are sent. A column that several attributes are made
    from is written as the first of them needs it.
    """
    done: set[str] = set()
    rejects: list[Reject] = []
    contacts = table.column("contact_text").to_pylist()
    for field in section.all_fields:
        if field.type not in _MADE_CANONICAL or field.from_ in done:
            continue
        done.add(field.from_)
        place = table.schema.get_field_index(field.from_)
        values = table.column(place).to_pylist()
        known = {value: _text(field.type, value, section) for value in set(values)}
        if field.from_ not in spared and field.when_null != "clear":
            refused = {value: text.why for value, text in known.items() if text.why}
            rejects += [
                Reject(line, contact or "", f"{field.to}: {refused[value]}")
                for line, (contact, value) in enumerate(zip(contacts, values, strict=True), 1)
                if value in refused
            ]
            known |= dict.fromkeys(refused, _Text(None))
        column = pa.array([known[value].text for value in values], pa.string())
        table = table.set_column(place, field.from_, column)
    return table, rejects


@dataclass(frozen=True, slots=True)
class _Text:
    """A value as it is written, and why APSIS One would refuse it."""

    text: str | None
    why: str | None = None


def _text(value_type: ValueType, value: object, section: Apsis) -> _Text:
    text = None if value is None else trimmed(str(value))
    if text is None:
        return _Text(None)
    if value_type == "mobile":
        e164 = to_e164(text, section.default_region or "ZZ")
        text = e164.removeprefix("+") if e164 else text
    try:
        return _Text(canonical(value_type, json_value(value_type, text)))
    except ValueRefused as refused:
        return _Text(text, str(refused))
