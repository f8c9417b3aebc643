"""An opt-out by text message: the platform posts it, a drain tells the CRM, nothing is left."""

import http.client
import json
import time
from base64 import b64encode
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pytest

from vibes_pipelines.orchestration.build import build_defs
from vibes_pipelines.orchestration.resources import ProjectResource
from vibes_pipelines.orchestration.sensors import callback_inbox_sensor
from vibes_pipelines.sandbox.population import build_world
from vibes_pipelines.store.inbox import Inbox
from vibes_pipelines_tests.support.callbacks import (
    ADDED,
    REMOVED,
    RunningReceiver,
    running_receiver,
    stored_rows,
)
from vibes_pipelines_tests.support.loop import Loop, running_loop

LIST = "1234"


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Loop]:
    with running_loop(tmp_path, build_world(150, seed=3)) as running:
        yield running


def contact(loop: Loop, key: str) -> tuple[Any, Any]:
    with loop.sandbox.crm.edit() as editor:
        query = "SELECT sms_opt_in, sms_opt_in_at FROM contacts WHERE contact_id = ?"
        row: tuple[Any, Any] = editor.connection.execute(query, (key,)).fetchone()
    return row


def subscribed_contact(loop: Loop) -> tuple[str, str]:
    """A contact that both sides agree is subscribed: its key, and its person's key."""
    folders = [
        str(snapshot.data)
        for feed in ("share/subscriptions", "share/persons", "crm/contacts")
        if (snapshot := loop.project.snapshots.find(feed, loop.today))
    ]
    with duckdb.connect() as engine:
        found = engine.execute(
            """
            SELECT c.contact_id, p.person_key FROM read_parquet($1) s
            JOIN read_parquet($2) p ON p.person_key = s.person_key
            JOIN read_parquet($3) c ON c.contact_id = p.external_person_id
            WHERE s.subscription_list_id = $4 AND s.opt_out_date IS NULL
              AND lower(CAST(c.sms_opt_in AS VARCHAR)) IN ('true', '1', 'y', 'yes')
              AND (SELECT count(*) FROM read_parquet($1) o WHERE o.person_key = s.person_key) = 1
              AND (SELECT count(*) FROM read_parquet($3) o WHERE o.contact_id = c.contact_id) = 1
            ORDER BY ALL LIMIT 1""",
            [*folders, LIST],
        ).fetchall()
    [(key, person_key)] = found
    return str(key), str(person_key)


def register(loop: Loop, kind: str, address: str) -> None:
    """The call that docs/callbacks.md says to make by hand."""
    account = loop.project.settings.api
    login = b64encode(f"{account.user}:{account.password.get_secret_value()}".encode()).decode()
    connection = http.client.HTTPConnection(account.url.removeprefix("http://"), timeout=60)
    destination = {"url": address, "method": "POST", "content_type": "application/json"}
    body = {"callback_type": kind, kind: {"list_id": LIST}, "destination": destination}
    headers = {
        "Authorization": f"Basic {login}",
        "X-API-Version": "2",
        "Content-Type": "application/json",
    }
    try:
        path = f"/companies/{loop.project.config.company_key}/config/callbacks/"
        connection.request("POST", path, json.dumps(body), headers)
        answer = connection.getresponse()
        assert answer.status in {200, 201}, answer.read()
    finally:
        connection.close()


def wait_for_callbacks(loop: Loop, served: RunningReceiver, count: int) -> None:
    deadline = time.monotonic() + 60
    while served.receiver.tally.stored < count:
        assert time.monotonic() < deadline, loop.sandbox.audit()
        time.sleep(0.02)


def opt_outs(loop: Loop, key: str) -> list[dict[str, Any]]:
    folder = loop.project.diff_set_folder(loop.today)
    with duckdb.connect() as engine:
        found = engine.execute(
            "SELECT side, action FROM read_parquet(?) WHERE external_person_id = ?",
            [str(folder / "subscription_changes.parquet"), key],
        ).fetchall()
    return [dict(zip(("side", "action"), row, strict=True)) for row in found]


