"""The rate limit holds in every second, as the receiver sees it, and wastes almost nothing."""

import asyncio
import bisect
import time
from random import Random

import pytest

from vibes_pipelines.vibes.rate_limit import RateLimiter
from vibes_pipelines_tests.support.virtual_time import VirtualLoop


def passes(rate_per_s: float, callers: int, duration_s: float) -> list[float]:
    """When each caller passed, in seconds."""
    times: list[float] = []

    async def call(limiter: RateLimiter, end: float) -> None:
        while time.monotonic() < end:
            async with limiter.turn():
                times.append(time.monotonic())

    async def run() -> None:
        limiter = RateLimiter(rate_per_s)
        end = time.monotonic() + duration_s
        await asyncio.gather(*(call(limiter, end) for _ in range(callers)))

    asyncio.run(run())
    return sorted(times)


def most_in(times: list[float], window_s: float) -> int:
    return max(
        bisect.bisect_left(times, start + window_s) - index for index, start in enumerate(times)
    )


@pytest.mark.parametrize("rate_per_s", [100, 300])
def test_no_second_holds_more_than_the_rate(rate_per_s: int) -> None:
    times = passes(rate_per_s, callers=32, duration_s=1.5)
    assert most_in(times, 1.0) <= rate_per_s
    assert most_in(times, 0.1) <= rate_per_s * 0.15 + 5, "requests are spread, not bunched"


@pytest.mark.parametrize("rate_per_s", [100])
def test_the_rate_holds_when_the_event_loop_stalls(rate_per_s: int) -> None:
    times: list[float] = []

    async def call(limiter: RateLimiter, end: float) -> None:
        while time.monotonic() < end:
            async with limiter.turn():
                if len(times) % 20 == 7:
                    time.sleep(0.03)
                times.append(time.monotonic())

    async def run() -> None:
        limiter = RateLimiter(rate_per_s)
        await asyncio.gather(*(call(limiter, time.monotonic() + 1.5) for _ in range(8)))

    asyncio.run(run())
    assert most_in(times, 1.0) <= rate_per_s


def test_no_second_holds_more_arrivals_than_the_rate_whatever_delays_them() -> None:
    arrivals: list[float] = []
    random = Random(3)

    async def call(limiter: RateLimiter, end: float) -> None:
        while time.monotonic() < end:
            async with limiter.turn():
                await asyncio.sleep(random.choice([0, 0, 0, 0.15]))
                arrivals.append(time.monotonic())
                await asyncio.sleep(random.choice([0, 0.05]))

    async def run() -> None:
        limiter = RateLimiter(100)
        await asyncio.gather(*(call(limiter, time.monotonic() + 2.2) for _ in range(32)))

    asyncio.run(run())
    assert most_in(sorted(arrivals), 1.0) <= 100


def test_requests_without_an_answer_keep_their_places() -> None:
    async def run() -> tuple[int, int]:
        limiter, sent, answer = RateLimiter(20), 0, asyncio.Event()

        async def call() -> None:
            nonlocal sent
            async with limiter.turn():
                sent += 1
                await answer.wait()

        calls = [asyncio.create_task(call()) for _ in range(25)]
        while sent < 20:
            await asyncio.sleep(0.05)
        await asyncio.sleep(1.1)  # as long as places are kept that were answered at once
        before = sent
        answer.set()
        await asyncio.gather(*calls)
        return before, sent

    assert asyncio.run(run()) == (20, 25)


def average(times: list[float]) -> float:
    return (len(times) - 1) / (times[-1] - times[0])


def test_all_of_the_rate_is_used_when_nobody_wakes_up_late() -> None:
    times: list[float] = []

    async def run() -> None:
        now = asyncio.get_running_loop().time
        limiter = RateLimiter(100, now)

        async def call() -> None:
            while now() < 5:
                async with limiter.turn():
                    times.append(now())

        await asyncio.gather(*(call() for _ in range(32)))

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(run())
    assert average(times) >= 99


@pytest.mark.slow
def test_nearly_all_of_the_rate_is_used_on_a_machine_with_nothing_else() -> None:
    assert average(passes(100, callers=32, duration_s=1.5)) >= 90


def test_a_pause_is_not_made_up_for() -> None:
    async def run() -> float:
        limiter = RateLimiter(100)
        async with limiter.turn():
            pass
        await asyncio.sleep(0.5)
        start = time.monotonic()
        for _ in range(20):
            async with limiter.turn():
                pass
        return time.monotonic() - start

    assert asyncio.run(run()) >= 0.17


def test_a_rate_that_falls_holds_for_what_was_sent_before() -> None:
    """Ten were sent within the second: at five, none leaves until five of these are past."""
    rate_per_s = 1_000.0
    limiter = RateLimiter(lambda: rate_per_s)

    async def run() -> float:
        nonlocal rate_per_s
        sent = []
        for _ in range(10):
            async with limiter.turn():
                sent.append(time.monotonic())
        rate_per_s = 5.0
        async with limiter.turn():
            return time.monotonic() - sent[5]

    assert asyncio.run(run()) >= 1.0


def test_what_asking_for_the_rate_raises_keeps_the_request_back() -> None:
    def none() -> float:
        raise LookupError

    async def run() -> None:
        limiter, sent = RateLimiter(none), 0
        for _ in range(2):
            with pytest.raises(LookupError):
                async with limiter.turn():
                    sent += 1
        assert sent == 0

    asyncio.run(run())


def test_the_first_request_leaves_no_sooner_than_told() -> None:
    began, limiter = time.monotonic(), RateLimiter(100, wait_s=0.3)

    async def run() -> float:
        async with limiter.turn():
            return time.monotonic() - began

    assert asyncio.run(run()) >= 0.3


def test_one_event_loop_after_another_is_as_one() -> None:
    """Clients that follow each other would have a burst between them otherwise."""
    limiter, times = RateLimiter(20), list[float]()

    async def run() -> None:
        async def call() -> None:
            async with limiter.turn():
                times.append(time.monotonic())

        await asyncio.gather(*(call() for _ in range(8)))

    for _ in range(3):
        asyncio.run(run())
    assert most_in(times, 1.0) <= 20
    assert most_in(times, 0.5) <= 0.5 * 20 + 2
