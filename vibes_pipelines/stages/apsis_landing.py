"""Landing for APSIS One: the contacts, what is known of the profiles, and both as they compare.

<home>/apsis/landing/{crm,apsis}/<feed>/<day>/   of the newest full sync of a day
<home>/apsis/replaced/<day>/<n>/                 what earlier full syncs of that day landed
"""

import heapq
import shutil
from collections import defaultdict
from collections.abc import Collection, Mapping
from contextlib import closing
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import duckdb
import pyarrow as pa

from vibes_pipelines.data_files import parquet
from vibes_pipelines.reconcile.landed import write_contact_hashes, write_person_hashes
from vibes_pipelines.reconcile.sql import clean, ident
from vibes_pipelines.stages.apsis_contacts import write_contacts
from vibes_pipelines.stages.apsis_known import (
    NEVER,
    Known,
    Reader,
    Wanted,
    read_known,
    write_consents,
    write_profiles,
    write_reads,
)
from vibes_pipelines.stages.apsis_sync import ApsisSync
from vibes_pipelines.stages.interrupts import run_until_interrupted
from vibes_pipelines.stages.landing import CONTACTS, land_raw_contacts
from vibes_pipelines.stages.masking import hash_key
from vibes_pipelines.stages.project import end_of_day
from vibes_pipelines.stages.pseudonyms import pseudonym
from vibes_pipelines.stages.tribe_contacts import Check
from vibes_pipelines.store.consent_looks import ConsentLooks
from vibes_pipelines.store.realtime import Sent
from vibes_pipelines.store.records import ERASED_PREFIX
from vibes_pipelines.store.sent_changes import SentChanges
from vibes_pipelines.store.snapshots import (
    DATA,
    MANIFEST,
    REJECTS,
    Manifest,
    Reject,
    Snapshot,
    Source,
    write_rejects,
)

READS = "apsis/reads"
FEEDS = (CONTACTS, "apsis/contacts", READS, "apsis/profiles", "apsis/consents")
SOURCE = "APSIS One"
REPLACED = "replaced"
"""The folder of what earlier full syncs of a day landed, in the data folder."""

HASHED_ROWS = 10_000
"""From so many contacts on hashes cost less than they save."""


def retire(sync: ApsisSync, day: str) -> None:
    """Moves what an earlier full sync of the day landed out of the way; nothing is deleted."""
    root = sync.project.snapshots.root
    landed = [feed for feed in FEEDS if (root / feed / day).is_dir()]
    if not landed:
        return
    place = _replaced(sync) / day
    number = 1 + max((int(p.name) for p in place.glob("[0-9]*")), default=0)
    # The last to go is what later reads build on: cut before that, the next one finishes the move.
    for feed in sorted(landed, key=lambda one: one == READS):
        target = place / f"{number:04d}" / feed
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(root / feed / day, target)


def land_contacts_of(sync: ApsisSync, day: str, check: Check) -> Snapshot:
    """Lands the CRM's contacts, and from them the contacts as APSIS One is to have them."""
    project, began = sync.project, sync.now()
    raw, is_new = land_raw_contacts(sync.landing_project, day, check)
    looked_at = began if is_new else raw.manifest.as_of

    def write(folder: Path) -> Source:
        rejects = write_contacts(
            project.config,
            sync.section,
            raw.folder,
            folder / DATA,
            looked_at=looked_at,
            ledger_url=project.settings.ledger_url,
        )
        write_rejects(folder, rejects)
        return Source(raw.manifest.source, _as_of(looked_at, day))

    landed, _ = project.snapshots.land(project.destination.feeds.contacts, day, write)
    if landed.manifest.rows >= HASHED_ROWS:
        write_contact_hashes(project.config, landed.folder)
    return landed


def land_profiles(sync: ApsisSync, day: str, contacts: Snapshot, check: Check) -> Snapshot:
    """Reads what is in doubt at APSIS One, and lands the profiles and consents as they are known.

    Profiles that are locked or could not be read are the rejects of `apsis/reads`.

    Raises:
        ApsisError: APSIS One is away, or more than a few could not be read; nothing is landed.
    """
    project = sync.project
    began = sync.now()
    before = newest_reads(sync, day)

    def write_read(folder: Path) -> Source:
        found, troubles = run_until_interrupted(_read(sync, contacts, before, check))
        write_reads(before.data if before else None, found, folder / DATA)
        lines = enumerate(sorted(troubles.items()), start=1)
        write_rejects(folder, (Reject(line, key, why) for line, (key, why) in lines))
        return Source(SOURCE, _as_of(began, day))

    reads, _ = project.snapshots.land(READS, day, write_read)
    source = Source(SOURCE, reads.manifest.as_of)

    def write_persons(folder: Path) -> Source:
        write_profiles(sync.section, reads.data, folder / DATA)
        return source

    def write_subscriptions(folder: Path) -> Source:
        write_consents(reads.data, managed(sync), folder / DATA)
        return source

    feeds = project.destination.feeds
    profiles, _ = project.snapshots.land(feeds.persons, day, write_persons)
    project.snapshots.land(feeds.subscriptions[0], day, write_subscriptions)
    if contacts.manifest.rows >= HASHED_ROWS:
        write_person_hashes(project.config, profiles.folder)
    return profiles


