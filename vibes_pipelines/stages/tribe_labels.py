"""What a label of Tribe CRM says of a contact's consent, and since when.

Present is opted in. Absent is opted out only for somebody who was seen with the label in a day that
was accepted, whose opt-out the platform told since, or where sync.yaml says so; else it is unknown.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pyarrow.parquet as pq

from vibes_pipelines.crm.contacts import FEED
from vibes_pipelines.crm.mapped_columns import mapped_columns
from vibes_pipelines.stages.project import Project
from vibes_pipelines.store.snapshots import Snapshot
from vibes_pipelines.sync_config import SyncConfig
from vibes_pipelines.sync_config.tribe import LABEL, LABEL_SINCE, TribeSource, label_of

PRESENT, ABSENT = "true", "false"

State = tuple[str, str | None]
"""PRESENT or ABSENT, and since when (ISO, UTC); None when that is not known."""


@dataclass(frozen=True)
class KnownLabels:
    """What an accepted day said of labels: label → contact → state.

    A label that was not landed then is missing. `written` are opt-outs that were written back since
    that day was landed, with the time at which the platform recorded them.
    """

    as_of: datetime | None = None
    states: Mapping[str, Mapping[str, State]] = field(default_factory=dict)
    written: Mapping[str, Mapping[str, str | None]] = field(default_factory=dict)

    def state(
        self, label: str, contact: str, as_of: datetime, *, is_present: bool, if_never: str | None
    ) -> tuple[str | None, str | None]:
        """The state of a label now, and since when.

        A label that newly appeared did so at some time after the day before: that day is what is
        certain. One that disappeared is gone as of now, unless it was taken off for an opt-out.
        """
        before = self.states.get(label, {}).get(contact)
        if is_present:
            if before is not None and before[0] == PRESENT:
                return before
            is_new = label in self.states and self.as_of is not None
            return PRESENT, instant_text(self.as_of) if is_new else None
        if contact in self.written.get(label, {}):
            return ABSENT, self.written[label][contact]
        if before is None:
            return if_never, None
        return before if before[0] == ABSENT else (ABSENT, instant_text(as_of))


def known_labels(project: Project, day: str | None = None) -> KnownLabels:
    """The labels of the newest accepted day; with `day`, of those before it."""
    accepted = project.ledger.last_delivered(before=day)
    snapshot = project.snapshots.find(FEED, accepted.day) if accepted else None
    if accepted is None or snapshot is None:
        return KnownLabels()
    labels = [name for name in labels_of(project.config) if _has(snapshot, name)]
    columns = [column for name in labels for column in (LABEL + name, LABEL_SINCE + name)]
    key = project.config.contacts.key
    states: dict[str, dict[str, State]] = {name: {} for name in labels}
    if key in snapshot.manifest.columns and labels:
        with pq.ParquetFile(snapshot.data) as file:
            for batch in file.iter_batches(columns=[key, *columns]):
                _note(states, batch.to_pydict(), key)
    return KnownLabels(snapshot.manifest.as_of, states, _written(project, accepted.day))


def labels_of(config: SyncConfig) -> list[str]:
    """Every label that is read: those that columns name, and those of `contacts.tribe`."""
    named = (label_of(column) for column in mapped_columns(config))
    source = config.contacts.tribe or TribeSource()
    return list(dict.fromkeys([*(name for name in named if name), *source.labels]))


def instant_text(instant: datetime | None) -> str | None:
    """An instant as the columns of labels hold it."""
    return None if instant is None else f"{instant.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _has(snapshot: Snapshot, label: str) -> bool:
    return {LABEL + label, LABEL_SINCE + label} <= set(snapshot.manifest.columns)


def _note(
    states: Mapping[str, dict[str, State]], batch: Mapping[str, Iterable[str | None]], key: str
) -> None:
    for label, known in states.items():
        rows = zip(batch[key], batch[LABEL + label], batch[LABEL_SINCE + label], strict=True)
        known.update(
            {contact: (state, since) for contact, state, since in rows if contact and state}
        )


def _written(project: Project, day: str) -> dict[str, dict[str, str | None]]:
    """Opt-outs that an accepted diff set carried to Tribe, by label.

    Tribe keeps no trace of an opt-out: who never had the label looks the same before and after.
    """
    path = project.diff_set_folder(day) / "subscription_changes.parquet"
    labels = {consent.list: label_of(consent.from_) for consent in project.config.consents}
    found: dict[str, dict[str, str | None]] = {}
    if not path.is_file():
        return found
    columns = ["external_person_id", "subscription_list_id", "evidence_at"]
    is_ours = [("side", "=", "crm"), ("action", "=", "opt_out")]
    for row in pq.read_table(path, columns=columns, filters=is_ours).to_pylist():
        label, evidence_at = labels.get(row["subscription_list_id"]), row["evidence_at"]
        if label is not None:
            # Stored without a zone, in UTC.
            instant = evidence_at.replace(tzinfo=UTC) if evidence_at else None
            found.setdefault(label, {})[row["external_person_id"]] = instant_text(instant)
    return found
