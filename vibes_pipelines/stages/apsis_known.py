"""What is known of APSIS One: the last proven state, and fresh reads of what is in doubt.

APSIS One has no share. A profile is read whole when it is new to us or something of it was sent,
and its consents in turn, the longest unread first. One feed (`apsis/reads`) holds what was read;
the profiles and consents of the reconcile are made from it. An opt-out that was read once is kept
when a later read does not show it: absence is no consent.
"""

# ruff: noqa: S608  (SQL is composed here on purpose: names and texts go through reconcile.sql)

import asyncio
import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from vibes_pipelines.apsis.calls import can_stand_in_path
from vibes_pipelines.apsis.errors import (
    ApsisAnswerError,
    ApsisError,
    ApsisForbidden,
    ApsisLocked,
    ApsisRefused,
    ApsisUnauthorized,
    ApsisUnavailable,
    ValueRefused,
)
from vibes_pipelines.apsis.values import canonical
from vibes_pipelines.data_files import parquet
from vibes_pipelines.reconcile.sql import ident, literal
from vibes_pipelines.stages.apsis_opt_out_times import OPT_OUT, OptOutTimes
from vibes_pipelines.store.realtime import Sent
from vibes_pipelines.sync_config.apsis import Apsis

if TYPE_CHECKING:  # the HTTP client behind them is slow to import
    from vibes_pipelines.apsis.consents import Consent
    from vibes_pipelines.apsis.profiles import Profile

CONCURRENCY = 32

NEVER = datetime(1970, 1, 1, tzinfo=UTC)
"""When a profile was read that could not be read: it is read whole at the next occasion."""

FEW = 10
"""So many profiles that cannot be read, or one in a hundred, stop no sync; more do."""

LOCKED = "the profile is locked for ever; take the person out of the sync conditions"
UNNAMEABLE = "APSIS One has no profile of this key, for no address can name it"
UNREADABLE = "the profile could not be read and is read again at the next sync"

READS = pa.schema(
    [
        ("key", pa.string()),
        ("read_at", pa.timestamp("us")),
        ("is_found", pa.bool_()),
        ("attributes", pa.string()),
        ("consents", pa.string()),
    ]
)
"""`attributes`: JSON of canonical texts by attribute. `consents`: JSON, topic|channel → type and,
of an opt-out, `out_at`: by when it was certainly there, and the account's own `changed_at`."""


class ProfileReader(Protocol):
    """The two reads of APSIS One."""

    async def profile(self, key: str) -> "Profile | None":
        """A profile's attributes; None when there is none."""

    async def consents(self, key: str) -> "tuple[Consent, ...] | None":
        """All consents of a profile in the section; None when there is no such profile."""


@dataclass(frozen=True)
class Known:
    """One row of `apsis/reads`."""

    key: str
    read_at: datetime
    is_found: bool
    attributes: Mapping[str, str]
    consents: Mapping[str, Mapping[str, str]]

    def as_row(self) -> dict[str, Any]:
        """The row as it is stored."""
        return {
            "key": self.key,
            "read_at": self.read_at.astimezone(UTC).replace(tzinfo=None),
            "is_found": self.is_found,
            "attributes": json.dumps(self.attributes, sort_keys=True),
            "consents": json.dumps(self.consents, sort_keys=True),
        }


@dataclass(frozen=True)
class Wanted:
    """What is to be read: profiles whole, and of others the consents only."""

    whole: Collection[str]
    consents: Collection[str] = ()


