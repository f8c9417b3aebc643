"""Consent looks: what each contact's consent cell showed, and when it was last seen otherwise.

An opt-in label has no time of its own. That it was seen absent once and present later is the only
evidence of when it appeared; this is where that evidence is kept. Deciding belongs to reconcile.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from vibes_pipelines.store.database import Database
from vibes_pipelines.store.ledger_rows import chunks
from vibes_pipelines.store.models import consent_looks

_looks = consent_looks.c


@dataclass(frozen=True, slots=True)
class Look:
    """A contact's cell of one consent (a column of the sync config) as seen at an instant."""

    contact: str
    consent: str
    is_in: bool
    at: datetime


@dataclass(frozen=True, slots=True)
class Seen:
    """The newest look, and when the cell was last seen opted in and last seen otherwise."""

    contact: str
    consent: str
    is_in: bool
    last_in_at: datetime | None
    last_out_at: datetime | None


class ConsentLooks(Database):
    """The looks of one ledger database; every method is one transaction."""

    def note(self, looks: Iterable[Look]) -> None:
        """Keeps looks; one that is older than what is known changes nothing."""
        with self._writer.begin() as connection:
            build = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
            statement = build(consent_looks)
            new = statement.excluded
            statement = statement.on_conflict_do_update(
                index_elements=["contact", "consent"],
                set_={
                    "is_in": new.is_in,
                    "looked_at": new.looked_at,
                    "last_in_at": sa.func.coalesce(new.last_in_at, _looks.last_in_at),
                    "last_out_at": sa.func.coalesce(new.last_out_at, _looks.last_out_at),
                },
                where=_looks.looked_at < new.looked_at,
            )
            for chunk in chunks(looks):
                connection.execute(statement, [_row(look) for look in chunk])

    def seen(self, contacts: Iterable[str] | None = None) -> Iterator[Seen]:
        """What is known of these contacts, or of all, page by page in no transaction of its own."""
        query = sa.select(
            _looks.contact, _looks.consent, _looks.is_in, _looks.last_in_at, _looks.last_out_at
        )
        if contacts is not None:
            for chunk in chunks(contacts):
                yield from self._read(query.where(_looks.contact.in_(chunk)))
            return
        after: tuple[str, str] = ("", "")
        ordered = query.order_by(_looks.contact, _looks.consent).limit(10_000)
        key = sa.tuple_(_looks.contact, _looks.consent)
        while page := self._read(ordered.where(key > after)):
            yield from page
            after = (page[-1].contact, page[-1].consent)

    def _read(self, query: sa.Select[Any]) -> list[Seen]:
        with self._engine.begin() as connection:
            return [Seen(*row) for row in connection.execute(query)]


def _row(look: Look) -> dict[str, object]:
    return {
        "contact": look.contact,
        "consent": look.consent,
        "is_in": look.is_in,
        "looked_at": look.at,
        "last_in_at": look.at if look.is_in else None,
        "last_out_at": None if look.is_in else look.at,
    }
