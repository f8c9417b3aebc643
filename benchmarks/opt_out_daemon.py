"""Opt-outs both ways through the services of production: sensor, queue, run, effect; timed.

A sandbox whose callbacks go to a receiver, and code server, webserver and daemon by the lines of
their units, on PostgreSQL. Persons text STOP and contacts are edited, one pair after the other;
each is timed from its word to the other side. `--busy`: meanwhile the daily job is in progress.

    python -m benchmarks.opt_out_daemon [--opt-outs 8] [--every 12] [--busy]
"""

import json
import math
import sys
import tempfile
import time
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

import dagster as dg

from vibes_pipelines.orchestration.keys import EFFECT_TAG
from vibes_pipelines.sandbox.population import build_world
from vibes_pipelines_tests.support.dagster_services import Services, running_services
from vibes_pipelines_tests.support.loop import agreed_keys
from vibes_pipelines_tests.support.realtime import LIST, RealTime, running_real_time
from vibes_pipelines_tests.support.restartable_postgresql import restartable_postgresql
from vibes_pipelines_tests.support.run_records import run_of

P99_BUDGET_S = 60.0

SENSORS = ("callback_inbox_sensor", "crm_change_sensor", "opt_out_sensor")

_MANY_OPT_OUTS = ("max_rows: 5000,  max_share: 0.05", "max_rows: 5000,  max_share: 0.90")
_PATIENCE_S = 300.0
_LOOK_S = 0.2

START_SENSOR = """
mutation Start($name: String!) {
  startSensor(sensorSelector: {
    repositoryLocationName: "vibes_pipelines", repositoryName: "__repository__", sensorName: $name
  }) { __typename ... on PythonError { message } }
}"""


@dataclass(frozen=True)
class Load:
    """How many opt-outs of each way, how far apart, and whether the daily job is in progress."""

    opt_outs: int = 8
    every_s: float = 12.0
    busy: bool = False


@dataclass
class Outcome:
    """Seconds from each opt-out to the other side."""

    load: Load
    to_crm: list[float] = field(default_factory=list)
    to_platform: list[float] = field(default_factory=list)

    def report(self) -> dict[str, object]:
        """The figures as they are printed."""
        figures = {
            f"{way}_p{percent}_s": round(percentile_s(seconds, percent), 1)
            for way, seconds in (("to_crm", self.to_crm), ("to_platform", self.to_platform))
            for percent in (50, 99)
        }
        return {"busy": self.load.busy, "opt_outs_each_way": len(self.to_crm), **figures}


def percentile_s(seconds: list[float], percent: float) -> float:
    """By the nearest rank; of few it is the longest."""
    ordered = sorted(seconds)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def run(load: Load) -> Outcome:
    """Drives a new sandbox and new services."""
    world = build_world(300, seed=3)
    with (
        tempfile.TemporaryDirectory() as folder,
        restartable_postgresql() as database,
        running_real_time(Path(folder), world, _MANY_OPT_OUTS) as real,
    ):
        home = Path(folder) / "services"
        home.mkdir()
        url = database.url.replace("+psycopg:", "+psycopg2:")
        with running_services(home, real.loop.environment, url) as services:
            if load.busy:
                _pretend_the_daily_job(home / "dagster", url)
            for sensor in SENSORS:
                _start(services, sensor)
            with _watched(services):
                return _time(real, agreed_keys(world), load)


def _pretend_the_daily_job(storage: Path, url: str) -> None:
    """A run of the daily job that has started and does not end."""
    environment = {"DAGSTER_POSTGRES_URL": url, "VIBES_DAGSTER_STORAGE": str(storage)}
    with (
        patch.dict("os.environ", environment),
        dg.DagsterInstance.from_config(str(storage)) as instance,
    ):
        instance.add_run(run_of("reconcile_daily", dg.DagsterRunStatus.STARTED, EFFECT_TAG))


def _start(services: Services, sensor: str) -> None:
    started = services.ask(START_SENSOR, name=sensor)["startSensor"]
    if started["__typename"] != "Sensor":
        sys.exit(f"{sensor} did not start: {started}")


@contextmanager
def _watched(services: Services) -> Iterator[None]:
    """Says what the runs came to when opt-outs do not arrive."""
    try:
        yield
    except TimeoutError:
        runs = services.ask("{ runsOrError { ... on Runs { results { jobName status } } } }")
        print(json.dumps(runs, indent=2))
        raise


def _time(real: RealTime, keys: list[str], load: Load) -> Outcome:
    outcome = Outcome(load)
    waiting = [key for key in keys if _is_in_crm(real, key) and _is_subscribed(real, key)]
    pairs = [(waiting[2 * n], waiting[2 * n + 1]) for n in range(load.opt_outs)]
    begin, said = time.monotonic(), dict[str, float]()
    open_ones: list[tuple[str, Callable[[RealTime, str], bool], list[float]]] = []
    while pairs or open_ones:
        if time.monotonic() > begin + load.opt_outs * load.every_s + _PATIENCE_S:
            raise TimeoutError(f"{len(open_ones)} opt-outs did not arrive")
        if pairs and time.monotonic() >= begin + (load.opt_outs - len(pairs)) * load.every_s:
            texting, edited = pairs.pop()
            real.loop.sandbox.text("stop", {"person_key": real.person(texting).person_key}, LIST)
            real.edit(edited, sms_opt_in="false", sms_opt_in_at="2026-05-31 12:00:00")
            said |= dict.fromkeys((texting, edited), time.monotonic())
            open_ones.append((texting, _is_in_crm, outcome.to_crm))
            open_ones.append((edited, _is_subscribed, outcome.to_platform))
        for one in list(open_ones):
            key, is_still_in, seconds = one
            if not is_still_in(real, key):
                seconds.append(time.monotonic() - said[key])
                open_ones.remove(one)
        time.sleep(_LOOK_S)
    return outcome


def _is_in_crm(real: RealTime, key: str) -> bool:
    return str(real.contact(key, "sms_opt_in")[0]).lower() in {"true", "1", "y", "yes"}


def _is_subscribed(real: RealTime, key: str) -> bool:
    platform = real.loop.sandbox.platform
    person = platform.find(external_person_id=key)
    return person is not None and bool(platform.subscriptions_of(person.person_key))


def main() -> None:
    """Runs one load and prints its figures; ends with 1 above the budget."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--opt-outs", type=int, default=8, help="of each way")
    parser.add_argument("--every", type=float, default=12.0, help="seconds between pairs")
    parser.add_argument("--busy", action="store_true", help="while the daily job is in progress")
    given = parser.parse_args()
    outcome = run(Load(given.opt_outs, given.every, given.busy))
    print(json.dumps(outcome.report(), indent=2))
    if percentile_s(outcome.to_crm + outcome.to_platform, 99) > P99_BUDGET_S:
        sys.exit(f"p99 is above {P99_BUDGET_S:.0f} s")


if __name__ == "__main__":
    main()
