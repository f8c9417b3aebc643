"""Callback bodies of the documented form, and a receiver that listens on the loopback."""

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
import uvicorn

from vibes_pipelines.callbacks.receiver import Receiver, Rules
from vibes_pipelines.callbacks.signup import OpenSignup
from vibes_pipelines.callbacks.tribe import TribeGate
from vibes_pipelines.store.inbox import Inbox
from vibes_pipelines.store.models import callbacks

ADDED, REMOVED = "subscription_added", "subscription_removed"
START_TIMEOUT_S = 60


def subscription_body(
    kind: str, event_id: str | None, at: str, *, list_id: str = "1234", **person: str | None
) -> dict[str, Any]:
    """A `subscription_added` or `subscription_removed` body of today.

    `person` has any of `external_person_id`, `person_key`, `mdn` and `id`.
    """
    mdn = person.pop("mdn", None)
    named = {key: value for key, value in person.items() if value is not None}
    if "external_person_id" in named:
        named["external_id"] = named["external_person_id"]
    subscription: dict[str, Any] = {
        "person": named | ({"mobile_phone": {"mdn": mdn}} if mdn else {}),
        "subscription_list": {
            "id": list_id,
            "url": f"/companies/A1b2C3/mobiledb/subscription_lists/{list_id}",
        },
        "opt_in_date": at if kind == ADDED else "2020-01-01T00:00:00Z",
    }
    if kind == REMOVED:
        subscription |= {"opt_out_date": at, "opt_out_reason": "user_opt_out"}
    body = {"callback_type": kind, "event_type": kind, "event_date": at}
    if event_id is not None:
        body["event_id"] = event_id
    return {**body, "subscription": subscription}


def as_bytes(body: dict[str, Any]) -> bytes:
    return json.dumps(body).encode()


def stored_rows(ledger_url: str) -> list[dict[str, Any]]:
    """Every row of the inbox, in the order of arrival."""
    inbox = Inbox(ledger_url)
    try:
        with inbox._engine.connect() as connection:
            found = connection.execute(sa.select(callbacks).order_by(callbacks.c.id))
            return [dict(row._mapping) for row in found]
    finally:
        inbox.close()


@dataclass(frozen=True)
class RunningReceiver:
    """A receiver in this process, over real HTTP."""

    receiver: Receiver
    port: int

    def request(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, str]:
        return http_request(self.port, method, path, body, **headers)

    def post(self, body: bytes, path: str = "/callbacks", **headers: str) -> int:
        return self.request("POST", path, body, **headers)[0]


def http_request(
    port: int, method: str, path: str, body: bytes | None = None, **headers: str
) -> tuple[int, str]:
    """One request on a connection of its own: the status and the text of the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, {"Content-Type": "application/json"} | sent)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


@contextmanager
def running_receiver(
    inbox: Inbox,
    rules: Rules | None = None,
    signup: OpenSignup | None = None,
    tribe: TribeGate | None = None,
) -> Iterator[RunningReceiver]:
    """Serves an inbox, and sign-ups if there is somebody to take them, until the block ends."""
    receiver = Receiver(inbox, rules or Rules(), signup=signup, tribe=tribe)
    config = uvicorn.Config(
        receiver.app(), log_config=None, access_log=False, lifespan="on", ws="none"
    )
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            deadline = time.monotonic() + START_TIMEOUT_S
            while not server.started:
                assert thread.is_alive()
                assert time.monotonic() < deadline
                time.sleep(0.005)
            yield RunningReceiver(receiver, listener.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join(START_TIMEOUT_S)
