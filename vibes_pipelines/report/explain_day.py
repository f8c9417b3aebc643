"""One day's stored rows of a person, and the end of the contact that they amount to.

Added, updated and quarantined stand in the files of the diff set. The other ends are counts there;
they are worked out from the stored inputs, by the reconcile itself where it takes more than a look.
"""

# ruff: noqa: S608  (paths and row numbers are ours, and quoted)

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb

from vibes_pipelines.data_files import parquet
from vibes_pipelines.reconcile.engine import Limits
from vibes_pipelines.reconcile.errors import ReconcileError
from vibes_pipelines.reconcile.run import Inputs, reconcile
from vibes_pipelines.reconcile.sources import ROW
from vibes_pipelines.reconcile.sql import literal
from vibes_pipelines.reconcile.summary import CONTACT_STATUSES, Summary
from vibes_pipelines.report.explain_diff_sets import (
    BLOCKED,
    DECISIONS,
    PENDING,
    PERSON_CHANGES,
    Row,
)
from vibes_pipelines.report.explain_facts import Doubt, End
from vibes_pipelines.report.explain_landed import ContactRow, PersonRow, Stay
from vibes_pipelines.report.explain_texts import instant_text, shown
from vibes_pipelines.stages.bases import recorded_base
from vibes_pipelines.stages.project import Project
from vibes_pipelines.vibes.error_classes import lookup

_OTHER_CONFIG = "; worked out with today's sync.yaml, which is not the one of that day"


@dataclass(frozen=True)
class FoundPerson:
    """A landed person and the identifier that leads from the contact to it."""

    row: PersonRow
    found_by: str


@dataclass(frozen=True)
class DayInputs:
    """What is stored of one person on one day; `persons` begins with the nearest match."""

    day: str
    summary: Summary | None
    contacts: Sequence[ContactRow]
    persons: Sequence[FoundPerson]
    stays: Sequence[Stay]
    doubts: Sequence[Doubt]
    stored: Mapping[str, Sequence[Row]]

    @property
    def contact(self) -> ContactRow | None:
        """The landed contact; the first one where its key is doubled."""
        return self.contacts[0] if self.contacts else None

    @property
    def person(self) -> PersonRow | None:
        """The person that the contact, or the question, leads to."""
        return self.persons[0].row if self.persons else None

    def waiting(self, lag: timedelta) -> dict[tuple[str, str | None], Row]:
        """What was accepted earlier and need not be visible yet, by field and value.

        Of several values sent for one field only the newest is under way.
        """
        newest: dict[str, Row] = {}
        for row in self.stored.get(PENDING, ()):
            known = newest.get(row["field"])
            if known is None or row["accepted_at"] > known["accepted_at"]:
                newest[row["field"]] = row
        as_of = self.summary.as_of if self.summary else None
        return {
            (row["field"], row["value"]): row
            for row in newest.values()
            if as_of is None or _utc(row["accepted_at"]) > as_of - lag
        }

    @property
    def is_decided(self) -> bool:
        """Whether a decision of the quarantine desk says who the contact is, and holds."""
        decided = {row["action"] for row in self.stored.get(DECISIONS, ())}
        return bool(decided & {"link", "new-person"})

    def differs(self, field: str, value: str | None) -> bool:
        """Whether the contact still has this value, and the person another."""
        contact, person = self.contact, self.person
        if contact is None or field not in {*contact.cells, "external_person_id", "mdn"}:
            return False
        wanted = _contact_value(contact, field)
        return wanted == value and (person is None or self._held(field) != value)

    def refused(self) -> dict[tuple[str, str | None], Row]:
        """What the platform refused earlier, or accepted and did not keep, by field and value."""
        return {
            (row["field"], row["value"]): row
            for row in self.stored.get(BLOCKED, ())
            if not row.get("was_accepted") or row["before"] == self._held(row["field"])
        }

    def _held(self, field: str) -> str | None:
        return _person_value(self.person, field) if self.person else None


