"""Diff sets, ledgers and small fakes of the outside, for the tests of ledger and delivery."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from vibes_pipelines.delivery.file_import import Folders
from vibes_pipelines.delivery.plan import Plan, plan
from vibes_pipelines.delivery.ports import CrmFieldChange, CrmOptOut
from vibes_pipelines.delivery.release import register_diff_set
from vibes_pipelines.delivery.routes import Estimates
from vibes_pipelines.store.ledger import Ledger
from vibes_pipelines.sync_config import SyncConfig
from vibes_pipelines.vibes.api_transport import VibesUnavailable

DAY = "2026-01-02"
NEXT_DAY = "2026-01-03"
DIFF_SET = "d" * 64
FOLDERS = Folders("/in", "/reports")

CONFIG = SyncConfig.model_validate(
    {
        "version": 1,
        "company_key": "A1b2C3",
        "contacts": {"key": "contact_id", "mdn": {"column": "mobile", "default_region": "US"}},
        "fields": [
            {"from": "first", "to": "first_name", "type": "string"},
            {"from": "born", "to": "birthdate", "type": "date"},
            {"from": "level", "to": "tier", "type": "single_select"},
            {"from": "likes", "to": "interests", "type": "multi_select"},
        ],
        "consents": [{"from": "sms", "list": "1234", "changed_at": "sms_at"}],
    }
)
INVITING = CONFIG.model_copy(
    update={
        "consents": (CONFIG.consents[0].model_copy(update={"invites": True, "campaign": "777"}),)
    }
)
TYPES = {mapped.to: mapped.type for mapped in CONFIG.fields}

BY_FILE = Estimates(rate_per_s=0.001, gap_s=0, pickup_s=0, rows_per_s=1_000)
BY_API = Estimates(rate_per_s=1_000, gap_s=300, pickup_s=300, rows_per_s=1)

_TEXT = pa.string()
_CHANGE = pa.struct([(name, _TEXT) for name in ("field", "action", "before", "after", "reason")])
_PERSON = ("operation", "external_person_id", "person_key", "mdn", "matched_by")
PERSON_CHANGES = pa.schema([*((name, _TEXT) for name in _PERSON), ("changes", pa.list_(_CHANGE))])
SUBSCRIPTION_CHANGES = pa.schema(
    [
        *((name, _TEXT) for name in ("side", "action", "external_person_id", "person_key", "mdn")),
        ("subscription_list_id", _TEXT),
        ("evidence_at", pa.timestamp("us")),
        ("reason", _TEXT),
    ]
)
CRM_CHANGES = pa.schema(
    [(name, _TEXT) for name in ("contact_id", "field", "before", "after", "reason")]
)


def noon(day: str) -> datetime:
    """The logical time of a day's diff set."""
    return datetime.fromisoformat(f"{day}T12:00:00+00:00")


def change(name: str, after: str | None, before: str | None = None) -> dict[str, str | None]:
    action = "clear" if after is None else "set"
    return {
        "field": name,
        "action": action,
        "before": before,
        "after": after,
        "reason": "crm_changed",
    }


def add(external: str, *changes: dict[str, str | None], mdn: str | None = None) -> dict[str, Any]:
    return {
        "operation": "add",
        "external_person_id": external,
        "mdn": mdn,
        "matched_by": None,
        "changes": list(changes),
    }


def update(
    external: str, *changes: dict[str, str | None], person_key: str | None = None
) -> dict[str, Any]:
    return {
        "operation": "update",
        "external_person_id": external,
        "person_key": person_key or f"key-{external.lower()}",
        "mdn": None,
        "matched_by": "external_person_id",
        "changes": list(changes),
    }


def opt_out(
    external: str, side: str = "platform", evidence_at: datetime | None = None
) -> dict[str, Any]:
    return {
        "side": side,
        "action": "opt_out",
        "external_person_id": external,
        "person_key": f"key-{external.lower()}",
        "subscription_list_id": "1234",
        "evidence_at": evidence_at,
        "reason": "opted_out",
    }


def invite(external: str, evidence_at: datetime | None = None) -> dict[str, Any]:
    return opt_out(external, evidence_at=evidence_at) | {
        "action": "invite",
        "mdn": f"+1312555{int(external[1:]):04}",
        "reason": "crm_opted_in",
    }


@dataclass(frozen=True)
class FakeSummary:
    """What a reconcile would say of its diff set."""

    diff_set: str
    as_of: datetime
    mapping_hash: str = "mapping-1"
    config_hash: str = "config-1"
    breaches: tuple[dict[str, str], ...] = ()

    def to_json(self) -> str:
        return json.dumps({"breaches": self.breaches})


