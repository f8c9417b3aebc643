"""Writing the platform's opt-outs and fields into the CRM's table of contacts.

One call is one transaction, answered row by row: a contact that the database refuses to change
holds back no other. The same row again changes nothing. What to write, and whether it may be
written, is decided elsewhere.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any, Literal, Protocol, TypeVar

import sqlalchemy as sa

from vibes_pipelines.crm.agreement import holds
from vibes_pipelines.crm.cells import (
    ValueDoesNotFit,
    clean_text,
    field_value,
    has_come,
    instant_of,
    instant_value,
    latest_possible,
    opted_out_value,
    says_yes,
)
from vibes_pipelines.crm.database import (
    CrmError,
    as_held,
    crm_engine,
    each_or_its_refusal,
    is_locked,
    missing_column,
    reflect_table,
    writing,
)
from vibes_pipelines.crm.keys import find_keys, untrimmed_keys
from vibes_pipelines.sync_config import Consent, MappedField, SyncConfig

CONTACT_NOT_FOUND = "ContactNotFound"
VALUE_DOES_NOT_FIT = "ValueDoesNotFit"
CHANGED_MEANWHILE = "ChangedMeanwhile"
REFUSED_BY_CRM = "RefusedByCrm"
LOCKED_IN_CRM = "LockedInCrm"

Row = TypeVar("Row", bound="OptOut | FieldChange")
Where = sa.ColumnElement[bool]
Write = Callable[[Where, Row], None]


class OptOut(Protocol):
    """One opt-out recorded by the platform."""

    @property
    def contact_id(self) -> str:
        """The contact's key, as text."""

    @property
    def list(self) -> str:
        """The subscription list."""

    @property
    def evidence_at(self) -> datetime | None:
        """When the platform recorded it."""


class FieldChange(Protocol):
    """One custom field whose authority is the platform."""

    @property
    def contact_id(self) -> str:
        """The contact's key, as text."""

    @property
    def field(self) -> str:
        """The custom field."""

    @property
    def after(self) -> str | None:
        """Its value in canonical text; None clears."""

    @property
    def before(self) -> str | None:
        """What the CRM held when that was decided; None for blank."""


@dataclass(frozen=True, slots=True)
class WriteBack:
    """What became of one row.

    A rejected one has the class `ContactNotFound`, `ValueDoesNotFit`, `ChangedMeanwhile`,
    `RefusedByCrm` or `LockedInCrm`.
    """

    outcome: Literal["accepted", "rejected"]
    error_class: str | None = None


_ACCEPTED = WriteBack("accepted")


def _refusal(failed: Exception) -> str:
    if is_locked(failed):
        return LOCKED_IN_CRM
    is_by_the_database = isinstance(failed, sa.exc.DBAPIError)
    if is_by_the_database and not isinstance(failed, sa.exc.DataError):
        return REFUSED_BY_CRM
    return VALUE_DOES_NOT_FIT


class _ChangedMeanwhile(Exception):  # noqa: N818 - the name says what is wrong
    """The CRM changed the contact after what is to be written was decided."""


@dataclass(frozen=True)
class CrmTable:
    """The CRM's table of contacts (`contacts.table` of sync.yaml), for writing."""

    crm_url: str
    config: SyncConfig

    def apply_opt_outs(self, rows: Sequence[OptOut]) -> list[WriteBack]:
        """Writes each opt-out in the column's own spelling, and when it was recorded.

        A contact that is opted out already keeps its earlier time. One that the CRM opted in after
        the opt-out was recorded is left alone: the newer word stands. Of an opt-out at midnight
        only the day is known.

        Raises:
            CrmError: no connection, table or column, or a list that sync.yaml does not map.
        """
        with self._writing() as contacts:
            return contacts.answers(contacts.opt_out, rows)

    def apply_fields(self, rows: Sequence[FieldChange]) -> list[WriteBack]:
        """Writes each field in the form its column holds.

        A field with `authority: newest` that the CRM changed since is left alone: the next
        reconcile decides which side is the newer.

        Raises:
            CrmError: no connection, table or column, or a field that sync.yaml does not map.
        """
        with self._writing() as contacts:
            return contacts.answers(contacts.set_field, rows)

    @contextmanager
    def _writing(self) -> "Iterator[_Contacts]":
        with crm_engine(self.crm_url) as engine, writing(engine) as connection:
            table = reflect_table(connection, self.config.contacts.table)
            yield _Contacts(connection, table, self.config)


