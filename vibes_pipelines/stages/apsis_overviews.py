"""Overviews: lists of contacts made in Tribe, carried to tags of APSIS One. No full sync does it.

By hand, or every morning where an overview is recurring. Tribe has no endpoint for its Selections
(an assumption: the documentation is silent), so that a column tells the members, e.g. a label.
"""

import asyncio
import json
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Iterable, Set
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

import duckdb

from vibes_pipelines.apsis.calls import can_stand_in_path
from vibes_pipelines.apsis.errors import ApsisLocked, ApsisNotFound
from vibes_pipelines.reconcile.conditions import condition
from vibes_pipelines.reconcile.consent import OPTED_IN, state_column
from vibes_pipelines.reconcile.identifiers import contact_identifiers
from vibes_pipelines.reconcile.sources import open_source
from vibes_pipelines.reconcile.sql import all_of
from vibes_pipelines.stages.apsis_sync import ApsisSync
from vibes_pipelines.stages.erase_lock import no_erasure
from vibes_pipelines.stages.interrupts import run_until_interrupted
from vibes_pipelines.stages.kept_out import without_erased
from vibes_pipelines.stages.landing import land_contacts
from vibes_pipelines.store.realtime import RealtimeBook
from vibes_pipelines.store.snapshots import SnapshotStore
from vibes_pipelines.sync_config import Consent
from vibes_pipelines.sync_config.apsis import Overview

if TYPE_CHECKING:
    from vibes_pipelines.apsis.client import ApsisClient

CONCURRENCY = 16


class UnknownOverview(ValueError):  # noqa: N818 - the name says what is wrong
    """sync.yaml has no overview of this name."""


@dataclass(frozen=True)
class Carried:
    """What carrying an overview came to.

    `without_profile`: members whose profile APSIS One does not have, or has locked.
    """

    name: str
    members: int
    tagged: int
    untagged: int
    without_profile: int

    @property
    def sentence(self) -> str:
        """One line for the log."""
        return (
            f"overview {self.name}: {self.members} members, {self.tagged} tagged, {self.untagged}"
            f" untagged, {self.without_profile} without a profile, or a locked one"
        )


def recurring(sync: ApsisSync) -> list[str]:
    """The names of the overviews that are carried every morning."""
    return [one.name for one in sync.section.overviews if one.recurring]


def carry_overview(sync: ApsisSync, name: str) -> Carried:
    """Tags who is in the overview now, and untags who was and is not any more.

    Only who meets the sync conditions is in one: no profile of another contact is written.

    Raises:
        UnknownOverview: sync.yaml does not have it.
        TribeError, CrmError, ApsisError: a side is away or refuses; carry it again.
    """
    overview = next((one for one in sync.section.overviews if one.name == name), None)
    if overview is None:
        known = ", ".join(one.name for one in sync.section.overviews) or "none"
        msg = f"destinations.apsis.overviews has no {name!r}; it has: {known}"
        raise UnknownOverview(msg)
    settings = sync.project.settings
    with (
        no_erasure(settings),
        closing(RealtimeBook(settings.ledger_url, sync.now)) as book,
    ):
        members = {*without_erased(settings, _members(sync, overview))}
        before = _Tagged.read(book, name)
        joining, leaving = members - before.certainly, before.maybe - members
        # Cut between two tags, the next one finds everybody who may have it, and who may not.
        _Tagged(before.certainly & members, before.maybe | members).note(book, name)
        missing = run_until_interrupted(_write(sync, overview, joining, leaving))
        _Tagged(members - missing, members - missing).note(book, name)
    tagged = len(joining - missing)
    return Carried(name, len(members), tagged, len(leaving), len(missing & members))


@dataclass(frozen=True)
class _Tagged:
    """Who has the tag of an overview, as far as was noted."""

    _CURSORS: ClassVar = ("overview", "overview_maybe")

    certainly: Set[str]
    maybe: Set[str]

    @classmethod
    def read(cls, book: RealtimeBook, name: str) -> Self:
        certainly, maybe = (
            frozenset(json.loads(book.cursor(f"{word} {name}") or "[]")) for word in cls._CURSORS
        )
        return cls(certainly, certainly | maybe)

    def note(self, book: RealtimeBook, name: str) -> None:
        certainly, maybe = (f"{word} {name}" for word in self._CURSORS)
        # Cut between the two, nobody who may have the tag is forgotten.
        book.move_cursor(maybe, json.dumps(sorted(self.maybe)))
        book.move_cursor(certainly, json.dumps(sorted(self.certainly)))


def _members(sync: ApsisSync, overview: Overview) -> set[str]:
    """Read anew, and kept nowhere: a list of the morning is worth nothing in the evening."""
    asked = Consent(from_=overview.members, list=overview.name)
    core = sync.landing_project
    config = core.config.model_copy(update={"consents": (asked,)})
    with tempfile.TemporaryDirectory(prefix="overview-") as workspace:
        store = SnapshotStore(Path(workspace))
        landed, _ = land_contacts(replace(core, config=config, snapshots=store), sync.today())
        with duckdb.connect(config={"threads": 1}) as connection:
            source = open_source(connection, "contacts", landed.folder, Path(workspace))
            key = contact_identifiers(config, source).key
            is_synced = all_of(condition(one, source) for one in config.contacts.conditions)
            rows = connection.execute(
                f"SELECT DISTINCT {key} FROM {source.relation}"  # noqa: S608 - quoted there
                f" WHERE {state_column(asked, source)} = {OPTED_IN} AND {is_synced}"
            ).fetchall()
        shutil.rmtree(landed.folder)
    return {row[0] for row in rows if row[0] and can_stand_in_path(row[0])}


async def _write(
    sync: ApsisSync, overview: Overview, joining: Iterable[str], leaving: Iterable[str]
) -> set[str]:
    """Writes the tags; returns those without a profile that could be written."""
    missing: set[str] = set()
    gate = asyncio.Semaphore(CONCURRENCY)

    async def one(write: Callable[..., Awaitable[None]], key: str) -> None:
        async with gate:
            try:
                await write(key, overview.tag)
            except (ApsisLocked, ApsisNotFound):
                missing.add(key)

    client: ApsisClient
    async with sync.client() as client:
        # All come to their end before one that failed ends the call: none is left half done.
        ended = await asyncio.gather(
            *(one(client.tag, key) for key in sorted(joining)),
            *(one(client.untag, key) for key in sorted(leaving)),
            return_exceptions=True,
        )
    for failed in ended:
        if failed is not None:
            raise failed
    return missing
