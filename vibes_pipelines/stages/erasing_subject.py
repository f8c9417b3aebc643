"""Whom an erasure is about: every stored identifier of the person; nothing is asked outside.

A person is named by an identifier that is its own alone: a number has had others before.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import duckdb

from vibes_pipelines.blanks import trimmed
from vibes_pipelines.data_files import parquet
from vibes_pipelines.reconcile.sql import clean
from vibes_pipelines.stages.apsis_erasing_links import is_known_for_apsis
from vibes_pipelines.stages.erasing_links import (
    e164,
    erased_before,
    linked_by_number,
    stored_pairs,
)
from vibes_pipelines.stages.erasing_numbers import callbacks_by_number, told_numbers
from vibes_pipelines.stages.landed_texts import landed_texts
from vibes_pipelines.stages.landing import CONTACTS, PERSONS
from vibes_pipelines.stages.project import Project
from vibes_pipelines.stages.pseudonyms import pseudonym


class ErasureError(RuntimeError):
    """An erasure that cannot begin or is not finished; the message says what to do."""


@dataclass(frozen=True)
class Subject:
    """One person's identifiers. `mdns` are all spellings of its numbers that are stored.

    Callbacks, by id, that tell nothing but a number: `own_callbacks` are the person's,
    `doubtful_callbacks` wait and may be somebody else's.
    """

    external_person_id: str | None
    person_keys: tuple[str, ...]
    mdns: tuple[str, ...]
    newest_mdns: tuple[str, ...] = ()
    own_callbacks: tuple[int, ...] = ()
    doubtful_callbacks: tuple[int, ...] = ()

    @property
    def keys(self) -> frozenset[str]:
        """The identifiers that are this person's alone; a number may have others after it."""
        external = {self.external_person_id} if self.external_person_id else set()
        return frozenset({*self.person_keys, *external})

    def pseudonyms(self, key: bytes) -> list[str]:
        """What the keys are replaced by."""
        return sorted(pseudonym(one, key) for one in self.keys)

    def joined(self, other: "Subject") -> "Subject":
        """Both, of one person that was found twice; what the first knew to be its own stays so."""
        own = {*self.own_callbacks, *other.own_callbacks}
        return Subject(
            self.external_person_id or other.external_person_id,
            tuple(sorted({*self.person_keys, *other.person_keys})),
            tuple(sorted({*self.mdns, *other.mdns})),
            tuple(sorted({*self.newest_mdns, *other.newest_mdns})),
            tuple(sorted(own)),
            tuple(sorted({*self.doubtful_callbacks, *other.doubtful_callbacks} - own)),
        )

    def to_json(self) -> str:
        """The subject as an unfinished erasure keeps it."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "Subject":
        """Reads what `to_json` wrote."""
        document = json.loads(text)
        return cls(
            document["external_person_id"],
            *(tuple(document[name]) for name in ("person_keys", "mdns", "newest_mdns")),
            *(tuple(document.get(name, ())) for name in ("own_callbacks", "doubtful_callbacks")),
        )


def find_subject(project: Project, asked: str) -> Subject | None:
    """The person of a contact key (external_person_id) or person_key; None when nobody has it.

    Raises:
        ErasureError: a person_key had several contacts.
    """
    asked = trimmed(asked) or ""
    landed = _landed(project)
    with duckdb.connect() as engine:
        external, keys = _identity(project, engine, landed, asked)
        if external is None and not keys:
            return None
        if external is not None and landed[CONTACTS] and landed[PERSONS]:
            newest_files = landed[CONTACTS][-1], landed[PERSONS][-1]
            keys |= linked_by_number(project, engine, *newest_files, external)
        mdns, newest = _numbers(project, engine, landed, external, keys)
        mdns |= told_numbers(project, external, keys)
        told = callbacks_by_number(project, engine, external, keys, mdns)
    return Subject(
        external,
        tuple(sorted(keys)),
        tuple(sorted(mdns)),
        tuple(sorted(newest)),
        told.own,
        told.doubtful,
    )


def _landed(project: Project) -> dict[str, list[Path]]:
    """The data of every landed day, oldest first."""
    found = {}
    for feed in (CONTACTS, PERSONS):
        snapshots = [project.snapshots.find(feed, day) for day in project.snapshots.days(feed)]
        found[feed] = [one.data for one in snapshots if one is not None]
    return found


def _identity(
    project: Project,
    engine: duckdb.DuckDBPyConnection,
    landed: dict[str, list[Path]],
    asked: str,
) -> tuple[str | None, set[str]]:
    key = project.config.contacts.key
    contacts = _texts(engine, landed[CONTACTS], key, asked, key)
    pairs = stored_pairs(project, engine, landed[PERSONS], asked)
    pairs |= erased_before(project, asked)
    named = contacts or any(external == asked for external, _ in pairs)
    if named or is_known_for_apsis(project.settings, project.config.contacts.key, asked):
        return asked, {key for external, key in pairs if external == asked and key}
    key = asked.lower()
    externals = {external for external, found in pairs if found == key and external}
    if len(externals) > 1:
        msg = f"this person_key had {len(externals)} contacts; give the key of one of them"
        raise ErasureError(msg)
    if externals:
        return _identity(project, engine, landed, externals.pop())
    return None, {key} if any(found == key for _, found in pairs) else set()


def _numbers(
    project: Project,
    engine: duckdb.DuckDBPyConnection,
    landed: dict[str, list[Path]],
    external: str | None,
    keys: Iterable[str],
) -> tuple[set[str], set[str]]:
    """Every spelling of the person's numbers, and the platform's numbers of the newest day."""
    mdns: set[str] = set()
    newest: set[str] = set()
    for path in landed[PERSONS]:
        newest = {
            row[0]
            for row in engine.execute(
                f"SELECT DISTINCT mdn FROM {parquet(path)} WHERE mdn IS NOT NULL"  # noqa: S608
                " AND (external_person_id = ? OR list_contains(?, lower(person_key)))",
                [external, list(keys)],
            ).fetchall()
        }
        mdns |= newest
    mapped = project.config.contacts
    if mapped.mdn is not None and external is not None and landed[CONTACTS]:
        given = _texts(engine, landed[CONTACTS], mapped.key, external, mapped.mdn.column)
        mdns |= given | e164(project, engine, given)
    return mdns, newest


def _texts(
    engine: duckdb.DuckDBPyConnection,
    files: list[Path],
    key: str,
    value: str,
    shown: str,
) -> set[str]:
    """What the column `shown` holds in the rows with this key."""
    if not files:
        return set()
    rows = landed_texts(engine, files, key=key, shown=shown)
    found = engine.execute(
        f"SELECT DISTINCT shown FROM {rows} WHERE {clean('key')} = ?",  # noqa: S608 - quoted names
        [value],
    ).fetchall()
    return {row[0] for row in found if row[0] is not None}
