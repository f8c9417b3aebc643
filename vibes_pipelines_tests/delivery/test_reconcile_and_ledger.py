"""The ledger tells the reconcile what is under way: sent is pending, refused is blocked."""

import asyncio
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vibes_pipelines.delivery.api_push import push
from vibes_pipelines.delivery.certificate import Landed, certify
from vibes_pipelines.delivery.plan import plan
from vibes_pipelines.delivery.release import register_diff_set
from vibes_pipelines.reconcile.run import Inputs, reconcile
from vibes_pipelines.reconcile.summary import Summary
from vibes_pipelines.store.ledger import Ledger
from vibes_pipelines.store.records import Receipt
from vibes_pipelines.sync_config import SyncConfig
from vibes_pipelines_tests.support.deliveries import (
    BY_API,
    CONFIG,
    SNAPSHOTS,
    TYPES,
    FakeAnswer,
    FakePlatform,
    noon,
)

FIRST, SECOND, THIRD = "2026-01-01", "2026-01-02", "2026-01-03"
CONTACT_COLUMNS = ("contact_id", "mobile", "first", "born", "level", "likes", "sms", "sms_at")
PERSON_COLUMNS = ("person_key", "external_person_id", "mdn", *TYPES)

ADDED = {"contact_id": "C1", "mobile": "3125550142", "first": "Ada", "level": "gold"}
UPDATED = {"contact_id": "C2", "mobile": "3125550143", "first": "Bob", "born": "1990-12-01"}
PERSON = {"person_key": "k2", "external_person_id": "C2", "mdn": "+13125550143"}
SYNCED = [
    {
        "person_key": "k1",
        "external_person_id": "C1",
        "mdn": "+13125550142",
        "first_name": "Ada",
        "tier": "gold",
    },
    {**PERSON, "first_name": "Bob", "birthdate": "1990-12-01"},
]


class Days:
    """Runs days of one customer: certify, reconcile, plan, push."""

    def __init__(self, ledger: Ledger, folder: Path) -> None:
        self.ledger = ledger
        self.folder = folder
        self.platform = FakePlatform()
        self.written_back: list[str] = []
        """The days of the write-backs, all of which the CRM accepts and none of which it keeps."""

    def run(self, day: str, persons: list[dict[str, Any]], config: SyncConfig = CONFIG) -> Summary:
        folder = self.folder / f"{day}-{config.config_hash}"
        folder.mkdir()
        write(folder / "contacts.parquet", [ADDED, UPDATED], CONTACT_COLUMNS)
        write(folder / "persons.parquet", persons, PERSON_COLUMNS)
        landed = Landed(folder / "persons.parquet", contacts=folder / "contacts.parquet")
        self.certificate = certify(
            self.ledger, day, landed, config, noon(day), folder / "certificate"
        )
        pq.write_table(self.ledger.pending(day, config.config_hash), folder / "pending.parquet")
        pq.write_table(self.ledger.blocked(day, config.config_hash), folder / "blocked.parquet")
        inputs = Inputs(
            contacts=folder / "contacts.parquet",
            persons=folder / "persons.parquet",
            pending=folder / "pending.parquet",
            blocked=folder / "blocked.parquet",
            as_of=noon(day),
            relative_guards=False,
        )
        summary = reconcile(config, inputs, folder / "out")
        register_diff_set(self.ledger, day, summary, SNAPSHOTS)
        plan(summary.diff_set, folder / "out", config, self.ledger, BY_API)
        operations = self.ledger.open_operations(summary.diff_set, "persons", "api")
        asyncio.run(push(operations, self.platform, self.ledger, TYPES, dry_run=False))
        for operation in list(self.ledger.open_operations(summary.diff_set, "crm", "crm")):
            self.ledger.mark_sent([operation.operation_id])
            self.ledger.record([Receipt(operation.operation_id, "accepted")], day)
            self.written_back.append(day)
        return summary


def write(path: Path, rows: list[dict[str, Any]], columns: tuple[str, ...]) -> None:
    schema = pa.schema([(name, pa.string()) for name in columns])
    complete = [{name: row.get(name) for name in columns} for row in rows]
    pq.write_table(pa.Table.from_pylist(complete, schema), path)


@pytest.fixture
def days(ledger: Ledger, tmp_path: Path) -> Days:
    return Days(ledger, tmp_path)


def test_what_was_sent_is_pending_then_confirmed_and_the_next_diff_is_empty(days: Days) -> None:
    first = days.run(FIRST, [PERSON])
    assert (first.added, first.updated) == (1, 1)
    second = days.run(SECOND, [PERSON])
    assert (second.pending, second.added, second.updated) == (2, 0, 0)
    third = days.run(THIRD, SYNCED)
    assert days.certificate.confirmed == 2
    assert (third.unchanged, third.pending) == (2, 0)
    assert set(days.platform.effects.values()) == {1}


