"""The last look before an invitation leaves: has the person opted out since it was decided on?

The callback inbox is newer than any snapshot. What a callback says counts whether or not somebody
acted on it yet. Only what asks for consent is withdrawn; a change of a profile is not.
"""

from collections.abc import Mapping, Sequence

from vibes_pipelines.delivery.intents import evidence_at
from vibes_pipelines.store.inbox import Inbox, StoredCallback
from vibes_pipelines.store.records import Kind, Operation
from vibes_pipelines.vibes.callbacks import SUBSCRIPTION_REMOVED

CONSENT_KINDS: frozenset[Kind] = frozenset({"invite"})
"""Kinds that ask for consent. No file carries one: a batch never creates consent."""

OPTED_OUT_SINCE = "a callback says that the person opted out after this was decided on"


class InboxWatch:
    """Looks into the callback inbox of one company."""

    def __init__(self, inbox: Inbox, company_key: str) -> None:
        self._inbox = inbox
        self._company_key = company_key

    def withdrawn(self, operations: Sequence[Operation]) -> Mapping[str, str]:
        """Invitations whose person opted out of the list after the opt-in: operation id → why.

        One shared identifier is enough: a text that is not sent can be sent tomorrow.
        """
        asking = [operation for operation in operations if operation.kind in CONSENT_KINDS]
        lists = {o.subscription_list_id for o in asking if o.subscription_list_id is not None}
        if not asking or not lists:
            return {}
        removals = [
            callback
            for callback in self._inbox.events(SUBSCRIPTION_REMOVED, lists, _identifiers(asking))
            if callback.company_key in {None, self._company_key}
        ]
        return {
            operation.operation_id: OPTED_OUT_SINCE
            for operation in asking
            if any(_speaks_against(removal, operation) for removal in removals)
        }


def _identifiers(operations: Sequence[Operation]) -> dict[str, set[str]]:
    names = ("external_person_id", "person_key", "mdn")
    return {
        name: {value for o in operations if (value := getattr(o, name)) is not None}
        for name in names
    }


def _speaks_against(removal: StoredCallback, operation: Operation) -> bool:
    if removal.subscription_list_id != operation.subscription_list_id:
        return False
    opted_in_at = evidence_at(operation)
    if opted_in_at is not None and removal.order_at < opted_in_at:
        return False
    return any(
        value is not None and value == getattr(operation, name)
        for name, value in (
            ("external_person_id", removal.external_person_id),
            ("person_key", removal.person_key),
            ("mdn", removal.mdn),
        )
    )
