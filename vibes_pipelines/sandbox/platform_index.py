"""The persons of a mobile database by every identifier; keeps identifiers unique, knows no rules.

When an identifier may change is decided in `platform`.
"""

from vibes_pipelines.sandbox.platform_records import Person


class PersonIndex:
    """Persons by key, legacy id, external person id and MDN."""

    def __init__(self) -> None:
        self.persons: dict[str, Person] = {}
        self._by_external: dict[str, str] = {}
        self._by_mdn: dict[str, str] = {}
        self._by_id: dict[str, str] = {}

    def load(self, person: Person) -> None:
        """Insert a person; raises ValueError when another one has an identifier of theirs."""
        for name, index, identifier in (
            ("person_key", self.persons, person.person_key),
            ("person_id", self._by_id, person.person_id),
            ("external_person_id", self._by_external, person.external_person_id),
            ("mdn", self._by_mdn, person.mdn),
        ):
            if identifier in index:
                raise ValueError(f"two persons share one {name}; second: {person.person_key}")
        self.insert(person)

    def insert(self, person: Person) -> None:
        """Insert a person whose identifiers are known to be free."""
        self.persons[person.person_key] = person
        self._by_id[person.person_id] = person.person_key
        if person.external_person_id is not None:
            self._by_external[person.external_person_id] = person.person_key
        if person.mdn is not None:
            self._by_mdn[person.mdn] = person.person_key

    def remove(self, person: Person) -> None:
        """Take a person out with all identifiers."""
        self.set_external(person, None)
        self.set_mdn(person, None, None)
        del self._by_id[person.person_id]
        del self.persons[person.person_key]

    def has_external(self, external: str | None) -> bool:
        """Whether somebody has this external person id."""
        return external in self._by_external

    def has_mdn(self, mdn: str | None) -> bool:
        """Whether somebody has this MDN."""
        return mdn in self._by_mdn

    def highest_id(self) -> int:
        """The highest numeric legacy id; 0 when there is none."""
        numbers = (int(number) for number in self._by_id if number.isdecimal())
        return max(numbers, default=0)

    def set_external(self, person: Person, external: str | None) -> None:
        """Give or take an external person id."""
        if person.external_person_id is not None:
            del self._by_external[person.external_person_id]
        if external is not None:
            self._by_external[external] = person.person_key
        person.external_person_id = external

    def set_mdn(self, person: Person, mdn: str | None, carrier_code: str | None) -> None:
        """Give or take an MDN, with the carrier that goes with it."""
        if person.mdn is not None:
            del self._by_mdn[person.mdn]
        if mdn is not None:
            self._by_mdn[mdn] = person.person_key
        person.mdn, person.carrier_code = mdn, carrier_code

    def find(
        self,
        *,
        person_key: str | None = None,
        person_id: str | None = None,
        external_person_id: str | None = None,
        mdn: str | None = None,
    ) -> Person | None:
        """The person with the identifier; of several the one of the highest precedence counts."""
        if person_id is not None:
            person_key = self._by_id.get(person_id)
        elif person_key is None and external_person_id is not None:
            person_key = self._by_external.get(external_person_id)
        elif person_key is None and mdn is not None:
            person_key = self._by_mdn.get(mdn)
        return None if person_key is None else self.persons.get(person_key)
