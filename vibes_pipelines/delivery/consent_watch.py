"""The last look before an invitation leaves: has the person opted out since it was decided on?

The callback inbox is newer than any snapshot. What a callback says counts whether or not somebody
acted on it yet. Only what asks for consent is withdrawn; a change of a profile is not.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from vibes_pipelines.delivery.intents import evidence_at
from vibes_pipelines.store.inbox import Inbox, StoredCallback
from vibes_pipelines.store.records import Kind, Operation
from vibes_pipelines.sync_config.realtime import OPT_OUT_WORDS
from vibes_pipelines.vibes.callback_facts import asks_to_stop
from vibes_pipelines.vibes.callbacks import SUBSCRIPTION_REMOVED, UNMATCHED, CallbackError

CONSENT_KINDS: frozenset[Kind] = frozenset({"invite"})
"""Kinds that ask for consent. No file carries one: a batch never creates consent."""

_IDENTIFIERS = ("external_person_id", "person_key", "mdn")

OPTED_OUT_SINCE = "a callback says that the person opted out after this was decided on"
ASKED_TO_STOP = "a text that the person sent asks to stop; it waits at the desk"


class InboxWatch:
    """Looks into the callback inbox of one company; `words` are those that ask to stop."""

    def __init__(
        self, inbox: Inbox, company_key: str, words: Collection[str] = OPT_OUT_WORDS
    ) -> None:
        self._inbox = inbox
        self._company_key = company_key
        self._words = words

    def withdrawn(self, operations: Sequence[Operation]) -> Mapping[str, str]:
        """Invitations whose person opted out of the list after the opt-in: operation id → why.

        One shared identifier is enough: a text that is not sent can be sent tomorrow.
        """
        asking = [operation for operation in operations if operation.kind in CONSENT_KINDS]
        if not asking:
            return {}
        persons = _identifiers(asking)
        removals = _ByPerson(
            callback
            for callback in self._inbox.events(SUBSCRIPTION_REMOVED, None, persons)
            if callback.company_key in {None, self._company_key} and not _is_over(callback)
        )
        texts = _ByPerson(self._texts_to_stop(persons))
        return {
            operation.operation_id: reason
            for operation in asking
            if (reason := _why_not(operation, removals, texts))
        }

    def _texts_to_stop(self, persons: Mapping[str, Collection[str]]) -> Iterator[StoredCallback]:
        """Texts that matched no campaign, ask to stop, and that nobody dismissed at the desk.

        They name no list: such a person is asked to none.
        """
        texts = [c for c in self._inbox.events(UNMATCHED, None, persons) if c.status != "dropped"]
        bodies = self._inbox.bodies([text.id for text in texts])
        for text in texts:
            try:
                is_no = asks_to_stop(bodies[text.id], self._words)
            except CallbackError:
                continue  # cannot be read, and is parked as such
            if is_no and text.company_key in {None, self._company_key}:
                yield text


class _ByPerson:
    """Callbacks by each identifier of their person: one that is shared is enough."""

    def __init__(self, callbacks: Iterable[StoredCallback]) -> None:
        self._of: dict[tuple[str, str], list[StoredCallback]] = {}
        for callback in callbacks:
            for key in _keys(callback):
                self._of.setdefault(key, []).append(callback)

    def since(self, operation: Operation) -> Iterator[StoredCallback]:
        """Those of the operation's person that are not older than its opt-in."""
        opted_in_at = evidence_at(operation)
        for key in _keys(operation):
            for callback in self._of.get(key, ()):
                if opted_in_at is None or callback.order_at >= opted_in_at:
                    yield callback


def _why_not(operation: Operation, removals: _ByPerson, texts: _ByPerson) -> str | None:
    ended = {None, operation.subscription_list_id}  # None: the list cannot be read
    if any(removal.subscription_list_id in ended for removal in removals.since(operation)):
        return OPTED_OUT_SINCE
    if any(texts.since(operation)):
        return ASKED_TO_STOP
    return None


def _is_over(removal: StoredCallback) -> bool:
    """Whether it tells no list, and somebody dismissed it at the desk."""
    return removal.subscription_list_id is None and removal.status == "dropped"


def _identifiers(operations: Sequence[Operation]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {name: set() for name in _IDENTIFIERS}
    for operation in operations:
        for name, value in _keys(operation):
            found[name].add(value)
    return found


def _keys(named: Operation | StoredCallback) -> Iterator[tuple[str, str]]:
    for name in _IDENTIFIERS:
        value = getattr(named, name)
        if value is not None:
            yield name, value
