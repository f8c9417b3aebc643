"""A stand-in of Tribe CRM as a whole: its world, its server, its webhooks; started and stopped."""

import secrets
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from time import monotonic
from typing import Self

from vibes_pipelines.sandbox.api_limits import RateLimit
from vibes_pipelines.sandbox.audit import Audit
from vibes_pipelines.sandbox.clock import SandboxClock, midnight
from vibes_pipelines.sandbox.faults import Faults
from vibes_pipelines.sandbox.http_server import HttpServer
from vibes_pipelines.sandbox.population import START, build_world
from vibes_pipelines.sandbox.running import Running
from vibes_pipelines.sandbox.tribe_population import build_labels, build_persons
from vibes_pipelines.sandbox.tribe_server import TribeServer
from vibes_pipelines.sandbox.tribe_switches import TribeSwitches
from vibes_pipelines.sandbox.tribe_token import Application, Tokens
from vibes_pipelines.sandbox.tribe_webhooks import Webhooks
from vibes_pipelines.sandbox.tribe_world import TribeWorld
from vibes_pipelines.sandbox.world import ContactRow

CALLS_PER_MIN = 1000


class TribeSandbox(Running):
    """One environment of Tribe with one application.

    Args:
        contacts: Whom its persons stand for.
        now: The clock of every stamp; one of its own, at the sandbox's first day, when left out.
        speed: How much faster than the machine's time limits and tokens pass.
        calls_per_min: The limit of calls; None lifts it.
    """

    def __init__(
        self,
        contacts: Iterable[ContactRow],
        switches: TribeSwitches | None = None,
        faults: Faults | None = None,
        now: Callable[[], datetime] | None = None,
        *,
        seed: int = 1,
        speed: float = 1.0,
        calls_per_min: int | None = CALLS_PER_MIN,
    ) -> None:
        self.switches = switches or TribeSwitches()
        self.faults = faults or Faults()
        self.audit = Audit()
        now = now or SandboxClock(midnight(START))
        self.world = TribeWorld(now, self.switches, self.audit, seed)
        labels = build_labels(datetime(2020, 1, 1, tzinfo=UTC), seed)
        self.world.load("Label", labels)
        self.world.load(
            "Relation_Person", build_persons(contacts, labels, now(), seed, self.switches)
        )
        self.application = Application(secrets.token_urlsafe(12), secrets.token_urlsafe(24))
        self.tokens = Tokens(self.application, self.switches, lambda: monotonic() * speed)
        self.webhooks = Webhooks(self.switches, self.audit)
        self.world.told = self.webhooks.tell
        server = TribeServer(
            world=self.world,
            tokens=self.tokens,
            webhooks=self.webhooks,
            switches=self.switches,
            # The limit counts in seconds; here one of them lasts a minute.
            limit=RateLimit(calls_per_min, lambda: monotonic() * speed / 60),
            faults=self.faults,
        )
        self._server = HttpServer(server, "sandbox-tribe")
        self._url = ""

    @classmethod
    def of_people(
        cls,
        count: int,
        switches: TribeSwitches | None = None,
        faults: Faults | None = None,
        *,
        seed: int = 1,
        speed: float = 1.0,
    ) -> Self:
        """An environment with persons for so many people of the sandbox's world."""
        contacts = build_world(count, seed).contacts
        return cls(contacts, switches, faults, seed=seed, speed=speed)

    def start(self) -> None:
        """Serve."""
        self._url = f"http://127.0.0.1:{self._server.start()}"
        self.webhooks.start()

    def stop(self) -> None:
        """Stop serving."""
        self.webhooks.stop()
        self._server.stop()

    def environment(self) -> dict[str, str]:
        """The environment with which the product reaches it; holds the application's secret."""
        organization = self.switches.organization_id
        return {
            "TRIBE_API_URL": self._url,
            "TRIBE_AUTH_URL": self._url,
            "TRIBE_CLIENT_ID": self.application.client_id,
            "TRIBE_CLIENT_SECRET": self.application.client_secret,
            "TRIBE_WEBHOOK_SECRET": self.webhooks.secret,
            "TRIBE_WEBHOOK_HEADER": self.switches.signature_header,
            **({"TRIBE_ORGANIZATION_ID": organization} if organization else {}),
        }
