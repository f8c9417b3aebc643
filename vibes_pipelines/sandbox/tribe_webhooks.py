"""Webhooks of a stand-in of Tribe: registered over HTTP, signed, sent again until they arrive.

How often, and how long after, is an assumption: Tribe's documentation is silent. They go to
loopback only.
"""

import base64
import hmac
import json
import secrets
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from threading import Condition, Thread
from time import monotonic
from typing import Any
from uuid import uuid4

from vibes_pipelines.sandbox.audit import Audit
from vibes_pipelines.sandbox.callbacks_http import parse_url
from vibes_pipelines.sandbox.platform_refusals import CallbackUrlError
from vibes_pipelines.sandbox.tribe_switches import TribeSwitches
from vibes_pipelines.sandbox.tribe_world import Mutation

_TIMEOUT_S = 10.0
_AGAIN_AFTER_S = 0.2


class WebhookError(ValueError):
    """A registration that Tribe refuses."""


@dataclass(frozen=True)
class Webhook:
    """One registration."""

    id: str
    url: str
    entity_type: str
    secret: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict)

    def shown(self) -> dict[str, Any]:
        """The registration without its secret."""
        return {"id": self.id, "url": self.url, "entityType": self.entity_type}


@dataclass
class _Sending:
    webhook: Webhook
    body: bytes
    attempts: int = 0
    due: float = 0


class Webhooks:
    """The registrations, and a thread that sends what they are about."""

    def __init__(self, switches: TribeSwitches, audit: Audit) -> None:
        self._switches = switches
        self._audit = audit
        self._changed = Condition()
        self._waiting: deque[_Sending] = deque()
        self._under_way = 0
        self._is_over = False
        self._thread: Thread | None = None
        self.registered: dict[str, Webhook] = {}
        self.secret = secrets.token_urlsafe(32)

    def register(self, wish: Mapping[str, Any]) -> Webhook:
        """A new registration, with the environment's secret unless it brings its own.

        Raises WebhookError.
        """
        if not set(wish) <= {"url", "entityType", "secret", "headers"}:
            raise WebhookError("a webhook takes url, entityType, secret and headers")
        url, entity_type, headers = wish.get("url"), wish.get("entityType"), wish.get("headers", {})
        if not isinstance(url, str) or not isinstance(entity_type, str) or "." not in entity_type:
            raise WebhookError("a webhook takes a url and an entityType such as Relation.Person")
        if not isinstance(headers, dict) or not all(isinstance(v, str) for v in headers.values()):
            raise WebhookError("headers takes an object of strings")
        try:
            parse_url(url)
        except CallbackUrlError as error:
            raise WebhookError(str(error)) from error
        webhook = Webhook(
            id=str(uuid4()),
            url=url,
            entity_type=entity_type,
            secret=str(wish.get("secret") or self.secret),
            headers=headers,
        )
        self.registered[webhook.id] = webhook
        return webhook

    def tell(self, mutation: Mutation) -> None:
        """Queue a mutation for everybody who asked for its entity."""
        with self._changed:
            for webhook in self.registered.values():
                if self._is_about(webhook, mutation):
                    self._waiting.append(_Sending(webhook, self._body(webhook, mutation)))
            self._changed.notify_all()

    def start(self) -> None:
        """Begin to send."""
        self._thread = Thread(target=self._work, name="tribe-webhooks")
        self._thread.start()

    def stop(self) -> None:
        """Stop; what waits is not sent."""
        with self._changed:
            self._is_over = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    def wait_until_sent(self, timeout_s: float = 20.0) -> bool:
        """Whether everything was sent, or given up, before the time was over."""
        with self._changed:
            return self._changed.wait_for(
                lambda: not self._waiting and not self._under_way, timeout_s
            )

    @staticmethod
    def _is_about(webhook: Webhook, mutation: Mutation) -> bool:
        # A relationship's change is told to who listens to persons (an assumption).
        return mutation.is_relationship or webhook.entity_type == mutation.entity_type

    def _body(self, webhook: Webhook, mutation: Mutation) -> bytes:
        payload: dict[str, Any] = {}
        if self._switches.mutation_key:
            payload[self._switches.mutation_key] = mutation.kind
        if mutation.is_relationship:
            payload["relationshipId"] = mutation.id
        else:
            payload |= {"entityId": mutation.id, "entityType": mutation.entity_type}
        return json.dumps({"webhookId": webhook.id, "payload": payload}).encode()

    def _work(self) -> None:
        while (sending := self._take()) is not None:
            status = self._send(sending)
            sending.attempts += 1
            kind = sending.webhook.entity_type
            is_done = 200 <= status < 300 or sending.attempts >= self._switches.webhook_attempts
            outcome = "delivered" if 200 <= status < 300 else "given_up" if is_done else "retried"
            self._audit.callback(outcome, kind)
            with self._changed:
                self._under_way -= 1
                if not is_done:
                    sending.due = monotonic() + _AGAIN_AFTER_S
                    self._waiting.append(sending)
                self._changed.notify_all()

    def _take(self) -> _Sending | None:
        with self._changed:
            while not self._is_over:
                now = monotonic()
                for sending in self._waiting:
                    if sending.due <= now:
                        self._waiting.remove(sending)
                        self._under_way += 1
                        return sending
                self._changed.wait(0.05 if self._waiting else None)
        return None

    def _send(self, sending: _Sending) -> int:
        """The status of the answer; 0 when there was none."""
        endpoint = parse_url(sending.webhook.url)
        connection = HTTPConnection(endpoint.host, endpoint.port, timeout=_TIMEOUT_S)
        secret = sending.webhook.secret
        headers = {
            "Content-Type": "application/json",
            self._switches.signature_header: _signature(sending.body, secret),
            **sending.webhook.headers,
        }
        try:
            connection.request("POST", endpoint.target, sending.body, headers)
            return connection.getresponse().status
        except (OSError, HTTPException):
            return 0
        finally:
            connection.close()


def _signature(body: bytes, secret: str) -> str:
    """SHA-512 of the body with the secret, as bytes, in Base64 (Tribe documentation, Webhooks)."""
    hexadecimal = hmac.new(secret.encode(), body, "sha512").hexdigest()
    return base64.b64encode(bytes.fromhex(hexadecimal)).decode()
