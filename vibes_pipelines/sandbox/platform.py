"""The state of the stand-in platform and the rules by which it changes; no I/O and no JSON.

Everything that reads or writes it holds `Platform.lock`; the methods take it themselves, callers
take it where several calls must see one state. The HTTP face is `api`, the file face `imports`.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from threading import RLock
from typing import Literal

from vibes_pipelines.sandbox.audit import Audit
from vibes_pipelines.sandbox.platform_index import PersonIndex
from vibes_pipelines.sandbox.platform_mdn import CarrierLookup, look_up_carrier
from vibes_pipelines.sandbox.platform_records import (
    OMITTED,
    CustomField,
    Happening,
    Notice,
    Omitted,
    Person,
    PersonPatch,
    Subscription,
    SubscriptionList,
    Value,
    Written,
    person_key_of,
)
from vibes_pipelines.sandbox.platform_refusals import (
    ExternalPersonIdTakenError,
    IdentityConflictError,
    MdnTakenError,
    MdnWriteOnceError,
    NoIdentifierError,
    NotSubscribedError,
    PersonNotFoundError,
)

__all__ = [
    "OMITTED",
    "CustomField",
    "Person",
    "PersonPatch",
    "Platform",
    "Subscription",
    "SubscriptionList",
    "Value",
    "Written",
    "person_key_of",
]

Source = Literal["api", "import", "handset"]
"""By which road a write came, `handset` a text; the audit counts them apart."""


class Platform:
    """One company's mobile database: persons, their subscriptions, custom fields and lists.

    `clock` gives aware UTC instants for every stamp. Person keys and ids of new persons follow from
    `seed` and a running number, so that the same calls make the same state. Whoever sets
    `on_happening` is told of every change of a person and a subscription, whoever sets `on_notice`
    of everything else that the platform reports by callback.
    """

    def __init__(
        self,
        company_key: str,
        custom_fields: Iterable[CustomField],
        lists: Iterable[SubscriptionList],
        clock: Callable[[], datetime],
        *,
        seed: int = 0,
        carrier_lookup: CarrierLookup = look_up_carrier,
        audit: Audit | None = None,
    ) -> None:
        self.company_key = company_key
        self.custom_fields = tuple(custom_fields)
        self.field_by_name = {field.name: field for field in self.custom_fields}
        self.lists = {entry.id: entry for entry in lists}
        self.clock = clock
        self.audit = audit or Audit()
        self.carrier_lookup = carrier_lookup
        self.lock = RLock()
        self.on_happening: Callable[[Happening], None] = lambda _: None
        self.on_notice: Callable[[Notice], None] = lambda _: None
        self.next_number = 1
        self._seed = seed
        self._index = PersonIndex()
        self._subscriptions: dict[str, list[Subscription]] = {}

    def load(self, persons: Iterable[Person], subscriptions: Iterable[Subscription]) -> None:
        """Replace the whole state, uncounted by the audit.

        Raises ValueError when two persons share an identifier or a subscription belongs to nobody.
        """
        with self.lock:
            self._index, self._subscriptions = PersonIndex(), {}
            for person in persons:
                for field, value in person.custom.items():
                    if isinstance(value, tuple):
                        person.custom[field] = tuple(sorted(value))
                self._index.load(person)
            for subscription in subscriptions:
                if subscription.person_key not in self.persons:
                    raise ValueError(
                        f"subscription of an unknown person {subscription.person_key}; load both"
                    )
                self._subscriptions.setdefault(subscription.person_key, []).append(subscription)
            self.next_number = self._index.highest_id() + 1

    @property
    def persons(self) -> dict[str, Person]:
        """Every person by person key; to be read only."""
        return self._index.persons

    @property
    def subscriptions(self) -> list[Subscription]:
        """Every subscription, ended ones too."""
        with self.lock:
            return [entry for entries in self._subscriptions.values() for entry in entries]

    def find(
        self,
        *,
        person_key: str | None = None,
        person_id: str | None = None,
        external_person_id: str | None = None,
        mdn: str | None = None,
    ) -> Person | None:
        """The person with the identifier; of several the one of the highest precedence counts."""
        with self.lock:
            return self._index.find(
                person_key=person_key,
                person_id=person_id,
                external_person_id=external_person_id,
                mdn=mdn,
            )

    def subscriptions_of(self, person_key: str, *, active_only: bool = True) -> list[Subscription]:
        """A person's subscriptions in the order they began."""
        with self.lock:
            entries = self._subscriptions.get(person_key, ())
            return [entry for entry in entries if entry.is_active or not active_only]

    def add(
        self, patch: PersonPatch, *, may_rename: bool = True, source: Source = "api"
    ) -> Written:
        """Create a person, or update the one who has the external person id or the MDN.

        An MDN-only match under another external person id is renamed to the one given, or refused
        as a conflict unless `may_rename` (the Vibes documentation contradicts itself). Raises
        IdentityConflictError when the two identifiers name two persons, and the refusals of
        `update`.
        """
        external, mdn = _given(patch.external_person_id), _given(patch.mdn)
        if external is None and mdn is None:
            raise NoIdentifierError
        with self.lock:
            by_external = self.find(external_person_id=external)
            by_mdn = self.find(mdn=mdn)
            if by_external and by_mdn and by_external is not by_mdn:
                raise IdentityConflictError(
                    "external_person_id and mdn belong to two different persons"
                )
            if by_mdn and not by_external and not may_rename and _renames(by_mdn, external):
                raise IdentityConflictError(
                    "the mdn belongs to a person with another external_person_id"
                )
            matched = by_external or by_mdn
            return self._change(matched, patch, source) if matched else self._create(patch, source)

    def create(self, patch: PersonPatch, *, source: Source = "api") -> Written:
        """Create a person and match nobody; raises when an identifier is taken already."""
        if _given(patch.external_person_id) is None and _given(patch.mdn) is None:
            raise NoIdentifierError
        with self.lock:
            return self._create(patch, source)

    def update(self, person_key: str, patch: PersonPatch, *, source: Source = "api") -> Written:
        """Set what the patch mentions, clear what it sets to `None`, keep the rest.

        Raises PersonNotFoundError, ExternalPersonIdTakenError, MdnWriteOnceError, MdnTakenError,
        NoCarrierError; then nothing has changed.
        """
        with self.lock:
            person = self.persons.get(person_key)
            if person is None:
                raise PersonNotFoundError("no person has this person_key")
            return self._change(person, patch, source)

    def upsert(
        self,
        external_person_id: str,
        patch: PersonPatch,
        *,
        may_create: bool = True,
        may_rename: bool = True,
    ) -> Written:
        """Update the person with the external person id, or create it with that id.

        A patch may rename an existing person, but not name a new one differently from the id it is
        created under.
        """
        with self.lock:
            person = self.find(external_person_id=external_person_id)
            if person is not None:
                return self._change(person, patch, "api")
            if not may_create:
                raise PersonNotFoundError("no person has this external_person_id")
            if patch.external_person_id not in {OMITTED, external_person_id}:
                raise ExternalPersonIdTakenError
            named = PersonPatch(external_person_id, patch.mdn, patch.custom)
            return self.add(named, may_rename=may_rename)

    def unsubscribe(
        self, person_key: str, list_id: str, *, reason: str = "api_opt_out", source: Source = "api"
    ) -> Subscription:
        """End the person's subscription to the list now.

        Raises NotSubscribedError when there is none; when one has ended before, the audit counts a
        repeat.
        """
        with self.lock:
            entries = [e for e in self._subscriptions.get(person_key, ()) if e.list_id == list_id]
            active = [entry for entry in entries if entry.is_active]
            if not active:
                if entries:
                    self.audit.repeat(f"{source}_unsubscribe", person_key)
                raise NotSubscribedError("the person is not subscribed to this list")
            self._end(active, self.clock(), reason)
            self.audit.effect(f"{source}_unsubscribe", person_key)
            return active[-1]

    def edit(self, person_key: str, custom: Mapping[str, Value], at: datetime) -> None:
        """Set custom fields as a user of the platform's own pages would; uncounted by the audit."""
        with self.lock:
            person = self.persons[person_key]
            person.custom.update(custom)
            person.updated_at = at
            self.on_happening(Happening("person_updated", at, person))

    def subscribe(
        self, person_key: str, list_id: str, at: datetime, *, activity_id: str | None = None
    ) -> None:
        """Begin a subscription as a keyword by text message would; uncounted by the audit.

        `activity_id` is the acquisition campaign that it came by.
        """
        with self.lock:
            person = self.persons[person_key]
            subscription = Subscription(person_key, list_id, at, activity_id=activity_id)
            self._subscriptions.setdefault(person_key, []).append(subscription)
            self.on_happening(Happening("subscription_added", at, person, subscription))

    def opt_out(
        self, person_key: str, list_id: str, at: datetime, reason: str = "user_opt_out"
    ) -> bool:
        """End a subscription as a stop word by text would, uncounted; False when there was none."""
        with self.lock:
            active = [e for e in self.subscriptions_of(person_key) if e.list_id == list_id]
            self._end(active, at, reason)
            return bool(active)

    def appear(self) -> Person:
        """A person without identifiers, as a first app open makes one; uncounted by the audit."""
        with self.lock:
            return self._insert(PersonPatch(), None, self.clock())

    def release_number(self, person_key: str, at: datetime) -> None:
        """Take a number from a person because it is somebody else's now; uncounted."""
        with self.lock:
            person = self.persons[person_key]
            self._end(self.subscriptions_of(person_key), at, "obsolete_carrier")
            self._index.set_mdn(person, None, None)
            self.on_happening(Happening("person_updated", at, person))

    def set_carrier(self, person_key: str, carrier_code: str, at: datetime) -> None:
        """The person's number is at another carrier now; uncounted."""
        with self.lock:
            person = self.persons[person_key]
            person.carrier_code, person.updated_at = carrier_code, at
            self.on_happening(Happening("person_updated", at, person))

    def erase(self, person_key: str) -> None:
        """Delete a person with all subscriptions; no callback tells of it (an assumption)."""
        with self.lock:
            person = self.persons[person_key]
            self._index.remove(person)
            self._subscriptions.pop(person_key, None)
            self.audit.effect("privacy_delete", person_key)
            self.on_happening(Happening("person_erased", self.clock(), person))

    def _create(self, patch: PersonPatch, source: Source) -> Written:
        external, mdn = _given(patch.external_person_id), _given(patch.mdn)
        if self._index.has_external(external):
            raise ExternalPersonIdTakenError
        if self._index.has_mdn(mdn):
            raise MdnTakenError
        carrier = None if mdn is None else self.carrier_lookup(mdn)
        person = self._insert(patch, carrier, self.clock())
        self.audit.effect(f"{source}_add", person.person_key)
        return Written(person, created=True, changed=True)

    def _insert(self, patch: PersonPatch, carrier: str | None, now: datetime) -> Person:
        number = self.next_number
        self.next_number += 1
        person = Person(
            person_key_of(self._seed, number),
            str(number),
            _given(patch.external_person_id),
            _given(patch.mdn),
            carrier,
            dict(patch.custom),
            now,
            now,
        )
        self._index.insert(person)
        self.on_happening(Happening("person_added", now, person))
        return person

    def _change(self, person: Person, patch: PersonPatch, source: Source) -> Written:
        """Check everything first, then change: a refused write leaves no trace."""
        external = _asked(patch.external_person_id, person.external_person_id)
        mdn = _asked(patch.mdn, person.mdn)
        custom = {
            name: value
            for name, value in patch.custom.items()
            if not _same(person.custom.get(name), value)
        }
        if external == person.external_person_id and mdn == person.mdn and not custom:
            self.audit.repeat(f"{source}_update", person.person_key)
            now = self.clock()
            self.on_happening(Happening("person_updated", now, person, changed=False))
            return Written(person, created=False, changed=False)
        if external != person.external_person_id and self._index.has_external(external):
            raise ExternalPersonIdTakenError
        carrier = self._carrier_for(person, mdn)
        now = self.clock()
        self._index.set_external(person, external)
        self._renumber(person, mdn, carrier, now)
        person.custom.update(custom)
        person.updated_at = now
        self.audit.effect(f"{source}_update", person.person_key)
        self.on_happening(Happening("person_updated", now, person))
        return Written(person, created=False, changed=True)

    def _carrier_for(self, person: Person, mdn: str | None) -> str | None:
        """The carrier code after a change of number, checked here: an MDN is write-once."""
        if mdn == person.mdn:
            return person.carrier_code
        if mdn is None:
            return None
        if person.mdn is not None:
            raise MdnWriteOnceError
        if self._index.has_mdn(mdn):
            raise MdnTakenError
        return self.carrier_lookup(mdn)

    def _renumber(
        self, person: Person, mdn: str | None, carrier: str | None, now: datetime
    ) -> None:
        """Set or remove the number; without one the person's subscriptions end (an assumption)."""
        if mdn is None and person.mdn is not None:
            self._end(self.subscriptions_of(person.person_key), now, "api_opt_out")
        self._index.set_mdn(person, mdn, carrier)

    def _end(self, subscriptions: Iterable[Subscription], at: datetime, reason: str) -> None:
        for entry in subscriptions:
            entry.opt_out_date, entry.opt_out_reason = at, reason
            person = self.persons[entry.person_key]
            self.on_happening(Happening("subscription_removed", at, person, entry))


def _given(identifier: str | Omitted | None) -> str | None:
    return None if isinstance(identifier, Omitted) else identifier


def _asked(asked: str | Omitted | None, present: str | None) -> str | None:
    return present if isinstance(asked, Omitted) else asked


def _renames(person: Person, external: str | None) -> bool:
    return external is not None and person.external_person_id not in {None, external}


def _same(present: Value, asked: Value) -> bool:
    """Whether a field holds the value already; an empty and an unset multi select are the same."""
    return (None if present == () else present) == (None if asked == () else asked)
