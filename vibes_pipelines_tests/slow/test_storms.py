"""Storms: a platform that fails, resets, stalls and turns away; every push has exactly one effect.

The real client and ledger against the sandbox over HTTP, at the platform's documented rate.
"""

import asyncio
import time
from pathlib import Path

import pytest

from vibes_pipelines.delivery.api_push import PushResult, push
from vibes_pipelines.delivery.routes import Estimates
from vibes_pipelines.sandbox.population import build_world
from vibes_pipelines.sandbox.service import Sandbox
from vibes_pipelines.settings import Settings
from vibes_pipelines.store.ledger import Ledger
from vibes_pipelines.vibes.person_api import PersonApi
from vibes_pipelines.vibes.rate_limit import RateLimiter
from vibes_pipelines_tests.support.deliveries import TYPES, add, change, planned

DIFF_SET = "d" * 64
RATE_PER_S = 100
FAILING, RESET, STALLED = 0.10, 0.05, 0.01
STALL_S = 2.0
MOST_OF_IDEAL = 1.3
MOST_RUNS = 4
"""A push whose five attempts all fail stays open, and the next run sends it: one in 10,000."""


def storm(bursts: int, burst: int) -> list[dict[str, object]]:
    """10 % 5xx (half of them after the effect), 5 % resets (the same), stalls, bursts of 429."""
    turned_away: list[dict[str, object]] = [
        {"action": "status", "status": 429, "times": burst, "chance": 0.5} for _ in range(bursts)
    ]
    return [
        *turned_away,
        {"action": "status", "status": 503, "chance": FAILING / 2},
        {"action": "status", "status": 502, "chance": FAILING / 2, "when": "after"},
        {"action": "reset", "chance": RESET / 2},
        {"action": "reset", "chance": RESET / 2, "when": "after"},
        {"action": "stall", "delay_s": STALL_S, "chance": STALLED},
    ]


async def push_once(sandbox: Sandbox, ledger: Ledger) -> PushResult:
    settings = Settings(sandbox.environment()).api
    async with PersonApi(
        settings.url,
        "A1b2C3",
        settings.user,
        settings.password.get_secret_value(),
        rate_per_s=RATE_PER_S,
    ) as api:
        operations = ledger.open_operations(DIFF_SET, "persons", "api")
        return await push(operations, api, ledger, TYPES, dry_run=False)


def statuses_of(sandbox: Sandbox) -> dict[int, int]:
    counts: dict[int, int] = {}
    for request in sandbox.audit()["requests"]:  # type: ignore[attr-defined]
        counts[request["status"]] = counts.get(request["status"], 0) + request["count"]
    return counts


@pytest.fixture
def departures(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """When each request was let go by the client's limiter."""
    times: list[float] = []
    acquire = RateLimiter.acquire

    async def noted(limiter: RateLimiter) -> None:
        await acquire(limiter)
        times.append(time.monotonic())

    monkeypatch.setattr(RateLimiter, "acquire", noted)
    return times


def most_in_a_second(times: list[float]) -> int:
    """The most requests in any second, however the seconds are cut."""
    most, begin = 0, 0
    for end, now in enumerate(times):
        while times[begin] <= now - 1:
            begin += 1
        most = max(most, end - begin + 1)
    return most


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("pushes", "timed"),
    [
        pytest.param(400, False, id="400"),
        pytest.param(20_000, True, marks=pytest.mark.slow, id="20000"),
    ],
)
def test_all_are_delivered_once_within_the_limit_and_in_time(
    tmp_path: Path, departures: list[float], pushes: int, timed: bool
) -> None:
    bursts, burst = (10, 100) if timed else (1, 20)
    rows = [add(f"N{n}", change("first_name", f"Ada {n}")) for n in range(pushes)]
    world = build_world(20, seed=5)
    with (
        Sandbox(tmp_path / "sandbox", world, rate_per_s=RATE_PER_S) as sandbox,
        Ledger(f"sqlite:///{tmp_path / 'ledger.db'}") as ledger,
    ):
        planned(ledger, tmp_path / "out", persons=rows)
        sandbox.set_faults(storm(bursts, burst))
        began = time.monotonic()
        for _ in range(MOST_RUNS):
            result = asyncio.run(push_once(sandbox, ledger))
            if not result.unknown:
                break
        took_s = time.monotonic() - began
        counts = ledger.status_counts(DIFF_SET)
        audit, answered = sandbox.platform.audit, statuses_of(sandbox)
        assert counts == {("persons", "api", "accepted"): pushes}
        assert audit.effects("api_add") == pushes == audit.effects()
        assert most_in_a_second(departures) <= RATE_PER_S + 1
        assert sum(answered.values()) > pushes * 1.1  # it was a storm
        if timed:
            by_the_limit = answered[429] - bursts * burst  # the network bunches what left evenly
            assert by_the_limit <= pushes / 1_000
            ideal_s = sum(answered.values()) / RATE_PER_S
            assert took_s <= MOST_OF_IDEAL * ideal_s + STALL_S


@pytest.mark.parametrize(
    ("pushes", "timed"),
    [
        pytest.param(100, False, id="100"),
        pytest.param(3_000, True, marks=pytest.mark.slow, id="3000"),
    ],
)
def test_in_calm_weather_the_planner_s_estimate_is_right(
    tmp_path: Path, pushes: int, timed: bool
) -> None:
    rows = [add(f"N{n}", change("first_name", "Ada")) for n in range(pushes)]
    with (
        Sandbox(tmp_path / "sandbox", build_world(20, seed=5), rate_per_s=RATE_PER_S) as sandbox,
        Ledger(f"sqlite:///{tmp_path / 'ledger.db'}") as ledger,
    ):
        plan = planned(ledger, tmp_path / "out", persons=rows, estimates=Estimates(RATE_PER_S))
        began = time.monotonic()
        assert asyncio.run(push_once(sandbox, ledger)).accepted == pushes
        took_s = time.monotonic() - began
    estimated_s = plan.seconds["persons/api"]
    assert estimated_s == pushes / RATE_PER_S
    assert took_s >= 0.98 * estimated_s
    if timed:
        assert took_s <= 1.2 * estimated_s + 0.5
