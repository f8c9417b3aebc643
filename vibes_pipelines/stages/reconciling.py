"""Reconciling: the landed snapshots of a day, its base and the ledger as of it: a diff set.

Decisions about cases of the quarantine are of the ledger, as of the day like the rest of it.
"""

import fcntl
import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq

from vibes_pipelines.delivery import release
from vibes_pipelines.reconcile.errors import ReconcileError
from vibes_pipelines.reconcile.run import Inputs, reconcile
from vibes_pipelines.reconcile.summary import SUMMARY, Summary, load_summary
from vibes_pipelines.stages.bases import base_of
from vibes_pipelines.stages.earlier_opt_outs import write_earlier_opt_outs
from vibes_pipelines.stages.erase_lock import not_while_erasing
from vibes_pipelines.stages.judging import judge
from vibes_pipelines.stages.past_days import never_landed
from vibes_pipelines.stages.project import Project
from vibes_pipelines.stages.returned_numbers import decisions_of
from vibes_pipelines.store.placing import put_instead
from vibes_pipelines.store.realtime_views import with_newer
from vibes_pipelines.store.snapshots import Snapshot
from vibes_pipelines.sync_config import EXTRACT_FEEDS

_UNFINISHED = ".unfinished-"


class NotLandedError(ValueError):
    """A feed has no snapshot for the day."""


class NotReconciledError(ValueError):
    """A day has no diff set."""


class UnreadableDayError(NotReconciledError):
    """A day has half of a diff set; names the file and the cure."""


def snapshot_of(project: Project, feed: str, day: str) -> Snapshot:
    """The snapshot of one feed and day.

    Raises:
        NotLandedError: names the feed and how to land it.
    """
    snapshot = project.snapshots.find(feed, day)
    if snapshot is None:
        why = None if feed in EXTRACT_FEEDS else never_landed(project, feed, day)
        msg = f"{feed} of {day} is not landed; materialize {feed} for that day first"
        raise NotLandedError(why or msg)
    return snapshot


def subscriptions_of(project: Project, day: str) -> list[Snapshot]:
    """The share's subscriptions of the day, and every landed extract since what the share shows.

    The share's table holds every subscription; the extract may know of an opt-out earlier. Another
    destination has one whole feed. An extract has the events of one day. Without those of the days
    that a share which is behind does not show yet, an opt-out would be forgotten on the next day,
    and sent back to where it came from.
    """
    share, *extracts = (
        snapshot_of(project, feed, day) for feed in project.destination.feeds.subscriptions
    )
    if not extracts:
        return [share]
    (extract,) = extracts
    feed, shown = extract.manifest.feed, share.manifest.as_of.date().isoformat()
    earlier = [landed for landed in project.snapshots.days(feed) if shown <= landed < day]
    return [share, *(snapshot_of(project, feed, landed) for landed in earlier), extract]


@not_while_erasing
def reconcile_day(project: Project, day: str) -> Summary:
    """Writes the diff set of `day` and registers it in the ledger; replaces an earlier rebuild.

    One at a time: another one waits.
    """
    with _draft_of(project.diff_set_folder(day)) as draft:
        return _reconcile(project, day, draft)


@contextmanager
def _draft_of(folder: Path) -> Iterator[Path]:
    """A folder to write a diff set into, while no other process writes one."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for left_by_a_killed_process in folder.parent.glob(f"{_UNFINISHED}*"):
            shutil.rmtree(left_by_a_killed_process)
        draft = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=folder.parent))
        draft.chmod(0o755)
        try:
            yield draft
        finally:
            shutil.rmtree(draft, ignore_errors=True)


def _reconcile(project: Project, day: str, draft: Path) -> Summary:
    feeds = project.destination.feeds
    contacts, persons = (snapshot_of(project, f, day) for f in (feeds.contacts, feeds.persons))
    subscriptions = subscriptions_of(project, day)
    accepted = release.accepted_rows(project.ledger, day)
    inputs = Inputs(
        contacts=contacts.folder,
        persons=persons.folder,
        subscriptions=tuple(snapshot.folder for snapshot in subscriptions),
        base=base_of(project, day),
        pending=_pending(project, day, draft, (contacts, persons)),
        blocked=_blocked(project, day, draft),
        decisions=decisions_of(project, day, draft, contacts, persons),
        earlier_opt_outs=write_earlier_opt_outs(project, day, draft, contacts, persons),
        accepted_rows=accepted,
        relative_guards=accepted is not None,
        for_next_base=True,
        destination=project.destination,
    )
    summary = judge(project, day, reconcile(project.config, inputs, draft), draft)
    summary = _as_known(project, day, summary, draft)
    put_instead(draft, project.diff_set_folder(day))
    release.register_diff_set(project.ledger, day, summary, [contacts, persons])
    return summary


def _as_known(project: Project, day: str, summary: Summary, draft: Path) -> Summary:
    """The diff set that is there already, where this one says the very same of the same day.

    Both sides may be landed anew within a day, later, and show the same: what somebody looked at,
    and perhaps approved, is still what would be sent. Once something of it has left it is past.
    """
    known = project.ledger.newest_diff_set()
    if known is None or (known.day, known.status) != (day, "open"):
        return summary
    same = replace(summary, as_of=known.as_of)
    counts = project.ledger.status_counts(known.diff_set)
    has_left = any(status != "planned" for *_, status in counts)
    if has_left or json.loads(same.to_json()) != known.summary:
        return summary
    (draft / SUMMARY).write_text(same.to_json(), encoding="utf-8")
    return same


def _pending(project: Project, day: str, folder: Path, landed: Sequence[Snapshot]) -> Path:
    """What was sent before the day, and in real time before its newest snapshot was taken."""
    as_of = max(snapshot.manifest.as_of for snapshot in landed)
    daily = project.ledger.pending(day, project.config.config_hash)
    path = folder / "pending.parquet"
    pq.write_table(with_newer(daily, project.ledger.pending_in_real_time(day, as_of)), path)
    return path


def _blocked(project: Project, day: str, folder: Path) -> Path:
    path = folder / "blocked.parquet"
    pq.write_table(project.ledger.blocked(day, project.config.config_hash), path)
    return path


def read_summary(project: Project, day: str) -> Summary:
    """The summary of the diff set of `day`.

    Raises:
        NotReconciledError: the day has no diff set, or half of one.
    """
    folder = project.diff_set_folder(day)
    if not (folder / SUMMARY).exists():
        msg = f"{day} is not reconciled; materialize reconcile/person_changes for that day first"
        raise NotReconciledError(msg)
    try:
        return load_summary(folder)
    except ReconcileError as half:
        raise UnreadableDayError(str(half)) from half