@dataclass(frozen=True)
class FakeManifest:
    feed: str
    rows: int
    content_hash: str = "hash"


@dataclass(frozen=True)
class FakeSnapshot:
    manifest: FakeManifest


SNAPSHOTS = (
    FakeSnapshot(FakeManifest("crm/contacts", 10)),
    FakeSnapshot(FakeManifest("share/persons", 8)),
)


def write_diff_set(
    folder: Path,
    persons: Sequence[dict[str, Any]] = (),
    subscriptions: Sequence[dict[str, Any]] = (),
    crm: Sequence[dict[str, Any]] = (),
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows, schema in (
        ("person_changes", persons, PERSON_CHANGES),
        ("subscription_changes", subscriptions, SUBSCRIPTION_CHANGES),
        ("crm_changes", crm, CRM_CHANGES),
    ):
        complete = [{column: row.get(column) for column in schema.names} for row in rows]
        pq.write_table(pa.Table.from_pylist(complete, schema), folder / f"{name}.parquet")
    return folder


def planned(
    ledger: Ledger,
    folder: Path,
    *,
    diff_set: str = DIFF_SET,
    day: str = DAY,
    estimates: Estimates = BY_API,
    config_hash: str = "config-1",
    config: SyncConfig = CONFIG,
    **rows: Sequence[dict[str, Any]],
) -> Plan:
    """Registers and plans a diff set made of the given rows."""
    write_diff_set(folder, **rows)
    register_diff_set(
        ledger, day, FakeSummary(diff_set, noon(day), config_hash=config_hash), SNAPSHOTS
    )
    return plan(diff_set, folder, config, ledger, estimates)


@dataclass(frozen=True)
class FakeAnswer:
    status: int | None = 200
    outcome: Literal["accepted", "rejected", "unknown"] = "accepted"
    error_class: str | None = None
    message: str | None = None


class Killed(BaseException):
    """Stands for the end of the process: nothing after it runs."""


@dataclass
class FakePlatform:
    """A Person API that counts effects and identical repeats apart, and fails where told."""

    persons: dict[str, dict[str, Any]] = field(default_factory=dict)
    keys: set[str] = field(default_factory=set)
    unsubscribed: set[tuple[str, str]] = field(default_factory=set)
    effects: Counter[str] = field(default_factory=Counter)
    repeats: Counter[str] = field(default_factory=Counter)
    answers: dict[str, FakeAnswer | BaseException] = field(default_factory=dict)
    calls: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    calls_until_killed: int | None = None
    updates_only: bool = False  # an upsert of an unknown id is answered with 404

    async def add(self, body: dict[str, Any]) -> FakeAnswer:
        return self._write("add", body["external_person_id"], body)

    async def upsert(self, external_person_id: str, body: dict[str, Any]) -> FakeAnswer:
        if self.updates_only:
            self.calls.append(("upsert", external_person_id, body))
            return FakeAnswer(404, "rejected", "HTTP 404")
        return self._write("upsert", external_person_id, body)

    async def update(self, person_key: str, body: dict[str, Any]) -> FakeAnswer:
        if person_key not in self.keys and person_key not in self.answers:
            self.calls.append(("update", person_key, body))
            return FakeAnswer(404, "rejected", "HTTP 404")
        return self._write("update", person_key, body)

    async def unsubscribe(
        self,
        list_id: str,
        *,
        person_key: str | None = None,
        external_person_id: str | None = None,
    ) -> FakeAnswer:
        person = person_key or external_person_id or ""
        return self._write("unsubscribe", person, {"list": list_id})

    async def replace_mdn(
        self,
        mdn: str,
        *,
        person_key: str | None = None,
        external_person_id: str | None = None,
        old_mdn: str | None = None,
    ) -> FakeAnswer:
        person = person_key or external_person_id or ""
        return self._write("replace_mdn", person, {"mdn": mdn, "old_mdn": old_mdn})

    def _write(self, call: str, person: str, body: dict[str, Any]) -> FakeAnswer:
        if self.calls_until_killed is not None:
            if self.calls_until_killed == 0:
                raise Killed
            self.calls_until_killed -= 1
        self.calls.append((call, person, body))
        scripted = self.answers.get(person, FakeAnswer())
        if isinstance(scripted, BaseException):
            raise scripted
        if scripted.outcome == "accepted":
            is_new = self.persons.get(f"{call} {person}") != body
            (self.effects if is_new else self.repeats)[person] += 1
            self.persons[f"{call} {person}"] = body
        return scripted


@dataclass
class FakeCampaigns:
    """Acquisition campaigns that count the texts they send, and lose answers where told."""

    pending: set[str] = field(default_factory=set)
    texts: Counter[str] = field(default_factory=Counter)
    asked: list[str] = field(default_factory=list)
    lose_answer_of: set[str] = field(default_factory=set)
    lose_request_of: set[str] = field(default_factory=set)
    unreadable: bool = False
    before_text: Callable[[str], None] = lambda _: None

    async def invite(
        self,
        campaign_id: str,
        *,
        mdn: str | None = None,
        external_person_id: str | None = None,
        person_key: str | None = None,
        list_id: str | None = None,
    ) -> FakeAnswer:
        number = mdn or ""
        if number in self.lose_request_of:
            return FakeAnswer(None, "unknown", "Timeout")
        self.before_text(number)
        self.texts[number] += 1
        self.pending.add(number)
        if number in self.lose_answer_of:
            return FakeAnswer(None, "unknown", "Timeout")
        return FakeAnswer(201)

    async def standing(
        self,
        campaign_id: str,
        list_id: str | None,
        *,
        mdn: str | None = None,
        external_person_id: str | None = None,
    ) -> FakeAnswer | None:
        self.asked.append(mdn or "")
        if self.unreadable:
            raise VibesUnavailable("HTTP 503", 503)
        return FakeAnswer(200) if mdn in self.pending else None


@dataclass(frozen=True)
class FakeRemoteFile:
    name: str


@dataclass
class FakeServer:
    """A file server and the platform behind it: takes imports in, drops reports."""

    files: dict[str, dict[str, str]] = field(default_factory=lambda: {"/in": {}, "/reports": {}})
    imported: list[str] = field(default_factory=list)
    sessions: int = 0
    die_before_upload_of: str | None = None
    die_after_upload_of: str | None = None

    @contextmanager
    def session(self) -> Iterator["FakeServer"]:
        self.sessions += 1
        yield self

    def list(self, directory: str) -> list[FakeRemoteFile]:
        return [FakeRemoteFile(name) for name in self.files[directory]]

    def upload(self, local: Path, remote_dir: str, name: str) -> None:
        if name == self.die_before_upload_of:
            raise Killed
        self.files[remote_dir][name] = local.read_text(encoding="utf-8")
        if name == self.die_after_upload_of:
            raise Killed

    def read_text(self, remote: str) -> str:
        directory, _, name = remote.rpartition("/")
        return self.files[directory][name]

    def process(self, errors: dict[int, tuple[str, str]] | None = None) -> None:
        """Imports every waiting file; `errors` by row number, 0 for the whole file."""
        for name, text in sorted(self.files["/in"].items()):
            rows = len(text.splitlines()) - 1
            faults = {n: e for n, e in (errors or {}).items() if n <= rows}
            report = "row_number,error_class,error_message\n" + "".join(
                f"{number},{error},{message}\n" for number, (error, message) in faults.items()
            )
            rejected = rows if 0 in faults else len(faults)
            summary = "rows,created,updated,unchanged,rejected\n" + (
                f"{rows},{rows - rejected},0,0,{rejected}\n"
            )
            self.files["/reports"][f"{name}.report.csv"] = report
            self.files["/reports"][f"{name}.summary.csv"] = summary
            self.imported.append(name)
        self.files["/in"].clear()


@dataclass
class FakeCrm:
    """A CRM that keeps what it is told and counts changes and repeats apart."""

    contacts: dict[str, dict[str, Any]] = field(default_factory=dict)
    effects: int = 0
    repeats: int = 0
    die_after_write: bool = False

    def apply_opt_outs(self, rows: Sequence[CrmOptOut]) -> list[FakeAnswer]:
        return self._apply([(row.contact_id, f"list {row.list}", "out") for row in rows])

    def apply_fields(self, rows: Sequence[CrmFieldChange]) -> list[FakeAnswer]:
        return self._apply([(row.contact_id, row.field, row.after) for row in rows])

    def _apply(self, rows: list[tuple[str, str, str | None]]) -> list[FakeAnswer]:
        answers = []
        for contact_id, column, value in rows:
            contact = self.contacts.get(contact_id)
            if contact is None:
                answers.append(FakeAnswer(None, "rejected", "ContactNotFound"))
                continue
            if contact.get(column, "") != value:
                self.effects += 1
            else:
                self.repeats += 1
            contact[column] = value
            answers.append(FakeAnswer(None))
        if self.die_after_write:
            raise Killed
        return answers
