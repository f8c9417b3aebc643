"""Erasing a person: at the platform, in every file and every table of ours, and from then on.

Everything is done again when the same command is run again, and what is done already changes
nothing; so that a run which died is simply repeated. Until it is finished, the identifiers stand in
a file that only this account can read. The order: from the first step on the person is kept out of
new landings, then the platform, then our own files, then the ledger.
"""

import os
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from vibes_pipelines.blanks import trimmed
from vibes_pipelines.stages.apsis_erasing import (
    blank_apsis_file,
    blank_overviews,
    erase_at_apsis,
    require_opt_outs_read,
)
from vibes_pipelines.stages.erase_lock import RowsAreMovingError, nothing_moves
from vibes_pipelines.stages.erased_opt_outs import remember_opt_outs
from vibes_pipelines.stages.erasing_files import (
    Naming,
    blank_import_file,
    blank_parquet,
    mark_snapshot,
)
from vibes_pipelines.stages.erasing_ledger import blank_ledger, tidy_ledger
from vibes_pipelines.stages.erasing_leftovers import LEAST_WORD, UNFINISHED, leftovers
from vibes_pipelines.stages.erasing_open import ledgers, require_nothing_open
from vibes_pipelines.stages.erasing_platform import erase_at_platform
from vibes_pipelines.stages.erasing_subject import ErasureError, Subject, find_subject
from vibes_pipelines.stages.erasing_walk import files_of_people, remove_what_is_left
from vibes_pipelines.stages.masking import hash_key
from vibes_pipelines.stages.project import Project
from vibes_pipelines.stages.pseudonyms import PREFIX, pseudonym
from vibes_pipelines.store.erasures import Erasures
from vibes_pipelines.store.placing import put
from vibes_pipelines.store.snapshots import DATA, MANIFEST, REJECTS


@dataclass(frozen=True)
class Erased:
    """What an erasure did, in counts: rows per kind of file and table, and the platform's answers.

    `left` is what is not ours to change and still holds an identifier; `not_searched` are
    identifiers that are too short to be searched for there; `not_rewritten` are tables whose pages
    may still hold what was blanked.
    """

    erasure_id: str
    dry_run: bool
    files: dict[str, int] = field(default_factory=dict)
    ledger: dict[str, int] = field(default_factory=dict)
    platform: dict[str, int] = field(default_factory=dict)
    left: tuple[str, ...] = ()
    not_searched: int = 0
    not_rewritten: tuple[str, ...] = ()


def erase(
    project: Project, asked: str, reason: str, decided_by: str, *, dry_run: bool = False
) -> Erased:
    """Erases the person of a contact key (external_person_id) or person_key.

    Raises:
        ErasureError: nobody has this identifier, no reason, an answer of the platform is awaited,
            a day is being reconciled or delivered, or a step could not be finished: the same
            command again goes on.
    """
    if not reason.strip():
        raise ErasureError("an erasure needs a reason; say why with --reason")
    if dry_run:
        return _erase(project, asked, reason, decided_by, dry_run=True)
    try:
        with nothing_moves(project.settings):
            return _erase(project, asked, reason, decided_by, dry_run=False)
    except RowsAreMovingError as busy:
        raise ErasureError(f"{busy}; run the same erase again after it") from busy


