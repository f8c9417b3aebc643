"""The consent rules of the reconcile over a few people, without files: the SQL is the real one.

Who is who is not in question here: a contact is the person with its external id.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from vibes_pipelines.reconcile import consent as consent_sql
from vibes_pipelines.reconcile import invites as invites_sql
from vibes_pipelines.reconcile.sources import Source
from vibes_pipelines.reconcile.sql import ident
from vibes_pipelines.sync_config import SyncConfig

Row = dict[str, Any]

_CONTACT = ("contact_id", "sms", "sms_at")
_STAY = ("person_key", "subscription_list_id", "opt_in_date", "opt_out_date")
_INSTANTS = frozenset(("sms_at", "opt_in_date", "opt_out_date"))
_PERSONS = pa.schema([("contact_id", pa.string()), ("person_key", pa.string())])
_PENDING = ("external_person_id", "field", "value", "accepted_at")


def consent_changes(
    config: SyncConfig,
    contacts: Sequence[Row],
    stays: Sequence[Row],
    pending: pa.Table,
    as_of: datetime,
    persons: Mapping[str, str],
) -> list[Row]:
    """The rows of `subscription_changes.parquet` for these contacts and their persons.

    A contact has `contact_id`, `sms`, `sms_at`; `persons` has the key of each person by external
    id. Times are aware instants.
    """
    with _engine().cursor() as engine:
        engine.execute("SET TimeZone = 'UTC'")
        engine.execute("PRAGMA disable_optimizer")  # it takes longer than a few rows do
        sources = [
            _source(engine, "contacts", _table(contacts, _CONTACT)),
            _source(engine, "subscriptions", _table(stays, _STAY)),
            _source(engine, "pending", pending.select(list(_PENDING))),
        ]
        named = [{"contact_id": key, "person_key": persons[key]} for key in persons]
        engine.register("input_persons", pa.Table.from_pylist(named, _PERSONS))
        for statement in _people(config, sources[0]):
            engine.execute(statement)
        consent_sql.build_subscription_change(engine, config, [sources[1]], 0, as_of)
        invites_sql.build_invites(engine, config, [sources[1]], sources[2], as_of)
        found = engine.execute("SELECT * FROM subscription_change ORDER BY ALL")
        names = [column[0] for column in found.description or ()]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


@cache
def _engine() -> duckdb.DuckDBPyConnection:
    """One engine for all: a cursor has temporary tables of its own, and opens in no time."""
    return duckdb.connect(config={"threads": 1})


def _table(rows: Sequence[Row], names: Sequence[str]) -> pa.Table:
    kinds = [pa.timestamp("us", "UTC") if name in _INSTANTS else pa.string() for name in names]
    complete = [{name: row.get(name) for name in names} for row in rows]
    return pa.Table.from_pylist(complete, pa.schema(list(zip(names, kinds, strict=True))))


def _source(engine: duckdb.DuckDBPyConnection, role: str, table: pa.Table) -> Source:
    engine.register(f"input_{role}", table)
    described = engine.execute(f"DESCRIBE input_{role}").fetchall()
    columns = {str(name): (ident(str(name)), str(kind)) for name, kind, *_ in described}
    return Source(role, Path(role), f"input_{role}", columns, None)


def _people(config: SyncConfig, contacts: Source) -> list[str]:
    """Contacts and persons as the reconcile would have recognised them."""
    [consent] = config.consents
    state = consent_sql.state_column(consent, contacts)
    changed_at, _ = consent_sql.changed_at_columns(consent, contacts)
    mdn = "'+1312555' || substr(contact_id, 2) AS mdn"
    return [
        f"""CREATE TEMP TABLE known AS
            SELECT row_number() OVER (ORDER BY contact_id) AS number, contact_id AS key, {mdn},
                   {state} AS state_0, {changed_at} AS changed_at_0
            FROM {contacts.relation}""",
        """CREATE TEMP TABLE contact AS
            SELECT number AS row_number, mdn, state_0, changed_at_0 FROM known""",
        "CREATE TEMP TABLE contact_text AS"
        " SELECT number AS row_number, key, mdn, false AS bad_mdn FROM known",
        f"""CREATE TEMP TABLE person_text AS
            SELECT row_number() OVER (ORDER BY contact_id) AS row_number, contact_id AS key,
                   person_key, {mdn}
            FROM input_persons""",
        "CREATE TEMP TABLE person AS"
        " SELECT row_number, hash(person_key) AS person_key, mdn FROM person_text",
        "CREATE TEMP TABLE recognised AS SELECT number AS contact_row, row_number AS person_row"
        " FROM known JOIN person_text USING (key)",
        "CREATE TEMP TABLE linked AS SELECT * FROM recognised",
        "CREATE TEMP TABLE match AS SELECT *, true AS passes FROM recognised",
        "CREATE TEMP TABLE finding (source VARCHAR, kind VARCHAR, row_number BIGINT)",
        "CREATE TEMP TABLE outcome (contact_row BIGINT, status VARCHAR, is_refused BOOLEAN)",
        "CREATE TEMP TABLE number_period (person_row BIGINT, since TIMESTAMP)",
        "CREATE TEMP TABLE unmatched (contact_row BIGINT, person_row BIGINT)",
    ]