def test_a_config_changed_after_the_delivery_sends_only_what_it_changes(days: Days) -> None:
    days.platform.answers["C1"] = FakeAnswer(409, "rejected", "HTTP 409")
    days.run(FIRST, [PERSON])
    fewer = tuple(field for field in CONFIG.fields if field.to != "birthdate")
    again = days.run(FIRST, [PERSON], CONFIG.model_copy(update={"fields": fewer}))
    assert (again.blocked, again.pending, again.added, again.updated) == (1, 1, 0, 0)
    assert len(days.platform.calls) == 2


def test_what_stays_invisible_is_escalated_and_sent_again(days: Days) -> None:
    for day in (FIRST, SECOND):
        days.run(day, [PERSON])
    third = days.run(THIRD, [PERSON])
    assert days.certificate.unexplained == 2
    assert (third.added, third.updated) == (1, 1)
    assert days.platform.repeats.total() == 2


def test_what_was_refused_is_blocked_and_not_sent_again(days: Days) -> None:
    days.platform.answers["C1"] = FakeAnswer(409, "rejected", "HTTP 409")
    days.run(FIRST, [PERSON])
    second = days.run(SECOND, [SYNCED[1]])
    assert (days.certificate.rejected, days.certificate.confirmed) == (1, 1)
    assert (second.blocked, second.unchanged) == (1, 1)
    third = days.run(THIRD, [SYNCED[1]])
    assert (third.blocked, days.certificate.operations) == (1, 0)
    assert len(days.platform.calls) == 2


def test_what_the_platform_keeps_in_another_form_is_sent_on_three_days_until_it_changes(
    days: Days,
) -> None:
    def run(day: int, first_name: str) -> Summary:
        return days.run(f"2026-01-0{day}", [SYNCED[0], SYNCED[1] | {"first_name": first_name}])

    told = [(run(day, "BOB"), days.certificate.unexplained) for day in range(1, 9)]
    assert [summary.updated for summary, _ in told] == [1, 0, 1, 0, 1, 0, 0, 0]
    assert [summary.blocked for summary, _ in told] == [0, 0, 0, 0, 0, 0, 1, 1]
    assert [unexplained for _, unexplained in told] == [0, 0, 1, 0, 1, 0, 1, 0]
    assert run(9, "Rob").updated == 1


@pytest.mark.slow
def test_a_write_back_that_the_crm_does_not_keep_is_unexplained_and_comes_to_an_end(
    days: Days,
) -> None:
    fields = tuple(f.model_copy(update={"authority": "platform"}) for f in CONFIG.fields)
    config = CONFIG.model_copy(update={"fields": fields})
    unexplained = 0
    for number in range(1, 8):
        days.run(f"2026-01-0{number}", [SYNCED[0] | {"first_name": "Eve"}, SYNCED[1]], config)
        unexplained += days.certificate.unexplained
    sent_before_the_third_was_known = 4
    assert len(days.written_back) == unexplained == sent_before_the_third_was_known
    assert days.certificate.operations == 0


def test_a_key_that_is_too_long_stops_nobody_elses_opt_out(ledger_url: str, tmp_path: Path) -> None:
    inputs = Inputs(
        contacts=tmp_path / "contacts.parquet",
        persons=tmp_path / "persons.parquet",
        subscriptions=(tmp_path / "subscriptions.parquet",),
        relative_guards=False,
    )
    long = {"contact_id": "K" * 300, "mobile": "3125550142", "sms": "no"}
    write(inputs.contacts, [long, {**UPDATED, "sms": "no"}], CONTACT_COLUMNS)
    write(inputs.persons, [PERSON, {"person_key": "k1", "mdn": "+13125550142"}], PERSON_COLUMNS)
    stays = [
        {"person_key": key, "subscription_list_id": "1234", "opt_in_date": "2025-01-01"}
        for key in ("k1", "k2")
    ]
    columns = ("person_key", "subscription_list_id", "opt_in_date", "opt_out_date")
    write(inputs.subscriptions[0], stays, columns)
    summary = reconcile(CONFIG, inputs, tmp_path / "out")
    assert summary.quarantined == 1
    with Ledger(ledger_url) as ledger:
        register_diff_set(ledger, FIRST, summary, SNAPSHOTS)
        plan(summary.diff_set, tmp_path / "out", CONFIG, ledger, BY_API)
        opt_outs = ledger.open_operations(summary.diff_set, "opt_outs", "api")
        assert {one.person_key for one in opt_outs} == {"k2"}
