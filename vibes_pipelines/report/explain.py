"""explain: why one person has the values it has, and what happened to them, from what is stored.

The parts are read by the modules beside; here they are put together day by day. Nothing is sent,
landed or recorded.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import sqlalchemy as sa

from vibes_pipelines.reconcile.summary import SUMMARY, Summary
from vibes_pipelines.report.explain_consents import consent_facts
from vibes_pipelines.report.explain_day import DayInputs, Ends, FoundPerson
from vibes_pipelines.report.explain_decisions import decisions_of
from vibes_pipelines.report.explain_diff_sets import (
    QUARANTINE,
    Identifiers,
    Row,
    Sending,
    StoredFiles,
    held_by,
    verdicts_of,
)
from vibes_pipelines.report.explain_facts import (
    DayFacts,
    DiffSetFact,
    Doubt,
    Explanation,
    LandedRow,
    OperationFact,
    Who,
)
from vibes_pipelines.report.explain_fields import IDENTIFIERS, field_facts
from vibes_pipelines.report.explain_landed import ContactRow, LandedRows, PersonRow, Stay
from vibes_pipelines.report.explain_ledger import (
    callbacks_of,
    diff_sets_of,
    operations_of,
    reading,
    registered_days,
)
from vibes_pipelines.report.explain_person import ExplainError, Finder, Subject
from vibes_pipelines.report.explain_texts import instant_text
from vibes_pipelines.stages.project import Project
from vibes_pipelines.store.records import DiffSet, Lane
from vibes_pipelines.sync_config import SyncConfig

HISTORY_DAYS = 60
"""How many days a history goes back; each day asked for by its date is answered all the same."""

_LANES: tuple[Lane, ...] = ("opt_outs", "persons", "crm", "invites")


class UnknownFieldError(ExplainError):
    """`sync.yaml` maps no such field; the message names those that it maps."""


class UnknownDayError(ExplainError):
    """Nothing is stored for the day; the message names the days that there are."""


def explain(
    project: Project, person: str, field: str | None = None, day: str | None = None
) -> Explanation:
    """What is stored about one person, newest day first; `day` (ISO date) narrows it to one.

    `person` is an external_person_id, else a person_key, else an MDN in E.164. `field` is a custom
    field, an identifier, a subscription list, or the CRM column of one of these.

    Raises:
        UnknownPersonError, AmbiguousPersonError: the identifier names nobody, or several people.
        UnknownFieldError, UnknownDayError: there is no such field or day.
        ReconcileError: a stored file cannot be read; names it and the cure.
    """
    topic = _Topic.of(project.config, field)
    with (
        TemporaryDirectory(prefix="explain-") as workspace,
        _engine(Path(workspace)) as connection,
        reading(project.settings.ledger_url) as ledger,
        reading(project.settings.inbox_url) as inbox,
    ):
        days, older = _days(project, ledger, day)
        feeds = project.destination.feeds
        landed = LandedRows(connection, project.config, project.snapshots, Path(workspace), feeds)
        subject = Finder(landed, ledger, days).find(person)
        history = _History(project, connection, ledger, Path(workspace), days, landed, subject)
        told = [history.facts(one, topic, is_only=day is not None) for one in days]
        identifiers = history.identifiers
        keys, mdns = identifiers.person_keys, identifiers.mdns
        return Explanation(
            who=Who(
                asked=person,
                found_as=subject.found_as,
                external_person_id=subject.external_person_id,
                person_keys=tuple(sorted(keys)),
                mdns=tuple(sorted(mdns)),
            ),
            field=field,
            days=tuple(told),
            older_days=older,
            callbacks=tuple(callbacks_of(inbox, subject.external_person_id, keys, mdns)),
            decisions=tuple(decisions_of(ledger, subject.external_person_id, keys, mdns)),
        )


@dataclass(frozen=True)
class _Topic:
    """What was asked for: every field and list, or the ones named."""

    fields: frozenset[str] | None = None
    lists: frozenset[str] | None = None

    @classmethod
    def of(cls, config: SyncConfig, field: str | None) -> "_Topic":
        if field is None:
            return cls()
        columns = {mapped.to: mapped.from_ for mapped in config.fields}
        columns |= {"external_person_id": config.contacts.key}
        columns |= {"mdn": config.contacts.mdn.column if config.contacts.mdn else "mdn"}
        fields = {name for name, column in columns.items() if field in {name, column}}
        lists = {one.list.strip() for one in config.consents if field in {one.list, one.from_}}
        if not fields and not lists:
            known = ", ".join([*columns, *(one.list for one in config.consents)])
            raise UnknownFieldError(f"{field!r} is not mapped in sync.yaml; one of: {known}")
        return cls(frozenset(fields), frozenset(lists))

    def narrow(self, facts: DayFacts) -> DayFacts:
        """The facts that are about it."""
        if self.fields is None or self.lists is None:
            return facts
        return replace(
            facts,
            fields=tuple(one for one in facts.fields if one.field in self.fields),
            consents=tuple(one for one in facts.consents if one.list in self.lists),
            operations=tuple(self._operations(facts.operations)),
            unsent=tuple(
                one
                for one in facts.unsent
                if one.subscription_list_id in self.lists or self.fields.intersection(one.fields)
            ),
        )

    def _operations(self, operations: Iterable[OperationFact]) -> Iterator[OperationFact]:
        """An add is about both identifiers, which stand beside its changes."""
        for one in operations:
            kept = tuple(change for change in one.changes if change.field in (self.fields or ()))
            is_identity = one.kind == "add" and bool((self.fields or set()) & set(IDENTIFIERS))
            if one.subscription_list_id in (self.lists or ()):
                yield one
            elif kept or is_identity:
                yield replace(one, changes=kept)


class _History:
    """Everything stored about one person over some days, read at once and told day by day."""

    def __init__(
        self,
        project: Project,
        connection: duckdb.DuckDBPyConnection,
        ledger: sa.Connection,
        workspace: Path,
        days: Sequence[str],
        landed: LandedRows,
        subject: Subject,
    ) -> None:
        self._project = project
        self._subject = subject
        self._persons = {day: _found_persons(subject, day) for day in days}
        self.identifiers = _identifiers(subject, self._persons.values())
        self._stays: Mapping[str, Sequence[Stay]] = landed.subscriptions(
            days, sorted(self.identifiers.person_keys)
        )
        stored = StoredFiles(connection, {day: project.diff_set_folder(day) for day in days})
        self._summaries: Mapping[str, Summary] = stored.summaries()
        self._stored = stored.rows(self.identifiers)
        self._operations = self._read_operations(connection, ledger)
        self._records = diff_sets_of(ledger, days)
        self._newest = project.ledger.newest_diff_set()
        self._ends = Ends(project, connection, workspace)
        self._sending = Sending(project, stored, self.identifiers, workspace)

    def facts(self, day: str, topic: _Topic, *, is_only: bool) -> DayFacts:
        """The facts of one day that are about the topic."""
        inputs = DayInputs(
            day=day,
            summary=self._summaries.get(day),
            contacts=self._subject.contacts.get(day, ()),
            persons=self._persons[day],
            stays=self._stays.get(day, ()),
            doubts=tuple(self._doubts(day)),
            stored={name: rows.get(day, ()) for name, rows in self._stored.items()},
        )
        end = self._ends.end(inputs)
        records = [record for record in self._records if record.day == day]
        facts = DayFacts(
            day=day,
            end=end,
            contacts=tuple(_landed_contact(row) for row in inputs.contacts),
            persons=tuple(_landed_person(found) for found in inputs.persons),
            fields=tuple(field_facts(self._project.config, inputs, end)),
            consents=tuple(consent_facts(self._project.config, inputs)),
            doubts=tuple(inputs.doubts),
            diff_sets=tuple(self._diff_set(record, inputs.summary) for record in records),
            operations=tuple(
                one
                for one in self._operations
                if one.day == day or (is_only and any(v.day == day for v in one.verdicts))
            ),
            unsent=(),
        )
        written = next((r for r in records if _is_written(r, inputs.summary)), None)
        if written is not None:
            known = {one.operation_id for one in self._operations}
            unsent = self._sending.unsent(written, inputs.stored, known)
            facts = replace(facts, unsent=tuple(unsent))
        return topic.narrow(facts)

    def _read_operations(
        self, connection: duckdb.DuckDBPyConnection, ledger: sa.Connection
    ) -> list[OperationFact]:
        subject = self._subject
        by_key = subject.external_person_id is None or subject.found_as == "person_key"
        keys: Collection[str] = subject.person_keys if by_key else ()
        found = operations_of(ledger, subject.external_person_id, keys)
        certificates = self._project.certificate_folder("")
        folders = {one.name: one for one in certificates.glob("*") if one.is_dir()}
        verdicts = verdicts_of(connection, folders, [one.operation_id for one in found])
        return [
            replace(one, verdicts=verdicts.get(one.operation_id, one.verdicts)) for one in found
        ]

    def _doubts(self, day: str) -> Iterator[Doubt]:
        """The quarantine's rows of this person's group on this day."""
        own_keys = {found.row.person_key for found in self._persons[day] if found.found_by != "mdn"}
        near = _identifiers(self._subject, [self._persons[day]], day)
        external = self._subject.external_person_id
        has_contact = external is not None or bool(self._subject.contacts.get(day))
        for row in self._stored[QUARANTINE].get(day, ()):
            if row["source"] == "contact":
                is_this = has_contact and row["external_person_id"] == external
            else:
                is_this = row["person_key"] in own_keys
            if is_this or _is_near(row, near):
                yield Doubt(**row, is_this_person=is_this)

    def _diff_set(self, record: DiffSet, summary: Summary | None) -> DiffSetFact:
        held: tuple[str, ...] = ()
        if record.status == "open" and self._newest and self._newest.diff_set == record.diff_set:
            reasons = {lane: held_by(self._project, record.diff_set, lane) for lane in _LANES}
            held = tuple(f"{lane}: {why}" for lane, why in reasons.items() if why)
        return DiffSetFact(
            diff_set=record.diff_set,
            day=record.day,
            as_of=instant_text(record.as_of),
            status=record.status,
            config_hash=record.config_hash,
            is_written=_is_written(record, summary),
            is_under_todays_config=record.config_hash == self._project.config.config_hash,
            breaches=tuple(str(one["message"]) for one in record.summary.get("breaches", ())),
            held=held,
            approved_reason=record.approved_reason,
            approved_at=instant_text(record.approved_at),
        )


def _is_written(record: DiffSet, summary: Summary | None) -> bool:
    return summary is not None and summary.diff_set == record.diff_set


def _found_persons(subject: Subject, day: str) -> list[FoundPerson]:
    """The persons of a day that an identifier of that day leads to, the nearest first."""
    contacts = subject.contacts.get(day, ())
    ranked = [(_lead(subject, contacts, row), row) for row in subject.persons.get(day, ())]
    found = [(lead, row) for lead, row in ranked if lead is not None]
    found.sort(key=lambda pair: pair[0])
    return [FoundPerson(row, name) for (_, name), row in found]


def _lead(
    subject: Subject, contacts: Sequence[ContactRow], row: PersonRow
) -> tuple[int, str] | None:
    """The identifier that leads to a person, with its precedence."""
    if row.person_key and row.person_key in {one.person_key for one in contacts}:
        return 0, "person_key"
    if row.external_person_id and row.external_person_id == subject.external_person_id:
        return 1, "external_person_id"
    if row.person_key in subject.person_keys:
        return 2, "person_key"
    if row.mdn and row.mdn in {one.mdn for one in contacts}:
        return 3, "mdn"
    return None


def _identifiers(
    subject: Subject, persons: Iterable[Sequence[FoundPerson]], day: str | None = None
) -> Identifiers:
    """By what the person's rows are found; of one day, or of all."""
    rows = [found.row for day_persons in persons for found in day_persons]
    days = subject.contacts if day is None else {day: subject.contacts.get(day, ())}
    contacts = [row for day_contacts in days.values() for row in day_contacts]
    mdns = {row.mdn or row.mdn_text for row in contacts} | {row.mdn for row in rows}
    return Identifiers(
        external_person_id=subject.external_person_id,
        person_keys=frozenset({row.person_key for row in rows if row.person_key})
        | subject.person_keys,
        mdns=frozenset(mdn for mdn in mdns if mdn),
    )


