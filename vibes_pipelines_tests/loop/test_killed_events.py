"""A command that sends events is killed in the middle; the next one completes it, nothing twice."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from vibes_pipelines.sandbox.population import build_world
from vibes_pipelines.stages.events import event_status, send_crm_events
from vibes_pipelines_tests.support.loop import EXAMPLE, Loop, running_loop

EVENTS = 600
KILL_AFTER = 100
SOURCE = {
    "table": "shop_events",
    "id": "no",
    "type": "kind",
    "contact": "contact",
    "occurred_at": "at",
    "max_per_run": EVENTS,
}


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Loop]:
    sync_config = tmp_path / "sync.yaml"
    section = f"\nevents: {json.dumps(SOURCE)}\n"
    sync_config.write_text(EXAMPLE.read_text(encoding="utf-8") + section, encoding="utf-8")
    with running_loop(tmp_path, build_world(30, seed=3), sync_config) as running:
        at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        rows = [(n, "day_of_delivery", "C-1", at) for n in range(EVENTS)]
        with running.sandbox.crm.edit() as editor:
            editor.connection.execute(
                "CREATE TABLE shop_events (no INTEGER, kind TEXT, contact TEXT, at TEXT)"
            )
            editor.connection.executemany("INSERT INTO shop_events VALUES (?, ?, ?, ?)", rows)
        yield running


@pytest.mark.slow
def test_a_killed_send_is_completed_and_nothing_is_told_twice(loop: Loop) -> None:
    command = [sys.executable, "-m", "vibes_pipelines.cli", "events", "send-new"]
    accepted = loop.sandbox.account.events.accepted
    with subprocess.Popen(command, env={**os.environ, **loop.environment}) as process:
        deadline = time.monotonic() + 120
        while len(accepted) < KILL_AFTER:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
    before = len(accepted)
    assert KILL_AFTER <= before < EVENTS
    run = send_crm_events(loop.project, dry_run=False)
    assert (run.new, run.sent.accepted) == (0, EVENTS)  # none had its receipt yet
    assert len(accepted) == EVENTS
    assert event_status(loop.project)["events"] == {"accepted": EVENTS}
    assert len(loop.sandbox.account.activity.messages) <= EVENTS
