"""Writing the platform's opt-outs and fields back to Tribe CRM.

An opt-out takes the label off, and nothing here ever puts one on. The same row again changes
nothing. What to write, and whether it may be written, is decided elsewhere.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from vibes_pipelines.blanks import trimmed
from vibes_pipelines.crm.agreement import holds
from vibes_pipelines.crm.cells import (
    ValueDoesNotFit,
    field_value,
    instant_of,
    latest_possible,
)
from vibes_pipelines.crm.database import CrmError
from vibes_pipelines.crm.write_back import (
    CHANGED_MEANWHILE,
    CONTACT_NOT_FOUND,
    REFUSED_BY_CRM,
    VALUE_DOES_NOT_FIT,
    FieldChange,
    OptOut,
    WriteBack,
)
from vibes_pipelines.stages.interrupts import run_until_interrupted
from vibes_pipelines.stages.project import Project
from vibes_pipelines.stages.tribe_contacts import keys_as_held, tribe_client
from vibes_pipelines.stages.tribe_label_lease import label_lease
from vibes_pipelines.stages.tribe_labels import PRESENT, KnownLabels, known_labels
from vibes_pipelines.sync_config import Consent, MappedField
from vibes_pipelines.sync_config.spellings import as_compared
from vibes_pipelines.sync_config.tribe import LABEL
from vibes_pipelines.tribe.errors import (
    TribeError,
    TribeForbiddenError,
    TribeLabelError,
    TribeRefusedError,
)
from vibes_pipelines.tribe.labels import Label, label_id_of, label_ids
from vibes_pipelines.tribe.metadata import Metadata

if TYPE_CHECKING:
    from vibes_pipelines.tribe.client import Person, TribeClient

CONCURRENCY = 16
"""Contacts written at once; a contact's own rows one after the other."""

_OF_ONE_PERSON = frozenset({409, 412, 422, 423, 428})
"""HTTP statuses that are about the record at hand, whatever the request is."""

_ACCEPTED = WriteBack("accepted")
_NOT_FOUND = WriteBack("rejected", CONTACT_NOT_FOUND)
_COLUMN_TYPES: Mapping[str, sa.types.TypeEngine[Any]] = {
    "Edm.Boolean": sa.Boolean(),
    **dict.fromkeys(("Edm.Double", "Edm.Single", "Edm.Decimal"), sa.Float()),
    **dict.fromkeys(("Edm.Byte", "Edm.Int16", "Edm.Int32", "Edm.Int64"), sa.Integer()),
}

Row = OptOut | FieldChange
Write = Callable[["Person", Any], Awaitable[WriteBack]]


@dataclass(frozen=True)
class TribeWriter:
    """Tribe's persons, for writing; answers as the CRM's table does."""

    project: Project

    def apply_opt_outs(self, rows: Sequence[OptOut]) -> list[WriteBack]:
        """Takes the label of each opt-out off, or writes the field that holds the consent.

        Somebody who got the label after the opt-out was recorded is left alone: the newer word
        stands. One process at a time does this, whatever it syncs Tribe with.

        Raises:
            CrmError: Tribe cannot be written, another process takes labels off and does not end,
                or sync.yaml does not map the list.
        """
        if not rows:
            return []
        with label_lease(self.project):
            return self._apply(rows, lambda writing: writing.opt_out, ())

    def apply_fields(self, rows: Sequence[FieldChange]) -> list[WriteBack]:
        """Writes each field in the form that Tribe's type of it has.

        Raises:
            CrmError: Tribe cannot be written, or sync.yaml does not map the field.
        """
        changed = {row.field for row in rows}
        compared = [
            one.from_
            for one in self.project.config.fields
            if one.authority == "newest" and one.to in changed
        ]
        return self._apply(rows, lambda writing: writing.set_field, compared)

    def _apply(
        self, rows: Sequence[Any], chosen: Callable[["_Writing"], Write], compared: Sequence[str]
    ) -> list[WriteBack]:
        if not rows:
            return []
        try:
            return run_until_interrupted(self._write(rows, chosen, compared))
        except TribeError as failed:
            raise CrmError(str(failed)) from failed

    async def _write(
        self, rows: Sequence[Row], chosen: Callable[["_Writing"], Write], compared: Sequence[str]
    ) -> list[WriteBack]:
        """`compared` are the fields of a person that are looked at before it is written."""
        key = self.project.config.contacts.key
        async with tribe_client(self.project) as client:
            metadata, labels = await client.metadata(), await client.labels()
            keys = keys_as_held(self.project, {row.contact_id for row in rows})
            persons: defaultdict[str | None, list[Person]] = defaultdict(list)
            for person in await client.find(key, keys, list(dict.fromkeys([key, *compared]))):
                persons[trimmed(str(person.get(key)))].append(person)
            known = known_labels(self.project)
            writing = _Writing(self.project, client, metadata, labels, known)
            answers = await _by_contact(rows, persons, writing.answered(chosen(writing)))
            writing.raise_what_is_of_all()
            return answers


