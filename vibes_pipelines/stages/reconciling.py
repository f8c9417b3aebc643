"""Reconciling: the landed snapshots of a day, and the ledger as of that day, become a diff set."""

import shutil
from pathlib import Path

import pyarrow.parquet as pq

from vibes_pipelines.delivery import release
from vibes_pipelines.reconcile.run import Inputs, reconcile
from vibes_pipelines.reconcile.summary import Summary
from vibes_pipelines.stages.landing import CONTACTS
from vibes_pipelines.stages.project import Project
from vibes_pipelines.store.snapshots import Snapshot

# The share's table holds every subscription; the extract may know of an opt-out earlier.
SUBSCRIPTION_FEEDS = ("share/subscriptions", "extract/subscriptions")


class NotLandedError(ValueError):
    """A feed has no snapshot for the day."""


class NotReconciledError(ValueError):
    """A day has no diff set."""


def snapshot_of(project: Project, feed: str, day: str) -> Snapshot:
    """The snapshot of one feed and day.

    Raises:
        NotLandedError: names the feed and how to land it.
    """
    snapshot = project.snapshots.find(feed, day)
    if snapshot is None:
        msg = f"{feed} of {day} is not landed; materialize {feed} for that day first"
        raise NotLandedError(msg)
    return snapshot


def reconcile_day(project: Project, day: str) -> Summary:
    """Writes the diff set of `day` and registers it in the ledger; replaces an earlier rebuild."""
    contacts = snapshot_of(project, CONTACTS, day)
    persons = snapshot_of(project, "share/persons", day)
    subscriptions = [snapshot_of(project, feed, day) for feed in SUBSCRIPTION_FEEDS]
    folder = project.diff_set_folder(day)
    draft = folder.with_name(f"{day}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    accepted = release.accepted_rows(project.ledger, day)
    inputs = Inputs(
        contacts=contacts.folder,
        persons=persons.folder,
        subscriptions=tuple(snapshot.folder for snapshot in subscriptions),
        pending=_pending(project, day, draft),
        blocked=_blocked(project, day, draft),
        accepted_rows=accepted,
        relative_guards=accepted is not None,
    )
    summary = reconcile(project.config, inputs, draft)
    shutil.rmtree(folder, ignore_errors=True)
    draft.rename(folder)
    release.register_diff_set(project.ledger, day, summary, [contacts, persons])
    return summary


def _pending(project: Project, day: str, folder: Path) -> Path:
    path = folder / "pending.parquet"
    pq.write_table(project.ledger.pending(day, project.config.config_hash), path)
    return path


def _blocked(project: Project, day: str, folder: Path) -> Path:
    path = folder / "blocked.parquet"
    pq.write_table(project.ledger.blocked(day, project.config.config_hash), path)
    return path


def read_summary(project: Project, day: str) -> Summary:
    """The summary of the diff set of `day`.

    Raises:
        NotReconciledError: the day has no diff set.
    """
    path = project.diff_set_folder(day) / "summary.json"
    if not path.exists():
        msg = f"{day} is not reconciled; materialize reconcile/person_changes for that day first"
        raise NotReconciledError(msg)
    return Summary.from_json(path.read_text(encoding="utf-8"))
