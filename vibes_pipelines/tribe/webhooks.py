"""Tribe's webhooks: whether the signature is Tribe's, and whom a body is about.

The field names of the payload's six mutations are only partly in Tribe's documentation, so that a
body is read tolerantly: what is not understood is kept as `unknown`, never guessed at.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from vibes_pipelines.instants import read_instant
from vibes_pipelines.json_text import read_json
from vibes_pipelines.tribe.errors import TribeWebhookError
from vibes_pipelines.tribe.odata import is_guid

SOURCE = "tribe"
EVENT_TYPES = ("tribe.person", "tribe.person_deleted", "tribe.relationship", "tribe.unknown")
"""What the inbox calls the four kinds."""

Kind = Literal["person", "person_deleted", "relationship", "unknown"]
Verdict = Literal["valid", "missing", "invalid", "unconfigured"]

_DISCRIMINATORS = ("type", "_type", "$type", "_Type", "@odata.type", "mutationType", "kind", "name")
_MOMENTS = ("timestamp", "date", "mutationDate", "creationDate", "occurredAt")


@dataclass(frozen=True, slots=True)
class TribeMessage:
    """One webhook. `person_id` is to be read anew; of a `relationship` Tribe tells only its id."""

    kind: Kind
    person_id: str | None
    relationship_id: str | None
    webhook_id: str | None
    mutation: str | None
    at: datetime | None

    @property
    def event_type(self) -> str:
        """What the inbox calls it, one of `EVENT_TYPES`."""
        return f"{SOURCE}.{self.kind}"


def sign(body: bytes, secret: str) -> str:
    """Base64 of HMAC-SHA512 over the whole body (Tribe documentation, Webhooks)."""
    digest = hmac.new(secret.encode(), body, hashlib.sha512).digest()
    return base64.b64encode(digest).decode()


def judge_signature(body: bytes, signature: str | None, secret: str | None) -> Verdict:
    """Whether a body is Tribe's own; without a secret nothing is."""
    if not secret:
        return "unconfigured"
    if not signature:
        return "missing"
    try:
        given = base64.b64decode(signature.strip(), validate=True)
    except (binascii.Error, ValueError):
        return "invalid"
    expected = hmac.new(secret.encode(), body, hashlib.sha512).digest()
    return "valid" if hmac.compare_digest(given, expected) else "invalid"


def read_message(body: bytes) -> TribeMessage:
    """Whom a webhook is about.

    Raises:
        TribeWebhookError: it is no JSON object with a payload.
    """
    try:
        whole = read_json(body)
    except ValueError as malformed:
        msg = "the body of a Tribe webhook is no JSON"
        raise TribeWebhookError(msg) from malformed
    payload = whole.get("payload") if isinstance(whole, dict) else None
    if not isinstance(payload, dict):
        msg = "the body of a Tribe webhook has no payload"
        raise TribeWebhookError(msg)
    mutation = _text(payload, *_DISCRIMINATORS)
    entity_id = _guid(payload, "entityId", "EntityId")
    relationship_id = _guid(payload, "relationshipId", "RelationshipId")
    kind = _kind(payload, mutation, entity_id, relationship_id)
    return TribeMessage(
        kind=kind,
        person_id=entity_id if kind in {"person", "person_deleted", "relationship"} else None,
        relationship_id=relationship_id,
        webhook_id=_text(whole, "webhookId", "WebhookId"),
        mutation=mutation,
        at=_moment(payload),
    )


def _kind(
    payload: Mapping[str, Any],
    mutation: str | None,
    entity_id: str | None,
    relationship_id: str | None,
) -> Kind:
    named = (mutation or "").lower()
    if relationship_id is not None or "relationship" in named:
        return "relationship" if relationship_id or entity_id else "unknown"
    if entity_id is None:
        return "unknown"
    entity_type = (_text(payload, "entityType", "EntityType") or "Relation.Person").lower()
    if entity_type.replace("_", ".") not in {"relation.person", "relation", "entity"}:
        return "unknown"
    return "person_deleted" if "delet" in named else "person"


def _text(values: Mapping[str, Any], *names: str) -> str | None:
    found = (values[name] for name in names if isinstance(values.get(name), str) and values[name])
    return next(found, None)


def _guid(values: Mapping[str, Any], *names: str) -> str | None:
    text = _text(values, *names)
    return text if text and is_guid(text) else None


def _moment(values: Mapping[str, Any]) -> datetime | None:
    text = _text(values, *_MOMENTS)
    return read_instant(text) if text else None