class Ends:
    """Says where the contact ended on each day; equal inputs of two days are worked out once."""

    def __init__(
        self, project: Project, connection: duckdb.DuckDBPyConnection, workspace: Path
    ) -> None:
        self._project = project
        self._connection = connection
        self._workspace = workspace
        self._lag = timedelta(hours=project.config.policies.visibility_lag_h)
        # Where the base decides, equal inputs of two days may end differently.
        self._is_three_way = any(field.is_written_back for field in project.config.fields)
        self._known: dict[str, str | ReconcileError] = {}

    def end(self, inputs: DayInputs) -> End:
        """The end of the contact, or of the person that has none."""
        if inputs.summary is None:
            return End("not reconciled", "not recorded", "the day has no diff set")
        stored = _stored_end(inputs)
        if stored is not None:
            return stored
        contact = inputs.contact
        if contact is None:
            return _without_contact(inputs)
        if contact.unmet:
            why = "; ".join(contact.unmet)
            return End("filtered", "derived", why + self._caveat(inputs.summary))
        if not self._needs_reconcile(inputs):
            why = "nothing differs that the rules would change"
            return End("unchanged", "derived", why + self._caveat(inputs.summary))
        return self._worked_out(inputs)

    def _caveat(self, summary: Summary) -> str:
        return "" if summary.config_hash == self._project.config.config_hash else _OTHER_CONFIG

    def _needs_reconcile(self, inputs: DayInputs) -> bool:
        """Without a change that is under way or refused, no row means that nothing is to be done.

        A new contact always has a change, so that its add must be under way or refused.
        """
        if inputs.contact is None or inputs.person is None:
            return True
        tags = (*inputs.waiting(self._lag), *inputs.refused())
        return any(inputs.differs(field, value) for field, value in tags)

    def _worked_out(self, inputs: DayInputs) -> End:
        summary = inputs.summary
        assert summary is not None  # noqa: S101 - told by the caller
        status = self._status(inputs, summary)
        if isinstance(status, ReconcileError):
            return End("unknown", "not recorded", str(status))
        caveat = self._caveat(summary)
        if status == "pending":
            return End("pending", "derived", _why_pending(inputs, self._lag) + caveat)
        if status == "blocked":
            return End("blocked", "derived", _why_blocked(inputs) + caveat)
        if status == "unchanged":
            return End("unchanged", "derived", "nothing differs that the rules would change")
        why = f"the diff set has no row for the contact, and by today's rules it would be {status}"
        return End("unknown", "not recorded", why + caveat)

    def _status(self, inputs: DayInputs, summary: Summary) -> str | ReconcileError:
        """The status the reconcile gives this contact alone; it is in no doubt with others."""
        key = repr(
            (
                [(row.cells, row.key, row.mdn_text) for row in inputs.contacts],
                [(found.row.cells, found.row.external_person_id) for found in inputs.persons],
                sorted(map(str, inputs.waiting(self._lag))),
                sorted(map(str, inputs.refused())),
                sorted(map(str, inputs.stored.get(DECISIONS, ()))),
                inputs.day if self._is_three_way else None,
            )
        )
        if key not in self._known:
            try:
                self._known[key] = self._reconcile(inputs, summary)
            except ReconcileError as cannot:
                self._known[key] = cannot
        return self._known[key]

    def _reconcile(self, inputs: DayInputs, summary: Summary) -> str:
        folder = self._project.diff_set_folder(inputs.day)
        contacts = [row.place.row for row in inputs.contacts]
        persons = [found.row.place.row for found in inputs.persons]
        feeds = self._project.destination.feeds
        found = reconcile(
            self._project.config,
            Inputs(
                contacts=self._only(feeds.contacts, "contacts", inputs.day, contacts),
                persons=self._only(feeds.persons, "persons", inputs.day, persons),
                base=recorded_base(self._project, inputs.day),
                pending=_if_there(folder / f"{PENDING}.parquet"),
                blocked=_if_there(folder / f"{BLOCKED}.parquet"),
                decisions=_if_there(folder / f"{DECISIONS}.parquet"),
                as_of=summary.as_of,
                relative_guards=False,
                destination=self._project.destination,
            ),
            self._workspace / "reconciled",
            Limits(threads=1, temp_dir=self._workspace),
        )
        return next(status for status in CONTACT_STATUSES if getattr(found, status))

    def _only(self, feed: str, side: str, day: str, rows: Sequence[int]) -> Path:
        """A copy of a landed snapshot with only these rows, counted from 1."""
        snapshot = self._project.snapshots.find(feed, day)
        if snapshot is None:
            raise ReconcileError(f"{feed} of {day} is not landed any more")
        target = self._workspace / f"{side}.parquet"
        numbers = ", ".join(str(row - 1) for row in rows) or "-1"
        relation = parquet(snapshot.data, file_row_number=True)
        self._connection.execute(
            f"COPY (SELECT * EXCLUDE ({ROW}) FROM {relation} WHERE {ROW} IN ({numbers}))"
            f" TO {literal(str(target))} (FORMAT parquet)"
        )
        shutil.rmtree(self._workspace / "reconciled", ignore_errors=True)
        return target


