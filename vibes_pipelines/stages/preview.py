"""The preview: the diff set of a day as it would be, without landing or delivering anything.

What is landed already is used as it is; everything else is read into a folder that is removed at
the end. The ledger is read and never written.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from vibes_pipelines.delivery.plan import Plan
from vibes_pipelines.delivery.plan import preview as preview_plan
from vibes_pipelines.reconcile.summary import Summary
from vibes_pipelines.settings import Settings
from vibes_pipelines.stages.delivering import estimates_of, held_lanes
from vibes_pipelines.stages.erase_lock import RowsAreMovingError, no_erasure, nothing_moves
from vibes_pipelines.stages.kept_out import blank_returned
from vibes_pipelines.stages.landing import (
    LANDED_SHARE_FEEDS,
    Connect,
    land_contacts,
    land_extracts,
    land_share,
    sftp_account,
)
from vibes_pipelines.stages.preview_left import what_is_left
from vibes_pipelines.stages.preview_samples import Sample, samples_of
from vibes_pipelines.stages.project import Project, check_age
from vibes_pipelines.stages.reconciling import reconcile_day
from vibes_pipelines.store.database import open_engine
from vibes_pipelines.store.ledger import Ledger
from vibes_pipelines.store.records import DiffSet
from vibes_pipelines.store.revisions import revision_of
from vibes_pipelines.store.snapshots import CheckAge, Snapshot, SnapshotStore
from vibes_pipelines.sync_config import EXTRACT_FEEDS, load_sync_config


class PreviewError(RuntimeError):
    """The day cannot be shown; the message says why and what to do."""


@dataclass(frozen=True)
class Preview:
    """The diff set of a day as it would be. `samples` are masked.

    `operations` count by `lane/route/kind`, `reasons` by `lane/route: why`, `deferred` by
    `kind: why`; `seconds` tell by `lane/route` how long a road should take. `held` says of each
    lane why it would wait for an approval. `landed_before` are the feeds that were there already.
    Where the delivery began (`is_planned`), all this is about what is left: `went` counts by status
    what is through, `unanswered` what of the operations was sent and has no answer, and with
    `is_through` nothing is left.
    """

    day: str
    summary: Summary
    operations: Mapping[str, int]
    reasons: Mapping[str, int]
    deferred: Mapping[str, int]
    seconds: Mapping[str, float]
    files: int
    held: Mapping[str, str]
    samples: tuple[Sample, ...]
    landed_before: tuple[str, ...]
    went: Mapping[str, int]
    unanswered: int
    is_planned: bool
    is_through: bool

    @property
    def calls(self) -> int:
        """How many requests the API would get."""
        return sum(rows for name, rows in self.operations.items() if name.split("/")[1] == "api")

    def as_json(self) -> dict[str, Any]:
        """Everything, for machines."""
        return {**asdict(self), "summary": self.summary.to_document(), "calls": self.calls}


@dataclass(frozen=True)
class _Draft(Project):
    """A project whose new files are in a folder of its own; what is there is found where it is."""

    scratch: Path = Path()
    day: str = ""

    def diff_set_folder(self, day: str) -> Path:
        real = super().diff_set_folder(day)
        return real if day != self.day and real.exists() else self.scratch / "diff_sets" / day

    def base_folder(self, day: str) -> Path:
        real = super().base_folder(day)
        return real if real.exists() else self.scratch / "bases" / day


class _DraftSnapshots(SnapshotStore):
    """Finds what is landed, and lands the rest elsewhere."""

    def __init__(
        self,
        landed: SnapshotStore,
        root: Path,
        check_age: CheckAge,
        blank: Callable[[Path], int] | None,
    ) -> None:
        super().__init__(root, check_age, blank)
        self._landed = landed

    def find(self, feed: str, day: str) -> Snapshot | None:
        return self._landed.find(feed, day) or super().find(feed, day)

    def days(self, feed: str) -> list[str]:
        return sorted({*self._landed.days(feed), *super().days(feed)})


class _DraftLedger(Ledger):
    """The ledger as if the drafted diff set were registered; only reads."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._drafted: DiffSet | None = None

    def register(self, record: DiffSet) -> DiffSet:
        self._drafted = record
        return record

    def diff_set(self, diff_set: str) -> DiffSet | None:
        drafted = self._drafted
        if drafted is not None and drafted.diff_set == diff_set:
            return super().diff_set(diff_set) or drafted
        return super().diff_set(diff_set)

    def newest_diff_set(self) -> DiffSet | None:
        return self._drafted or super().newest_diff_set()


