"""The sensor that has Tribe's messages applied; stopped until a person starts it."""

import time

import dagster as dg

from vibes_pipelines import stages
from vibes_pipelines.orchestration.sensors import InboxCursor
from vibes_pipelines.orchestration.tribe import (
    ApsisResource,
    MessagesConfig,
    apply_tribe_messages,
    tribe_messages,
)
from vibes_pipelines.sync_config import SyncConfigError

MESSAGES_INTERVAL_S = 30


@dg.sensor(
    job=tribe_messages,
    minimum_interval_seconds=MESSAGES_INTERVAL_S,
    description="Applies Tribe's messages while some wait and no full sync runs, with effects.",
)
def tribe_message_sensor(
    context: dg.SensorEvaluationContext, apsis: ApsisResource
) -> dg.SensorResult | dg.SkipReason:
    """Asks once for each newest message, and again, ever more slowly, while it waits."""
    try:
        with apsis.open() as sync:
            waiting = stages.tribe_messages.messages_waiting(sync)
            reason = stages.tribe_messages.why_held(sync)
            if stages.full_sync.is_running(sync):
                reason = "a full sync runs; messages are applied after it"
    except SyncConfigError as not_set:
        return dg.SkipReason(str(not_set))
    if not waiting:
        return dg.SkipReason("no message of Tribe waits")
    if reason:
        return dg.SkipReason(f"{len(waiting)} wait: {reason}")
    newest = waiting[-1].id
    asked, now = InboxCursor.from_cursor(context.cursor), time.time()
    if wait_s := asked.wait_s(newest, now):
        return dg.SkipReason(f"the last drain did not end it; the next is due in {wait_s:.0f} s")
    asked = asked.next_for(newest, now)
    request = dg.RunRequest(
        run_key=asked.run_key("tribe_messages"),
        run_config=dg.RunConfig(ops={apply_tribe_messages.name: MessagesConfig(dry_run=False)}),
    )
    return dg.SensorResult([request], cursor=asked.cursor)
