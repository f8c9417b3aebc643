"""ApsisSync: the project of APSIS One, its section of sync.yaml and its systems, as one."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING

from vibes_pipelines.reconcile.destinations import APSIS, Destination
from vibes_pipelines.settings import Settings
from vibes_pipelines.stages.project import Project, open_project
from vibes_pipelines.store.database import utc_now
from vibes_pipelines.store.inbox import Inbox
from vibes_pipelines.sync_config import load_sync_config
from vibes_pipelines.sync_config.apsis import Apsis, ValueType
from vibes_pipelines.sync_config.apsis_view import apsis_section, landing_view

if TYPE_CHECKING:
    from vibes_pipelines.apsis.client import ApsisClient
    from vibes_pipelines.apsis.clock import Clock
    from vibes_pipelines.apsis.kept import KeptAccount
    from vibes_pipelines.apsis.line import Limits

LEASE = "tribe_sync"
"""Held by a full sync, and by whoever applies messages: never both at once."""


@dataclass(frozen=True)
class ApsisSystems:
    """How time passes: for this project, and for the limits of APSIS One (None: the machine's)."""

    now: Callable[[], datetime] = utc_now
    clock: "Clock | None" = None
    limits: "Limits | None" = None


@dataclass(frozen=True)
class ApsisSync:
    """What every stage of APSIS One works on. Open it with `open_apsis`."""

    project: Project
    section: Apsis
    systems: ApsisSystems = field(default_factory=ApsisSystems)

    @property
    def landing_project(self) -> Project:
        """The same project as landing and write-back see it: the source's own columns only."""
        return replace(self.project, config=landing_view(self.project.config))

    @property
    def types(self) -> dict[str, ValueType]:
        """The type of each mapped attribute."""
        return {one.to: one.type for one in self.section.all_fields}

    def now(self) -> datetime:
        """The present instant."""
        return self.systems.now()

    def today(self) -> str:
        """The day in UTC."""
        return self.now().date().isoformat()

    async def require_mapping(self, client: "ApsisClient") -> None:
        """Nothing when the account has everything that sync.yaml names.

        Raises:
            ApsisSetupError: what it has not, all of it, with what is near.
        """
        from vibes_pipelines.apsis.definitions import Wanted  # noqa: PLC0415 - as below

        section = self.section
        wanted = Wanted(
            attributes=[field.to for field in section.all_fields],
            consents=[(one.topic, one.channel_discriminator) for one in section.consents],
            tags=[overview.tag for overview in section.overviews],
        )
        (await client.definitions()).require(wanted)

    def client(self, keyspace: str | None = None) -> "ApsisClient":
        """A client of the section, through another keyspace; use it as an async context manager."""
        # The HTTP client is slow to import; a process that asks nobody does without it.
        from vibes_pipelines.apsis.client import ApsisClient  # noqa: PLC0415
        from vibes_pipelines.apsis.definitions import Place  # noqa: PLC0415

        place = Place(self.section.section, keyspace or self.section.keyspace)
        return ApsisClient(self.project.settings.apsis, place, kept=self._kept)

    @cached_property
    def _kept(self) -> "KeptAccount":
        """One token and one set of paces: the account counts the calls of all clients."""
        from vibes_pipelines.apsis.kept import KeptAccount  # noqa: PLC0415 - beside its clients

        return KeptAccount(self.systems.limits, self.systems.clock)


@contextmanager
def open_apsis(
    settings: Settings | None = None, systems: ApsisSystems | None = None
) -> Iterator[ApsisSync]:
    """Opens the project of APSIS One that the environment describes.

    Raises:
        SyncConfigError: sync.yaml is not right, or has no `destinations.apsis`.
    """
    settings, systems = settings or Settings(), systems or ApsisSystems()
    section = apsis_section(load_sync_config(settings.sync_config))
    with (
        open_project(settings, _destination(section), now=systems.now) as project,
        Inbox(project.settings.inbox_url, systems.now),  # where Vibes was never set up, made now
    ):
        yield ApsisSync(project, section, systems)


def _destination(section: Apsis) -> Destination:
    """APSIS One as this section wants it."""
    return replace(
        APSIS,
        deletes_unmatched=section.when_unmatched == "delete",
        ends_with=section.ends_with if section.when_address_changes == "opt_out" else {},
    )