def _stored_end(inputs: DayInputs) -> End | None:
    """The end that stands in the files of the diff set."""
    doubts = [one for one in inputs.doubts if one.is_this_person and one.source == "contact"]
    if doubts:
        return End("quarantined", "recorded", _kinds(doubts))
    for row in inputs.stored.get(PERSON_CHANGES, ()):
        fields = ", ".join(change["field"] for change in row["changes"])
        if any(change["reason"] == "unmatched" for change in row["changes"]):
            why = f"stopped meeting the conditions; when_unmatched clears {fields}"
            return End("filtered", "recorded", why)
        if row["operation"] == "add":
            return End("added", "recorded", f"new at the platform, with {fields or 'no field'}")
        return End("updated", "recorded", f"matched by {row['matched_by']}; changes {fields}")
    return None


def _kinds(doubts: Sequence[Doubt]) -> str:
    return "; ".join(dict.fromkeys(f"{one.kind}: {one.detail}" for one in doubts))


def _without_contact(inputs: DayInputs) -> End:
    doubts = [one for one in inputs.doubts if one.is_this_person]
    if doubts:
        why = f"the person, which has no contact: {_kinds(doubts)}"
        return End("quarantined", "recorded", why)
    if inputs.persons:
        return End("persons-only", "derived", "a person at the platform that no contact points to")
    return End("absent", "derived", "on neither side that day")


def _why_pending(inputs: DayInputs, lag: timedelta) -> str:
    told = [
        f"{field} {shown(value)} was sent as of {instant_text(row['accepted_at'])}, and need not be"
        f" visible before {instant_text(row['accepted_at'] + lag)}"
        for (field, value), row in sorted(inputs.waiting(lag).items(), key=lambda item: item[0][0])
        if inputs.differs(field, value)
    ]
    return "; ".join(told)


def _why_blocked(inputs: DayInputs) -> str:
    refused = {tag: row for tag, row in inputs.refused().items() if inputs.differs(*tag)}
    fields = ", ".join(sorted(field for field, _ in refused))
    classes = sorted({row["error_class"] for row in refused.values() if row["error_class"]})
    advice = " ".join(f"{name}: {lookup(name).advice}" for name in classes)
    how = "refused by the platform"
    if any(row.get("was_accepted") for row in refused.values()):
        how = "refused by the platform, or accepted and not kept,"
    return f"{how} and unchanged since: {fields}. {advice}".rstrip()


def _contact_value(contact: ContactRow, field: str) -> str | None:
    if field == "external_person_id":
        return contact.key
    if field == "mdn":
        return contact.mdn
    return contact.cells[field].value


def _person_value(person: PersonRow, field: str) -> str | None:
    if field == "external_person_id":
        return person.external_person_id
    if field == "mdn":
        return person.mdn
    cell = person.cells.get(field)
    return cell.value if cell else None


def _utc(instant: datetime) -> datetime:
    return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)


def _if_there(path: Path) -> Path | None:
    return path if path.is_file() else None
