"""A client of APSIS One and the stand-in that it meets over real HTTP, both on a fast clock."""

import asyncio
import atexit
from collections.abc import Awaitable, Callable
from functools import cached_property
from typing import Any, TypeVar

from starlette.types import ASGIApp, Receive, Scope, Send

from vibes_pipelines.apsis.calls import Limits
from vibes_pipelines.apsis.client import ApsisClient
from vibes_pipelines.apsis.clock import SystemClock
from vibes_pipelines.apsis.definitions import EMAIL_CHANNEL, SMS_CHANNEL, Place
from vibes_pipelines.sandbox.apsis_clock import RunningClock
from vibes_pipelines.sandbox.apsis_records import SECTION
from vibes_pipelines.sandbox.apsis_service import ApsisSandbox
from vibes_pipelines.sandbox.http_server import HttpServer
from vibes_pipelines.settings import ApsisSettings, Settings

__all__ = ["EMAIL_CHANNEL", "SMS_CHANNEL"]

T = TypeVar("T")
Talk = Callable[[ApsisClient], Awaitable[T]]

SPEED = 200.0
PLACE = Place(SECTION)
SHOP = Place(SECTION, "usercreated.keyspaces.shop-b5y8")

FIRST_NAME = "com.apsis1.attributes.firstname"
EMAIL = "com.apsis1.attributes.email"
CRM_ID = "com.apsis1.attributes.crmid"
TIER = "usercreated.attributes.tier-p4n8"
SCORE = "usercreated.attributes.score-w2j5"
NEWS = "usercreated.topics.newsletter-m2k7"
OFFERS = "usercreated.topics.offers-x5p3"
MEMBER = "usercreated.tags.member-d4s6"
LEAD = "usercreated.tags.lead-q8v1"


class Board:
    """One server for all stand-ins of a run, one at a time: starting and stopping takes longest.

    It is started by the first and stopped when the process ends.
    """

    def __init__(self) -> None:
        self.app: ASGIApp | None = None
        self._server = HttpServer(self, "apsis-board")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert self.app, "no stand-in is started"
        await self.app(scope, receive, send)

    @cached_property
    def url(self) -> str:
        atexit.register(self._server.stop)
        return f"http://127.0.0.1:{self._server.start()}"


BOARD = Board()


class BoardedSandbox(ApsisSandbox):
    """A stand-in on the server that all share."""

    def start(self) -> None:
        BOARD.app, self.url = self.app, BOARD.url

    def stop(self) -> None:
        BOARD.app = None


def stand_in(**parts: Any) -> ApsisSandbox:
    """A stand-in whose clock is as fast as the client's."""
    return BoardedSandbox(**{"clock": RunningClock(SPEED), **parts})


def settings_of(box: ApsisSandbox) -> ApsisSettings:
    """The way to a stand-in, as the environment says it."""
    return Settings(box.environment()).apsis


def talk(
    box: ApsisSandbox,
    what: Talk[T],
    place: Place = PLACE,
    limits: Limits | None = None,
    settings: ApsisSettings | None = None,
) -> T:
    """Let a client do something to a running stand-in."""

    async def run() -> T:
        clock = SystemClock(SPEED)
        met = settings or settings_of(box)
        async with ApsisClient(met, place, clock=clock, limits=limits) as client:
            return await what(client)

    return asyncio.run(run())


def requests(box: ApsisSandbox, method: str, part: str = "") -> dict[int, int]:
    """How many requests of a method whose route has a part were answered with which status."""
    counts: dict[int, int] = {}
    entries: Any = box.account.audit.as_dict(persons=False)["requests"]
    for entry in entries:
        if entry["method"] == method and part in entry["route"]:
            counts[entry["status"]] = counts.get(entry["status"], 0) + entry["count"]
    return counts


def fault(box: ApsisSandbox, path: str, action: str = "status", **more: Any) -> None:
    """One fault in force for paths that hold a text."""
    entry = {"match": {"path_regex": path}, "action": action, **more}
    box.control.set_faults({"faults": [entry]})
