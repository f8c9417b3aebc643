"""Bases: for each day the last state both sides were seen to agree on before it, recorded once.

    <home>/bases/<day>/{origin.json, exceptions.parquet}

A day's base is made before its first reconcile, from the last day that was reconciled before it,
and stands from then on: a rebuild finds the base that the day had. Only when the landed persons of
one of the two days are landed anew, or it cannot be read, is it made anew. Without an earlier day
there is no base.
"""

import json
import logging
import os
import shutil
import tempfile
from contextlib import closing
from pathlib import Path

import duckdb

from vibes_pipelines.data_files import unreadable_parquet
from vibes_pipelines.reconcile.agreement import compared_persons
from vibes_pipelines.reconcile.base import EXCEPTIONS, ORIGIN, agreed_meanings, landed_persons
from vibes_pipelines.reconcile.errors import ReconcileError, unreadable
from vibes_pipelines.reconcile.next_base import LastDay, write_exceptions
from vibes_pipelines.stages.project import Project
from vibes_pipelines.store.placing import put, put_instead
from vibes_pipelines.store.sent_changes import SentChanges
from vibes_pipelines.store.snapshots import Snapshot

log = logging.getLogger("vibes_pipelines.bases")

_UNFINISHED = ".unfinished-"


def base_of(project: Project, day: str) -> Path | None:
    """The folder of the day's base, made now if it is not recorded; None when there is none.

    Missing bases of earlier days, from which it is made, are recorded first.
    """
    unrecorded: list[tuple[str, str | None]] = []
    wanted: str | None = day
    while wanted is not None and not _is_recorded(project, wanted):
        earlier = _last_reconciled(project, wanted)
        unrecorded.append((wanted, earlier))
        wanted = earlier
    for one, earlier in reversed(unrecorded):
        _record(project, one, earlier)
    return recorded_base(project, day)


def recorded_base(project: Project, day: str) -> Path | None:
    """The folder of the day's base as recorded; None when there is none."""
    folder = project.base_folder(day)
    return folder if (folder / EXCEPTIONS).is_file() else None


def _is_recorded(project: Project, day: str) -> bool:
    folder = project.base_folder(day)
    if not (folder / ORIGIN).is_file():
        return False
    try:
        persons = landed_persons(folder)
        if recorded_base(project, day) is None:
            return True
        agreed_meanings(folder / EXCEPTIONS)
    except ReconcileError:
        return False
    return persons is not None and _shows_what_it_did(project, day)


def _shows_what_it_did(project: Project, day: str) -> bool:
    """Whether the day's own landed persons are those that its base was made with.

    A base that was made before they counted does not tell.
    """
    shown = project.snapshots.find(project.destination.feeds.persons, day)
    if shown is None:
        return True
    origin = json.loads((project.base_folder(day) / ORIGIN).read_text(encoding="utf-8"))
    now = shown.manifest.content_hash
    return bool(origin.get("shown_hash", now) == now)


def _last_reconciled(project: Project, day: str) -> str | None:
    """The newest day before `day` whose landed persons were reconciled."""
    feed = project.destination.feeds.persons
    earlier = [landed for landed in project.snapshots.days(feed) if landed < day]
    return next((one for one in reversed(earlier) if _is_reconciled(project, one)), None)


def _is_reconciled(project: Project, day: str) -> bool:
    compared = compared_persons(project.diff_set_folder(day))
    return compared == _persons_of(project, day).manifest.content_hash


def _persons_of(project: Project, day: str) -> Snapshot:
    feed = project.destination.feeds.persons
    persons = project.snapshots.find(feed, day)
    if persons is None:
        msg = f"{feed} of {day} was landed and is gone; restore its folder"
        raise FileNotFoundError(msg)
    return persons


def _record(project: Project, day: str, last: str | None) -> None:
    """Writes the base beside its place and renames it there: it is there whole or not at all."""
    place = project.base_folder(day)
    place.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=place.parent))
    origin: dict[str, str | None] = {"day": day, "last_reconciled": last, "persons": None}
    try:
        if last is not None:
            persons = _persons_of(project, last)
            shown = project.snapshots.find(project.destination.feeds.persons, day)
            _write_exceptions(project, last, persons, shown, draft)
            origin["persons"] = os.path.relpath(persons.folder, place)
            origin["content_hash"] = persons.manifest.content_hash
            origin["shown_hash"] = shown.manifest.content_hash if shown else None
        document = json.dumps(origin, sort_keys=True, indent=2)
        (draft / ORIGIN).write_text(document + "\n", encoding="utf-8")
        draft.chmod(0o755)
        if not _is_recorded(project, day):
            _put(project, day, draft, place)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _write_exceptions(
    project: Project, last: str, persons: Snapshot, shown: Snapshot | None, draft: Path
) -> None:
    from_day = _last_day(project, last, persons, shown)
    try:
        write_exceptions(project.config, from_day, draft)
    except duckdb.InvalidInputException as refused:
        if half := unreadable_parquet(refused):
            raise ReconcileError(unreadable(half)) from None
        raise


def _put(project: Project, day: str, draft: Path, place: Path) -> None:
    """Puts it there; the same base that another process has put there meanwhile stays.

    One that cannot be read, or is of persons that were landed anew since, goes.
    """
    try:
        put(draft, place)
    except OSError:
        if not _is_recorded(project, day):
            log.warning("%s: could not be read, or its persons were landed anew; made anew", place)
            put_instead(draft, place)


def _last_day(project: Project, last: str, persons: Snapshot, shown: Snapshot | None) -> LastDay:
    diff_set = project.diff_set_folder(last)
    pending = diff_set / "pending.parquet"
    sends = None
    if shown is not None:
        now = shown.manifest
        with closing(SentChanges(project.settings.ledger_url)) as book:
            sends = book.values(now.day, now.as_of, judged=last)
    return LastDay(
        persons=persons.folder,
        diff_set=diff_set,
        base=recorded_base(project, last),
        pending=pending if pending.is_file() else None,
        sends=sends,
        shown=shown.folder if shown else None,
    )