@dataclass(frozen=True)
class _Writing:
    """One call: the client and what Tribe says of its fields and labels.

    `changed` are the persons that were written; `refusals` may be of one person, or of all.
    """

    project: Project
    client: "TribeClient"
    metadata: Metadata
    labels: Sequence[Label]
    known: KnownLabels
    changed: set[str] = field(default_factory=set)
    refusals: list[TribeError] = field(default_factory=list)

    def answered(self, write: Write) -> Write:
        """The same writes, of which Tribe's refusal of one person is an answer."""

        async def one(person: "Person", row: Any) -> WriteBack:
            try:
                return await write(person, row)
            except (TribeForbiddenError, TribeLabelError, TribeRefusedError) as refused:
                if not _may_be_of_one(refused):
                    raise
                self.refusals.append(refused)
                return WriteBack("rejected", REFUSED_BY_CRM)

        return one

    def raise_what_is_of_all(self) -> None:
        """Raises a refusal when nobody was written and none is surely of one person."""
        if self.refusals and not self.changed and not any(map(_is_of_one, self.refusals)):
            raise self.refusals[0]

    async def opt_out(self, person: "Person", row: OptOut) -> WriteBack:
        consent = self._consent(row.list)
        if not consent.from_.startswith(LABEL):
            column = self._column(consent.from_, "consents[].from")
            spelling = "false" if isinstance(column.type, sa.Boolean) else consent.written_out[0]
            if as_compared(spelling) not in consent.says_out:
                msg = f"sync.yaml: consents: opted_out of {consent.from_} must hold {spelling!r}"
                raise CrmError(msg)
            value = False if isinstance(column.type, sa.Boolean) else spelling
            return await self._put(person, consent.from_, value)
        name = consent.from_.removeprefix(LABEL).strip()
        label = label_id_of(self.labels, name)
        if label not in label_ids(person, "Relation_Person"):
            return _ACCEPTED
        if self._appeared_after(row, name):
            return WriteBack("rejected", CHANGED_MEANWHILE)
        return self._answer(person, await self.client.remove_label(person["ID"], label))

    async def set_field(self, person: "Person", row: FieldChange) -> WriteBack:
        mapped = self._field(row.field)
        column = self._column(mapped.from_, "fields[].from")
        held, seen = person.get(mapped.from_), (row.before, row.after)
        if mapped.authority == "newest" and not any(holds(column, mapped, held, s) for s in seen):
            return WriteBack("rejected", CHANGED_MEANWHILE)
        try:
            value = field_value(column, mapped, row.after, "tribe")
        except ValueDoesNotFit:
            return WriteBack("rejected", VALUE_DOES_NOT_FIT)
        return await self._put(person, mapped.from_, value)

    async def _put(self, person: "Person", name: str, value: Any) -> WriteBack:
        return self._answer(person, await self.client.update(person["ID"], {name: value}))

    def _answer(self, person: "Person", is_there: bool) -> WriteBack:  # noqa: FBT001 - one of two
        if not is_there:
            return _NOT_FOUND
        self.changed.add(person["ID"])
        return _ACCEPTED

    def _appeared_after(self, row: OptOut, label: str) -> bool:
        """Whether the label, which the person has now, certainly came after the opt-out."""
        seen = self.known.seen.get(label, {}).get(row.contact_id)
        if row.evidence_at is None or seen is None:
            return False
        came_at: datetime | None = instant_of(seen.since) if seen.state == PRESENT else seen.at
        return came_at is not None and came_at > latest_possible(row.evidence_at)

    def _column(self, name: str, entry: str) -> sa.Column[Any]:
        if "/" in name or name.startswith(LABEL):
            msg = f"sync.yaml: {entry}: {name} cannot be written back; map a field of the person"
            raise CrmError(msg)
        edm = self.metadata.type_of(name, entry)
        return sa.Column(name, _COLUMN_TYPES.get(edm, sa.Text()))

    def _consent(self, subscription_list: str) -> Consent:
        for consent in self.project.config.consents:
            if consent.list == subscription_list:
                return consent
        msg = f"sync.yaml: consents: no entry for list {subscription_list}; map it to write it back"
        raise CrmError(msg)

    def _field(self, name: str) -> MappedField:
        for mapped in self.project.config.fields:
            if mapped.to == name:
                return mapped
        msg = f"sync.yaml: fields: no entry with to: {name}; map it to write it back"
        raise CrmError(msg)


async def _by_contact(
    rows: Sequence[Row], persons: Mapping[str | None, Iterable["Person"]], write: Write
) -> list[WriteBack]:
    """Each row's answer, in order; a row about several persons of one key is for all of them.

    It is accepted when each of them took it.
    """
    gate = asyncio.Semaphore(CONCURRENCY)
    places: defaultdict[str, list[int]] = defaultdict(list)
    for place, row in enumerate(rows):
        places[row.contact_id].append(place)
    answers: dict[int, WriteBack] = {}

    async def one(contact: str) -> None:
        async with gate:
            for place in places[contact]:
                said = [
                    await write(person, rows[place]) for person in persons.get(trimmed(contact), ())
                ]
                refused = (answer for answer in said if answer.outcome == "rejected")
                answers[place] = next(refused, _ACCEPTED if said else _NOT_FOUND)

    # All come to their end before one that failed ends the call: none is left half done.
    ended = await asyncio.gather(*(one(contact) for contact in places), return_exceptions=True)
    for failed in ended:
        if failed is not None:
            raise failed
    return [answers[place] for place in range(len(rows))]


def _may_be_of_one(refused: TribeError) -> bool:
    """Whether it may be the person's own, so that others can still be written."""
    return _status(refused) not in {None, 405}  # 405: Tribe knows no such request


def _is_of_one(refused: TribeError) -> bool:
    """Whether it is the person's own: a value that Tribe does not take, or a record it locks."""
    return isinstance(refused, TribeRefusedError) or _status(refused) in _OF_ONE_PERSON


def _status(refused: TribeError) -> int | None:
    """The HTTP status of a refusal; None of labels that are not what was written."""
    if isinstance(refused, TribeForbiddenError):
        return 403
    cause = refused.__cause__ if isinstance(refused, TribeLabelError) else refused
    return cause.status if isinstance(cause, TribeRefusedError) else None
