"""Project: one customer's settings, sync config, snapshots and ledger, opened together."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from pathlib import Path

from vibes_pipelines.reconcile.destinations import VIBES, Destination
from vibes_pipelines.settings import Settings
from vibes_pipelines.stages.kept_out import blank_returned
from vibes_pipelines.store.database import is_there, utc_now
from vibes_pipelines.store.ledger import Ledger
from vibes_pipelines.store.snapshots import SnapshotStore, Source
from vibes_pipelines.sync_config import SyncConfig, load_sync_config


class WrongDayError(ValueError):
    """A source shows another day than the one it was to be landed for; nothing was landed."""


class NoLedgerError(ValueError):
    """A command that only looks at what is recorded was pointed at where nothing is."""


@dataclass(frozen=True)
class Project:
    """What every stage works on, for one destination. Open it with `open_project`."""

    settings: Settings
    config: SyncConfig
    snapshots: SnapshotStore
    ledger: Ledger
    destination: Destination = VIBES

    def diff_set_folder(self, day: str) -> Path:
        """Where the reconcile of `day` writes its diff set."""
        return self.settings.home / "diff_sets" / day

    def base_folder(self, day: str) -> Path:
        """Where the base of `day` is recorded."""
        return self.settings.home / "bases" / day

    def certificate_folder(self, day: str) -> Path:
        """Where the convergence certificate of `day` is written."""
        return self.settings.home / "certificates" / day

    def work_folder(self, day: str) -> Path:
        """Where the deliveries of `day` keep their files."""
        return self.settings.home / "deliveries" / day


@contextmanager
def open_project(
    settings: Settings | None = None,
    destination: Destination = VIBES,
    *,
    may_create: bool = True,
    now: Callable[[], datetime] = utc_now,
) -> Iterator[Project]:
    """Opens the project that the environment describes; closes the ledger afterwards.

    Each destination but Vibes has a data folder and a ledger of its own, below those of Vibes.

    Raises:
        SyncConfigError: sync.yaml is not right, or does not have this destination.
        NoLedgerError: there is no ledger yet, and `may_create` is false; nothing was created.
    """
    settings = settings or Settings()
    config = destination.view(load_sync_config(settings.sync_config))
    if destination is not VIBES:
        settings = settings.of_destination(destination.name)
    if not may_create and not is_there(settings.ledger_url):
        file = settings.ledger_url.partition(":///")[2]
        msg = (
            f"no ledger at {file}: nothing was reconciled there yet; set VIBES_HOME, or"
            " VIBES_LEDGER_URL, as the daily job has it"
        )
        raise NoLedgerError(msg)
    settings.home.mkdir(parents=True, exist_ok=True)
    ledger = Ledger(settings.ledger_url, now)
    ledger.open()
    try:
        yield Project(settings, config, _snapshots(settings, config), ledger, destination)
    finally:
        ledger.close()


def end_of_day(day: str) -> datetime:
    """The last second of a day in UTC."""
    return datetime.combine(datetime.fromisoformat(day).date(), time(23, 59, 59), tzinfo=UTC)


def _snapshots(settings: Settings, config: SyncConfig) -> SnapshotStore:
    limit = timedelta(hours=config.policies.max_age_h)
    return SnapshotStore(
        settings.home / "landing",
        lambda source, day: check_age(source, day, limit),
        blank_returned(settings, config),
    )


def check_age(source: Source, day: str, limit: timedelta) -> None:
    """Refuses a source that is too old or too young for `day`.

    A share that shows a later day would make a past day's diff set from newer facts; a stale one
    would undo what happened since.

    Raises:
        WrongDayError: names what the source shows and the cure.
    """
    shown = f"{source.name} shows {source.as_of:%Y-%m-%d %H:%M} UTC"
    if source.as_of > max(end_of_day(day), utc_now()):
        msg = (
            f"{shown}, which is still to come. Unless feeds.share/refreshes of sync.yaml tells when"
            " a share was refreshed, it shows the newest updated_at of its persons: map that feed,"
            " or ask Vibes to correct the time"
        )
        raise WrongDayError(msg)
    if source.as_of > end_of_day(day):
        msg = f"{shown}, after {day}; a past day cannot be landed any more, only rebuilt"
        raise WrongDayError(msg)
    if source.as_of < end_of_day(day) - limit:
        msg = (
            f"{shown}, which is older than policies.max_age_h before the end of {day} allows; ask"
            " Vibes why a share or an extract was not refreshed. A CRM shows the moment it is read:"
            " take a day that has begun"
        )
        raise WrongDayError(msg)
