"""Writing the platform's opt-outs and fields into the CRM's table of contacts.

One call is one transaction, answered row by row. The same row again changes nothing. What to
write, and whether it may be written, is decided elsewhere.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, Protocol

import sqlalchemy as sa

from vibes_pipelines.crm.cells import CrmCell, changed_at_cell, field_cell, opted_out_cell
from vibes_pipelines.crm.database import CrmError, crm_engine, missing_column, reflect_table
from vibes_pipelines.sync_config import Consent, MappedField, SyncConfig

CONTACT_NOT_FOUND = "ContactNotFound"
_KEYS_AT_ONCE = 500


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


@dataclass(frozen=True, slots=True)
class WriteBack:
    """What became of one row; `error_class` is `ContactNotFound` for a rejected one."""

    outcome: Literal["accepted", "rejected"]
    error_class: str | None = None


@dataclass(frozen=True)
class CrmTable:
    """The CRM's table of contacts (`contacts.table` of sync.yaml), for writing."""

    crm_url: str
    config: SyncConfig

    def apply_opt_outs(self, rows: Sequence[OptOut]) -> list[WriteBack]:
        """Writes each opt-out in the column's own spelling, and when it was recorded.

        A contact that is opted out already keeps its earlier time.

        Raises:
            CrmError: no connection, table or column, or a list that sync.yaml does not map.
        """
        consents = {consent.list: consent for consent in self.config.consents}
        return self._apply(
            rows,
            lambda table, row: _opt_out_cells(table, _mapped(consents, row.list, "consents"), row),
        )

    def apply_fields(self, rows: Sequence[FieldChange]) -> list[WriteBack]:
        """Writes each field in the form its column holds.

        Raises:
            CrmError: no connection, table or column, a field that sync.yaml does not map, or a
                value its column cannot hold.
        """
        fields = {field.to: field for field in self.config.fields}
        return self._apply(
            rows,
            lambda table, row: _field_cells(table, _mapped(fields, row.field, "fields"), row),
        )

    def _apply[Row: OptOut | FieldChange](
        self, rows: Sequence[Row], cells_of: Callable[["_Contacts", Row], list[CrmCell]]
    ) -> list[WriteBack]:
        if not rows:
            return []
        with crm_engine(self.crm_url) as engine, engine.begin() as connection:
            table = _Contacts(connection, self.config)
            known = table.known_keys([row.contact_id for row in rows])
            return [
                _NOT_FOUND if row.contact_id not in known else table.write(row.contact_id, cells)
                for row, cells in ((row, cells_of(table, row)) for row in rows)
            ]
