"""Merging profiles that share an e-mail address under different keys: only where sync.yaml says so.

A form of APSIS One makes profiles keyed by address, the sync makes them keyed by CRM id; both may
exist for one person, by design. `merge_same_email: true` unites them, each time with its evidence.
Nobody documents whose consent a merged profile keeps. So an opt-out of either is written to both
before, and to the merged one should it be lost:

    <home>/apsis/merges/<full sync>.parquet   profile, evidence, result
"""

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from vibes_pipelines.apsis.definitions import EMAIL_KEYSPACE
from vibes_pipelines.apsis.errors import (
    ApsisLocked,
    ApsisRefused,
    ApsisUnavailable,
    ConsentRefused,
)
from vibes_pipelines.data_files import parquet
from vibes_pipelines.reconcile.sql import ident
from vibes_pipelines.stages.apsis_opt_out_times import OPT_OUT
from vibes_pipelines.stages.apsis_sync import ApsisSync
from vibes_pipelines.stages.interrupts import run_until_interrupted
from vibes_pipelines.store.full_syncs import FullSyncs
from vibes_pipelines.store.records import ERASED_PREFIX
from vibes_pipelines.store.sent_changes import SentChanges
from vibes_pipelines.sync_config.apsis import EMAIL_ATTRIBUTE

if TYPE_CHECKING:
    from vibes_pipelines.apsis.client import ApsisClient

CRM_ID_ATTRIBUTE = "com.apsis1.attributes.crmid"
MERGES = "merges"
"""The folder of the reports, in the data folder."""

CONCURRENCY = 8

Result = Literal["merged", "shared_by_contacts", "refused", "locked", "other_crm_id", "no_answer"]

_Place = tuple[str, str]
"""Topic and channel."""

_REASON = "opted out under the other key of the same person"
_EVIDENCE = "the same e-mail address is the key of another profile, which no CRM id has"
_REPORT = pa.schema([("profile", pa.string()), ("evidence", pa.string()), ("result", pa.string())])


def merge_same_email(sync: ApsisSync, sync_id: str, contacts: Path) -> Counter[str]:
    """Merges for the profiles that were created or given another address since the last full sync.

    Those of messages too. An address that several contacts have says nothing of who is who: those
    stay apart. Returns how many came to which end, those before a cut included.

    Raises:
        ApsisError: APSIS One is away, or an answer cannot be read; what was merged is in the
            report, and a full sync that is taken up goes on with the others.
    """
    addresses = _addresses(sync)
    if not addresses:
        return Counter()
    report = sync.project.settings.home / MERGES / f"{sync_id}.parquet"
    ends = _read_report(report)
    failed = run_until_interrupted(_merge_all(sync, addresses, _shared(sync, contacts), ends))
    _write_report(report, ends)
    if failed:
        raise failed[0]
    return Counter(ends.values())


def _read_report(report: Path) -> dict[str, Result]:
    """Profile → result, as far as this full sync has come before."""
    if not report.exists():
        return {}
    return {row["profile"]: row["result"] for row in pq.read_table(report).to_pylist()}


def _write_report(report: Path, ends: Mapping[str, Result]) -> None:
    rows = [
        {"profile": profile, "evidence": _EVIDENCE, "result": result}
        for profile, result in sorted(ends.items())
    ]
    report.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, _REPORT), report)


def _addresses(sync: ApsisSync) -> dict[str, str]:
    """Profile key → newest address, of what was accepted with one since the last full sync.

    Only one that finished counts: it came to its merges.
    """
    url = sync.project.settings.ledger_url
    with closing(FullSyncs(url)) as book, closing(SentChanges(url)) as changes:
        before = book.newest_finished()
        return {
            key: address
            for sent in changes.since(before.finished_at if before else None)
            if sent.operation.status == "accepted"
            and (key := sent.operation.external_person_id)
            and not key.startswith(ERASED_PREFIX)
            and (address := sent.operation.after(EMAIL_ATTRIBUTE))
        }


