"""Canary people through every job of Dagster, every sensor and the alerts: nobody is seen."""

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from vibes_pipelines.callbacks.intake import posted, read_arrival
from vibes_pipelines.orchestration.build import build_defs
from vibes_pipelines.orchestration.jobs import DELIVERIES, READ_REPORTS, import_reports
from vibes_pipelines.orchestration.resources import ProjectResource
from vibes_pipelines.orchestration.tribe import ApsisResource
from vibes_pipelines.sandbox.population import build_world
from vibes_pipelines.stages.reconciling import read_summary
from vibes_pipelines.store.inbox import Inbox
from vibes_pipelines_tests.privacy.canaries import (
    JOBS_AS_COMMANDS,
    TRIBE_COMMANDS,
    VIBES_JOBS,
    Watch,
)
from vibes_pipelines_tests.privacy.test_canary_people import (
    CANARY_WORDS,
    SECTIONS,
    learn,
    note_events,
    spoil,
    wrong,
)
from vibes_pipelines_tests.support.callbacks import REMOVED, as_bytes, subscription_body
from vibes_pipelines_tests.support.loop import Loop, edited_sync_config, running_loop
from vibes_pipelines_tests.support.realtime import CHANGES

PEOPLE = 60
DELIVERY_OPS = {"__".join(key.path) for key in DELIVERIES}
OF_REAL_TIME = ("callback_inbox", "crm_changes", "opt_outs", "send_events")
OF_ONE_DELIVERY = ("person_import", "api_push", "crm_write_back", "import_reports")
AT_THE_END = ("apply_retention", "look_for_newest_day", "look_for_late_opt_outs")


def test_every_job_meets_the_canaries_or_its_command_does() -> None:
    named = {job.name for job in build_defs().resolve_all_job_defs()} - {"__ASSET_JOB"}
    assert named == VIBES_JOBS | set(JOBS_AS_COMMANDS)
    assert set(JOBS_AS_COMMANDS.values()) <= TRIBE_COMMANDS


@dataclass
class Installation:
    """Dagster over the canaries, as its daemon and people use it."""

    watch: Watch
    loop: Loop
    instance: dg.DagsterInstance
    definitions: dg.Definitions = field(default_factory=build_defs)
    cursors: dict[str, str | None] = field(default_factory=dict)
    asked: set[str] = field(default_factory=set)

    def run(self, name: str, **config: str) -> bool:
        """One run with effects, and a tick of every sensor after it."""
        job = self.definitions.resolve_job_def(name)
        is_of_a_day = job.partitions_def is not None
        effects: dict[str, Any] = config or {"dry_run": False}
        ops = {
            node.name: {"config": effects}
            for node in job.nodes
            if node.name in DELIVERY_OPS or not (is_of_a_day or name.startswith("look_for_"))
        }
        if name == import_reports.name:
            ops = READ_REPORTS.to_config_dict()["ops"]
        quiet = {"console": {"config": {"log_level": "CRITICAL"}}}
        result = job.execute_in_process(
            instance=self.instance,
            partition_key=self.loop.today if is_of_a_day else None,
            run_config={"ops": ops, "loggers": quiet},
            raise_on_error=False,
        )
        self.watch.ran.add(name)
        note_events(self.watch, self.instance, result.run_id, name)
        self.tick()
        return bool(result.success)

    def tick(self) -> None:
        """Every sensor of the code location is asked once."""
        for sensor in self.definitions.sensors or ():
            assert isinstance(sensor, dg.SensorDefinition)
            context = dg.build_sensor_context(
                instance=self.instance,
                cursor=self.cursors.get(sensor.name),
                definitions=self.definitions,
                resources={"project": ProjectResource(), "apsis": ApsisResource()},
            )
            ticked = sensor.evaluate_tick(context)
            self.cursors[sensor.name] = ticked.cursor
            requests = ticked.run_requests or []
            self.asked |= {sensor.name for _ in requests}
            told = [ticked.skip_message, ticked.cursor, ticked.log_key]
            told += [[one.run_key, one.tags, one.run_config] for one in requests]
            self.watch.note(f"tick of {sensor.name}", json.dumps(told, default=str))


@contextmanager
def installation(home: Path, watch: Watch) -> Iterator[Installation]:
    """With alerts to a file; changes of the CRM are looked at."""
    changes = ("  when_unmatched: keep", CHANGES + "  when_unmatched: keep")
    config = edited_sync_config(home, changes)
    config.write_text(config.read_text("utf-8") + SECTIONS, "utf-8")
    with (
        running_loop(home, build_world(PEOPLE, seed=5), config) as loop,
        loop.changed(VIBES_ALERT_FILE=home / "alerts.jsonl") as told,
        dg.instance_for_test() as instance,
    ):
        yield Installation(watch, told, instance)
        watch.note_files(Path(instance.root_directory))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_no_value_of_a_canary_is_seen_by_whoever_watches_dagster(tmp_path: Path) -> None:
    """Through failures and holds, two days, and real time."""
    watch = Watch(set(CANARY_WORDS))
    with installation(tmp_path, watch) as dagster:
        loop = dagster.loop
        spoil(loop, PEOPLE)
        learn(watch, loop)
        dagster.tick()
        with wrong("SNOWFLAKE_PASSWORD"):
            assert not dagster.run("reconcile_daily")
        assert not dagster.run("reconcile_daily")  # held: nobody approved it
        held = read_summary(loop.project, loop.today).diff_set
        assert dagster.run("approve", diff_set=held, reason="looked at")
        with wrong("VIBES_API_PASSWORD"):
            assert not dagster.run("repush")
        assert dagster.run("repush")
        loop.sandbox.next_day()
        learn(watch, loop)
        dagster.run("reconcile_daily")
        people_do_something(loop)
        dagster.tick()
        with wrong("VIBES_API_PASSWORD"):
            for name in OF_REAL_TIME:
                dagster.run(name)
        for name in (*OF_REAL_TIME, *OF_ONE_DELIVERY, *AT_THE_END):
            dagster.run(name)
        learn(watch, loop)
        watch.note_files(tmp_path / "data")
        alerts = (tmp_path / "alerts.jsonl").read_text("utf-8")
        watch.note("alerts", alerts)
    assert watch.leaks() == {}
    assert len(watch.values) > PEOPLE * 3
    assert watch.ran == VIBES_JOBS
    assert dagster.asked >= {"callback_inbox_sensor", "crm_change_sensor", "diff_set_sensor"}
    assert {"failed", "resolved"} <= {json.loads(line)["event"] for line in alerts.splitlines()}


def people_do_something(loop: Loop) -> None:
    """A contact changes its name, one opts out in the CRM, another at the platform."""
    first, second, third = (str(row["contact_id"]) for row in loop.sandbox.crm.rows()[10:13])
    now = "updated_at = '2026-06-01 10:00:00'"
    loop.edit_contacts(f"first_name = 'Zqcanary-new', {now}", [first])
    loop.edit_contacts(f"sms_opt_in = 'false', sms_opt_in_at = '2026-06-01', {now}", [second])
    body = subscription_body(REMOVED, "e9", "2026-01-02T10:00:00Z", external_person_id=third)
    with closing(Inbox(loop.project.settings.ledger_url)) as inbox:
        inbox.store([read_arrival(posted("127.0.0.1", "/callbacks", as_bytes(body)))])
