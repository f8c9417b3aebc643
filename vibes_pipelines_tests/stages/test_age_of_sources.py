"""How old, or how young, a source may be for the day it is landed for, and what is said of it."""

from datetime import UTC, datetime, timedelta

import pytest
from pydantic import ValidationError

from vibes_pipelines.stages.project import WrongDayError, check_age
from vibes_pipelines.store.snapshots import Source
from vibes_pipelines.sync_config.config import Policies

DAY = "2026-01-05"


def check(as_of: datetime, hours: int) -> None:
    check_age(Source("PERSONS", as_of), DAY, timedelta(hours=hours))


def test_an_extract_fits_the_smallest_age_that_may_be_set() -> None:
    """It shows the beginning of its day, and the age counts back from the end of it."""
    begin = datetime(2026, 1, 5, tzinfo=UTC)
    with pytest.raises(ValidationError, match="greater than or equal to 24"):
        Policies(max_age_h=23)
    check(begin, Policies(max_age_h=24).max_age_h)
    with pytest.raises(WrongDayError, match=r"older than policies\.max_age_h .* ask Vibes .*CRM"):
        check(begin - timedelta(seconds=2), 24)


def test_a_time_that_is_still_to_come_is_told_from_a_day_that_is_past() -> None:
    with pytest.raises(WrongDayError, match=r"to come.* feeds.share/refreshes .* updated_at"):
        check(datetime.now(UTC) + timedelta(days=400), 48)
    with pytest.raises(WrongDayError, match="after 2026-01-05; a past day cannot be landed"):
        check(datetime(2026, 1, 6, tzinfo=UTC), 48)