def preview_day(
    environment: Mapping[str, str], day: str, connect: Connect, tell: Callable[[str], None]
) -> Preview:
    """What the daily job would make of `day` now, with the settings of this environment.

    `tell` hears what is read and what is waited for.

    Raises:
        PreviewError: the ledger is of another version.
        NotLandedError, WrongDayError and the errors of the sources: as in the daily job.
    """
    settings = Settings(environment)
    _remove_what_is_left(settings)
    with (
        no_erasure(settings),
        tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=settings.home) as folder,
        _draft(environment, day, Path(folder)) as project,
    ):
        before = [feed for feed in _FEEDS if project.snapshots.find(feed, day)]
        _land(project, day, connect, tell)
        summary = reconcile_day(project, day)
        written = project.diff_set_folder(day)
        planned = preview_plan(
            summary.diff_set, written, project.config, project.ledger, estimates_of(project)
        )
        return _preview(project, summary, planned, tuple(before))


def _remove_what_is_left(settings: Settings) -> None:
    """Folders of previews that died; while another one runs, they wait for the next."""
    settings.home.mkdir(parents=True, exist_ok=True)
    with suppress(RowsAreMovingError), nothing_moves(settings):
        for folder in settings.home.glob(f"{_SCRATCH}*"):
            shutil.rmtree(folder)


_SCRATCH = ".preview-"
_FEEDS = ("crm/contacts", *LANDED_SHARE_FEEDS, *EXTRACT_FEEDS)


def _preview(
    project: _Draft, summary: Summary, planned: Plan, landed_before: tuple[str, ...]
) -> Preview:
    left = what_is_left(planned, project.ledger)
    folder = project.diff_set_folder(project.day)
    samples = [] if left.is_through else samples_of(folder, project.config)
    return Preview(
        day=project.day,
        summary=summary,
        operations=left.operations,
        reasons=dict(planned.reasons),
        deferred=dict(planned.deferred),
        seconds=left.seconds,
        files=left.files,
        held={str(lane): why for lane, why in held_lanes(project, project.day).items()},
        samples=tuple(samples),
        landed_before=landed_before,
        went=left.went,
        unanswered=left.unanswered,
        is_planned=left.is_planned,
        is_through=left.is_through,
    )


def _land(project: Project, day: str, connect: Connect, tell: Callable[[str], None]) -> None:
    tell("reading the CRM's contacts")
    land_contacts(project, day)
    for feed in LANDED_SHARE_FEEDS:
        tell(f"reading {feed}")
        land_share(project, day, feed, connect)
    if not all(project.snapshots.find(feed, day) for feed in EXTRACT_FEEDS):
        left = sftp_account(project).gap_left_s()
        wait = f", after {left:.0f} s: the SFTP account asks for a gap between sessions"
        tell(f"reading the extracts{wait if left else ''}")
    land_extracts(project, day)


@contextmanager
def _draft(environment: Mapping[str, str], day: str, scratch: Path) -> Iterator[_Draft]:
    """A project that reads what there is, and writes into `scratch` alone.

    Where there is no ledger yet, an empty one stands in for it.
    """
    settings = Settings(environment)
    is_there = _has_ledger(settings.ledger_url)
    if not is_there:
        own = f"sqlite:///{scratch / 'ledger.db'}"
        settings = Settings({**environment, "VIBES_LEDGER_URL": own})
    config = load_sync_config(settings.sync_config)
    limit = timedelta(hours=config.policies.max_age_h)
    snapshots = _DraftSnapshots(
        SnapshotStore(settings.home / "landing"),
        scratch / "landing",
        lambda source, landed_for: check_age(source, landed_for, limit),
        blank_returned(settings, config) if is_there else None,
    )
    ledger = _DraftLedger(settings.ledger_url)
    try:
        if not is_there:
            ledger.open()
        yield _Draft(settings, config, snapshots, ledger, scratch=scratch, day=day)
    finally:
        ledger.close()


def _has_ledger(ledger_url: str) -> bool:
    url = sa.make_url(ledger_url)
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").exists():
        return False
    engine = open_engine(ledger_url)
    try:
        with engine.connect() as connection:
            revision = revision_of(connection)
    finally:
        engine.dispose()
    if revision.present is not None and not revision.is_current:
        msg = (
            f"the ledger is of shape {revision.present} and this program of {revision.newest}; run "
            "`vibes-pipelines doctor`, which says what to do"
        )
        raise PreviewError(msg)
    return revision.present is not None
