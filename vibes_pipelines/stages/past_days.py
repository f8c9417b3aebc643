"""Past days: share and CRM show only what is true now, so a day that was not landed stays missing.

An extract is a file with the name of its day, and can be fetched for as long as the server has it.
"""

from datetime import UTC, datetime, timedelta

from vibes_pipelines.stages.project import Project, end_of_day

GRACE = timedelta(hours=6)
"""How long after its midnight (UTC) a day may still be landed: longer than a run that began before
midnight lasts with all its retries, shorter than until the next day is landed."""

NEVER_LANDED = (
    "it was never landed, and {source} shows only today, so it cannot be landed any more; leave the"
    " day out: the newest day holds every change that is still true"
)


def is_past(project: Project, day: str, now: datetime) -> bool:
    """Whether the sources show a later day than `day` by now.

    That is certain when a later day is landed; otherwise the clock tells, unless the days are
    simulated.
    """
    feeds = project.destination.feeds
    landed = (*project.snapshots.days(feeds.contacts), *project.snapshots.days(feeds.persons))
    if any(later > day for later in landed):
        return True
    return not project.settings.has_simulated_days and now > end_of_day(day) + GRACE


def never_landed(project: Project, feed: str, day: str) -> str | None:
    """Why a feed that shows only today cannot be landed for `day`; None while it can."""
    if not is_past(project, day, datetime.now(UTC)):
        return None
    source = "the CRM" if feed == project.destination.feeds.contacts else "a share"
    return f"{feed} of {day}: {NEVER_LANDED.format(source=source)}"
