"""Project: one customer's settings, sync config, snapshots and ledger, opened together."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, time
from pathlib import Path

from vibes_pipelines.settings import Settings
from vibes_pipelines.store.ledger import Ledger
from vibes_pipelines.store.snapshots import SnapshotStore
from vibes_pipelines.sync_config import SyncConfig, load_sync_config


@dataclass(frozen=True)
class Project:
    """What every stage works on. Open it with `open_project`."""

    settings: Settings
    config: SyncConfig
    snapshots: SnapshotStore
    ledger: Ledger

    def diff_set_folder(self, day: str) -> Path:
        """Where the reconcile of `day` writes its diff set."""
        return self.settings.home / "diff_sets" / day

    def certificate_folder(self, day: str) -> Path:
        """Where the convergence certificate of `day` is written."""
        return self.settings.home / "certificates" / day

    def work_folder(self, day: str) -> Path:
        """Where the deliveries of `day` keep their files."""
        return self.settings.home / "deliveries" / day


@contextmanager
def open_project(settings: Settings | None = None) -> Iterator[Project]:
    """Opens the project that the environment describes; closes the ledger afterwards."""
    settings = settings or Settings()
    settings.home.mkdir(parents=True, exist_ok=True)
    config = load_sync_config(settings.sync_config)
    ledger = Ledger(settings.ledger_url)
    ledger.open()
    try:
        yield Project(settings, config, SnapshotStore(settings.home / "landing"), ledger)
    finally:
        ledger.close()


def end_of_day(day: str) -> datetime:
    """The last second of a day in UTC."""
    return datetime.combine(datetime.fromisoformat(day).date(), time(23, 59, 59), tzinfo=UTC)
