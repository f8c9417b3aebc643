"""How one operation becomes calls of the APSIS One API, kind by kind. No ledger, no pace here.

Attributes are set by the call that creates a missing profile, and cleared by the one that can. A
consent is looked at right before it is written: what the person did there meanwhile goes first.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from vibes_pipelines.apsis.consents import Consent, ConsentOutcome, SettableType
from vibes_pipelines.apsis.errors import (
    ApsisAnswerError,
    ApsisLoginError,
    ApsisRefused,
    ApsisSetupError,
    ApsisUnavailable,
    ConsentRefused,
    ValueRefused,
)
from vibes_pipelines.apsis.profiles import DeletionPermission
from vibes_pipelines.apsis.statuses import meaning_of
from vibes_pipelines.apsis.values import JsonValue, json_value
from vibes_pipelines.delivery.ports import WriteAnswer
from vibes_pipelines.delivery.sends import PushError
from vibes_pipelines.store.records import Operation
from vibes_pipelines.sync_config.apsis import ValueType

OPTED_OUT_MEANWHILE = "the person opted out there since it was last read"
OPTED_OUT_ALREADY = "the person is opted out there already"
FIRST_OPT_IN = "crm_opted_in"
"""The reason of an opt-in that nothing known speaks against."""

Outcome = Literal["accepted", "rejected", "unknown"]

_RETRIED = frozenset({401, 403, 409})
"""Refusals that say nothing against the values: a permission or a state may change."""


class ProfileApi(Protocol):
    """The calls of APSIS One that a delivery makes."""

    async def upsert(self, key: str, attributes: Mapping[str, JsonValue]) -> None:
        """Sets attributes and creates a missing profile."""

    async def patch(self, key: str, attributes: Mapping[str, JsonValue | None]) -> None:
        """Sets attributes of an existing profile and clears those that are None."""

    async def consents(self, key: str) -> tuple[Consent, ...]:
        """All consents of a profile in the section."""

    async def consent(
        self,
        key: str,
        topic: str,
        channel: str,
        consent_type: SettableType,
        reason: str,
        source: str | None = None,
    ) -> ConsentOutcome:
        """Sets one consent."""

    async def delete(self, key: str, permission: DeletionPermission | None) -> bool:
        """Deletes a profile for ever; False when there is none."""


@dataclass(frozen=True, slots=True)
class ProfileAnswer:
    """What APSIS One said to one operation, in words without personal data."""

    status: int | None
    outcome: Outcome
    error_class: str | None = None
    message: str | None = None
    retry_later: bool = False


ACCEPTED = ProfileAnswer(200, "accepted")


class ApsisSender:
    """Sends single operations; `types` are those of the mapped attributes.

    Without a permission no profile is deleted.
    """

    def __init__(
        self,
        api: ProfileApi,
        types: Mapping[str, ValueType],
        permission: DeletionPermission | None = None,
    ) -> None:
        self._api = api
        self._types = types
        self._permission = permission

    async def overtaken(self, operation: Operation) -> str | None:
        """Why a consent must not be written any more; None when it may.

        Raises:
            PushError: the login is refused, or the mapping is not in the account.
        """
        if operation.kind not in {"opt_in", "opt_out"}:
            return None
        try:
            is_out = await self._is_opted_out(operation)
        except (ApsisLoginError, ApsisSetupError) as stopped:
            raise PushError(str(stopped)) from stopped
        except (ApsisRefused, ApsisUnavailable, ApsisAnswerError):
            return None  # the write meets the same, and its answer is recorded
        if operation.kind == "opt_out":
            return OPTED_OUT_ALREADY if is_out else None
        is_first = operation.changes[0].reason == FIRST_OPT_IN
        return OPTED_OUT_MEANWHILE if is_out and is_first else None

    def may_retry(self, answer: WriteAnswer) -> bool | None:
        """As the table of statuses tells."""
        return answer.retry_later if isinstance(answer, ProfileAnswer) else None

    async def send(self, operation: Operation) -> ProfileAnswer:
        """Sends one operation and answers what became of it.

        Raises:
            PushError: no further call can succeed, or no call carries this kind.
        """
        try:
            return await self._send(operation)
        except (ApsisLoginError, ApsisSetupError) as stopped:
            raise PushError(str(stopped)) from stopped
        except ApsisUnavailable as later:
            outcome: Outcome = "rejected" if later.did_nothing else "unknown"
            name = f"APSIS {later.status or 'no answer'}"
            return ProfileAnswer(later.status, outcome, name, str(later), retry_later=True)
        except ConsentRefused as refused:
            return ProfileAnswer(409, "rejected", "APSIS consent", str(refused), retry_later=True)
        except ApsisRefused as refused:
            retry = refused.status in _RETRIED
            name, text = f"APSIS {refused.status}", meaning_of(refused.status).cure
            return ProfileAnswer(refused.status, "rejected", name, text, retry_later=retry)
        except ValueRefused as refused:
            return ProfileAnswer(None, "rejected", f"APSIS {refused.value_type}", str(refused))
        except ApsisAnswerError as unread:
            return ProfileAnswer(None, "unknown", "APSIS answer", str(unread), retry_later=True)

    async def _send(self, operation: Operation) -> ProfileAnswer:
        key = profile_key(operation)
        if operation.kind in {"opt_in", "opt_out"}:
            topic, channel = topic_and_channel(operation)
            wanted: SettableType = "opt-in" if operation.kind == "opt_in" else "opt-out"
            reason = f"CRM: {operation.changes[0].reason}"
            await self._api.consent(key, topic, channel, wanted, reason)
            return ACCEPTED
        if operation.kind == "delete":
            return await self._delete(key)
        if operation.kind not in {"add", "update"}:
            raise PushError(f"operation {operation.operation_id}: APSIS One has no such change")
        values = {c.field: c.after for c in operation.changes if c.action == "set"}
        cleared = {c.field: None for c in operation.changes if c.action == "clear"}
        set_values = {
            name: json_value(self._types[name], text)
            for name, text in values.items()
            if text is not None
        }
        if set_values or not cleared:
            await self._api.upsert(key, set_values)
        if cleared:
            await self._api.patch(key, cleared)
        return ACCEPTED

    async def _delete(self, key: str) -> ProfileAnswer:
        """One that is gone already is deleted."""
        if self._permission is None:
            text = "destinations.apsis.when_unmatched of sync.yaml is not delete"
            return ProfileAnswer(None, "rejected", "APSIS deletion", text, retry_later=True)
        await self._api.delete(key, self._permission)
        return ACCEPTED

    async def _is_opted_out(self, operation: Operation) -> bool:
        wanted = topic_and_channel(operation)
        there = await self._api.consents(profile_key(operation))
        return any((c.topic, c.channel) == wanted and c.type == "opt-out" for c in there)


def profile_key(operation: Operation) -> str:
    """The profile that an operation is about.

    Raises:
        PushError: it names none.
    """
    if not operation.external_person_id:
        raise PushError(f"operation {operation.operation_id} names no profile; rebuild its day")
    return operation.external_person_id


def topic_and_channel(operation: Operation) -> tuple[str, str]:
    """What a consent is about."""
    topic, _, channel = (operation.subscription_list_id or "").rpartition("|")
    return topic, channel


def cure_of(error_class: str) -> str:
    """What an operator does about a class of this sender; blank where the message says it."""
    status = error_class.removeprefix("APSIS ")
    return meaning_of(int(status)).cure if status.isdigit() else ""
