"""Which days a source that shows only what is true now can be landed for: today alone.

Share and CRM are such sources. An extract is a file with the name of its day, and can be fetched
for as long as the server has it. Days are those of UTC, as partitions and schedule have them.
"""

from datetime import UTC, datetime, timedelta

from vibes_pipelines.stages.project import Project, WrongDayError, end_of_day

GRACE = timedelta(hours=6)
"""How long after its midnight (UTC) a day may still be landed: longer than a run that began before
midnight lasts with all its retries, shorter than until the next day is landed."""

NEVER_LANDED = (
    "it was never landed, and {source} shows only today, so it cannot be landed any more; leave the"
    " day out: the newest day holds every change that is still true"
)
LANDED_AHEAD = (
    ". {later} is landed: if that day is yet to come, move the folders {folders} away and run {day}"
    " again"
)
LANDED_BESIDE = ". {later} was landed in the same run: if {day} is today, run it alone"


def is_past(project: Project, day: str, now: datetime) -> bool:
    """Whether the sources show a later day than `day` by now.

    That is certain when a later day is landed whole; otherwise the clock tells, unless the days are
    simulated.
    """
    return _is_over(project, day, now) or _later_whole_day(project, day) is not None


def never_landed(project: Project, feed: str, day: str, beside: str | None = None) -> str | None:
    """Why a feed that shows only today cannot be landed for `day`; None while it can.

    `beside` is a later day that the same run has landed.
    """
    now, later = datetime.now(UTC), _later_whole_day(project, day)
    if _is_over(project, day, now) or _shows_later(project, feed, day, now):
        hint = ""
    elif later:
        folders = f"{project.snapshots.root}/*/*/{later}"
        hint = LANDED_AHEAD.format(later=later, folders=folders, day=day)
    elif beside:
        hint = LANDED_BESIDE.format(later=beside, day=day)
    else:
        return None
    source = "the CRM" if feed == project.destination.feeds.contacts else "a share"
    return f"{feed} of {day}: {NEVER_LANDED.format(source=source)}{hint}"


def refuse_days_to_come(project: Project, feed: str, day: str) -> None:
    """Refuses a day that is yet to come, and drops what of the feed was landed for such days.

    That was landed under a clock that was ahead. Nothing was made from a day that is not whole; on
    the day itself it would pass for what its source shows then.

    Raises:
        WrongDayError: names the day that it is.
    """
    if project.settings.has_simulated_days:
        return
    today = datetime.now(UTC).date().isoformat()
    if day > today:
        msg = (
            f"{feed} of {day}: that day is yet to come, nothing was landed; run {today}, or set"
            " the clock of this machine right"
        )
        raise WrongDayError(msg)
    for ahead in set(project.snapshots.days(feed)) - _whole_days(project):
        if ahead > today:
            project.snapshots.drop(feed, ahead)


def _is_over(project: Project, day: str, now: datetime) -> bool:
    """Whether the clock alone tells that the day is past."""
    return not project.settings.has_simulated_days and now > end_of_day(day) + GRACE


def _shows_later(project: Project, feed: str, day: str, now: datetime) -> bool:
    """Whether this feed is landed for a later day that has come: older data would follow newer."""
    if project.settings.has_simulated_days:
        return False
    return any(day < one <= f"{now:%Y-%m-%d}" for one in project.snapshots.days(feed))


def _later_whole_day(project: Project, day: str) -> str | None:
    """The newest day that is landed whole, if it is later.

    One feed alone tells nothing: the CRM can be read for any day, and a share for the next one. An
    extract has the name of its day.
    """
    newest = max(_whole_days(project), default=day)
    return newest if newest > day else None


def _whole_days(project: Project) -> set[str]:
    """The days of which everything is landed that a reconcile reads."""
    feeds = project.destination.feeds
    wanted = (feeds.contacts, feeds.persons, *feeds.subscriptions)
    return set.intersection(*(set(project.snapshots.days(feed)) for feed in wanted))