@dataclass(frozen=True)
class _Contacts:
    """The table inside one transaction."""

    connection: sa.Connection
    table: sa.Table
    config: SyncConfig
    opted_out: dict[str, Any] = field(default_factory=dict)

    def answers(self, write: Write[Row], rows: Sequence[Row]) -> list[WriteBack]:
        """Writes the rows and says what became of each."""

        def answer(row: Row) -> WriteBack:
            return self._answer(write, row)

        found = each_or_its_refusal(self.connection, rows, answer, _ACCEPTED)
        return [
            one if isinstance(one, WriteBack) else WriteBack("rejected", _refusal(one))
            for one in found
        ]

    def _answer(self, write: Write[Row], row: Row) -> WriteBack:
        """Writes one row and says what became of it."""
        contact = self._contact(row.contact_id)
        if contact is None:
            return WriteBack("rejected", CONTACT_NOT_FOUND)
        try:
            write(contact, row)
        except ValueDoesNotFit:
            return WriteBack("rejected", VALUE_DOES_NOT_FIT)
        except _ChangedMeanwhile:
            return WriteBack("rejected", CHANGED_MEANWHILE)
        return _ACCEPTED

    def opt_out(self, contact: Where, row: OptOut) -> None:
        """Writes one opt-out unless the contact is opted out already.

        Raises:
            _ChangedMeanwhile: the CRM opted it in after the evidence.
        """
        consent = self._consent(row.list)
        column = self._column(consent.from_, "consents[].from")
        values = {column: self._opted_out_value(column, consent)}
        if consent.changed_at and row.evidence_at:
            changed_at = self._column(consent.changed_at, "consents[].changed_at")
            values[changed_at] = instant_value(changed_at, row.evidence_at)
            self._refuse_older(contact, consent, column, changed_at, row.evidence_at)
        spelling = sa.func.lower(sa.func.trim(sa.cast(column, sa.Text)))
        not_yet = sa.or_(column.is_(None), spelling.not_in(sorted(consent.says_out)))
        self.connection.execute(sa.update(self.table).where(contact, not_yet).values(values))

    def _refuse_older(
        self,
        contact: Where,
        consent: Consent,
        column: sa.Column[Any],
        changed_at: sa.Column[Any],
        evidence_at: datetime,
    ) -> None:
        # The rule of the reconcile, which would else ask for the same every day. Locked, so that
        # the contact cannot change between this look and the write. A time that cannot be read is
        # none: the opt-out stands.
        cells = [as_held(self.connection, one) for one in (column, changed_at)]
        found = sa.select(*cells).select_from(self.table).where(contact).with_for_update()
        for state, changed in self.connection.execute(found).all():
            instant = instant_of(changed)
            if (
                instant is not None
                and instant > latest_possible(evidence_at)
                and has_come(instant)
                and says_yes(column, state, consent)
            ):
                raise _ChangedMeanwhile

    def set_field(self, contact: Where, row: FieldChange) -> None:
        """Writes one field.

        Raises:
            _ChangedMeanwhile: the newer side decides, and the CRM holds another value by now.
        """
        mapped = self._field(row.field)
        column = self._column(mapped.from_, "fields[].from")
        if mapped.authority == "newest":
            self._refuse_changed(contact, mapped, column, row)
        value = field_value(column, mapped, row.after, self._dialect)
        self.connection.execute(sa.update(self.table).where(contact).values({column: value}))

    def _refuse_changed(
        self, contact: Where, mapped: MappedField, column: sa.Column[Any], row: FieldChange
    ) -> None:
        # Locked, as consents are. What was written by the same row before is no change.
        cell = sa.select(as_held(self.connection, column)).select_from(self.table)
        for held in self.connection.scalars(cell.where(contact).with_for_update()).all():
            if not any(holds(column, mapped, held, seen) for seen in (row.before, row.after)):
                raise _ChangedMeanwhile

    def _opted_out_value(self, column: sa.Column[Any], consent: Consent) -> Any:
        if column.name not in self.opted_out:
            by_use = sa.select(column).group_by(column).order_by(sa.func.count().desc(), column)
            in_use = self.connection.scalars(by_use).all()
            self.opted_out[column.name] = opted_out_value(column, consent, in_use, self._dialect)
        return self.opted_out[column.name]

    def _consent(self, subscription_list: str) -> Consent:
        for consent in self.config.consents:
            if consent.list == subscription_list:
                return consent
        msg = f"sync.yaml: consents: no entry for list {subscription_list}; map it to write it back"
        raise CrmError(msg)

    def _field(self, name: str) -> MappedField:
        for mapped in self.config.fields:
            if mapped.to == name:
                return mapped
        msg = f"sync.yaml: fields: no entry with to: {name}; map it to write it back"
        raise CrmError(msg)

    def _column(self, name: str, entry: str) -> sa.Column[Any]:
        if name not in self.table.columns:
            raise missing_column(entry, name, self.table.name, list(self.table.columns.keys()))
        return self.table.columns[name]

    def _contact(self, contact_id: str) -> Where | None:
        """SQL for: it is this contact; None when the CRM does not have it."""
        wanted = clean_text(self._key, contact_id) or ""
        found = find_keys(self.connection, self._key, wanted)
        found = found or self._untrimmed_keys.get(wanted, [])
        return as_held(self.connection, self._key).in_(found) if found else None

    @cached_property
    def _untrimmed_keys(self) -> dict[str, list[Any]]:
        return untrimmed_keys(self.connection, self._key)

    @property
    def _key(self) -> sa.Column[Any]:
        return self._column(self.config.contacts.key, "contacts.key")

    @property
    def _dialect(self) -> str:
        return self.connection.dialect.name
