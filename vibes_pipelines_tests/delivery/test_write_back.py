"""Write-backs to the CRM have the same states and the same safety as pushes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from vibes_pipelines.delivery.ports import CrmFieldChange
from vibes_pipelines.delivery.write_back import WriteBackError, WriteBackResult, write_back
from vibes_pipelines.store.ledger import Ledger
from vibes_pipelines.store.records import Lane
from vibes_pipelines_tests.support.deliveries import FakeAnswer, FakeCrm, Killed, opt_out, planned

DIFF_SET = "d" * 64
FIELDS: list[dict[str, Any]] = [
    {"contact_id": "C1", "field": "first_name", "before": "Ada", "after": "Adah"},
    {"contact_id": "C1", "field": "tier", "before": "gold", "after": None},
    {"contact_id": "C2", "field": "first_name", "before": None, "after": "Bob"},
]


@pytest.fixture
def ready(ledger: Ledger, tmp_path: Path) -> Ledger:
    planned(ledger, tmp_path, crm=FIELDS, subscriptions=[opt_out("C1", side="crm")])
    return ledger


def run(
    ledger: Ledger, crm: FakeCrm, lane: Lane = "crm", *, dry_run: bool = False
) -> WriteBackResult:
    operations = ledger.open_operations(DIFF_SET, lane, "crm")
    return write_back(operations, crm, ledger, dry_run=dry_run)


def test_fields_of_a_contact_are_written_together(ready: Ledger) -> None:
    crm = FakeCrm({"C1": {"first_name": "Ada", "tier": "gold"}, "C2": {}})
    assert run(ready, crm) == WriteBackResult(planned=2, accepted=2)
    assert crm.contacts["C1"] == {"first_name": "Adah", "tier": None}
    assert crm.contacts["C2"] == {"first_name": "Bob"}


def test_opt_outs_have_their_own_lane(ready: Ledger) -> None:
    crm = FakeCrm({"C1": {}})
    assert run(ready, crm, "opt_outs") == WriteBackResult(planned=1, accepted=1)
    assert crm.contacts == {"C1": {"list 1234": "out"}}


def test_a_contact_that_is_gone_is_rejected(ready: Ledger) -> None:
    result = run(ready, FakeCrm({"C1": {}}))
    assert result == WriteBackResult(2, 1, 1, error_classes={"ContactNotFound": 1})
    assert run(ready, FakeCrm({"C1": {}})) == WriteBackResult()


def test_a_dry_run_writes_nothing(ready: Ledger) -> None:
    crm = FakeCrm({"C1": {}, "C2": {}})
    assert run(ready, crm, dry_run=True) == WriteBackResult(planned=2)
    assert crm.effects == 0
    assert {status for _, _, status in ready.status_counts(DIFF_SET)} == {"planned"}


def test_cut_after_the_write_the_next_run_repeats_it_without_effect(ready: Ledger) -> None:
    """Law: exactly-once effect over at-least-once roads."""
    crm = FakeCrm({"C1": {}, "C2": {}}, die_after_write=True)
    with pytest.raises(Killed):
        run(ready, crm)
    crm.die_after_write = False
    assert run(ready, crm) == WriteBackResult(planned=2, accepted=2, repeated=2)
    assert (crm.effects, crm.repeats) == (3, 3)


def test_an_answer_for_another_number_of_rows_is_an_error(ready: Ledger) -> None:
    class Forgetful(FakeCrm):
        def apply_fields(self, rows: Sequence[CrmFieldChange]) -> list[FakeAnswer]:
            return super().apply_fields(rows)[1:]

    with pytest.raises(WriteBackError, match="answered 2 of 3 rows"):
        run(ready, Forgetful({"C1": {}, "C2": {}}))
    assert ready.status_counts(DIFF_SET)["crm", "crm", "sent"] == 2
