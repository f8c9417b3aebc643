"""Judging the sources of a day: whether they follow what was accepted before, or are broken.

Caps on what a diff set would do are the reconcile's own; here stands what needs an earlier day.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from vibes_pipelines.reconcile.findings import NOT_OF_IDENTITY
from vibes_pipelines.reconcile.guards import LANES, Breach, Lane, check_quarantine
from vibes_pipelines.reconcile.options import count_unknown_options
from vibes_pipelines.reconcile.succession import Sources, check_succession
from vibes_pipelines.reconcile.summary import SUMMARY, Summary
from vibes_pipelines.stages.project import Project
from vibes_pipelines.store.records import DiffSet

_EXTRACT = "extract/subscriptions"
_LOOK_BACK_DAYS = 60


def judge(project: Project, day: str, summary: Summary, folder: Path) -> Summary:
    """The summary with what is told of the day's sources; also written into `folder`.

    A first day has nothing before it, and an accepted day whose landed snapshots are gone cannot
    be compared with.
    """
    breaches = [*summary.breaches, *_copies(project, day), *_rejected_lines(project, day)]
    accepted = project.ledger.last_delivered(before=day)
    if accepted is not None:
        breaches += _risen_quarantine(project, accepted, summary)
        sources, before = _sources(project, day), _sources(project, accepted.day)
        if sources and before:
            breaches += check_succession(project.config, sources, before)
    judged = replace(
        summary, breaches=tuple(breaches), unknown_options=_unknown_options(project, day)
    )
    (folder / SUMMARY).write_text(judged.to_json(), encoding="utf-8")
    return judged


def _unknown_options(project: Project, day: str) -> dict[str, int]:
    persons = project.snapshots.find(project.destination.feeds.persons, day)
    return count_unknown_options(project.config, persons.folder) if persons else {}


def _sources(project: Project, day: str) -> Sources | None:
    feeds = _lanes_of(project)
    found = [project.snapshots.find(feed, day) for feed in feeds]
    folders = [snapshot.folder for snapshot in found if snapshot]
    return Sources(*folders) if len(folders) == len(feeds) else None


def _lanes_of(project: Project) -> dict[str, tuple[Lane, ...]]:
    """The feeds that a diff set is made from, and the lanes that a broken one holds.

    What is known of a destination without a share is our own reading of it, call by call.
    """
    feeds = project.destination.feeds
    if project.destination.evidence != "share":
        return {feeds.contacts: LANES}
    events: dict[str, tuple[Lane, ...]] = dict.fromkeys(feeds.subscriptions, ("opt_outs",))
    return {feeds.contacts: LANES, feeds.persons: LANES, **events}


def _risen_quarantine(project: Project, accepted: DiffSet, summary: Summary) -> Iterator[Breach]:
    before = accepted.summary
    return check_quarantine(
        project.config.guards,
        summary.contacts,
        summary.quarantined - int(before.get("quarantined", 0)),
        _doubts(summary.quarantine_kinds) - _doubts(before.get("quarantine_kinds", {})),
    )


def _doubts(kinds: object) -> int:
    """Findings about who is who."""
    if not isinstance(kinds, dict):
        return 0
    return sum(int(rows) for kind, rows in kinds.items() if kind not in NOT_OF_IDENTITY)


def _copies(project: Project, day: str) -> Iterator[Breach]:
    """Sources that are, byte by byte, one of an earlier day while newer ones were seen since.

    The extract has the events of one day: once told, they are not told again.
    """
    for feed, lanes in _lanes_of(project).items():
        days = [landed for landed in project.snapshots.days(feed) if landed < day]
        hashes = {landed: _content(project, feed, landed) for landed in days[-_LOOK_BACK_DAYS:]}
        content = _content(project, feed, day)
        if content is None or (feed != _EXTRACT and days and hashes[days[-1]] == content):
            continue
        for landed in [landed for landed, known in hashes.items() if known == content][-1:]:
            message = f"{feed}: identical with that of {landed}; look whether an old copy was read"
            for lane in lanes:
                yield Breach(f"{feed}.copy", lane, 1, 0, message)


def _content(project: Project, feed: str, day: str) -> str | None:
    """The hash of a landed snapshot; None for one without rows, which are all alike."""
    snapshot = project.snapshots.find(feed, day)
    return snapshot.manifest.content_hash if snapshot and snapshot.manifest.rows else None


def _rejected_lines(project: Project, day: str) -> Iterator[Breach]:
    snapshot = project.snapshots.find(_EXTRACT, day)
    least = project.config.guards.min_input_share
    if snapshot is None or not snapshot.manifest.rejected:
        return
    lines = snapshot.manifest.rows + snapshot.manifest.rejected
    share = snapshot.manifest.rows / lines
    if share < least:
        message = (
            f"{_EXTRACT}: {snapshot.manifest.rejected} of {lines} lines are no rows, and fewer than"
            f" {least:.0%} (guards.min_input_share) are; see rejects.parquet, ask Vibes"
        )
        yield Breach(f"{_EXTRACT}.rejected", "opt_outs", share, least, message)
