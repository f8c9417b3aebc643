"""The last look at persons: a field of which real time sent a newer value is not set back."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from vibes_pipelines.settings import Settings
from vibes_pipelines.stages.last_look import SENT_SINCE, LastLook
from vibes_pipelines.stages.project import Project, open_project
from vibes_pipelines.store.inbox import Inbox
from vibes_pipelines.store.realtime import RealtimeBook
from vibes_pipelines.store.records import Change, Operation, Receipt
from vibes_pipelines_tests.support.loop import EXAMPLE, process_environment

PLANNED_AT = datetime(2026, 1, 2, 6, tzinfo=UTC)
NAME = Change("first_name", "set", "Ada", "Eve", "crm_changed")
TIER = Change("tier", "set", None, "gold", "crm_changed")
DAILY = Operation(
    operation_id="daily",
    diff_set="d" * 64,
    day="2026-01-02",
    as_of=PLANNED_AT,
    lane="persons",
    route="api",
    route_reason="by API",
    kind="update",
    external_person_id="C1",
    person_key="k1",
    mdn=None,
    subscription_list_id=None,
    changes=(NAME,),
)
PROMPT = replace(DAILY, operation_id="prompt", as_of=PLANNED_AT + timedelta(minutes=5))


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    environment = {
        "VIBES_HOME": str(tmp_path),
        "VIBES_SYNC_CONFIG": str(EXAMPLE),
        "CRM_URL": f"sqlite:///{tmp_path / 'crm.db'}",
    }
    with process_environment(environment), open_project(Settings(environment)) as opened:
        yield opened


def withdrawn(project: Project, sent: Operation, status: Any, daily: Operation) -> dict[str, str]:
    url = project.settings.ledger_url
    with closing(RealtimeBook(url)) as book, closing(Inbox(url)) as inbox:
        book.plan([sent])
        if status is not None:
            book.mark_sent([sent.operation_id])
            book.record([Receipt(sent.operation_id, status)])
        return dict(LastLook(project, inbox).withdrawn([daily]))


@pytest.mark.parametrize("status", ["accepted", "unknown"])
def test_a_field_that_real_time_sent_since_is_not_set_back(project: Project, status: str) -> None:
    assert withdrawn(project, PROMPT, status, DAILY) == {"daily": SENT_SINCE}


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        pytest.param(PROMPT, None, id="not sent yet"),
        pytest.param(PROMPT, "rejected", id="refused"),
        pytest.param(replace(PROMPT, changes=(TIER,)), "accepted", id="another field"),
        pytest.param(replace(PROMPT, external_person_id="C2"), "accepted", id="another person"),
        pytest.param(replace(PROMPT, as_of=PLANNED_AT), "accepted", id="not later"),
        pytest.param(replace(PROMPT, kind="opt_out"), "accepted", id="an opt-out"),
    ],
)
def test_anything_else_leaves_as_planned(project: Project, sent: Operation, status: Any) -> None:
    assert withdrawn(project, sent, status, DAILY) == {}


def test_an_opt_out_is_never_withdrawn(project: Project) -> None:
    assert withdrawn(project, PROMPT, "accepted", replace(DAILY, kind="opt_out")) == {}
