"""Whom a callback means when it names no contact of the CRM: asked of the newest landed persons."""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import duckdb
import pyarrow.parquet as pq

from vibes_pipelines.data_files import parquet
from vibes_pipelines.reconcile.sql import clean
from vibes_pipelines.stages.project import Project
from vibes_pipelines.store.inbox import StoredCallback

PERSONS = "share/persons"
_IDENTIFIERS = ("person_key", "external_person_id", "mdn")


def contacts_by_share(project: Project, callbacks: Iterable[StoredCallback]) -> dict[int, str]:
    """Callback id → the contact that the newest landed `share/persons` uniquely says it is about.

    The person is sought by its `person_key`. By MDN only when the callback names it by nothing
    else: a number alone does not tell a person from its earlier holder.
    """
    sought = {callback.id: callback for callback in callbacks}
    days = project.snapshots.days(PERSONS)
    snapshot = project.snapshots.find(PERSONS, days[-1]) if days and sought else None
    if snapshot is None:
        return {}
    keys = {callback.person_key for callback in sought.values() if callback.person_key}
    mdns = {mdn for callback in sought.values() if (mdn := _mdn_alone(callback))}
    by_key = _contacts(snapshot.data, "person_key", keys)
    by_mdn = _contacts(snapshot.data, "mdn", mdns)
    found = {
        number: by_key.get(callback.person_key or "") or by_mdn.get(_mdn_alone(callback) or "")
        for number, callback in sought.items()
    }
    return {number: contact for number, contact in found.items() if contact}


def _mdn_alone(callback: StoredCallback) -> str | None:
    named = callback.person_key or callback.external_person_id
    return None if named else callback.mdn


def _contacts(persons: Path, identifier: str, values: Collection[str]) -> Mapping[str, str]:
    """Identifier → external id, where one person alone has each of the two."""
    present = set(pq.read_schema(persons).names)
    if not values or not {identifier, "external_person_id"} <= present:
        return {}
    with duckdb.connect() as engine:
        engine.execute("SET autoinstall_known_extensions = false")
        rows = engine.execute(
            f"""
            WITH person AS (
                SELECT {_clean(identifier)} AS identifier, {_clean("external_person_id")} AS contact
                FROM {parquet(persons)}),
            named AS (
                SELECT identifier, min(contact) AS contact FROM person
                WHERE identifier IN (SELECT unnest($values))
                GROUP BY identifier HAVING count(*) = 1)
            SELECT named.identifier, named.contact
            FROM named JOIN person ON person.contact = named.contact
            GROUP BY ALL HAVING count(*) = 1""",  # noqa: S608 - names are constants of this file
            {"values": sorted(values)},
        ).fetchall()
    return dict(rows)


def _clean(identifier: str) -> str:
    """SQL for an identifier as the reconcile compares it."""
    text = clean(f"CAST({identifier} AS VARCHAR)")
    return f"lower({text})" if identifier == "person_key" else text
