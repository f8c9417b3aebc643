"""Contacts from Tribe CRM: its persons as one snapshot of the day, labels as columns.

What the absence of a label means is decided in `tribe_labels`. Labels that could not be read mean
nothing at all: then no snapshot comes about.
"""

from collections.abc import AsyncIterator, Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from vibes_pipelines.blanks import trimmed
from vibes_pipelines.crm.arrow_columns import as_text
from vibes_pipelines.crm.contacts import FEED
from vibes_pipelines.crm.mapped_columns import mapped_columns
from vibes_pipelines.data_files import parquet
from vibes_pipelines.instants import read_instant
from vibes_pipelines.reconcile.sql import clean, ident
from vibes_pipelines.stages.interrupts import run_until_interrupted
from vibes_pipelines.stages.project import Project
from vibes_pipelines.stages.tribe_labels import ABSENT, KnownLabels, known_labels, labels_of
from vibes_pipelines.store.snapshots import DATA, EmptySource, Snapshot, Source
from vibes_pipelines.sync_config import SyncConfig
from vibes_pipelines.sync_config.tribe import LABEL, LABEL_SINCE, TribeSource, label_of
from vibes_pipelines.tribe.labels import label_id_of, label_ids

if TYPE_CHECKING:
    from vibes_pipelines.tribe.client import Person, TribeClient

SOURCE = "Tribe Relation_Person"
ROWS_AT_ONCE = 10_000

CREATED = "CreationDate"
"""A person's field that tells that no label of it can be older (Tribe documentation, Entities)."""

Check = Callable[[], None]
"""Called between two pages; raises when the work is to stop."""


def go_on() -> None:
    """Nothing is to stop."""


def tribe_client(project: Project) -> "AbstractAsyncContextManager[TribeClient]":
    """A client of the project's Tribe application."""
    # The HTTP client is slow to import; a process that asks nobody does without it.
    from vibes_pipelines.tribe.client import TribeClient  # noqa: PLC0415

    return TribeClient(project.settings.tribe)


def land_tribe_contacts(
    project: Project, day: str, as_of: datetime, check: Check = go_on
) -> tuple[Snapshot, bool]:
    """Lands the persons of Tribe for `day`; asks Tribe only when they are not landed yet.

    Raises:
        TribeError: Tribe cannot be read whole, or has not the fields and labels of sync.yaml.
        EmptySource: there is no person at all.
    """

    def write(folder: Path) -> Source:
        copying = _Copying(project.config, known_labels(project, day), as_of)
        rows = run_until_interrupted(_copy(project, copying, folder / DATA, None, check))
        if rows == 0:
            msg = "Tribe: there is no person; check TRIBE_CLIENT_ID. Nothing was landed"
            raise EmptySource(msg)
        return Source(SOURCE, as_of)

    return project.snapshots.land(FEED, day, write)


def copy_tribe_contacts(project: Project, path: Path, keys: Collection[str]) -> int:
    """Writes the contacts with these keys, as they are now, as a landed day would have them.

    Raises:
        TribeError: as `land_tribe_contacts`.
    """
    copying = _Copying(project.config, known_labels(project), datetime.now(UTC))
    keys = keys_as_held(project, keys)
    # In a thread of its own: a delivery looks at the CRM from within its own event loop.
    with ThreadPoolExecutor(max_workers=1) as apart:
        return apart.submit(run_until_interrupted, _copy(project, copying, path, keys)).result()


def keys_as_held(project: Project, keys: Collection[str]) -> set[str]:
    """These keys, and what Tribe has that reads as one of them, as the newest landed day shows it.

    A key of text may have blanks at its edges, or another normal form; Tribe compares them as is.
    """
    key = project.config.contacts.key
    days = project.snapshots.days(FEED)
    snapshot = project.snapshots.find(FEED, days[-1]) if days else None
    if snapshot is None or key not in snapshot.manifest.columns:
        return set(keys)
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.register("wanted", pa.table({"clean": pa.array(sorted(keys), pa.string())}))
        rows = connection.execute(
            f"SELECT {ident(key)} FROM {parquet(snapshot.data)}"  # noqa: S608 - quoted there
            f" SEMI JOIN wanted ON {clean(ident(key))} = wanted.clean"
        ).fetchall()
    return {*keys, *(row[0] for row in rows)}


def fields_of(config: SyncConfig) -> dict[str, str]:
    """Tribe's fields that are read, each with the entry of sync.yaml that names it."""
    return {c: entry for c, entry in mapped_columns(config).items() if label_of(c) is None}


@dataclass(frozen=True)
class _Copying:
    """How a person becomes a row."""

    config: SyncConfig
    known: KnownLabels
    as_of: datetime

    @cached_property
    def fields(self) -> tuple[str, ...]:
        """Tribe's fields, in the order of sync.yaml."""
        return tuple(fields_of(self.config))

    @cached_property
    def if_never(self) -> str | None:
        """The state of a label that a person was never seen with."""
        source = self.config.contacts.tribe or TribeSource()
        return ABSENT if source.when_label_absent == "opted_out" else None

    @property
    def schema(self) -> pa.Schema:
        """Text throughout: Tribe's fields, then each label with its time."""
        labels = labels_of(self.config)
        columns = [*self.fields, *(LABEL + name for name in labels)]
        columns += [LABEL_SINCE + name for name in labels]
        return pa.schema([(column, pa.string()) for column in columns])

    def row(self, person: "Person", label_ids_by_name: Mapping[str, str]) -> dict[str, str | None]:
        row = {name: as_text(_value(person, name)) for name in self.fields}
        contact = trimmed(row[self.config.contacts.key] or "") or ""
        held = set(label_ids(person, SOURCE))
        created_at = read_instant(str(person.get(CREATED)))
        for name, identifier in label_ids_by_name.items():
            is_present = identifier in held
            state, since = self.known.state(
                name,
                contact,
                self.as_of,
                created_at,
                is_present=is_present,
                if_never=self.if_never,
            )
            row[LABEL + name], row[LABEL_SINCE + name] = state, since
        return row


async def _copy(
    project: Project,
    copying: _Copying,
    path: Path,
    keys: Collection[str] | None,
    check: Check = go_on,
) -> int:
    config, schema = project.config, copying.schema
    rows, waiting = 0, list[dict[str, str | None]]()
    async with tribe_client(project) as client:
        (await client.metadata()).require(fields_of(config))
        existing = await client.labels()
        identifiers = {name: label_id_of(existing, name) for name in labels_of(config)}
        with pq.ParquetWriter(path, schema, compression="zstd") as writer:
            async for page in _pages(client, config, keys):
                check()
                waiting += [copying.row(person, identifiers) for person in page]
                if len(waiting) >= ROWS_AT_ONCE:
                    writer.write_table(pa.Table.from_pylist(waiting, schema))
                    rows, waiting = rows + len(waiting), []
            writer.write_table(pa.Table.from_pylist(waiting, schema))
    return rows + len(waiting)


async def _pages(
    client: "TribeClient", config: SyncConfig, keys: Collection[str] | None
) -> AsyncIterator[list["Person"]]:
    select = [*fields_of(config), CREATED]
    if keys is not None:
        yield await client.find(config.contacts.key, keys, select)
        return
    async for page in client.persons(select=select):
        yield page


def _value(person: Mapping[str, Any], path: str) -> Any:
    """A field, `Address/City` that of what the person refers to."""
    found: Any = person
    for name in path.split("/"):
        if not isinstance(found, dict):
            return None
        found = found.get(name)
    return found
