"""The limit of calls: never more than allowed in any window, and nearly as many as allowed."""

import asyncio
import time
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vibes_pipelines.sandbox.faults import Fault, Faults
from vibes_pipelines.sandbox.population import build_world
from vibes_pipelines.sandbox.tribe_sandbox import TribeSandbox
from vibes_pipelines.tribe.clock import MachineClock
from vibes_pipelines.tribe.window import WINDOW_S, CallWindow, shared_window
from vibes_pipelines_tests.support.tribe import tribe_client
from vibes_pipelines_tests.support.virtual_time import VirtualLoop


class LoopClock:
    """The running loop's own time."""

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def seen_by_tribe(calls: int, ways: Sequence[tuple[float, float]], at_once: int) -> list[float]:
    """When Tribe saw each call, of which each takes its time on the way there and back."""
    seen: list[float] = []

    async def travel() -> None:
        clock = LoopClock()
        window, gate = CallWindow(calls, clock), asyncio.Semaphore(at_once)

        async def one(there_s: float, back_s: float) -> None:
            async with gate, window.call():
                await clock.sleep(there_s)
                seen.append(clock.now())
                await clock.sleep(back_s)

        await asyncio.gather(*(one(*way) for way in ways))

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(travel())
    return sorted(seen)


@settings(max_examples=60, deadline=None)
@given(
    calls=st.integers(1, 12),
    ways=st.lists(st.tuples(st.floats(0, 90), st.floats(0, 90)), min_size=1, max_size=60),
    at_once=st.integers(1, 60),
)
def test_no_window_ever_holds_more_than_the_limit(
    calls: int, ways: list[tuple[float, float]], at_once: int
) -> None:
    seen = seen_by_tribe(calls, ways, at_once)
    assert len(seen) == len(ways)
    for place in range(len(seen) - calls):
        assert seen[place + calls] - seen[place] >= WINDOW_S


@pytest.mark.parametrize("way_s", [0.0, 0.15, 1.0])
def test_at_least_95_percent_of_the_limit_is_used(way_s: float) -> None:
    limit, windows = 1000, 4
    seen = seen_by_tribe(limit, [(way_s, way_s)] * (limit * windows + 1), at_once=200)
    # The first window's calls leave at once; after `windows` of them, one more may leave.
    assert WINDOW_S * windows <= seen[-1] - seen[0] <= WINDOW_S * windows / 0.95


def test_all_callers_of_one_application_share_a_window() -> None:
    clock = MachineClock()
    window = shared_window("https://api", "one", 1000, clock)
    assert shared_window("https://api", "one", 1000, MachineClock()) is window
    assert shared_window("https://api", "two", 1000, clock) is not window


def pages_per_minute(people: int, speed: float, latency_s: float, limit: int) -> tuple[float, int]:
    """Pages of 100 persons in a minute of Tribe's time, and how many calls were turned away."""
    slow = Faults((Fault("delay", delay_s=latency_s, method="GET"),))
    contacts = build_world(people, 1).contacts
    with TribeSandbox(contacts, faults=slow, speed=speed, calls_per_min=limit) as tribe:

        async def read() -> tuple[int, float]:
            async with tribe_client(tribe, speed, TRIBE_CALLS_PER_MIN=str(limit)) as client:
                await client.labels()  # the token is there, the connection warm
                began, persons = time.monotonic(), 0
                async for page in client.persons(select=["LastName", "EmailAddress"]):
                    persons += len(page)
            return persons, (time.monotonic() - began) * speed / 60

        persons, minutes = asyncio.run(read())
        counted = tribe.audit.as_dict()["requests"]
        assert isinstance(counted, list)
        refused = sum(one["count"] for one in counted if one["status"] == 429)
    assert persons == len(contacts)
    return persons / 100 / minutes, refused


def test_latency_does_not_keep_a_read_from_the_rate() -> None:
    latency_s = 1.0  # most of the time by far, on any machine
    one_by_one = 60 / latency_s
    rate, refused = pages_per_minute(1_500, 1.0, latency_s, 1000)
    assert refused == 0
    assert rate >= 1.5 * one_by_one


@pytest.mark.slow
def test_twenty_thousand_persons_come_at_95_percent_of_the_rate_and_nothing_is_turned_away() -> (
    None
):
    rate, refused = pages_per_minute(20_000, 1.5, 0.2, 1000)
    assert refused == 0
    assert rate >= 950


def test_a_read_longer_than_the_window_is_never_turned_away() -> None:
    limit, speed = 10, 400.0
    contacts = build_world(250, 1).contacts
    with TribeSandbox(contacts, speed=speed, calls_per_min=limit) as tribe:

        async def read() -> int:
            async with tribe_client(tribe, speed, TRIBE_CALLS_PER_MIN=str(limit)) as client:
                times = 12
                for _ in range(times):
                    assert len([1 async for _ in client.persons()]) == 3
                return times

        assert asyncio.run(read()) == 12
        counted = tribe.audit.as_dict()["requests"]
        assert isinstance(counted, list)
        assert {one["status"] for one in counted} == {200}


def test_after_a_429_nobody_calls_for_a_minute_and_then_for_two() -> None:
    speed = 200.0
    storm = Faults((Fault("status", status=429, method="GET", times=2),))
    with TribeSandbox.of_people(3, faults=storm, speed=speed) as tribe:
        at: list[float] = []
        tribe.audit.log = lambda entries: at.extend(
            time.monotonic() * speed for entry in entries if entry["method"] == "GET"
        )

        async def read() -> None:
            async with tribe_client(tribe, speed) as client:
                await client.labels()

        asyncio.run(read())
    first, second = (after - before for before, after in pairwise(at))
    assert first >= WINDOW_S
    assert second >= 2 * WINDOW_S
