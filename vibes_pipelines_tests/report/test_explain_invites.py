"""`explain` of an invitation: what asks, why it has not left, and what became of it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from vibes_pipelines.delivery.plan import plan
from vibes_pipelines.report.explain import explain
from vibes_pipelines.settings import Settings
from vibes_pipelines.stages.project import Project, open_project
from vibes_pipelines_tests.report.test_explain_stored import CONTACT, DAYS, STAY, land, only, run
from vibes_pipelines_tests.support.loop import edited_sync_config

LIST = "1234"
NEVER = STAY | {"person_key": "k9"}
YES = CONTACT | {"sms_opt_in": "true"}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    consent = "changed_at: sms_opt_in_at"
    config = edited_sync_config(tmp_path, (consent, f'{consent}, invites: true, campaign: "777"'))
    environment = {"VIBES_HOME": str(tmp_path / "data"), "VIBES_SYNC_CONFIG": str(config)}
    monkeypatch.delenv("VIBES_LEDGER_URL", raising=False)
    with open_project(Settings(environment)) as opened:
        yield opened


def test_an_invitation_that_nobody_sent_says_what_holds_it(project: Project) -> None:
    land(project, DAYS[0], [YES], stays=[NEVER])
    run(project, DAYS[0], accept=False)
    told = [one for one in only(project, "C1", DAYS[0]).unsent if one.kind == "invite"]
    assert [(one.lane, one.subscription_list_id) for one in told] == [("invites", LIST)]
    assert "first run" in told[0].why
    [facts] = explain(project, "C1", day=DAYS[0]).days
    assert any(
        held.startswith("invites: first run") for one in facts.diff_sets for held in one.held
    )


def test_one_that_is_planned_is_an_operation_and_not_told_as_unsent(project: Project) -> None:
    land(project, DAYS[0], [YES], stays=[NEVER])
    diff_set = run(project, DAYS[0], accept=False)
    plan(diff_set, project.diff_set_folder(DAYS[0]), project.config, project.ledger)
    facts = only(project, "C1", DAYS[0])
    assert [one.kind for one in facts.unsent] == []
    assert "invite" in {one.kind for one in facts.operations}
