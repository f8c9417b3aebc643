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


def seconds(request: Request, count: int, busy: Request | None = None, **limits: Any) -> float:
    """How long `count` requests take, while `busy` ones wait for their own rate."""

    async def talk(api: VibesApi) -> float:
        others = [asyncio.ensure_future(busy(api)) for _ in range(40)] if busy else []
        await asyncio.sleep(0)
        start = time.monotonic()
        await asyncio.gather(*(request(api) for _ in range(count)))
        taken = time.monotonic() - start
        for other in others:
            other.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        return taken

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
    assert seconds(apple_pass, 9, google_wallet_per_s=20) < 8 / 20


@pytest.mark.parametrize("request_of", [event, device])
def test_events_and_apps_do_not_wait_for_the_company(request_of: Request) -> None:
    fast: dict[str, Any] = {"rate_per_s": 40.0, "events_per_s": 40.0, "concurrency": 4}
    assert seconds(request_of, 5, busy=person, **fast) < 0.5, "40 calls of the company need 1 s"


def test_the_company_does_not_wait_for_google() -> None:
    limits: dict[str, Any] = {"rate_per_s": 200.0, "google_wallet_per_s": 2.0, "concurrency": 4}
    assert seconds(person, 10, busy=google_pass, **limits) < 1.0


def test_two_clients_with_one_limiter_take_its_rate_together() -> None:
    async def talk(port: int) -> float:
        calls = RateLimiter(20)
        async with build_api(port, calls=calls) as one, build_api(port, calls=calls) as other:
            start = time.monotonic()
            await asyncio.gather(*(api.get(f"p{n}") for n in range(5) for api in (one, other)))
            return time.monotonic() - start

    assert asyncio.run(serve(FakePlatform([web.json_response({})]), talk)) >= 9 / 20
