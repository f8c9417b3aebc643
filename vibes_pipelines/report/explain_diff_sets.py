"""Reads the stored files of diff sets and certificates for one person, many days in one query.

Also says of each change of a diff set whether it has an operation, and if not, why. Nothing is
concluded about values here.
"""

# ruff: noqa: S608  (names are fixed here and quoted; values are bound)

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb

from vibes_pipelines.data_files import parquet, unreadable_parquet
from vibes_pipelines.delivery.certificate import PARQUET as CERTIFICATE
from vibes_pipelines.delivery.certificate import unreadable_certificate
from vibes_pipelines.delivery.deferrals import Deferrals
from vibes_pipelines.delivery.intents import (
    EVIDENCE,
    Origin,
    crm_intents,
    invite_intents,
    opt_in_intents,
    opt_out_intents,
    person_intents,
)
from vibes_pipelines.delivery.release import may_deliver
from vibes_pipelines.reconcile.decisions import CONTACT_RECORD
from vibes_pipelines.reconcile.errors import ReconcileError, unreadable
from vibes_pipelines.reconcile.sql import ident, literal
from vibes_pipelines.reconcile.summary import SUMMARY, Summary, load_summary
from vibes_pipelines.report.explain_facts import ChangeFact, Unsent, Verdict
from vibes_pipelines.report.explain_texts import instant_text, means
from vibes_pipelines.stages.project import Project
from vibes_pipelines.store.records import DiffSet, Lane, Operation

Row = dict[str, Any]
_Columns = Mapping[str, Collection[str]]

FILE = "stored_file"

PERSON_CHANGES, CRM_CHANGES = "person_changes", "crm_changes"
SUBSCRIPTION_CHANGES, QUARANTINE = "subscription_changes", "quarantine"
PENDING, BLOCKED, DECISIONS = "pending", "blocked", "decisions"

_CHANGES = {
    PERSON_CHANGES: person_intents,
    SUBSCRIPTION_CHANGES: opt_out_intents,
    CRM_CHANGES: crm_intents,
}


@dataclass(frozen=True)
class Identifiers:
    """By what rows of a person are found in the stored files."""

    external_person_id: str | None
    person_keys: frozenset[str]
    mdns: frozenset[str]


class StoredFiles:
    """The files of the diff sets of some days."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, folders: Mapping[str, Path]) -> None:
        self._connection = connection
        self._folders = folders

    def summaries(self) -> dict[str, Summary]:
        """The summary of each day's written diff set."""
        return {
            day: load_summary(folder)
            for day, folder in self._folders.items()
            if (folder / SUMMARY).is_file()
        }

    def rows(self, who: Identifiers) -> dict[str, dict[str, list[Row]]]:
        """The person's rows by name of file and day."""
        wanted = {
            **_columns_of_changes(who),
            QUARANTINE: {
                "external_person_id": _external(who),
                "person_key": sorted(who.person_keys),
                "mdn": sorted(who.mdns),
            },
            PENDING: {"external_person_id": _external(who)},
            BLOCKED: {"external_person_id": _external(who)},
            DECISIONS: {"record": [f"{CONTACT_RECORD}{one}" for one in _external(who)]},
        }
        return {name: self._rows(name, columns) for name, columns in wanted.items()}

    def copy_changes(self, day: str, name: str, who: Identifiers, target: Path) -> None:
        """Writes the person's rows of one file of changes as a file of the same columns."""
        source = self._folders[day] / f"{name}.parquet"
        where, values = _where(_columns_of_changes(who)[name])
        self._connection.execute(
            f"COPY (SELECT * FROM {parquet(source)} WHERE {where})"
            f" TO {literal(str(target))} (FORMAT parquet)",
            values,
        )

    def _rows(self, name: str, columns: _Columns) -> dict[str, list[Row]]:
        days = {str(folder / f"{name}.parquet"): day for day, folder in self._folders.items()}
        return rows_by_day(self._connection, days, columns, unreadable)


def _external(who: Identifiers) -> list[str]:
    return [who.external_person_id] if who.external_person_id else []


def _columns_of_changes(who: Identifiers) -> dict[str, _Columns]:
    """A change stands under the contact's key; only a person without one goes by person_key."""
    external = _external(who)
    person: _Columns = {"external_person_id": external}
    if not external:
        person = {"person_key": sorted(who.person_keys)}
    return {
        PERSON_CHANGES: person,
        SUBSCRIPTION_CHANGES: person,
        CRM_CHANGES: {"contact_id": external},
    }


def rows_by_day(
    connection: duckdb.DuckDBPyConnection,
    days: Mapping[str, str],
    columns: _Columns,
    told: Callable[[Path], str],
) -> dict[str, list[Row]]:
    """Rows in which some column is one of its values, by day; `days` are those of the files.

    Raises:
        ReconcileError: a file cannot be read; `told` says so of it.
    """
    files = {path: day for path, day in days.items() if Path(path).is_file()}
    rows: dict[str, list[Row]] = defaultdict(list)
    if not files or not any(columns.values()):
        return rows
    relation = parquet(*files, filename=FILE, union_by_name=True)
    where, bound = _where(columns)
    try:
        found = connection.execute(f"SELECT * FROM {relation} WHERE {where} ORDER BY ALL", bound)
    except duckdb.InvalidInputException as refused:
        if half := unreadable_parquet(refused):
            raise ReconcileError(told(half)) from None
        raise
    names = [column[0] for column in found.description or ()]
    for values in found.fetchall():
        row = dict(zip(names, values, strict=True))
        rows[files[row.pop(FILE)]].append(row)
    return rows


