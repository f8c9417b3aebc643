"""An opt-out heard by callback: what ends it without an effect, and what must not hold it up."""

from contextlib import closing
from typing import Any

import pytest
import sqlalchemy as sa

from vibes_pipelines.callbacks.intake import posted, read_arrival
from vibes_pipelines.crm.database import CrmError
from vibes_pipelines.stages.inbox import drain
from vibes_pipelines.stages.parked import drop_parked, list_parked
from vibes_pipelines.stages.project import Project
from vibes_pipelines.store.inbox import Inbox
from vibes_pipelines.sync_config.realtime import Callbacks
from vibes_pipelines_tests.stages.test_opt_out_clock import project  # noqa: F401  (a fixture)
from vibes_pipelines_tests.support.callbacks import ADDED, REMOVED, as_bytes, subscription_body

WHO = {"external_person_id": "C1", "person_key": "k1"}
OPT_OUT = subscription_body(REMOVED, "E1", "2026-01-02T00:00:00Z", **WHO)


def receive(project: Project, body: dict[str, Any]) -> None:  # noqa: F811
    with closing(Inbox(project.settings.ledger_url)) as inbox:
        inbox.store([read_arrival(posted("127.0.0.1", "/callbacks", as_bytes(body)))])


def is_opted_out(project: Project) -> bool:  # noqa: F811
    engine = sa.create_engine(project.settings.crm_url)
    with engine.begin() as connection:
        [row] = connection.exec_driver_sql("SELECT * FROM contacts").fetchall()
    engine.dispose()
    return bool(row[1] == "false")


def test_an_opt_in_that_a_person_dropped_ends_no_opt_out(project: Project) -> None:  # noqa: F811
    other_list = subscription_body(ADDED, "E0", "2025-12-01T00:00:00Z", list_id="9", **WHO)
    receive(project, other_list)
    receive(project, subscription_body(ADDED, "E0", "2026-01-05T00:00:00Z", **WHO))  # a conflict
    [parked] = list_parked(project)
    drop_parked(project, [parked.id], "forged")
    receive(project, OPT_OUT)
    drain(project, dry_run=False)
    assert is_opted_out(project)


def test_an_opt_in_at_another_company_ends_no_opt_out(project: Project) -> None:  # noqa: F811
    other = subscription_body(ADDED, "E0", "2026-01-05T00:00:00Z", **WHO)
    listed = other["subscription"]["subscription_list"]
    listed["url"] = "/companies/ZZZZZZ/mobiledb/subscription_lists/1234"
    receive(project, other)
    receive(project, OPT_OUT)
    drain(project, dry_run=False)
    assert is_opted_out(project)


def test_an_opt_out_does_not_wait_for_the_table_of_facts(project: Project) -> None:  # noqa: F811
    wrong = Callbacks(url="https://x.example/callbacks", facts_table="no_such")
    object.__setattr__(project.config, "callbacks", wrong)
    receive(project, OPT_OUT)
    with pytest.raises(CrmError, match="no_such"):
        drain(project, dry_run=False)
    assert is_opted_out(project)


def test_a_fact_that_its_table_refuses_is_parked_alone(project: Project) -> None:  # noqa: F811
    noted = Callbacks(url="https://x.example/callbacks", facts_table="facts")
    object.__setattr__(project.config, "callbacks", noted)
    engine = sa.create_engine(project.settings.crm_url)
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE TABLE facts (contact_id TEXT, kind TEXT,"
            " subject TEXT CHECK (length(subject) < 9), state TEXT, changed_at TEXT)"
        )
    engine.dispose()
    for number, device in enumerate(("d1", "too long", "d2")):
        event = {"callback_type": "device_added", "event_id": f"D{number}"}
        pushed = {"app_id": "APP1", "vibes_device_id": device}
        receive(project, event | {"person": WHO, "push_device": pushed})
    receive(project, OPT_OUT)
    assert drain(project, dry_run=False).reasons == {
        "noted": 2,
        "opted_out": 1,
        "refused_by_crm": 1,
    }
    [parked] = list_parked(project)
    assert parked.reason == "refused_by_crm"
    assert is_opted_out(project)
