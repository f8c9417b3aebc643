"""The schedule asks for the partition of its own day, with effects."""

from datetime import UTC, date, datetime

import dagster as dg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vibes_pipelines.orchestration.jobs import DELIVERIES, delivery_run_config
from vibes_pipelines.orchestration.partitions import DAILY
from vibes_pipelines.orchestration.schedules import reconcile_daily_schedule
from vibes_pipelines_tests.support.examples import examples


def _requested(at: datetime) -> dg.RunRequest:
    with dg.DagsterInstance.ephemeral() as instance:
        context = dg.build_schedule_context(instance=instance, scheduled_execution_time=at)
        request = reconcile_daily_schedule(context)
    assert isinstance(request, dg.RunRequest)
    return request


@settings(max_examples=examples(25), deadline=None)
@given(st.dates(min_value=date(2026, 1, 1), max_value=date(2030, 12, 31)))
def test_every_morning_asks_for_that_mornings_day_once(day: date) -> None:
    morning = datetime(day.year, day.month, day.day, 7, tzinfo=UTC)
    request = _requested(morning)
    assert request.partition_key == day.isoformat()
    assert request.run_key == day.isoformat()
    # The day is a partition already on its own morning, before it has ended.
    assert DAILY.get_partition_keys(current_time=morning)[-1] == request.partition_key


def test_the_schedule_says_that_it_means_it() -> None:
    request = _requested(datetime(2026, 3, 1, 7, tzinfo=UTC))
    names = {"__".join(key.path) for key in DELIVERIES}
    assert set(request.run_config["ops"]) == names
    for name in names:
        assert request.run_config["ops"][name]["config"] == {"dry_run": False}


@pytest.mark.parametrize("dry_run", [True, False])
def test_a_run_config_names_exactly_the_deliveries_asked_for(*, dry_run: bool) -> None:
    config = delivery_run_config(dry_run=dry_run, deliveries=DELIVERIES[:1])
    assert config.ops == {"delivery__opt_outs": {"config": {"dry_run": dry_run}}}
