"""What tests of sensors share: callbacks that wait in the inbox, and a tick of a sensor."""

from typing import Any

import dagster as dg
from dagster._core.definitions.sensor_definition import SensorExecutionData

from vibes_pipelines.callbacks.intake import posted, read_arrival
from vibes_pipelines.orchestration.build import build_defs
from vibes_pipelines.orchestration.resources import ProjectResource
from vibes_pipelines.store.inbox import Inbox
from vibes_pipelines_tests.support.callbacks import as_bytes


def receive(ledger_url: str, *bodies: dict[str, Any]) -> None:
    """Stores these callbacks as the receiver does."""
    with Inbox(ledger_url) as inbox:
        inbox.store([read_arrival(posted("127.0.0.1", "/callbacks", as_bytes(b))) for b in bodies])


def tick_of(
    sensor: dg.SensorDefinition, instance: dg.DagsterInstance, cursor: str | None = None
) -> SensorExecutionData:
    """One tick in the project that the environment leads to."""
    context = dg.build_sensor_context(
        instance=instance,
        cursor=cursor,
        definitions=build_defs(),
        resources={"project": ProjectResource()},
    )
    return sensor.evaluate_tick(context)
