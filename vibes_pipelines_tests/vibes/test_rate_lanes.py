"""Each kind of request has a rate of its own, and none waits for another."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from vibes_pipelines.vibes.api_transport import Limits, app_lane
from vibes_pipelines.vibes.event_api import Event
from vibes_pipelines.vibes.rate_limit import RateLimiter
from vibes_pipelines.vibes.vibes_api import VibesApi
from vibes_pipelines.vibes.wallet_api import ItemChange
from vibes_pipelines_tests.vibes.answering import FakePlatform, ask_vibes, build_api, serve

Request = Callable[[VibesApi], Awaitable[object]]
SLOW_CALLS: dict[str, Any] = {"rate_per_s": 20.0}
ONE_AND_NO_MORE = 0.001
"""A rate at which the second request would leave after a quarter of an hour."""


def person(api: VibesApi) -> Awaitable[object]:
    return api.persons.get("p1")


def event(api: VibesApi) -> Awaitable[object]:
    return api.events.send(Event("1", "a", {"mdn": "+1"}))


def google_pass(api: VibesApi) -> Awaitable[object]:
    return api.wallet.update_item("r3", "u1", ItemChange({"a": "b"}), "google_wallet")


def apple_pass(api: VibesApi) -> Awaitable[object]:
    return api.wallet.update_item("r3", "u1", ItemChange({"a": "b"}), "passbook")


def device(api: VibesApi) -> Awaitable[object]:
    return api.push.device("app", "d1")


def seconds(request: Request, count: int, **limits: Any) -> float:
    """How long `count` requests take."""

    async def talk(api: VibesApi) -> float:
        start = time.monotonic()
        await asyncio.gather(*(request(api) for _ in range(count)))
        return time.monotonic() - start

    return ask_vibes(FakePlatform([web.json_response({})]), talk, **limits)


def waiting_after(request: Request, count: int, busy: Request, **limits: Any) -> int:
    """How many of 40 `busy` requests still wait for their rate when `count` others are answered.

    The busy ones were there first.
    """

    async def talk(api: VibesApi) -> int:
        others = [asyncio.ensure_future(busy(api)) for _ in range(40)]
        await asyncio.sleep(0)
        await asyncio.gather(*(request(api) for _ in range(count)))
        waiting = sum(not other.done() for other in others)
        for other in others:
            other.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        return waiting

    return ask_vibes(FakePlatform([web.json_response({})]), talk, **limits)


def test_the_rates_are_the_documented_ones() -> None:
    limits = Limits()
    rates = [limits.rate(lane) for lane in ("calls", "events", "google_wallet", app_lane("a"))]
    assert rates == [100, 300, 20, 100]


@pytest.mark.parametrize("request_of", [person, apple_pass, google_pass, device])
def test_calls_keep_the_rate_of_their_company_or_app(request_of: Request) -> None:
    """Google's passes are calls of the company too, so that both rates hold for them."""
    assert seconds(request_of, 9, **SLOW_CALLS) >= 8 / 20


def test_updates_of_google_passes_have_a_rate_of_their_own() -> None:
    assert seconds(google_pass, 9, google_wallet_per_s=20) >= 8 / 20
    assert waiting_after(apple_pass, 9, google_pass, google_wallet_per_s=ONE_AND_NO_MORE) >= 39


@pytest.mark.parametrize("request_of", [event, device])
def test_events_and_apps_do_not_wait_for_the_company(request_of: Request) -> None:
    same: dict[str, Any] = {"rate_per_s": 40.0, "events_per_s": 40.0, "concurrency": 4}
    assert waiting_after(request_of, 5, busy=person, **same) > 10, "each of 40 would go first"


def test_the_company_does_not_wait_for_google() -> None:
    limits: dict[str, Any] = {"google_wallet_per_s": ONE_AND_NO_MORE, "concurrency": 4}
    assert waiting_after(person, 10, busy=google_pass, **limits) >= 39


def test_two_clients_with_one_limiter_take_its_rate_together() -> None:
    async def talk(port: int) -> float:
        calls = RateLimiter(20)
        async with build_api(port, calls=calls) as one, build_api(port, calls=calls) as other:
            start = time.monotonic()
            await asyncio.gather(*(api.get(f"p{n}") for n in range(5) for api in (one, other)))
            return time.monotonic() - start

    assert asyncio.run(serve(FakePlatform([web.json_response({})]), talk)) >= 9 / 20
