"""Finds whom the operator means: by external_person_id, else person_key, else MDN.

Only the identity is decided here; what is stored of the person is read by the modules beside.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from vibes_pipelines.blanks import trimmed
from vibes_pipelines.report.explain_facts import FoundAs
from vibes_pipelines.report.explain_landed import ContactRow, LandedRows, PersonRow
from vibes_pipelines.report.explain_ledger import identifiers_of

_E164 = re.compile(r"\+[1-9]\d{6,14}")


class ExplainError(ValueError):
    """A question that cannot be answered; the message says what was searched and the cure."""


class UnknownPersonError(ExplainError):
    """Nobody has this identifier in what is stored."""


class AmbiguousPersonError(ExplainError):
    """An identifier names several people; the message names each."""


@dataclass(frozen=True)
class Subject:
    """The person asked for, and the rows met while looking, by day.

    `unkeyed_mdns` are the spellings of the number of a contact that has no key.
    """

    found_as: FoundAs
    external_person_id: str | None
    person_keys: frozenset[str]
    contacts: Mapping[str, Sequence[ContactRow]]
    persons: Mapping[str, Sequence[PersonRow]]


class Finder:
    """Looks for a person in the landed snapshots of some days, newest first, and in the ledger."""

    def __init__(self, landed: LandedRows, ledger: sa.Connection, days: Sequence[str]) -> None:
        self._landed = landed
        self._ledger = ledger
        self._days = days

    def find(self, asked: str) -> Subject:
        """The person that this identifier names.

        Raises:
            UnknownPersonError: nobody has it.
            AmbiguousPersonError: an MDN or a person_key leads to several people.
        """
        asked = trimmed(asked) or ""
        subject = (
            self._by_external_id(asked) or self._by_person_key(asked) or self._by_mdn(asked)
            if asked
            else None
        )
        if subject is None:
            raise UnknownPersonError(self._not_found(asked))
        return subject

    def _by_external_id(self, asked: str) -> Subject | None:
        contacts = self._landed.contacts(self._days, asked)
        recorded = identifiers_of(self._ledger, "external_person_id", asked)
        keys = {key for _, key in recorded if key}
        keys |= {row.person_key for rows in contacts.values() for row in rows if row.person_key}
        mdns = sorted({row.mdn for rows in contacts.values() for row in rows if row.mdn})
        persons = self._persons_of(asked, sorted(keys), mdns)
        named = [row for rows in persons.values() for row in rows]
        has_external = any(row.external_person_id == asked for row in named)
        if not (contacts or recorded or has_external):
            return None
        keys |= {
            row.person_key for row in named if row.external_person_id == asked and row.person_key
        }
        return Subject("external_person_id", asked, frozenset(keys), contacts, persons)

    def _persons_of(
        self, external: str, keys: Sequence[str], mdns: Sequence[str]
    ) -> dict[str, list[PersonRow]]:
        """The persons of this external id, and those that another identifier leads to.

        The other identifiers take a slower scan. They are asked for days on which no person has the
        external id, and for the newest, to show who else is met there.
        """
        persons = self._landed.persons(self._days, external, (), ())
        others = [day for day in self._days if day == self._days[0] or day not in persons]
        for day, rows in self._landed.persons(others, None, keys, mdns).items():
            named = persons.setdefault(day, [])
            named += [row for row in rows if row.external_person_id != external]
        return persons

    def _by_person_key(self, asked: str) -> Subject | None:
        key = asked.lower()
        persons = self._landed.persons(self._days, None, [key], [])
        recorded = identifiers_of(self._ledger, "person_key", key)
        if not (persons or recorded):
            return None
        external = self._newest_external_id(persons, key)
        if external is None:
            known = {external for external, _ in recorded if external}
            external = _the_only(known, f"person_key {asked}") if known else None
        return self._with("person_key", external, key, persons)

    def _newest_external_id(
        self, persons: Mapping[str, Sequence[PersonRow]], key: str
    ) -> str | None:
        """The external id of the person on the newest day on which it has one."""
        for day in self._days:
            named = {row.external_person_id for row in persons.get(day, ())} - {None}
            if named:
                return _the_only({str(one) for one in named}, f"person_key {key} on {day}")
        return None

    def _by_mdn(self, asked: str) -> Subject | None:
        """Looked for on the newest day that has landed rows; a number moves between people."""
        if not _E164.fullmatch(asked):
            return None
        for day in self._days:
            contacts = self._landed.contacts_by_mdn(day, asked)
            persons = self._landed.persons([day], None, [], [asked]).get(day, [])
            if contacts or persons:
                return self._of_mdn(asked, day, contacts, persons)
            if self._landed.has_landed(day):
                return None
        return None

    def _of_mdn(
        self, asked: str, day: str, contacts: list[ContactRow], persons: list[PersonRow]
    ) -> Subject:
        externals = {row.key for row in contacts if row.key}
        externals |= {row.external_person_id for row in persons if row.external_person_id}
        if externals:
            external = _the_only(externals, f"mdn {asked} on {day}")
            return self._with("mdn", external, None, {})
        keys = {row.person_key for row in persons if row.person_key}
        if keys:
            key = _the_only(keys, f"mdn {asked} on {day}")
            return self._with("mdn", None, key, {})
        texts = sorted({row.mdn_text for row in contacts if row.mdn_text})
        unkeyed = self._landed.contacts(self._days, None, texts)
        return Subject("mdn", None, frozenset(), unkeyed, {})

    def _with(
        self,
        found_as: FoundAs,
        external: str | None,
        key: str | None,
        persons: Mapping[str, Sequence[PersonRow]],
    ) -> Subject:
        """The subject of an external id that another identifier led to, or of a bare person."""
        keys = frozenset({key}) if key else frozenset()
        if external is None:
            rows = persons or self._landed.persons(self._days, None, sorted(keys), [])
            return Subject(found_as, None, keys, {}, rows)
        subject = self._by_external_id(external)
        if subject is None:
            return Subject(found_as, external, keys, {}, persons)
        return Subject(
            found_as, external, subject.person_keys | keys, subject.contacts, subject.persons
        )

    def _not_found(self, asked: str) -> str:
        if not self._days:
            return "nothing is landed and nothing reconciled yet; run the daily job first"
        span = f"{self._days[-1]} to {self._days[0]}" if len(self._days) > 1 else self._days[0]
        number = "as an mdn" if _E164.fullmatch(asked) else "not as an mdn, which begins with +"
        return (
            f"nobody is known as {asked!r}: searched as contact key and external_person_id, then "
            f"as person_key, in crm/contacts and share/persons of {len(self._days)} days ({span}) "
            f"and in the ledger; {number}. Give one of these identifiers, or an older --day"
        )


def _the_only(found: Iterable[str], asked: str) -> str:
    """The one identifier found."""
    several = sorted(set(found))
    if len(several) != 1:
        msg = f"{asked} leads to {len(several)} people: {', '.join(several)}; ask for one of them"
        raise AmbiguousPersonError(msg)
    return several[0]
