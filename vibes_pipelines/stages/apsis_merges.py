"""Merging profiles that share an e-mail address under different keys: only where sync.yaml says so.

A form of APSIS One makes profiles keyed by address, the sync makes them keyed by CRM id; both may
exist for one person, by design. `merge_same_email: true` unites them, each time with its evidence:

    <home>/apsis/merges/<full sync>.parquet   profile, evidence, result
"""

import asyncio
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from vibes_pipelines.apsis.errors import ApsisConflict, ApsisLocked
from vibes_pipelines.reconcile.sql import ident, literal
from vibes_pipelines.stages.apsis_sync import ApsisSync
from vibes_pipelines.store.sent_changes import SentChanges
from vibes_pipelines.sync_config.apsis import EMAIL_ATTRIBUTE

if TYPE_CHECKING:
    from vibes_pipelines.apsis.client import ApsisClient

EMAIL_KEYSPACE = "com.apsis1.keyspaces.email"
CRM_ID_ATTRIBUTE = "com.apsis1.attributes.crmid"
CONCURRENCY = 8

Result = Literal["merged", "shared_by_contacts", "refused", "locked", "other_crm_id"]

_EVIDENCE = "the same e-mail address is the key of another profile, which no CRM id has"
_REPORT = pa.schema([("profile", pa.string()), ("evidence", pa.string()), ("result", pa.string())])


def merge_same_email(sync: ApsisSync, sync_id: str, diff_set: str, contacts: Path) -> Counter[str]:
    """Merges for the profiles that this full sync created or gave another address.

    An address that several contacts have says nothing of who is who: those stay apart. Returns how
    many came to which end.

    Raises:
        ApsisError: APSIS One is away, or an answer cannot be read.
    """
    addresses = _addresses(sync, diff_set)
    if not addresses:
        return Counter()
    shared = _shared(sync, contacts)
    rows = asyncio.run(_merge_all(sync, addresses, shared))
    report = sync.project.settings.home / "merges" / f"{sync_id}.parquet"
    report.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, _REPORT), report)
    return Counter(row["result"] for row in rows)


def _addresses(sync: ApsisSync, diff_set: str) -> dict[str, str]:
    """Profile key → address, of what was accepted with a new one."""
    with closing(SentChanges(sync.project.settings.ledger_url)) as changes:
        accepted = [
            sent.operation
            for sent in changes.since(None, diff_set)
            if sent.operation.status == "accepted"
        ]
    return {
        operation.external_person_id: address
        for operation in accepted
        if operation.external_person_id and (address := operation.after(EMAIL_ATTRIBUTE))
    }


def _shared(sync: ApsisSync, contacts: Path) -> set[str]:
    """Addresses that more than one contact has, in lower case."""
    column = next((f.from_ for f in sync.section.all_fields if f.to == EMAIL_ATTRIBUTE), None)
    if column is None:
        return set()
    with duckdb.connect(config={"threads": 1}) as connection:
        rows = connection.execute(
            f"SELECT lower({ident(column)}) FROM read_parquet({literal(str(contacts))})"  # noqa: S608
            f" WHERE {ident(column)} IS NOT NULL GROUP BY ALL HAVING count(*) > 1"
        ).fetchall()
    return {row[0] for row in rows}


async def _merge_all(
    sync: ApsisSync, addresses: dict[str, str], shared: set[str]
) -> list[dict[str, str]]:
    # The HTTP client is slow to import, and every process that loads the assets would pay for it.
    from vibes_pipelines.apsis.client import ApsisClient  # noqa: PLC0415
    from vibes_pipelines.apsis.definitions import Place  # noqa: PLC0415

    gate = asyncio.Semaphore(CONCURRENCY)
    rows: list[dict[str, str]] = []
    by_address = Place(sync.section.section, EMAIL_KEYSPACE)
    systems = sync.systems

    async def one(client: "ApsisClient", key: str, address: str) -> None:
        async with gate:
            result = await _merge(client, sync.section.keyspace, key, address, shared)
        if result is not None:
            rows.append({"profile": key, "evidence": _EVIDENCE, "result": result})

    async with ApsisClient(
        sync.project.settings.apsis, by_address, clock=systems.clock, limits=systems.limits
    ) as client:
        await asyncio.gather(*(one(client, k, a) for k, a in sorted(addresses.items())))
    return sorted(rows, key=lambda row: row["profile"])


async def _merge(
    client: "ApsisClient", keyspace: str, key: str, address: str, shared: set[str]
) -> Result | None:
    """None where there is no other profile."""
    from vibes_pipelines.apsis.profiles import ProfileKey  # noqa: PLC0415 - as above

    other = await client.profile(address)
    if other is None or other.attributes.get(CRM_ID_ATTRIBUTE) == key:
        return None
    if address.lower() in shared:
        return "shared_by_contacts"
    if CRM_ID_ATTRIBUTE in other.attributes:
        return "other_crm_id"
    try:
        await client.merge(ProfileKey(keyspace, key), ProfileKey(EMAIL_KEYSPACE, address))
    except ApsisLocked:
        return "locked"
    except ApsisConflict:
        return "refused"
    return "merged"
