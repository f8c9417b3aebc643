"""What a label of Tribe CRM says of a contact's consent, and since when.

Present is opted in. Absent is opted out only for somebody who was seen with the label, in the last
accepted day or one landed since, whose opt-out the platform told, or where sync.yaml says so; else
it is unknown.
"""

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple

import pyarrow.parquet as pq

from vibes_pipelines.blanks import trimmed
from vibes_pipelines.crm.contacts import FEED
from vibes_pipelines.crm.mapped_columns import mapped_columns
from vibes_pipelines.delivery.intents import evidence_at
from vibes_pipelines.stages.project import Project
from vibes_pipelines.store.inbox import Inbox
from vibes_pipelines.store.snapshots import Snapshot
from vibes_pipelines.sync_config import SyncConfig
from vibes_pipelines.sync_config.tribe import LABEL, LABEL_SINCE, TribeSource, label_of
from vibes_pipelines.vibes.callbacks import SUBSCRIPTION_REMOVED

PRESENT, ABSENT = "true", "false"


class Seen(NamedTuple):
    """What is known of a contact's label: PRESENT, ABSENT or None, and since when (ISO, UTC).

    `at` is the look that showed it; a label that comes later is younger than that.
    """

    state: str | None
    since: str | None
    at: datetime


@dataclass(frozen=True)
class KnownLabels:
    """What was seen of labels: label → contact → look. `as_of` is that of the accepted day.

    A contact that nobody looked at is missing, for its label may be of any age.
    """

    as_of: datetime | None = None
    seen: Mapping[str, Mapping[str, Seen]] = field(default_factory=dict)

    def state(
        self,
        label: str,
        contact: str,
        as_of: datetime,
        created_at: datetime | None,
        *,
        is_present: bool,
        if_never: str | None,
    ) -> tuple[str | None, str | None]:
        """The state of a label now, and since when.

        A label that newly appeared did so at some time after the look without it: that look is what
        is certain. One that disappeared is gone as of now, unless it was taken off for an opt-out.
        """
        before = self.seen.get(label, {}).get(contact)
        if not is_present:
            if before is None or before.state is None:
                return if_never, None
            return ABSENT, before.since if before.state == ABSENT else instant_text(as_of)
        if before is None:  # only of somebody new the label is new for sure
            is_new = self.as_of is not None and created_at is not None and created_at > self.as_of
            return PRESENT, instant_text(self.as_of) if is_new else None
        return PRESENT, before.since if before.state == PRESENT else instant_text(before.at)


def known_labels(project: Project, day: str | None = None) -> KnownLabels:
    """What the newest accepted day showed, and whom each day landed since showed with a label.

    A later day without a label tells nothing before it is accepted: it may be broken. What was
    taken off for an opt-out is absent since then. With `day` only days before it count.
    """
    accepted = project.ledger.last_delivered(before=day)
    first, as_of = accepted.day if accepted else "", None
    seen: dict[str, dict[str, Seen]] = {name: {} for name in labels_of(project.config)}
    for landed in project.snapshots.days(FEED):
        is_known = first <= landed and (day is None or landed < day)
        snapshot = project.snapshots.find(FEED, landed) if is_known else None
        if snapshot is not None:
            is_accepted = landed == first
            as_of = snapshot.manifest.as_of if is_accepted else as_of
            _note(project.config, seen, snapshot, is_accepted=is_accepted)
    _note_taken_off(project, seen, first)
    _note_told(project, seen)
    return KnownLabels(as_of, seen)


def labels_of(config: SyncConfig) -> list[str]:
    """Every label that is read: those that columns name, and those of `contacts.tribe`."""
    named = (label_of(column) for column in mapped_columns(config))
    source = config.contacts.tribe or TribeSource()
    return list(dict.fromkeys([*(name for name in named if name), *source.labels]))


def instant_text(instant: datetime | None) -> str | None:
    """An instant as the columns of labels hold it."""
    return None if instant is None else f"{instant.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _note(
    config: SyncConfig,
    seen: Mapping[str, dict[str, Seen]],
    snapshot: Snapshot,
    *,
    is_accepted: bool,
) -> None:
    """Notes every contact of an accepted day, and those with a label of another."""
    key, columns, at = config.contacts.key, set(snapshot.manifest.columns), snapshot.manifest.as_of
    landed = [name for name in seen if {LABEL + name, LABEL_SINCE + name} <= columns]
    if key not in columns or not landed:
        return
    unknown = Seen(None, None, at)
    wanted = [key, *(prefix + name for name in landed for prefix in (LABEL, LABEL_SINCE))]
    with pq.ParquetFile(snapshot.data) as file:
        for batch in file.iter_batches(columns=wanted):
            cells = batch.to_pydict()
            for name in landed:
                rows = zip(cells[key], cells[LABEL + name], cells[LABEL_SINCE + name], strict=True)
                seen[name].update(
                    (contact, Seen(state, since, at) if state else unknown)
                    for held, state, since in rows
                    if (is_accepted or state == PRESENT) and (contact := trimmed(held or ""))
                )


def _label_by_list(config: SyncConfig) -> dict[str, str | None]:
    return {consent.list.strip(): label_of(consent.from_) for consent in config.consents}


def _note_taken_off(project: Project, seen: Mapping[str, dict[str, Seen]], first: str) -> None:
    """Notes the opt-outs that Tribe took, of diff sets from the day `first` on.

    Tribe keeps no trace of an opt-out: who never had the label looks the same before and after.
    """
    labels = _label_by_list(project.config)
    for taken in project.ledger.opt_outs_of_crm(first):
        label, contact = labels.get(taken.subscription_list_id or ""), taken.external_person_id
        if label is None or contact is None:
            continue
        before = seen[label].get(contact)
        if before is None or before.at <= taken.as_of:
            since = instant_text(evidence_at(taken))
            seen[label][contact] = Seen(ABSENT, since, taken.as_of)


def _note_told(project: Project, seen: Mapping[str, dict[str, Seen]]) -> None:
    """Notes the opt-outs that callbacks told and Tribe took since a label was last seen.

    Of a contact that nobody looked at they tell nothing: its key may have been somebody else's.
    """
    labels = _label_by_list(project.config)
    company = project.config.company_key
    with closing(Inbox(project.settings.inbox_url)) as inbox:
        for page in inbox.arrived_after(0, SUBSCRIPTION_REMOVED, labels, company):
            for told in page:
                label = labels[told.subscription_list_id or ""]
                contact = trimmed(told.external_person_id or "")
                if label is None or contact is None or told.status != "applied":
                    continue
                before, since = seen[label].get(contact), instant_text(told.order_at) or ""
                if (
                    before is not None
                    and before.state != ABSENT
                    and before.at <= told.received_at
                    and (before.since or "") < since
                ):
                    seen[label][contact] = Seen(ABSENT, since, told.received_at)
