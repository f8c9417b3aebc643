"""What the platform told of subscriptions by callback since a share was made, and of whom.

A callback names its person in several ways, and the person may be newer than the share. Each is
given the landed person that it means, or else a person of its own, known by nothing but its
identifiers. What follows from it is decided elsewhere.
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from vibes_pipelines.stages.inbox_opt_outs import SUBSCRIPTION_EVENTS
from vibes_pipelines.stages.project import Project
from vibes_pipelines.store.inbox import Inbox, StoredCallback
from vibes_pipelines.vibes.callback_facts import told_opt_out
from vibes_pipelines.vibes.callbacks import SUBSCRIPTION_ADDED, SUBSCRIPTION_REMOVED

_MADE_UP = "heard-"
"""Begins the key of a person whose own key nobody told. It never leaves."""

Stay = dict[str, str | None]


@dataclass(frozen=True, slots=True)
class KnownPerson:
    """A person by its identifiers alone; `mdn` is E.164."""

    person_key: str
    external_person_id: str | None
    mdn: str | None


@dataclass(frozen=True, slots=True)
class Whose:
    """Whose callbacks are asked for: contacts, and the numbers (E.164) that they have."""

    contacts: Collection[str]
    mdns: Collection[str] = ()


@dataclass
class Heard:
    """What was told: `stays` on lists, and the `persons` of them who are not landed.

    `joined_by` says when the newest join of a person (by key) to a list arrived here.
    `unsure_keys` are keys that are no name for a person at the platform: made up, or landed for an
    external id that a callback gives another key. Such a person is named by its external id.
    """

    stays: list[Stay] = field(default_factory=list)
    persons: list[KnownPerson] = field(default_factory=list)
    unsure_keys: set[str] = field(default_factory=set)
    joined_by: dict[tuple[str, str | None], datetime] = field(default_factory=dict)


def heard_subscriptions(
    project: Project, since: datetime, whose: Whose, landed: Sequence[KnownPerson]
) -> Heard:
    """What was told of these contacts, and of those of the landed persons that are theirs.

    `since` is the instant of the share. What happened within the visibility lag before it is heard
    too, for the share may not show it yet; told twice it changes nothing.
    """
    lag = timedelta(hours=project.config.policies.visibility_lag_h)
    keys = {person.person_key.lower() for person in landed}
    with closing(Inbox(project.settings.ledger_url)) as inbox:
        found = inbox.heard(
            SUBSCRIPTION_EVENTS,
            since - lag,
            whose.contacts,
            person_keys=keys,
            mdns=whose.mdns,
            company_key=project.config.company_key,
        )
        bodies = inbox.bodies([callback.id for callback in found])
    recognised = _Recognised(landed, set(whose.contacts))
    told = {callback.id: callback for callback in found}
    for number, key in recognised.keys_of(found):
        callback, stay = told[number], _stay(key, told[number], bodies[number])
        recognised.heard.stays.append(stay)
        if callback.event_type == SUBSCRIPTION_ADDED:
            stays_on, joined_by = (key, callback.subscription_list_id), recognised.heard.joined_by
            known = joined_by.get(stays_on, callback.received_at)
            joined_by[stays_on] = max(known, callback.received_at)
    return recognised.heard


def _stay(person_key: str, callback: StoredCallback, body: bytes) -> Stay:
    """What a callback tells of a person's stay on a list, by the times that the inbox goes by.

    The dates of the body may be in no form that can be read, or still to come. A removal without a
    time counts as of its arrival; an addition without one is no evidence of when.
    """
    opt_in = opt_out = None
    if callback.event_type == SUBSCRIPTION_REMOVED:
        opt_out = callback.order_at
    elif callback.event_at is not None:
        opt_in, opt_out = callback.event_at, told_opt_out(body)
    return {
        "person_key": person_key,
        "subscription_list_id": callback.subscription_list_id,
        "opt_in_date": _written(opt_in),
        "opt_out_date": _written(opt_out),
    }


def _written(instant: datetime | None) -> str | None:
    """To the second, as in the share: a part of one must not make an opt-in the newer of two."""
    if instant is None:
        return None
    return instant.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="seconds") + "Z"


class _Recognised:
    """Gives callbacks their persons, by the precedence of the reconcile: key, external id, MDN."""

    def __init__(self, landed: Sequence[KnownPerson], contacts: Collection[str]) -> None:
        self._contacts = contacts
        self._keys = {person.person_key.lower() for person in landed}
        self._by_external = _only_one(landed, "external_person_id")
        self._by_mdn = _only_one(landed, "mdn")
        self._numbers = {person.mdn for person in landed}
        self.heard = Heard()

    def keys_of(self, callbacks: Sequence[StoredCallback]) -> Iterator[tuple[int, str]]:
        """Callback id and person key, of each whose person is known or becomes so.

        Callbacks that name a key come first: the others may mean the same person.
        """
        for callback in sorted(callbacks, key=lambda one: one.person_key is None):
            key = self._key_of(callback)
            if key is not None:
                yield callback.id, key

    def _key_of(self, callback: StoredCallback) -> str | None:
        told, external, mdn = callback.person_key, callback.external_person_id, callback.mdn
        if told in self._keys:
            return told
        if external in self._by_external:
            key = self._by_external[external]
            if told is not None:
                self.heard.unsure_keys.add(key)
            return key
        if external is not None and external not in self._contacts:
            return None  # of somebody else, who has or had the same number
        if told is None and mdn in self._numbers:
            return self._by_mdn.get(mdn)
        return self._new(told, external, mdn)

    def _new(self, told: str | None, external: str | None, mdn: str | None) -> str:
        key = told or f"{_MADE_UP}{len(self.heard.persons) + 1}"
        if told is None:
            self.heard.unsure_keys.add(key)
        # A number beside an external id is not needed, and may still be that of its last holder.
        person = KnownPerson(key, external, None if external else mdn)
        self.heard.persons.append(person)
        self._keys.add(key)
        if external is not None:
            self._by_external[external] = key
        elif mdn is not None:
            self._by_mdn[mdn] = key
            self._numbers.add(mdn)
        return key


def _only_one(persons: Sequence[KnownPerson], name: str) -> dict[str | None, str]:
    """Identifier → key, where one person alone has it."""
    found: dict[str | None, str] = {}
    several: set[str | None] = {None}
    for person in persons:
        value: str | None = getattr(person, name)
        if value in found:
            several.add(value)
        found[value] = person.person_key.lower()
    return {value: key for value, key in found.items() if value not in several}
