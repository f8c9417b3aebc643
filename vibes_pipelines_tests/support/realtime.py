"""Real time for tests: a loop on its second morning, a receiver, registrations, two sensors."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg

from vibes_pipelines.orchestration.build import build_defs
from vibes_pipelines.orchestration.resources import ProjectResource
from vibes_pipelines.orchestration.sensors import callback_inbox_sensor, crm_change_sensor
from vibes_pipelines.sandbox.platform_records import Person
from vibes_pipelines.sandbox.world import World
from vibes_pipelines.stages.project import Project
from vibes_pipelines.stages.registrations import apply_registrations
from vibes_pipelines.stages.signup import open_signup
from vibes_pipelines.store.inbox import Inbox
from vibes_pipelines_tests.support.callbacks import (
    RunningReceiver,
    running_receiver,
    stored_rows,
)
from vibes_pipelines_tests.support.loop import Loop, edited_sync_config, running_loop

LIST = "1234"
FACTS = """
CREATE TABLE vibes_facts (contact_id TEXT, kind TEXT, subject TEXT, state TEXT, changed_at TEXT)"""
SECTION = """
callbacks:
  url: {url}
  campaigns: ["777"]
  apps: [APP1]
  wallet_tokens: [r3zhm8]
  source_codes: ["12345"]
  events: [person_added, person_updated]
  facts_table: vibes_facts
"""
SIGNUP = """
signup:
  campaign: "777"
  list: "1234"
  fields:
    - {from: name, to: first_name, type: string}
"""
CHANGES = "  changes: {by: updated_at, column: updated_at, overlap_s: 60, max_batch: 5}\n"
PATIENCE_S = 60

Sensor = dg.SensorDefinition


@dataclass
class RealTime:
    """Both sides agree, the platform knows where to send its callbacks, and changes are read."""

    loop: Loop
    served: RunningReceiver
    now: datetime = field(default_factory=lambda: datetime(2026, 6, 1, tzinfo=UTC))

    @property
    def project(self) -> Project:
        return self.loop.project

    def rows(self, kind: str | None = None) -> list[dict[str, Any]]:
        found = stored_rows(self.project.settings.ledger_url)
        return [row for row in found if kind in {None, row["event_type"]}]

    @contextmanager
    def hearing(self, kind: str, count: int = 1) -> Iterator[None]:
        """Waits until what happens inside has brought so many callbacks of a kind."""
        before = len(self.rows(kind))
        yield
        deadline = time.monotonic() + PATIENCE_S
        while len(self.rows(kind)) < before + count:
            assert time.monotonic() < deadline, (kind, self.loop.sandbox.audit())
            time.sleep(0.02)

    def crm(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """One statement of a user of the CRM."""
        with self.loop.sandbox.crm.edit() as editor:
            return [tuple(row) for row in editor.connection.execute(statement, values).fetchall()]

    def edit(self, key: str, **values: Any) -> None:
        """A user of the CRM changes a contact; its time of change moves on."""
        self.now += timedelta(minutes=10)
        values |= {"updated_at": f"{self.now:%Y-%m-%d %H:%M:%S}"}
        assignments = ", ".join(f"{name} = ?" for name in values)
        self.crm(f"UPDATE contacts SET {assignments} WHERE contact_id = ?", *values.values(), key)

    def enter(self, key: str, **values: Any) -> None:
        """A user of the CRM enters a contact."""
        self.crm("INSERT INTO contacts (contact_id, customer_type) VALUES (?, 'A')", key)
        self.edit(key, **values)

    def contact(self, key: str, *columns: str) -> tuple[Any, ...]:
        names = ", ".join(columns)
        [row] = self.crm(f"SELECT {names} FROM contacts WHERE contact_id = ?", key)
        return row

    def facts(self, key: str) -> set[tuple[str, str, str]]:
        query = "SELECT kind, subject, state FROM vibes_facts WHERE contact_id = ?"
        return set(self.crm(query, key))

    def person(self, key: str) -> Person:
        found = self.loop.sandbox.platform.find(external_person_id=key)
        assert found is not None, key
        return found

    def drain(self) -> None:
        """A tick of the sensor of the inbox, and the run that it asks for."""
        tick_and_run(callback_inbox_sensor, "callback_inbox")

    def carry(self) -> None:
        """A tick of the sensor of the CRM, and the run that it asks for."""
        tick_and_run(crm_change_sensor, "crm_changes")


def tick(sensor: Sensor, instance: dg.DagsterInstance, definitions: dg.Definitions) -> Any:
    context = dg.build_sensor_context(
        instance=instance, definitions=definitions, resources={"project": ProjectResource()}
    )
    return sensor.evaluate_tick(context)


def tick_and_run(sensor: Sensor, job: str) -> None:
    """One tick, the run that it asks for, and a second tick that finds nothing left."""
    with dg.DagsterInstance.ephemeral() as instance:
        run_asked_for(sensor, job, instance)
        assert tick(sensor, instance, build_defs()).skip_message


def run_asked_for(sensor: Sensor, job: str, instance: dg.DagsterInstance) -> None:
    """One tick, and the run that it asks for, in an instance that may know of other runs."""
    definitions = build_defs()
    ticked = tick(sensor, instance, definitions)
    assert ticked.run_requests, ticked.skip_message
    config = json.loads(json.dumps(ticked.run_requests[0].run_config))
    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    result = definitions.resolve_job_def(job).execute_in_process(
        instance=instance, run_config=config | quiet
    )
    assert result.success


@contextmanager
def running_real_time(
    home: Path, world: World, *edits: tuple[str, str], section: str = SECTION
) -> Iterator[RealTime]:
    """A loop whose both sides agree, with `edits` of the example's sync.yaml.

    The receiver takes web sign-ups too.
    """
    changes = ("  when_unmatched: keep", CHANGES + "  when_unmatched: keep")
    config = edited_sync_config(home, changes, *edits)
    config.write_text(config.read_text(encoding="utf-8") + SIGNUP, encoding="utf-8")
    with running_loop(home, world, config) as loop:
        loop.day(approve=True)
        loop.sandbox.next_day(edits=False)
        loop.day(approve=True)
        with (
            Inbox(loop.project.settings.ledger_url) as inbox,
            running_receiver(inbox, signup=open_signup) as served,
        ):
            url = f"http://127.0.0.1:{served.port}/callbacks"
            listening = home / "listening.yaml"
            listening.write_text(
                config.read_text(encoding="utf-8") + section.format(url=url), encoding="utf-8"
            )
            with loop.changed(VIBES_SYNC_CONFIG=listening) as changed:
                running = RealTime(changed, served)
                running.crm(FACTS)
                assert all(
                    step.outcome == "accepted" for step in apply_registrations(changed.project)
                )
                running.carry()  # changes are seen from here on
                yield running
