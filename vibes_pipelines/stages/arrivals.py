"""Arrivals: for which day all extracts have come, decided from the names on the server alone."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from vibes_pipelines.stages.landing import sftp_account
from vibes_pipelines.stages.project import Project
from vibes_pipelines.sync_config import EXTRACT_FEEDS
from vibes_pipelines.vibes.extracts import file_name

DATE = "{date}"


class GapNotOver(RuntimeError):  # noqa: N818 - the name says what is wrong
    """The account cannot be opened without waiting; look again later."""


def _do_not_wait(seconds: float) -> None:
    msg = (
        "the SFTP account cannot be opened now: its gap is not over, it is in use, or it does not "
        f"answer; there would be {seconds:.0f} s to wait"
    )
    raise GapNotOver(msg)


@dataclass(frozen=True)
class Arrived:
    """The newest day whose extracts are all complete, if it is yet to be landed; and `others`.

    Files may be named for those as for a day, but none of ours: they are left alone.
    """

    day: str | None
    others: tuple[str, ...]


def arrived_day(project: Project, is_day: Callable[[str], bool]) -> Arrived:
    """What has arrived on the server; `is_day` tells which days there are.

    Raises:
        GapNotOver: too soon after the last session, or the server does not answer.
    """
    with sftp_account(project, sleep=_do_not_wait).session() as session:
        names = [file.name for file in session.list(project.settings.sftp.extract_dir)]
    patterns = {feed: file_name(project.config, feed, DATE) for feed in EXTRACT_FEEDS}
    landed = [set(project.snapshots.days(feed)) for feed in EXTRACT_FEEDS]
    return arrived(names, patterns, set.intersection(*landed), is_day)


def arrived(
    names: Iterable[str],
    patterns: Mapping[str, str],
    landed: Iterable[str],
    is_day: Callable[[str], bool],
) -> Arrived:
    """The newest day for which every feed has its file and its `.done`.

    None unless it is newer than every landed day: a day that was skipped is not fetched later,
    since the other sources do not show it any more.
    """
    present = set(names)
    complete = [
        {
            match[1]
            for name in present
            if (match := _expression(pattern).fullmatch(name)) and f"{name}.done" in present
        }
        for pattern in patterns.values()
    ]
    whole = set.intersection(*complete)
    others = {name for name in whole if not is_day(name)}
    newest = max(whole - others, default=None)
    is_new = newest is not None and newest > max(landed, default="")
    return Arrived(newest if is_new else None, tuple(sorted(others)))


def _expression(pattern: str) -> re.Pattern[str]:
    return re.compile(re.escape(pattern).replace(re.escape(DATE), r"(\d{4}-\d{2}-\d{2})"))