def _is_near(row: Row, near: Identifiers) -> bool:
    return (
        row["external_person_id"] == near.external_person_id
        or row["person_key"] in near.person_keys
        or row["mdn"] in near.mdns
    )


def _landed_contact(row: ContactRow) -> LandedRow:
    return LandedRow(row.place, "key", row.key, row.person_key, row.mdn or row.mdn_text)


def _landed_person(found: FoundPerson) -> LandedRow:
    row = found.row
    return LandedRow(row.place, found.found_by, row.external_person_id, row.person_key, row.mdn)


def _days(project: Project, ledger: sa.Connection, day: str | None) -> tuple[list[str], int]:
    """The days to tell of, newest first, and how many older ones are left out."""
    folders = project.diff_set_folder("").glob(f"*/{SUMMARY}")
    known = {path.parent.name for path in folders if _is_day(path.parent.name)}
    known |= set(registered_days(ledger))
    days = sorted(known, reverse=True)
    if day is None:
        return days[:HISTORY_DAYS], max(0, len(days) - HISTORY_DAYS)
    feeds = project.destination.feeds
    if day not in known and not any(
        project.snapshots.find(feed, day) for feed in (feeds.contacts, feeds.persons)
    ):
        there = f"days with a diff set: {days[-1]} to {days[0]}" if days else "no day has one"
        raise UnknownDayError(f"nothing is stored for {day}; {there}")
    return [day], 0


def _is_day(name: str) -> bool:
    try:
        return date.fromisoformat(name).isoformat() == name
    except ValueError:
        return False


@contextmanager
def _engine(workspace: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(
        config={
            "temp_directory": str(workspace / "spill"),
            "autoinstall_known_extensions": "false",
        }
    ) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        yield connection
