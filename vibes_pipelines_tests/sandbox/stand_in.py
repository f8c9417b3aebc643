"""A small platform, and the stand-in API served over real HTTP, for the tests of this folder."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from threading import Thread
from time import sleep
from typing import Any

import uvicorn
from starlette.applications import Starlette

from vibes_pipelines.sandbox.account import Account
from vibes_pipelines.sandbox.api import build_api
from vibes_pipelines.sandbox.api_limits import Credentials
from vibes_pipelines.sandbox.faults import Faults, parse_faults
from vibes_pipelines.sandbox.platform import (
    CustomField,
    Person,
    Platform,
    Subscription,
    SubscriptionList,
    Value,
)
from vibes_pipelines.sandbox.switches import Switches

COMPANY_KEY = "A1b2C3"
CREDENTIALS = Credentials("sandbox@localhost", "not-a-secret")
START = datetime(2026, 1, 1, 6, tzinfo=UTC)

FIELDS = (
    CustomField("first_name", "string"),
    CustomField("nickname", "string", charset="ascii"),
    CustomField("birthdate", "date"),
    CustomField("score", "number"),
    CustomField("tier", "single_select", ("gold", "silver")),
    CustomField("interests", "multi_select", ("golf", "tennis", "music")),
    CustomField("zip_code", "postal_code"),
)
OFFERS = SubscriptionList("1234", "Offers")
NEWS = SubscriptionList("1235", "News")

ADA_KEY = "0b6c5e0e-3f0a-4a52-9a44-5f0a1c9d7e11"
ADA_MDN = "+13125550142"
BEA_KEY = "1c7d6f1f-4a1b-4b63-8b55-6a1b2d0e8f22"
BEA_MDN = "+13125550143"
CAL_KEY = "2d8e7a2a-5b2c-4c74-9c66-7b2c3e1f9a33"
NEW_MDN = "+13125550199"
LANDLINE = "+13125559901"


class TickingClock:
    """One second later at every reading."""

    def __init__(self, start: datetime = START) -> None:
        self.now = start

    def __call__(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now


def build_platform(**options: Any) -> Platform:
    """A platform with the three persons of `populate`."""
    platform = Platform(COMPANY_KEY, FIELDS, (OFFERS, NEWS), TickingClock(), **options)
    populate(platform)
    return platform


def populate(platform: Platform) -> None:
    """Ada has everything, Bea no external id, Cal no number; Ada is on the offers list."""
    born = datetime(2025, 3, 1, 12, 30, tzinfo=UTC)
    ada: dict[str, Value] = {"first_name": "Ada", "tier": "gold", "interests": ("golf", "music")}
    platform.load(
        [
            Person(ADA_KEY, "11", "CRM-1", ADA_MDN, "104", ada, born, born),
            Person(BEA_KEY, "12", None, BEA_MDN, "104", {}, born, born),
            Person(CAL_KEY, "13", "CRM-3", None, None, {}, born, born),
        ],
        [
            Subscription(ADA_KEY, OFFERS.id, born, born + timedelta(days=1), "user_opt_out"),
            Subscription(ADA_KEY, OFFERS.id, born + timedelta(days=9)),
        ],
    )


@dataclass(frozen=True)
class Reply:
    """An answer of the stand-in API."""

    status: int
    headers: Mapping[str, str]
    raw: bytes

    @property
    def body(self) -> Any:
        return json.loads(self.raw)

    @property
    def messages(self) -> str:
        return "\n".join(error["message"] for error in self.body["errors"])


@dataclass(frozen=True)
class ApiClient:
    """The plainest possible client, one connection a call; paths go out exactly as given."""

    port: int
    company_key: str = COMPANY_KEY
    headers: Mapping[str, str] = field(
        default_factory=lambda: {
            "Authorization": CREDENTIALS.header(),
            "Content-Type": "application/json",
            "X-API-Version": "2",
        }
    )
    prefix: str = "/companies"

    def call(self, method: str, path: str, body: object = None, **headers: str | None) -> Reply:
        """One call below the company; header names with `_` for `-`, `None` leaves one out."""
        raw = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        changed = {name.replace("_", "-"): value for name, value in headers.items()}
        sent = {name: value for name, value in {**self.headers, **changed}.items() if value}
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, f"{self.prefix}/{self.company_key}{path}", raw, sent)
            response = connection.getresponse()
            return Reply(response.status, dict(response.headers), response.read())
        finally:
            connection.close()


@dataclass(frozen=True)
class StandIn:
    """A served platform and its client."""

    account: Account
    faults: Faults
    client: ApiClient

    @property
    def platform(self) -> Platform:
        return self.account.platform

    def call(self, method: str, path: str, body: object = None, **headers: str | None) -> Reply:
        """One call as `ApiClient.call`."""
        return self.client.call(method, path, body, **headers)

    def script(self, *faults: Mapping[str, object]) -> None:
        """Put these faults in force."""
        self.faults.replace(parse_faults(list(faults)))

    def reset(self) -> None:
        """Begin anew: the first persons, nothing counted, no faults."""
        populate(self.platform)
        for shelf in self.account.shelves():
            shelf.clear()
        self.platform.audit.clear()
        self.faults.replace(())


@contextmanager
def served_platform(
    platform: Platform | None = None, *, rate_per_s: int | None = None, **switches: object
) -> Iterator[StandIn]:
    """The stand-in API on a port of its own, stopped at the end."""
    platform, faults = platform or build_platform(), Faults()
    readings = Switches.from_mapping(switches)
    google = None if rate_per_s is None else 20
    account = Account(platform, switches=readings, google_rate_per_s=google)
    app = build_api(platform, CREDENTIALS, readings, faults, account=account, rate_per_s=rate_per_s)
    with served(app) as port:
        yield StandIn(account, faults, ApiClient(port))


@contextmanager
def served(app: Starlette) -> Iterator[int]:
    """An application served by uvicorn in a thread; gives the port."""
    config = uvicorn.Config(
        app,
        host="127.0.0.1",
        port=0,
        log_level="warning",
        lifespan="off",
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    thread = Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the server did not start"
            sleep(0.01)
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()
