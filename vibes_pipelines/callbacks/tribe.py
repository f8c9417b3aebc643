"""Tribe's webhooks at the receiver: stored first, whatever they are, with a verdict beside them.

A body whose signature is not Tribe's is kept as `tribe.refused`, parked with the verdict, and
nobody ever acts on it. Equal bodies are different messages: each tells that a person changed again,
and a message that Tribe sends twice only has the person read twice.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from uuid import uuid4

from vibes_pipelines.settings import TribeWebhookSettings
from vibes_pipelines.store.inbox import Arrival
from vibes_pipelines.tribe.errors import TribeWebhookError
from vibes_pipelines.tribe.webhooks import SOURCE, Verdict, judge_signature, read_message

PATH = "/tribe/webhooks"
REFUSED = f"{SOURCE}.refused"

_WHY: Mapping[Verdict, str] = {
    "missing": "refused: no signature; is TRIBE_WEBHOOK_HEADER the header that Tribe sends?",
    "invalid": "refused: the signature is not Tribe's; is TRIBE_WEBHOOK_SECRET the webhook's?",
    "unconfigured": "refused: TRIBE_WEBHOOK_SECRET is not set, so that no signature can be judged",
}


@dataclass(frozen=True)
class TribeGate:
    """Judges what comes in; picklable, for several processes."""

    settings: TribeWebhookSettings | None

    def verdict(self, body: bytes, headers: Mapping[str, str]) -> Verdict:
        """Whether a whole body is Tribe's own."""
        if self.settings is None:
            return "unconfigured"
        secret = self.settings.secret.get_secret_value()
        return judge_signature(body, headers.get(self.settings.header), secret)


def tribe_arrival(
    source_address: str, body: bytes, size: int, sha256: str, verdict: Verdict
) -> Arrival:
    """What the inbox keeps of a webhook; `body` may be its beginning only."""

    def arrival(
        event_type: str, person_id: str | None = None, parked: str | None = None
    ) -> Arrival:
        return Arrival(
            source_address=source_address,
            path=PATH,
            body=body,
            body_bytes=size,
            content_hash=sha256,
            event_id=f"{SOURCE} {uuid4()}",
            event_type=event_type,
            external_person_id=person_id,
            parked=parked,
        )

    if verdict != "valid":
        return arrival(REFUSED, parked=_WHY[verdict])
    try:
        message = read_message(body)
    except TribeWebhookError:
        return arrival(f"{SOURCE}.unknown")
    return arrival(message.event_type, message.person_id)