def _erase(project: Project, asked: str, reason: str, decided_by: str, *, dry_run: bool) -> Erased:
    if not dry_run:
        remove_what_is_left(project.settings.home)
    key = hash_key(project.settings.keys_home)
    subject, unfinished = _subject(project, asked)
    erasure_id = pseudonym(subject.external_person_id or subject.person_keys[0], key)
    naming = Naming.of(subject, key, project.config)
    require_nothing_open(project, subject)
    if dry_run:
        return Erased(
            erasure_id,
            dry_run=True,
            files=_blank_files(project, naming, dry_run=True),
            ledger=_blank_ledgers(project, naming, dry_run=True),
        )
    require_opt_outs_read(project, subject)
    work = _keep(project, erasure_id, subject)
    with closing(Erasures(project.settings.inbox_url)) as book:
        book.begin(erasure_id, subject.pseudonyms(key), reason.strip(), decided_by)
        remember_opt_outs(project, subject, erasure_id)
        platform = erase_at_platform(project, subject, erasure_id)
        platform |= erase_at_apsis(project, subject, decided_by)
        files = _blank_files(project, naming)
        ledger = _blank_ledgers(project, naming)
        large = [name for one in ledgers(project.settings) for name in tidy_ledger(one.ledger_url)]
        left = tuple(leftovers(project.settings, subject))
        outcome = {"files": files, "ledger": ledger, "platform": platform, "left": len(left)}
        book.finish(erasure_id, outcome)
    for path in {work, *unfinished}:
        path.unlink(missing_ok=True)
    return Erased(
        erasure_id,
        dry_run=False,
        files=files,
        ledger=ledger,
        platform=platform,
        left=left,
        not_searched=sum(len(one) < LEAST_WORD for one in subject.keys),
        not_rewritten=tuple(large),
    )


def _subject(project: Project, asked: str) -> tuple[Subject, list[Path]]:
    """Whom is meant, also when an erasure that died left only a part to be found."""
    found = find_subject(project, asked)
    unfinished = []
    for path in sorted((project.settings.home / UNFINISHED).glob(f"{PREFIX}*.json")):
        kept = Subject.from_json(path.read_text(encoding="utf-8"))
        if {trimmed(asked), (trimmed(asked) or "").lower()} & kept.keys:
            found = kept.joined(found) if found else kept
            unfinished.append(path)
    if found is None:
        msg = "nobody has this contact key or person_key in what is stored; see `explain`"
        raise ErasureError(msg)
    return found, unfinished


def _keep(project: Project, erasure_id: str, subject: Subject) -> Path:
    folder = project.settings.home / UNFINISHED
    folder.mkdir(mode=0o700, exist_ok=True)
    path = folder / f"{erasure_id}.json"
    draft = path.with_suffix(".draft")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(subject.to_json())
    put(draft, path)
    return path


def _blank_files(project: Project, naming: Naming, *, dry_run: bool = False) -> dict[str, int]:
    counts: Counter[str] = Counter()
    if not dry_run:
        remove_what_is_left(project.settings.home)
    for place, path in files_of_people(project.settings.home):
        if path.suffix != ".parquet":
            counts[place] += blank_import_file(path, naming, dry_run=dry_run)
            continue
        if path.name == "hashes.parquet":
            continue  # goes with its data
        rows = _blank_parquet(path, naming, dry_run=dry_run)
        if path.name == DATA and (path.parent / MANIFEST).is_file() and not dry_run:
            mark_snapshot(path.parent, rows)
        if path.name != REJECTS:
            counts[place] += rows
    return {place: rows for place, rows in counts.items() if rows}


def _blank_parquet(path: Path, naming: Naming, *, dry_run: bool) -> int:
    try:
        blank = blank_apsis_file(path, naming, dry_run=dry_run)
        return blank_parquet(path, naming, dry_run=dry_run) if blank is None else blank
    except (pa.ArrowInvalid, OSError) as unreadable:
        if getattr(unreadable, "errno", None):
            raise  # the disk's word, not Arrow's
        msg = (
            f"{path}: cannot be read as Parquet, so that nobody knows who is in it; restore it, or "
            "move it out of the data folder, and run the same erase again"
        )
        raise ErasureError(msg) from unreadable


def _blank_ledgers(project: Project, naming: Naming, *, dry_run: bool = False) -> dict[str, int]:
    """Every destination has a ledger of its own."""
    counts: Counter[str] = Counter()
    for settings in ledgers(project.settings):
        counts.update(blank_overviews(settings.ledger_url, naming, dry_run=dry_run))
        counts.update(blank_ledger(settings.ledger_url, naming, dry_run=dry_run))
    return dict(counts)
