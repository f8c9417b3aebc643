"""Jobs: the daily reconciliation, each delivery on its own for an operator, the callback inbox."""

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import (
    UnresolvedAssetJobDefinition,  # what define_asset_job returns; dagster exports no name for it
)

from vibes_pipelines.orchestration.freshness import NEWEST_DAY
from vibes_pipelines.orchestration.keys import (
    API_PUSH,
    CRM_WRITE_BACK,
    EFFECT_TAG,
    GUARD_CHECKS,
    INVITES,
    OPT_OUTS,
    OUTSIDE,
    PERSON_IMPORT,
    REJECTED,
    REPORT,
)
from vibes_pipelines.orchestration.ops import (
    approve_diff_set,
    carry_crm_changes,
    carry_waiting_opt_outs,
    drain_callback_inbox,
    send_new_events,
)
from vibes_pipelines.orchestration.retention import apply_retention

OPT_OUT_TAGS = {
    "vibes/opt_outs": "both_ways",  # one at a time, see dagster.yaml
    "dagster/priority": "10",
    "dagster/max_runtime": "900",  # one that hangs gives way to the next
}

DELIVERIES = (OPT_OUTS, CRM_WRITE_BACK, PERSON_IMPORT, API_PUSH, INVITES)

reconcile_daily = dg.define_asset_job(
    "reconcile_daily",
    selection=dg.AssetSelection.all()
    - dg.AssetSelection.assets(*OUTSIDE.values())
    - dg.AssetSelection.groups("apsis", "outside")
    - dg.AssetSelection.checks(NEWEST_DAY),
    description="Land both sides, certify yesterday, reconcile, deliver. Dry run unless told.",
    tags=EFFECT_TAG,
)


def _delivery_job(
    name: str,
    keys: tuple[dg.AssetKey, ...],
    description: str,
    checks: tuple[dg.AssetCheckKey, ...] = (),
    config: dg.RunConfig | None = None,
) -> UnresolvedAssetJobDefinition:
    return dg.define_asset_job(
        name,
        selection=dg.AssetSelection.assets(*keys, REJECTED, REPORT).without_checks()
        | dg.AssetSelection.checks(*checks),
        description=description,
        config=config,
        tags=EFFECT_TAG,
    )


person_import = _delivery_job(
    "person_import", (PERSON_IMPORT,), "Upload the day's import files and read their reports."
)
api_push = _delivery_job("api_push", (API_PUSH,), "Push the day's changes that go by API.")
crm_write_back = _delivery_job(
    "crm_write_back", (CRM_WRITE_BACK,), "Write the platform's opt-outs and fields to the CRM."
)
repush = _delivery_job(
    "repush",
    DELIVERIES,
    "Deliver the newest diff set again: what is open is sent, nothing twice.",
    GUARD_CHECKS,
)

READ_REPORTS = dg.RunConfig(ops={"__".join(REJECTED.path): {"config": {"read_reports": True}}})
import_reports = _delivery_job(
    "import_reports",
    (),
    "Read the reports that import files of any day await; nothing is planned or sent.",
    config=READ_REPORTS,
)


@dg.job(
    description="Act on the callbacks that wait, opt-outs first. Dry run unless told.",
    tags=EFFECT_TAG,
)
def callback_inbox() -> None:
    """One op; it belongs to no day."""
    drain_callback_inbox()


@dg.job(
    description="Send what changed in the CRM to Vibes, opt-outs first. Dry run unless told.",
    tags=EFFECT_TAG,
)
def crm_changes() -> None:
    """One op; it belongs to no day."""
    carry_crm_changes()


@dg.job(
    description="Carry opt-outs both ways, beside any other job. Dry run unless told.",
    tags=OPT_OUT_TAGS,
)
def opt_outs() -> None:
    """One op; it belongs to no day, and is no delivery: no delivery holds it up."""
    carry_waiting_opt_outs()


@dg.job(
    description="Send the CRM's new events to the platform. Dry run unless told.",
    tags=EFFECT_TAG,
)
def send_events() -> None:
    """One op; it belongs to no day."""
    send_new_events()


@dg.job(
    description="Release the newest diff set, which a guard holds, with a reason.",
    tags=EFFECT_TAG,
)
def approve() -> None:
    """One op; the ledger keeps the reason."""
    approve_diff_set()


JOBS: list[UnresolvedAssetJobDefinition | dg.JobDefinition] = [
    reconcile_daily,
    person_import,
    api_push,
    crm_write_back,
    repush,
    import_reports,
    approve,
    callback_inbox,
    crm_changes,
    opt_outs,
    send_events,
    apply_retention,
]


def delivery_run_config(
    *, dry_run: bool, deliveries: tuple[dg.AssetKey, ...] = DELIVERIES
) -> dg.RunConfig:
    """The run config that says whether the deliveries of a job have effects."""
    ops = {"__".join(key.path): {"config": {"dry_run": dry_run}} for key in deliveries}
    return dg.RunConfig(ops=ops)


def op_run_config(op: dg.OpDefinition, *, dry_run: bool) -> dg.RunConfig:
    """The run config that says whether the one op of a job has effects."""
    return dg.RunConfig(ops={op.name: {"config": {"dry_run": dry_run}}})
