"""The facts of an explanation, as frozen records of plain JSON values.

What each fact means belongs here; where it is found belongs to the modules beside. Instants are
ISO texts in UTC, days ISO dates, hashes and ids whole. A fact that was not stored is None, and the
sentence beside it says so.
"""

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

FoundAs = Literal["external_person_id", "person_key", "mdn"]
How = Literal["recorded", "derived", "not recorded"]


@dataclass(frozen=True)
class Who:
    """The person asked for. `asked` is the text given, `found_as` the identifier it is."""

    asked: str
    found_as: FoundAs
    external_person_id: str | None
    person_keys: tuple[str, ...]
    mdns: tuple[str, ...]


@dataclass(frozen=True)
class Place:
    """Where a value was read: a row of a landed snapshot.

    `source` is the table or the extract file the feed was landed from, `row` counts the rows of
    the snapshot's data.parquet from 1, `content_hash` is the SHA-256 of that file.
    """

    feed: str
    day: str
    source: str
    as_of: str
    content_hash: str
    row: int


@dataclass(frozen=True)
class LandedRow:
    """A contact or a person as landed; `found_by` names the identifier that led to it."""

    place: Place
    found_by: str
    external_person_id: str | None
    person_key: str | None
    mdn: str | None


@dataclass(frozen=True)
class Cell:
    """One value: `raw` as landed, `value` the canonical text that is compared.

    `row` is the row of its place. A `fault` says why the value cannot be compared.
    """

    row: int
    raw: str | None
    value: str | None
    fault: str | None = None


@dataclass(frozen=True)
class ChangeFact:
    """A change of the diff set; `side` is where it is to be made, `means` the reason in words."""

    side: Literal["platform", "crm"]
    field: str
    action: str
    before: str | None
    after: str | None
    reason: str
    means: str


@dataclass(frozen=True)
class FieldFact:
    """One mapped field, or an identifier, on both sides on one day.

    Authority, `when_null` and the CRM's column are those of today's sync.yaml. `crm` and
    `platform` have one cell per landed row: more than one where a record is doubled.
    """

    field: str
    crm_column: str | None
    authority: str
    when_null: str | None
    crm: tuple[Cell, ...]
    platform: tuple[Cell, ...]
    changes: tuple[ChangeFact, ...]
    why: str


@dataclass(frozen=True)
class SubscriptionRow:
    """One landed row of a subscription, at the share or in the extract."""

    place: Place
    person_key: str
    opt_in: str | None
    opt_out: str | None
    opt_out_reason: str | None


@dataclass(frozen=True)
class ConsentFact:
    """One mapped consent on both sides: the CRM's cell, the platform's rows, and the verdict."""

    list: str
    crm_column: str
    crm: Literal["in", "out", "unknown", "unreadable"] | None
    crm_raw: str | None
    crm_changed_at: str | None
    platform: Literal["in", "out", "unknown"]
    last_opt_in: str | None
    last_opt_out: str | None
    rows: tuple[SubscriptionRow, ...]
    changes: tuple[ChangeFact, ...]
    why: str


@dataclass(frozen=True)
class Doubt:
    """One row of the quarantine that concerns this person, or another of the same group."""

    kind: str
    source: str
    detail: str
    external_person_id: str | None
    person_key: str | None
    mdn: str | None
    is_this_person: bool


@dataclass(frozen=True)
class DiffSetFact:
    """A diff set of the day. `is_written` marks the one whose files stand in the day's folder.

    `breaches` are the guards that it breached, `held` what keeps it from going out today.
    """

    diff_set: str
    day: str
    as_of: str
    status: str
    config_hash: str
    is_written: bool
    is_under_todays_config: bool
    breaches: tuple[str, ...]
    held: tuple[str, ...]
    approved_reason: str | None
    approved_at: str | None


@dataclass(frozen=True)
class Verdict:
    """What the convergence certificate of `day` said of an operation, and on what evidence."""

    day: str
    outcome: str
    evidence: str


@dataclass(frozen=True)
class OperationFact:
    """One operation of the ledger: what was intended, sent, answered and seen.

    `batch` is the name of the import file, `row_number` its body row from 1. `advice` is the
    registry's for `error_class`.
    """

    operation_id: str
    diff_set: str
    day: str
    kind: str
    lane: str
    route: str
    route_reason: str
    subscription_list_id: str | None
    changes: tuple[ChangeFact, ...]
    status: str
    attempts: int
    sent_at: str | None
    batch: str | None
    row_number: int | None
    finished_at: str | None
    finished_day: str | None
    error_class: str | None
    message: str | None
    retry_later: bool
    category: str | None
    advice: str | None
    verdicts: tuple[Verdict, ...]


@dataclass(frozen=True)
class Unsent:
    """A change of the diff set that has no operation in the ledger, and why it has none."""

    kind: str
    lane: str
    subscription_list_id: str | None
    fields: tuple[str, ...]
    why: str


@dataclass(frozen=True)
class CallbackFact:
    """A callback of the inbox about this person, and what became of it."""

    received_at: str
    event_type: str | None
    event_at: str | None
    subscription_list_id: str | None
    status: str
    reason: str | None


@dataclass(frozen=True)
class DecisionFact:
    """A decision at the quarantine desk; it counts from the first day after `after_day`."""

    case_id: str
    kind: str
    action: str
    person_key: str | None
    reason: str
    decided_by: str
    decided_at: str
    after_day: str


@dataclass(frozen=True)
class End:
    """Where the contact ended that day. `how` says whether that was stored or worked out now."""

    status: str
    how: How
    why: str


@dataclass(frozen=True)
class DayFacts:
    """Everything stored about one person on one day.

    Operations stand on the day they are of; asked for one day, also earlier ones that the
    certificate of that day judged.
    """

    day: str
    end: End
    contacts: tuple[LandedRow, ...]
    persons: tuple[LandedRow, ...]
    fields: tuple[FieldFact, ...]
    consents: tuple[ConsentFact, ...]
    doubts: tuple[Doubt, ...]
    diff_sets: tuple[DiffSetFact, ...]
    operations: tuple[OperationFact, ...]
    unsent: tuple[Unsent, ...]


@dataclass(frozen=True)
class Explanation:
    """The answer: the person, and each day, newest first.

    `older_days` counts days with a diff set that are left out; ask for one of them by its date.
    """

    who: Who
    field: str | None
    days: tuple[DayFacts, ...]
    older_days: int
    callbacks: tuple[CallbackFact, ...]
    decisions: tuple[DecisionFact, ...] = ()

    def to_document(self) -> dict[str, Any]:
        """The explanation as plain JSON values."""
        return asdict(self)

    def to_json(self) -> str:
        """The one object that `explain --json` prints."""
        return json.dumps(self.to_document(), sort_keys=True)