def _where(columns: _Columns) -> tuple[str, list[str]]:
    """SQL for: some column is one of its values, which are bound."""
    tests = {name: values for name, values in columns.items() if values}
    where = " OR ".join(
        f"{ident(name)} IN ({', '.join('?' for _ in values)})" for name, values in tests.items()
    )
    return where, [value for values in tests.values() for value in values]


def verdicts_of(
    connection: duckdb.DuckDBPyConnection,
    folders: Mapping[str, Path],
    operation_ids: Collection[str],
) -> dict[str, tuple[Verdict, ...]]:
    """What the certificates of these days said of each operation, oldest first."""
    days = {str(folder / CERTIFICATE): day for day, folder in folders.items()}
    found: dict[str, list[Verdict]] = defaultdict(list)
    wanted = {"operation_id": sorted(operation_ids)}
    rows = rows_by_day(connection, days, wanted, unreadable_certificate)
    for day, told in sorted(rows.items()):
        for row in told:
            found[row["operation_id"]].append(Verdict(day, row["outcome"], row["evidence"]))
    return {operation_id: tuple(verdicts) for operation_id, verdicts in found.items()}


def person_changes(rows: Iterable[Row]) -> Iterator[ChangeFact]:
    """The changes that the rows of person_changes make at the platform."""
    for row in rows:
        if row["operation"] == "add":
            yield _new("external_person_id", row["external_person_id"])
            if row["mdn"] is not None:
                yield _new("mdn", row["mdn"])
        for one in row["changes"]:
            yield ChangeFact(side="platform", **one, means=means(one["reason"]))


def crm_changes(rows: Iterable[Row]) -> Iterator[ChangeFact]:
    """The changes that the rows of crm_changes make in the CRM."""
    for row in rows:
        action = "clear" if row["after"] is None else "set"
        before, after, reason = row["before"], row["after"], row["reason"]
        yield ChangeFact("crm", row["field"], action, before, after, reason, means(reason))


def consent_changes(rows: Iterable[Row], listed: str) -> Iterator[ChangeFact]:
    """The opt-outs of one list that the rows of subscription_changes carry."""
    for row in rows:
        if row["subscription_list_id"] == listed:
            at, reason = instant_text(row["evidence_at"]), row["reason"]
            yield ChangeFact(row["side"], EVIDENCE, row["action"], None, at, reason, means(reason))


def _new(field: str, after: str) -> ChangeFact:
    reason = "new_contact"
    return ChangeFact("platform", field, "set", None, after, reason, means(reason))


class Sending:
    """Which changes of the person's diff sets have an operation, and why others have none."""

    def __init__(
        self, project: Project, files: StoredFiles, who: Identifiers, workspace: Path
    ) -> None:
        self._project = project
        self._files = files
        self._who = who
        self._workspace = workspace

    def unsent(
        self,
        record: DiffSet,
        stored: Mapping[str, Sequence[Row]],
        operation_ids: Collection[str],
    ) -> Iterator[Unsent]:
        """The changes of one written diff set that no operation carries."""
        intents = [one for name in _CHANGES for one in self._intents(record, name, stored)]
        left = [one for one in intents if one.operation_id not in operation_ids]
        if not left:
            return
        is_planned = self._project.ledger.plan(record.diff_set) is not None
        for intent in left:
            why = self._why_deferred(record, intent) if is_planned else None
            yield Unsent(
                kind=intent.kind,
                lane=intent.lane,
                subscription_list_id=intent.subscription_list_id,
                fields=tuple(c.field for c in intent.changes if c.field != EVIDENCE),
                why=why or self._why_not_planned(record, intent.lane, is_planned=is_planned),
            )

    def _intents(
        self, record: DiffSet, name: str, stored: Mapping[str, Sequence[Row]]
    ) -> Iterator[Operation]:
        """The person's rows as the plan reads them, so that their ids are those of the ledger."""
        if not stored.get(name):
            return
        target = self._workspace / f"{name}.parquet"
        self._files.copy_changes(record.day, name, self._who, target)
        origin = Origin(record.diff_set, record.day, record.as_of, self._workspace)
        yield from _CHANGES[name](origin)
        if name == SUBSCRIPTION_CHANGES:
            yield from opt_in_intents(origin)
            campaigns = self._campaigns()
            asked = {r["subscription_list_id"] for r in stored[name] if r["action"] == "invite"}
            if asked <= campaigns.keys():  # else sync.yaml does not invite there any more
                yield from invite_intents(origin, campaigns)

    def _campaigns(self) -> dict[str, str]:
        return {
            consent.list.strip(): consent.campaign
            for consent in self._project.config.consents
            if consent.invites and consent.campaign is not None
        }

    def _why_deferred(self, record: DiffSet, intent: Operation) -> str | None:
        lag = timedelta(hours=self._project.config.policies.visibility_lag_h)
        return Deferrals.of(self._project.ledger, record, lag).why_deferred(intent)

    def _why_not_planned(self, record: DiffSet, lane: Lane, *, is_planned: bool) -> str:
        if is_planned:
            return "not recorded; the plan has no operation for it and names no reason"
        if record.status == "superseded":
            return "a newer diff set took its place before it was planned"
        held = held_by(self._project, record.diff_set, lane)
        return f"held: {held}" if held else "no delivery with effects has run yet"


def held_by(project: Project, diff_set: str, lane: Lane) -> str | None:
    """What keeps one lane of a diff set from going out, and the cure; None when nothing does."""
    mapping = project.config.mapping_hash
    verdict = may_deliver(project.ledger, diff_set, lane, mapping_hash=mapping)
    if verdict.allowed:
        return None
    return "; ".join([*verdict.reasons, *([verdict.cure] if verdict.cure else [])])
