"""What the CRM says of consent at this moment: by the spellings and times of the reconcile.

Read are single contacts, never a whole side; what follows from their word is decided elsewhere.
"""

# ruff: noqa: S608  (SQL is composed here on purpose: names and texts go through reconcile.sql)

import tempfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import duckdb

from vibes_pipelines.reconcile.consent import changed_at_columns, state_column
from vibes_pipelines.reconcile.engine import Limits, engine
from vibes_pipelines.reconcile.identifiers import contact_identifiers
from vibes_pipelines.reconcile.sources import open_source
from vibes_pipelines.stages.crm_side import copy_crm_contacts
from vibes_pipelines.stages.project import Project
from vibes_pipelines.store.ledger_rows import chunks

CONTACTS_AT_ONCE = 5_000
"""Contacts asked for in one statement; databases limit how many values one may hold."""


@dataclass(frozen=True, slots=True)
class Consent:
    """A contact's cell for a list; `changed_at` (UTC) is None where nothing says when."""

    contact: str
    list: str
    changed_at: datetime | None = None


def consents_in(project: Project, contacts: Collection[str], state: int) -> list[Consent]:
    """Cells of these contacts that are in a state of `reconcile.consent`, as the CRM has them now.

    Raises:
        CrmError: the CRM cannot be read.
    """
    return [
        cell for page in chunks(contacts, CONTACTS_AT_ONCE) for cell in _page(project, page, state)
    ]


def _page(project: Project, contacts: Collection[str], state: int) -> list[Consent]:
    with tempfile.TemporaryDirectory(prefix="consents-") as workspace:
        path = Path(workspace) / "contacts.parquet"
        copy_crm_contacts(project, path, contacts)
        with engine(Limits(threads=1), Path(workspace)) as duck:
            return list(_cells(project, duck, path, state))


def _cells(
    project: Project, duck: duckdb.DuckDBPyConnection, path: Path, state: int
) -> Iterator[Consent]:
    source = open_source(duck, "contacts", path, path.parent)
    key = contact_identifiers(project.config, source).key
    for consent in project.config.consents:
        changed_at, _ = changed_at_columns(consent, source)
        rows = duck.execute(
            f"SELECT {key}, {changed_at} FROM {source.relation}"
            f" WHERE {state_column(consent, source)} = {state}"
        ).fetchall()
        for contact, changed in rows:
            yield Consent(contact, consent.list.strip(), changed)
