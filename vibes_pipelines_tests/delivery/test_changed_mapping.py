"""What was compared under one mapping does not leave under another; an opt-out always leaves."""

from collections.abc import Callable
from pathlib import Path

import pytest

from vibes_pipelines.delivery.plan import plan, preview
from vibes_pipelines.delivery.release import approve, may_deliver, register_diff_set
from vibes_pipelines.stages import delivering
from vibes_pipelines.stages.delivering import Delivered, NotReleasedError, Options
from vibes_pipelines.stages.project import Project, open_project
from vibes_pipelines.store.ledger import Ledger
from vibes_pipelines.store.records import Lane
from vibes_pipelines.sync_config import SyncConfig
from vibes_pipelines_tests.support.deliveries import (
    CONFIG,
    DAY,
    SNAPSHOTS,
    FakeSummary,
    change,
    noon,
    opt_out,
    update,
    write_diff_set,
)
from vibes_pipelines_tests.support.landed_days import SYNC, landed_project, reconciled

NAME = "{from: name, to: first_name, type: string}"
OTHERS = {
    "changed type": NAME.replace("string", "date"),
    "removed field": "{from: other, to: other, type: string}",
}


def remapped(*fields: dict[str, str]) -> SyncConfig:
    document = CONFIG.model_dump(mode="json", by_alias=True)
    return SyncConfig.model_validate(document | {"fields": list(fields)})


DATE = remapped({"from": "first", "to": "first_name", "type": "date"})
REMOVED = remapped({"from": "born", "to": "birthdate", "type": "date"})


@pytest.fixture
def approved(ledger: Ledger) -> Ledger:
    """A ledger with a diff set that a person approved."""
    summary = FakeSummary("one", noon(DAY), mapping_hash=CONFIG.mapping_hash)
    register_diff_set(ledger, DAY, summary, SNAPSHOTS)
    approve(ledger, "one", "looked at every change")
    return ledger


@pytest.mark.parametrize("today", [DATE, REMOVED])
@pytest.mark.parametrize("lane", ["persons", "crm", "invites", "deletes"])
def test_values_of_another_mapping_are_refused_whatever_was_approved_or_forced(
    approved: Ledger, today: SyncConfig, lane: Lane
) -> None:
    assert may_deliver(approved, "one", lane, mapping_hash=CONFIG.mapping_hash).allowed
    verdict = may_deliver(
        approved, "one", lane, mapping_hash=today.mapping_hash, force_reason="why not"
    )
    assert verdict.status == "refused"
    assert verdict.reasons == (
        f"the diff set of {DAY} was made under another mapping of sync.yaml",
    )
    assert verdict.cure == f"reconcile the day {DAY} again"


@pytest.mark.parametrize("today", [DATE, REMOVED])
def test_opt_outs_are_planned_and_leave_all_the_same(
    approved: Ledger, today: SyncConfig, tmp_path: Path
) -> None:
    write_diff_set(
        tmp_path,
        persons=[update("C1", change("first_name", "Ada"))],
        subscriptions=[opt_out("C1"), opt_out("C2", side="crm")],
    )
    foreseen = preview("one", tmp_path, today, approved)
    planned = plan("one", tmp_path, today, approved)
    assert foreseen.operations == planned.operations
    assert planned.operations["opt_outs/api/opt_out"] == 1
    assert planned.operations["opt_outs/crm/crm_opt_out"] == 1
    assert may_deliver(approved, "one", "opt_outs", mapping_hash=today.mapping_hash).allowed


@pytest.mark.parametrize("other", list(OTHERS))
@pytest.mark.parametrize(
    "deliver", [delivering.import_persons, delivering.push_persons, delivering.deliver_invites]
)
def test_every_road_of_values_tells_the_day_and_the_cure(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    other: str,
    deliver: Callable[[Project, str, Options], Delivered],
) -> None:
    contact = {"id": "C1", "phone": "+13125550142", "name": "Ada"}
    with landed_project(tmp_path, monkeypatch) as project:
        made = reconciled(project, DAY, [contact], [])
        delivering.approve(project, made.diff_set, "looked at every change")
    text = SYNC.replace(NAME, OTHERS[other])
    (tmp_path / "sync.yaml").write_text(text, encoding="utf-8")
    with open_project(project.settings) as changed:
        told = rf"refused: .* of {DAY} was made under another mapping .*; reconcile the day {DAY}"
        with pytest.raises(NotReleasedError, match=told):
            deliver(changed, DAY, Options(dry_run=False))
        assert changed.ledger.plan(made.diff_set) is None
