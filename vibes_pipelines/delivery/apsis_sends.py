"""How one operation becomes calls of the APSIS One API, kind by kind. No ledger, no pace here.

Only an add creates a profile. A consent is looked at right before it is written, and before its
profile is deleted: what the person did there meanwhile goes first, and without that look there is
no opt-in and no deletion.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from vibes_pipelines.apsis.consents import Consent, ConsentOutcome, SettableType
from vibes_pipelines.apsis.errors import (
    ApsisAnswerError,
    ApsisError,
    ApsisLocked,
    ApsisLoginError,
    ApsisNotFound,
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
OPTED_OUT_IN_DOUBT = "the opt-out there may be newer than the comparison; the next one decides"
NO_PROFILE = "there is no profile that could consent; the next full sync compares anew"
UNREAD_OPT_OUT = "the person opted out there since it was last read; that is carried back first"
GONE = "the profile is gone; the next full sync reads it whole"
NOT_LOOKED = "the consents could not be read right before"
FIRST_OPT_IN = "crm_opted_in"
"""The reason of an opt-in that nothing known speaks against."""

Outcome = Literal["accepted", "rejected", "unknown"]

_RETRIED = frozenset({401, 403, 409})
"""Refusals that say nothing against the values: a permission or a state may change."""

_KEY_TYPES = frozenset({"email", "mobile"})
"""Of attributes that may be keys: the call that creates nothing would move the key as well."""


class ProfileApi(Protocol):
    """The calls of APSIS One that a delivery makes."""

    async def upsert(self, key: str, attributes: Mapping[str, JsonValue]) -> None:
        """Sets attributes and creates a missing profile."""

    async def patch(self, key: str, attributes: Mapping[str, JsonValue | None]) -> None:
        """Sets attributes of an existing profile and clears those that are None."""

    async def consents(self, key: str) -> tuple[Consent, ...] | None:
        """All consents of a profile in the section; None when there is no such profile."""

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


class Compared(Protocol):
    """What the comparison behind the operations knew."""

    @property
    def is_taken_up(self) -> bool:
        """Whether it was made for an earlier run, and waited since."""

    def knew_opt_outs(self, key: str, lists: Collection[str]) -> bool:
        """Whether a profile's opt-outs of these lists were all read before it."""


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

    Without a permission no profile is deleted. Without `compared` the operations were compared
    just now, and no opt-out was read.
    """

    def __init__(
        self,
        api: ProfileApi,
        types: Mapping[str, ValueType],
        permission: DeletionPermission | None = None,
        compared: Compared | None = None,
    ) -> None:
        self._api = api
        self._types = types
        self._permission = permission
        self._compared = compared
        self._blind: dict[str, ProfileAnswer] = {}

    async def overtaken(self, operation: Operation) -> str | None:
        """Why a consent must not be written, or a profile not deleted, any more; None when it may.

        Raises:
            PushError: the login is refused, or the mapping is not in the account.
        """
        if operation.kind not in {"opt_in", "opt_out", "delete"}:
            return None
        try:
            there = await self._api.consents(profile_key(operation))
        except (ApsisLoginError, ApsisSetupError) as stopped:
            raise PushError(str(stopped)) from stopped
        except ApsisLocked:
            return NO_PROFILE if operation.kind == "opt_in" else None
        except (ApsisRefused, ApsisUnavailable, ApsisAnswerError) as blind:
            if operation.kind != "opt_out":
                self._blind[operation.operation_id] = _not_looked(blind)
            return None
        if operation.kind == "delete":
            return self._why_not_deleted(operation, there or ())
        return self._why_not_written(operation, there)

    def _why_not_deleted(self, operation: Operation, there: Collection[Consent]) -> str | None:
        lists = [f"{one.topic}|{one.channel}" for one in there if one.type == "opt-out"]
        known = self._compared
        is_known = known.knew_opt_outs(profile_key(operation), lists) if known else not lists
        return None if is_known else UNREAD_OPT_OUT

    def _why_not_written(
        self, operation: Operation, there: Collection[Consent] | None
    ) -> str | None:
        wanted = topic_and_channel(operation)
        standing = next((c for c in there or () if (c.topic, c.channel) == wanted), None)
        is_out = standing is not None and standing.type == "opt-out"
        if operation.kind == "opt_out":
            return OPTED_OUT_ALREADY if is_out else None
        if there is None:
            return NO_PROFILE
        if standing is None or not is_out:
            return None
        if operation.changes[0].reason == FIRST_OPT_IN:
            return OPTED_OUT_MEANWHILE
        return OPTED_OUT_IN_DOUBT if self._is_in_doubt(operation, standing) else None

    def _is_in_doubt(self, operation: Operation, standing: Consent) -> bool:
        """Whether this may be another opt-out than the one that the label was newer than."""
        waited = self._compared is not None and self._compared.is_taken_up
        changed_at = standing.changed_at
        is_later = changed_at is not None and changed_at > operation.as_of
        return waited or operation.attempts > 0 or is_later

    def may_retry(self, answer: WriteAnswer) -> bool | None:
        """As the table of statuses tells."""
        return answer.retry_later if isinstance(answer, ProfileAnswer) else None

    async def send(self, operation: Operation) -> ProfileAnswer:
        """Sends one operation and answers what became of it.

        Raises:
            PushError: no further call can succeed, or no call carries this kind.
        """
        if blind := self._blind.pop(operation.operation_id, None):
            return blind
        try:
            return await self._send(operation)
        except (ApsisLoginError, ApsisSetupError) as stopped:
            raise PushError(str(stopped)) from stopped
        except ApsisError as refused:
            return _answer_to(refused)

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
        return await self._set(operation, key)

    async def _set(self, operation: Operation, key: str) -> ProfileAnswer:
        """Sets and clears attributes; a value that has no form is left out, and named."""
        values: dict[str, JsonValue] = {}
        refusal: ValueRefused | None = None
        for change in operation.changes:
            if change.action == "set" and change.after is not None:
                try:
                    values[change.field] = json_value(self._types[change.field], change.after)
                except ValueRefused as refused:
                    refusal = refused
        cleared = {c.field: None for c in operation.changes if c.action == "clear"}
        if values or cleared or refusal is None:
            if operation.kind == "add":
                await self._api.upsert(key, values)
                if cleared:
                    await self._api.patch(key, cleared)
            elif not await self._update(key, values, cleared):
                return ProfileAnswer(404, "rejected", "APSIS 404", GONE, retry_later=True)
        if refusal is not None:
            raise refusal
        return ACCEPTED

    async def _update(
        self, key: str, values: Mapping[str, JsonValue], cleared: Mapping[str, None]
    ) -> bool:
        """False when there is no such profile; it is not created."""
        of_keys = {n: value for n, value in values.items() if self._types[n] in _KEY_TYPES}
        others = {**{n: v for n, v in values.items() if n not in of_keys}, **cleared}
        try:
            if others:
                await self._api.patch(key, others)
            elif await self._api.consents(key) is None:
                return False
        except ApsisNotFound:
            return False
        if of_keys:
            await self._api.upsert(key, of_keys)
        return True

    async def _delete(self, key: str) -> ProfileAnswer:
        """One that is gone already is deleted."""
        if self._permission is None:
            text = "destinations.apsis.when_unmatched of sync.yaml is not delete"
            return ProfileAnswer(None, "rejected", "APSIS deletion", text, retry_later=True)
        await self._api.delete(key, self._permission)
        return ACCEPTED


def _answer_to(error: ApsisError) -> ProfileAnswer:
    """What a failed call says of its operation; errors of our own making are raised again."""
    match error:
        case ApsisUnavailable():
            outcome: Outcome = "rejected" if error.did_nothing else "unknown"
            name = f"APSIS {error.status or 'no answer'}"
            return ProfileAnswer(error.status, outcome, name, str(error), retry_later=True)
        case ConsentRefused():
            return ProfileAnswer(409, "rejected", "APSIS consent", str(error), retry_later=True)
        case ApsisRefused():
            name, text = f"APSIS {error.status}", meaning_of(error.status).cure
            retry = error.status in _RETRIED
            return ProfileAnswer(error.status, "rejected", name, text, retry_later=retry)
        case ValueRefused():
            return ProfileAnswer(None, "rejected", f"APSIS {error.value_type}", str(error))
        case ApsisAnswerError():
            return ProfileAnswer(None, "unknown", "APSIS answer", str(error), retry_later=True)
        case _:
            raise error


def _not_looked(blind: ApsisRefused | ApsisUnavailable | ApsisAnswerError) -> ProfileAnswer:
    status = None if isinstance(blind, ApsisAnswerError) else blind.status
    return ProfileAnswer(
        status, "rejected", "APSIS last look", f"{NOT_LOOKED}: {blind}", retry_later=True
    )


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
