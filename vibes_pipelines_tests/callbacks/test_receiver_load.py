"""Load: nothing that was answered is lost, though receiver and database die in the middle."""

import pytest

from benchmarks.callbacks import P99_BUDGET_S, Load, Outcome, run

pytestmark = pytest.mark.postgresql


def is_whole(outcome: Outcome) -> bool:
    return outcome.stored == outcome.answered == outcome.sent


def test_a_killed_receiver_and_a_restarted_database_lose_nothing() -> None:
    outcome = run(Load(rate_per_s=60, seconds=3, disturb=True, away_s=0.2))
    assert is_whole(outcome), outcome.report()
    assert outcome.again > 0  # it did hurt


@pytest.mark.slow
def test_a_thousand_a_second_for_a_minute() -> None:
    outcome = run(Load(rate_per_s=1_000, seconds=60))
    print(outcome.report())  # noqa: T201 - the report of a long run
    assert is_whole(outcome), outcome.report()
    assert outcome.percentile_s(99) < P99_BUDGET_S, outcome.report()


@pytest.mark.slow
def test_a_thousand_a_second_through_kills() -> None:
    outcome = run(Load(rate_per_s=1_000, seconds=60, disturb=True))
    print(outcome.report())  # noqa: T201 - the report of a long run
    assert is_whole(outcome), outcome.report()