class Reader:
    """Reads profiles, and dates the opt-outs it finds.

    `sent` are the operations since the state that is known, the oldest first. `troubles` says of
    each profile that is locked or could not be read why. With `is_patient` no number of those ends
    the reading; only none read of more than a few does.
    """

    def __init__(
        self,
        section: Apsis,
        api: ProfileReader,
        now: Callable[[], datetime],
        sent: Iterable[Sent] = (),
        check: Callable[[], None] | None = None,
        *,
        is_patient: bool = False,
    ) -> None:
        self._is_patient = is_patient
        self._types = {field.to: field.type for field in section.all_fields}
        self._lists = {consent.list for consent in section.consents}
        self._api = api
        self._now = now
        self._check = check or (lambda: None)
        self._times = OptOutTimes(sent)
        self._unread: list[ApsisError] = []
        self._done = 0
        self.troubles: dict[str, str] = {}

    async def read(self, wanted: Wanted, before: Mapping[str, Known]) -> list[Known]:
        """Reads all of them, many at once; `before` is what was known of them.

        Raises:
            ApsisError: APSIS One is away or refuses the login, or too many cannot be read.
        """
        jobs = iter([*((k, True) for k in wanted.whole), *((k, False) for k in wanted.consents)])
        found: list[Known] = []

        async def work() -> None:
            for key, is_whole in jobs:
                self._check()
                found.append(await self._one_or_trouble(key, before.get(key), is_whole=is_whole))
                self._done += 1

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(CONCURRENCY):
                    group.create_task(work())
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None
        borne = FEW if self._is_patient else 0
        if len(self._unread) > borne and len(self._unread) == len(found):
            raise self._unread[0]
        return found

    async def _one_or_trouble(self, key: str, before: Known | None, *, is_whole: bool) -> Known:
        """One that cannot be read stays as it was known; it never counts as missing."""
        if not can_stand_in_path(key):
            self.troubles[key] = UNNAMEABLE
            return self._missing(key, before)
        try:
            return await self._one(key, before, is_whole=is_whole)
        except ApsisLocked:
            self.troubles[key] = LOCKED
            return self._missing(key, before)
        except (ApsisUnauthorized, ApsisForbidden):
            raise
        except (ApsisAnswerError, ApsisRefused, ApsisUnavailable) as unread:
            self._unread.append(unread)
            too_many = len(self._unread) > max(FEW, self._done // 100) and not self._is_patient
            if too_many or _is_away(unread):
                raise
            self.troubles[key] = UNREADABLE
            attributes, consents = (before.attributes, before.consents) if before else ({}, {})
            return Known(key, NEVER, is_found=True, attributes=attributes, consents=consents)

    async def _one(self, key: str, before: Known | None, *, is_whole: bool) -> Known:
        attributes: Mapping[str, str] = before.attributes if before else {}
        consents = None
        if not is_whole and before is not None:
            consents = await self._api.consents(key)
        if consents is None:
            profile = await self._api.profile(key)
            if profile is None:
                return self._missing(key, before)
            attributes = self._texts(profile)
            consents = await self._api.consents(key) or ()
        read_at = self._now()
        there = {f"{c.topic}|{c.channel}": c for c in consents}
        known = before.consents if before else {}
        states: dict[str, Mapping[str, str]] = {
            name: self._state(key, name, consent, known.get(name, {}), read_at)
            for name, consent in there.items()
            if name in self._lists
        }
        kept = {**_opt_outs(before), **states}
        consented = dict(sorted(kept.items()))
        return Known(key, read_at, is_found=True, attributes=attributes, consents=consented)

    def _missing(self, key: str, before: Known | None) -> Known:
        consents = _opt_outs(before)
        return Known(key, self._now(), is_found=False, attributes={}, consents=consents)

    def _texts(self, profile: "Profile") -> dict[str, str]:
        texts = {}
        for name, value in profile.attributes.items():
            if name in self._types:
                try:
                    texts[name] = canonical(self._types[name], value)
                except ValueRefused:
                    texts[name] = str(value)  # what is there now and has no such form differs
        return texts

    def _state(
        self, key: str, name: str, consent: "Consent", known: Mapping[str, str], read_at: datetime
    ) -> Mapping[str, str]:
        if consent.type != OPT_OUT:
            return {"type": consent.type}
        return self._times.dated((key, name), consent.changed_at, known, read_at)


def _opt_outs(known: Known | None) -> dict[str, Mapping[str, str]]:
    consents = known.consents if known else {}
    return {name: state for name, state in consents.items() if state["type"] == OPT_OUT}


def _is_away(error: ApsisError) -> bool:
    """Whether it says something of APSIS One rather than of this profile."""
    return isinstance(error, ApsisUnavailable) and error.status in {None, 429}


def read_known(reads: Path | None, keys: Collection[str]) -> dict[str, Known]:
    """What an earlier `apsis/reads` says of these keys."""
    if reads is None or not keys:
        return {}
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.register("wanted", pa.table({"key": pa.array(sorted(keys), pa.string())}))
        rows = connection.execute(
            f"SELECT r.* FROM {parquet(reads)} r SEMI JOIN wanted USING (key)"
        ).fetchall()
    return {row[0]: _known(row) for row in rows}


def _known(row: tuple[Any, ...]) -> Known:
    key, read_at, is_found, attributes, consents = row
    instant = read_at.replace(tzinfo=UTC)
    return Known(key, instant, is_found, json.loads(attributes), json.loads(consents))


def write_reads(before: Path | None, found: Iterable[Known], out: Path) -> None:
    """Writes what was read over what was known before, by key."""
    fresh = pa.Table.from_pylist([known.as_row() for known in found], READS)
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.register("fresh", fresh)
        rows = "SELECT * FROM fresh"
        if before is not None:
            old = parquet(before)
            rows += f" UNION ALL SELECT * FROM {old} ANTI JOIN fresh USING (key)"
        target = literal(str(out))
        connection.execute(
            f"COPY (SELECT * FROM ({rows}) ORDER BY key) TO {target}"
            " (FORMAT parquet, COMPRESSION zstd)"
        )


def write_profiles(section: Apsis, reads: Path, out: Path) -> None:
    """Writes the profiles of a reconcile from reads.

    Raises:
        ApsisError: the attributes of a profile are no JSON.
    """
    columns = "".join(
        f", attributes ->> {literal(_json_path(field.to))} AS {ident(field.to)}"
        for field in section.all_fields
    )
    with duckdb.connect(config={"threads": 1}) as connection:
        try:
            connection.execute(f"""
                COPY (SELECT md5(key) AS person_key, key AS external_person_id, read_at{columns}
                      FROM (SELECT * REPLACE ({_WHOLE_TEXTS} AS attributes)
                            FROM {parquet(reads)})
                      WHERE is_found ORDER BY key)
                TO {literal(str(out))} (FORMAT parquet, COMPRESSION zstd)""")
        except duckdb.InvalidInputException:
            msg = "apsis/reads: the attributes of a profile are no JSON; take the day from a backup"
            raise ApsisError(msg) from None  # its text shows a profile


_HALVES = r"(\\[^u]|\\ud[89ab]..\\ud[c-f]..)|\\ud[89a-f].."
_WHOLE_TEXTS = (
    "CASE WHEN contains(attributes, '\\ud')"
    f" THEN regexp_replace(attributes, {literal(_HALVES)}, '\\1', 'g') ELSE attributes END"
)
"""Attributes without halves of characters, which reads of an earlier version may hold: of these
DuckDB refuses the whole file. What is kept is matched first, so that no end of it is a half."""


def write_consents(reads: Path, managed: pa.Table, out: Path) -> None:
    """Writes the consents of a reconcile from reads; `managed`: contact and list once opted in.

    An opt-in that was never the CRM's is not the CRM's to end: it stands without a list.
    """
    rows = pa.Table.from_pylist(list(_consent_rows(reads)), _CONSENTS)
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.register("consent", rows)
        connection.register("managed", managed)
        connection.execute(f"""
            COPY (SELECT person_key, external_person_id, listed,
                         CASE WHEN m.contact IS NOT NULL OR state = {literal(OPT_OUT)}
                              THEN listed END AS subscription_list_id,
                         NULL::TIMESTAMP AS opt_in_date, opt_out_date, state AS opt_out_reason
                  FROM consent c
                  LEFT JOIN managed m ON m.contact = c.external_person_id AND m.list = c.listed
                  ORDER BY external_person_id, listed)
            TO {literal(str(out))} (FORMAT parquet, COMPRESSION zstd)""")


_CONSENTS = pa.schema(
    [
        ("person_key", pa.string()),
        ("external_person_id", pa.string()),
        ("listed", pa.string()),
        ("state", pa.string()),
        ("opt_out_date", pa.timestamp("us")),
    ]
)


def _consent_rows(reads: Path) -> Iterator[dict[str, Any]]:
    with pq.ParquetFile(reads) as file:
        for batch in file.iter_batches(columns=["key", "consents"]):
            for row in batch.to_pylist():
                for name, state in json.loads(row["consents"]).items():
                    out_at = state.get("out_at")
                    yield {
                        "person_key": person_key(row["key"]),
                        "external_person_id": row["key"],
                        "listed": name,
                        "state": state["type"],
                        "opt_out_date": _naive(out_at),
                    }


def _naive(text: str | None) -> datetime | None:
    if text is None:
        return None
    return datetime.fromisoformat(text).astimezone(UTC).replace(tzinfo=None)


def person_key(key: str) -> str:
    """What stands for a profile's key where letters of either case are one."""
    return hashlib.md5(key.encode(), usedforsecurity=False).hexdigest()


def _json_path(name: str) -> str:
    quoted = name.replace('"', '\\"')
    return f'$."{quoted}"'