def text_stop(loop: Loop, person_key: str) -> datetime:
    """The person ends the subscription by text message; says when, by the platform's clock."""
    assert loop.sandbox.text("stop", {"person_key": person_key}, LIST)
    entries = loop.sandbox.platform.subscriptions_of(person_key, active_only=False)
    [at] = [entry.opt_out_date for entry in entries if entry.list_id == LIST]
    assert at is not None
    return at


@pytest.fixture
def agreed(loop: Loop) -> Loop:
    """The second morning: both sides were brought into agreement."""
    loop.day(approve=True)
    loop.sandbox.next_day(edits=False)
    loop.day(approve=True)
    return loop


def test_a_stop_reaches_the_crm_within_a_tick_and_the_next_day_has_nothing_to_add(
    agreed: Loop,
) -> None:
    loop, (key, person_key) = agreed, subscribed_contact(agreed)
    ledger_url = loop.project.settings.ledger_url
    with Inbox(ledger_url) as inbox, running_receiver(inbox) as served:
        register(loop, REMOVED, f"http://127.0.0.1:{served.port}/callbacks")
        earlier = {row["id"] for row in stored_rows(ledger_url)}
        at = text_stop(loop, person_key)
        wait_for_callbacks(loop, served, len(earlier) + 1)
    tick_and_run(loop)
    state, changed_at = contact(loop, key)
    assert str(state).lower() in {"false", "0", "n", "no"}
    assert str(changed_at).replace(" ", "T")[:19] == f"{at:%Y-%m-%dT%H:%M:%S}"
    [row] = [row for row in stored_rows(ledger_url) if row["id"] not in earlier]
    assert (row["event_type"], row["status"], row["reason"]) == (REMOVED, "applied", "opted_out")
    assert (row["external_person_id"], row["person_key"]) == (key, person_key)

    loop.sandbox.next_day(edits=False)
    loop.reconcile()
    assert opt_outs(loop, key) == []


@pytest.mark.slow
def test_a_stop_that_a_keyword_took_back_leaves_the_crm_alone(agreed: Loop) -> None:
    loop, (key, person_key) = agreed, subscribed_contact(agreed)
    before = contact(loop, key)
    ledger_url = loop.project.settings.ledger_url
    with Inbox(ledger_url) as inbox, running_receiver(inbox) as served:
        for kind in (REMOVED, ADDED):
            register(loop, kind, f"http://127.0.0.1:{served.port}/callbacks")
        earlier = {row["id"] for row in stored_rows(ledger_url)}
        at = text_stop(loop, person_key)
        # The sandbox's clock stands still between days, and at the same instant the stop would win.
        loop.sandbox.platform.subscribe(person_key, LIST, at + timedelta(minutes=1))
        wait_for_callbacks(loop, served, len(earlier) + 2)
    tick_and_run(loop)
    ends = {
        row["event_type"]: (row["status"], row["reason"])
        for row in stored_rows(ledger_url)
        if row["id"] not in earlier
    }
    assert ends == {
        REMOVED: ("ignored", "superseded"),
        ADDED: ("ignored", "opt_in_not_carried"),
    }
    assert contact(loop, key) == before


@pytest.mark.slow
def test_without_a_callback_the_daily_reconcile_tells_the_crm(agreed: Loop) -> None:
    key, person_key = subscribed_contact(agreed)
    text_stop(agreed, person_key)
    agreed.sandbox.next_day(edits=False)
    agreed.reconcile()
    assert opt_outs(agreed, key) == [{"side": "crm", "action": "opt_out"}]


def tick_and_run(loop: Loop) -> None:
    """One tick of the sensor, and the run that it asks for."""
    with dg.DagsterInstance.ephemeral() as instance:
        definitions = build_defs()
        context = dg.build_sensor_context(
            instance=instance,
            definitions=definitions,
            resources={"project": ProjectResource()},
        )
        [request] = callback_inbox_sensor.evaluate_tick(context).run_requests or []
        config = json.loads(json.dumps(request.run_config))
        quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
        result = definitions.resolve_job_def("callback_inbox").execute_in_process(
            instance=instance, run_config=config | quiet
        )
        assert result.success
        again = callback_inbox_sensor.evaluate_tick(
            dg.build_sensor_context(
                instance=instance,
                definitions=definitions,
                resources={"project": ProjectResource()},
            )
        )
        assert again.skip_message == "no callback waits"
