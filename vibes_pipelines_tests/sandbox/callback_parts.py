"""The stand-in API with its callbacks being sent, and shorthands for registering them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from vibes_pipelines.sandbox.account import Account
from vibes_pipelines.sandbox.api import build_api
from vibes_pipelines.sandbox.callbacks_manner import CallbackManner
from vibes_pipelines.sandbox.callbacks_registry import Callbacks
from vibes_pipelines.sandbox.callbacks_sender import CallbackSender
from vibes_pipelines.sandbox.platform import Platform
from vibes_pipelines.sandbox.switches import Switches
from vibes_pipelines_tests.sandbox.receiver import Receiver, eventually
from vibes_pipelines_tests.sandbox.stand_in import (
    CREDENTIALS,
    ApiClient,
    Reply,
    build_platform,
    served,
)

CONFIG = "/config/callbacks/"
PATIENT_S = 60
"""How long a receiver may think where a test does not say it: the machine may be slow."""


@dataclass(frozen=True)
class CallingStandIn:
    """A served platform whose callbacks are sent."""

    account: Account
    callbacks: Callbacks
    client: ApiClient

    @property
    def platform(self) -> Platform:
        return self.account.platform

    def call(self, method: str, path: str, body: object = None, **headers: str | None) -> Reply:
        """One call as `ApiClient.call`."""
        return self.client.call(method, path, body, **headers)

    def register(
        self, kind: str, receiver: Receiver, config: Mapping[str, str] | None = None, **more: Any
    ) -> Reply:
        """Register a callback, which must be taken."""
        reply = self.call("POST", CONFIG, registration(kind, receiver.url, config, **more))
        assert reply.status == 201, reply.raw
        return reply

    def set_manner(self, **manner: object) -> None:
        patient = {"timeout_s": PATIENT_S, **manner}
        self.callbacks.queue.set_manner(CallbackManner.from_mapping(patient))

    def settle(self) -> dict[str, int]:
        """Wait until nothing is to be sent any more; how callbacks ended."""
        eventually(lambda: len(self.callbacks.queue) == 0, "the queue to be empty")
        return self.counts

    @property
    def counts(self) -> dict[str, int]:
        counted = self.platform.audit.as_dict()["callbacks"]
        assert isinstance(counted, dict)
        return counted


def registration(
    kind: str, url: str, config: Mapping[str, str] | None = None, **more: Any
) -> dict[str, Any]:
    """The body of a registration."""
    own = {} if config is None else {kind: dict(config)}
    return {"callback_type": kind, "destination": {"url": url}, **own, **more}


@contextmanager
def calling_platform(**switches: object) -> Iterator[CallingStandIn]:
    """The stand-in API and a sender of its callbacks, both stopped at the end."""
    platform, readings = build_platform(), Switches.from_mapping(switches)
    callbacks = Callbacks(platform, readings)
    account = Account(platform, switches=readings)
    app = build_api(
        platform, CREDENTIALS, readings, callbacks=callbacks, account=account, rate_per_s=None
    )
    with served(app) as port, sending(callbacks):
        stand_in = CallingStandIn(account, callbacks, ApiClient(port))
        stand_in.set_manner()
        yield stand_in


@contextmanager
def sending(callbacks: Callbacks) -> Iterator[CallbackSender]:
    """A sender at work, stopped at the end."""
    sender = CallbackSender(callbacks)
    sender.start()
    try:
        yield sender
    finally:
        sender.stop()
