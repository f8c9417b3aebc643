"""Many days of drift: ordinary ones trip no guard, troubled ones lose, repeat and delay nothing."""

from functools import partialmethod
from pathlib import Path
from random import Random

import pytest

from vibes_pipelines.vibes.person_api import PersonApi
from vibes_pipelines_tests.slow.drifting import Day, running_drift
from vibes_pipelines_tests.support.loop import edited_sync_config

SETTLE_DAYS = 2
TIMES = ("mdn: MDN}", "mdn: MDN, updated_at: UPDATED_AT}")
"""The share's time of change: it tells a value that was set back from one that was lost."""

# Days and people.
ORDINARY = [
    pytest.param(2, 300, id="few"),
    pytest.param(60, 2_000, id="sixty", marks=[pytest.mark.slow, pytest.mark.timeout(1_800)]),
]
TROUBLED = [
    pytest.param(4, 300, id="few"),
    pytest.param(60, 20_000, id="sixty", marks=[pytest.mark.slow, pytest.mark.timeout(2_400)]),
]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that does not sleep for seconds before it tries again."""
    monkeypatch.setattr(PersonApi, "__init__", partialmethod(PersonApi.__init__, backoff_s=0.02))


@pytest.mark.parametrize(("count", "people"), ORDINARY)
def test_no_guard_fires_on_an_ordinary_day(tmp_path: Path, count: int, people: int) -> None:
    config = edited_sync_config(tmp_path, TIMES)
    with running_drift(tmp_path, people, 51, config) as drift:
        for day in drift.days(count):
            told(day)
            assert day.guards == set()
            assert day.account.unexplained == 0


@pytest.mark.parametrize(("count", "people"), TROUBLED)
def test_nothing_is_lost_late_or_sent_twice(tmp_path: Path, count: int, people: int) -> None:
    """The share is up to 72 h behind, the API refuses people, new numbers are landlines."""
    patient = edited_sync_config(
        tmp_path,
        TIMES,
        ("visibility_lag_h: 36", "visibility_lag_h: 100"),
        ("max_age_h: 48", "max_age_h: 100"),
    )
    with running_drift(tmp_path, people, 52, patient, Random(52)) as drift:
        rejected = 0
        for day in drift.days(count, settle=SETTLE_DAYS):
            told(day)
            assert day.account.unexplained == 0
            assert day.missed_opt_outs == set()
            rejected += day.account.rejected
        assert rejected > count // 2
        assert drift.sent_twice() == []
        assert drift.repeats() == set()
        assert drift.subscribed_against_their_will() == set()


def told(day: Day) -> None:
    """One line a day, which `make slow` shows."""
    summary = day.summary
    print(  # noqa: T201 - the report of a long run
        f"{day.date} {day.seconds:6.1f} s  added {summary.added:,} updated {summary.updated:,}"
        f" pending {summary.pending:,} blocked {summary.blocked:,}"
        f" quarantined {summary.quarantined:,} rejected {day.account.rejected:,}"
        f" opt-outs {summary.opt_outs_to_platform:,}/{summary.opt_outs_to_crm:,}",
        flush=True,
    )
