"""Facts: what callbacks say of a contact beside its consent and fields, in a table of the CRM.

The table (`callbacks.facts_table` of sync.yaml) has the columns of `COLUMNS`; one row for each
contact, kind and subject holds the newest state. Deciding what is a fact belongs elsewhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import sqlalchemy as sa

from vibes_pipelines.crm.cells import (
    ValueDoesNotFit,
    column_value,
    instant_of,
    instant_value,
)
from vibes_pipelines.crm.database import (
    crm_engine,
    each_or_its_refusal,
    is_locked,
    missing_column,
    reflect_table,
    writing,
)
from vibes_pipelines.sync_config import SyncConfig

COLUMNS = ("contact_id", "kind", "subject", "state", "changed_at")

ENTRY = "callbacks.facts_table"

Noted = Literal["noted", "older", "unknown_contact", "refused", "locked"]


@dataclass(frozen=True, slots=True)
class ContactFact:
    """One state of one subject, e.g. the device `APP1/123` is `active`."""

    contact_id: str
    kind: str
    subject: str
    state: str
    changed_at: datetime


@dataclass(frozen=True)
class FactTable:
    """The CRM's table of facts, for writing."""

    crm_url: str
    config: SyncConfig
    table: str

    def note(self, facts: Sequence[ContactFact]) -> list[Noted]:
        """Notes each fact in one transaction; one that is older than what is there changes nothing.

        One that the database refuses, e.g. because it is too long, or that another session has
        locked, holds back no other.

        Raises:
            CrmError: no connection, no such table, or a column is missing.
        """
        with crm_engine(self.crm_url) as engine, writing(engine) as connection:
            table = reflect_table(connection, self.table, ENTRY)
            for name in COLUMNS:
                if name not in table.columns:
                    existing = list(table.columns.keys())
                    raise missing_column(ENTRY, name, self.table, existing)
            contacts = reflect_table(connection, self.config.contacts.table)
            notes = _Writing(connection, table, contacts.columns[self.config.contacts.key])
            noted: Noted = "noted"
            found = each_or_its_refusal(connection, facts, notes.note, noted)
            return [_of_refusal(one) if isinstance(one, Exception) else one for one in found]


def _of_refusal(failed: Exception) -> Noted:
    return "locked" if is_locked(failed) else "refused"


@dataclass(frozen=True)
class _Writing:
    """The tables inside one transaction."""

    connection: sa.Connection
    table: sa.Table
    key: sa.Column[str]

    def note(self, fact: ContactFact) -> Noted:
        try:
            return self._note(fact)
        except ValueDoesNotFit:
            return "refused"

    def _note(self, fact: ContactFact) -> Noted:
        if not self._is_contact(fact.contact_id):
            return "unknown_contact"
        columns = self.table.columns
        same = sa.and_(
            columns.contact_id == self._value("contact_id", fact.contact_id),
            columns.kind == fact.kind,
            columns.subject == fact.subject,
        )
        found = self.connection.execute(sa.select(columns.changed_at).where(same)).first()
        values = {
            "state": fact.state,
            "changed_at": instant_value(columns.changed_at, fact.changed_at),
        }
        if found is None:
            named = {"contact_id": self._value("contact_id", fact.contact_id)}
            named |= {"kind": fact.kind, "subject": fact.subject}
            self.connection.execute(sa.insert(self.table).values(named | values))
            return "noted"
        since = instant_of(found[0])
        if since is not None and since > fact.changed_at:
            return "older"
        self.connection.execute(sa.update(self.table).where(same).values(values))
        return "noted"

    def _is_contact(self, contact_id: str) -> bool:
        try:
            key = column_value(self.key, contact_id, self.connection.dialect.name)
        except ValueDoesNotFit:
            return False
        return bool(self.connection.scalar(sa.select(sa.exists().where(self.key == key))))

    def _value(self, column: str, text: str) -> object:
        return column_value(self.table.columns[column], text, self.connection.dialect.name)