async def read_now(sync: ApsisSync, keys: Collection[str]) -> list[Known]:
    """The profiles of these keys as they are now.

    Raises:
        ApsisError: APSIS One is away or refuses the login, or none of more than a few can be read.
    """
    before = newest_reads(sync)
    sent = [one for one in _sent_since(sync, before) if one.operation.external_person_id in keys]
    async with sync.client() as client:
        reader = Reader(sync.section, client, sync.now, sent, is_patient=True)
        return await reader.read(Wanted(keys), known_of(sync, before, keys))


def known_of(sync: ApsisSync, before: Snapshot | None, keys: Collection[str]) -> dict[str, Known]:
    """What earlier reads say of these keys; of somebody who was erased and let in again, too."""
    if before is None or not keys:
        return {}
    known = read_known(before.data, keys)
    secret = hash_key(sync.project.settings.keys_home)
    returned = {pseudonym(key, secret): key for key in keys if key not in known}
    blank = read_known(before.data, returned)
    return known | {returned[name]: replace(one, key=returned[name]) for name, one in blank.items()}


def managed(sync: ApsisSync) -> pa.Table:
    """Contact and list of every consent that was seen opted in at the CRM at some time."""
    lists: defaultdict[str, list[str]] = defaultdict(list)
    for consent in sync.project.config.consents:
        lists[consent.from_].append(consent.list)
    with closing(ConsentLooks(sync.project.settings.ledger_url)) as looks:
        rows = [
            {"contact": seen.contact, "list": listed}
            for seen in looks.seen()
            if seen.last_in_at is not None
            for listed in lists.get(seen.consent, ())
        ]
    return pa.Table.from_pylist(rows, pa.schema([("contact", pa.string()), ("list", pa.string())]))


def newest_reads(sync: ApsisSync, day: str | None = None) -> Snapshot | None:
    """The newest landed reads, those of an earlier full sync of the same day included.

    With `day` nothing that was landed for a later day counts.
    """
    store = sync.project.snapshots
    found: list[tuple[str, str, Snapshot]] = []
    for landed_day in store.days(READS)[-2:]:
        landed = store.find(READS, landed_day)
        if landed and (day is None or landed_day <= day):
            found.append((landed_day, "landed", landed))
    for folder in _replaced(sync).glob(f"*/*/{READS}/{MANIFEST}"):
        number, replaced_day = folder.parents[2].name, folder.parents[3].name
        if day is None or replaced_day <= day:
            found.append((replaced_day, number, _moved(folder.parent)))
    # Digits sort before the word: what is landed now is newer than what it replaced.
    return max(found, key=lambda one: one[:2], default=(None, None, None))[2]


def _moved(folder: Path) -> Snapshot:
    manifest = Manifest.from_json((folder / MANIFEST).read_text(encoding="utf-8"))
    return Snapshot(manifest, folder / DATA, folder / REJECTS)


async def _read(
    sync: ApsisSync, contacts: Snapshot, before: Snapshot | None, check: Check
) -> tuple[list[Known], Mapping[str, str]]:
    sent = list(_sent_since(sync, before))
    known_path = before.data if before else None
    keys = _contact_keys(sync, contacts)
    in_doubt = {one.operation.external_person_id or ERASED_PREFIX for one in sent}
    read_before = _read_before(known_path)
    never = {key for key, (at, _) in read_before.items() if at == NEVER.replace(tzinfo=None)}
    whole = in_doubt | never | {key for key in keys if key not in read_before}
    whole = {key for key in whole if not key.startswith(ERASED_PREFIX)}
    oldest = heapq.nsmallest(
        sync.section.max_reads,
        ((at, key) for key, (at, is_found) in read_before.items() if is_found and key not in whole),
    )
    wanted = Wanted(sorted(whole), [key for _, key in oldest])
    known = known_of(sync, before, {*wanted.whole, *wanted.consents})
    async with sync.client() as client:
        await sync.require_mapping(client)
        reader = Reader(sync.section, client, sync.now, sent, check)
        return await reader.read(wanted, known), reader.troubles


def _sent_since(sync: ApsisSync, before: Snapshot | None) -> list[Sent]:
    with closing(SentChanges(sync.project.settings.ledger_url)) as changes:
        return list(changes.since(before.manifest.as_of if before else None))


def _contact_keys(sync: ApsisSync, contacts: Snapshot) -> list[str]:
    key = ident(sync.project.config.contacts.key)
    with duckdb.connect(config={"threads": 1}) as connection:
        rows = connection.execute(
            f"SELECT DISTINCT {clean(key)} AS key FROM {parquet(contacts.data)}"  # noqa: S608
            " WHERE key IS NOT NULL ORDER BY ALL"
        ).fetchall()
    return [row[0] for row in rows]


def _read_before(reads: Path | None) -> dict[str, tuple[datetime, bool]]:
    if reads is None:
        return {}
    with duckdb.connect(config={"threads": 1}) as connection:
        rows = connection.execute(
            f"SELECT key, read_at, is_found FROM {parquet(reads)}"  # noqa: S608
        ).fetchall()
    return {key: (at, is_found) for key, at, is_found in rows}


def _as_of(instant: datetime, day: str) -> datetime:
    return min(instant, end_of_day(day))


def _replaced(sync: ApsisSync) -> Path:
    return sync.project.settings.home / REPLACED