def _shared(sync: ApsisSync, contacts: Path) -> set[str]:
    """Addresses that more than one contact has, in lower case."""
    column = next((f.from_ for f in sync.section.all_fields if f.to == EMAIL_ATTRIBUTE), None)
    if column is None:
        return set()
    with duckdb.connect(config={"threads": 1}) as connection:
        rows = connection.execute(
            f"SELECT lower({ident(column)}) FROM {parquet(contacts)}"  # noqa: S608
            f" WHERE {ident(column)} IS NOT NULL GROUP BY ALL HAVING count(*) > 1"
        ).fetchall()
    return {row[0] for row in rows}


async def _merge_all(
    sync: ApsisSync, addresses: Mapping[str, str], shared: set[str], ends: dict[str, Result]
) -> list[BaseException]:
    """Adds to `ends` what became of each; returns what went wrong."""
    gate = asyncio.Semaphore(CONCURRENCY)

    async def one(pair: _Pair) -> None:
        async with gate:
            try:
                result = await pair.merge(shared, ends.get(pair.key))
            except ApsisUnavailable:
                ends[pair.key] = "no_answer"
                raise
        if result is not None:
            ends[pair.key] = result

    async with sync.client() as by_crm_id, sync.client(EMAIL_KEYSPACE) as by_email:
        pairs = (_Pair(by_crm_id, by_email, *both) for both in sorted(addresses.items()))
        ended = await asyncio.gather(*(one(pair) for pair in pairs), return_exceptions=True)
    return [error for error in ended if error is not None]


@dataclass(frozen=True)
class _Pair:
    """A person's profile by CRM id, and the one that may be there by address."""

    by_crm_id: "ApsisClient"
    by_email: "ApsisClient"
    key: str
    address: str

    async def merge(self, shared: set[str], before: Result | None) -> Result | None:
        """None where there is no other profile; `before`: what an earlier attempt came to."""
        try:
            other = await self.by_email.profile(self.address)
        except ApsisLocked:
            return "locked"
        if other is None:
            return None
        theirs = other.attributes.get(CRM_ID_ATTRIBUTE)
        if theirs == self.key:
            return "merged" if before == "no_answer" else None
        if self.address.lower() in shared:
            return "shared_by_contacts"
        return await self._united() if theirs is None else "other_crm_id"

    async def _united(self) -> Result:
        """They stay apart where APSIS One refuses any step of it."""
        try:
            await self._unite()
        except ApsisLocked:
            return "locked"
        except (ApsisRefused, ConsentRefused):
            return "refused"
        return "merged"

    async def _unite(self) -> None:
        # The HTTP client is slow to import; a process that asks nobody does without it.
        from vibes_pipelines.apsis.profiles import ProfileKey  # noqa: PLC0415

        crm, email = await self._opt_outs()
        await _opt_out(self.by_crm_id, self.key, email - crm)
        await _opt_out(self.by_email, self.address, crm - email)
        first, second = self.by_crm_id.place.keyspace, self.by_email.place.keyspace
        await self.by_crm_id.merge(ProfileKey(first, self.key), ProfileKey(second, self.address))
        left, _ = await self._opt_outs()
        await _opt_out(self.by_crm_id, self.key, (crm | email) - left)

    async def _opt_outs(self) -> tuple[set[_Place], set[_Place]]:
        """Topic and channel of every opt-out of either."""
        there = (
            await self.by_crm_id.consents(self.key),
            await self.by_email.consents(self.address),
        )
        crm, email = (
            {(one.topic, one.channel) for one in consents or () if one.type == OPT_OUT}
            for consents in there
        )
        return crm, email


async def _opt_out(client: "ApsisClient", key: str, places: Iterable[_Place]) -> None:
    for topic, channel in sorted(places):
        await client.consent(key, topic, channel, "opt-out", _REASON)
