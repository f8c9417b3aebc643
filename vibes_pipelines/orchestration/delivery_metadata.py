"""What a delivery shows in the UI: its plan, what was sent, and how it stands in the ledger.

Counts, reasons and rates; nothing that names a person.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

import dagster as dg

from vibes_pipelines import stages
from vibes_pipelines.orchestration.days import Days
from vibes_pipelines.orchestration.lineage import delivery_lineage, lineage_metadata, schema_of
from vibes_pipelines.orchestration.metadata import Metadata, as_markdown


def plan_metadata(planned: "Days[stages.planning.Planned]") -> Metadata:
    """What goes which way, day by day, why, how long it should take, and whether it may go out."""
    days = planned.made.items()
    going = [
        (day, name, rows, plan.left.get(name, 0))
        for day, plan in days
        for name, rows in plan.counts.items()
    ]
    columns = ["day", "what by which road", "operations", "still to be sent"]
    return {
        "operations": sum(rows for _, _, rows, _ in going),
        "still_to_be_sent": sum(left for *_, left in going),
        "estimated_s": round(sum(plan.estimated_s for _, plan in days), 1),
        "plan": _table(columns, going),
        "diff_set": _of_days({day: plan.diff_set for day, plan in days}),
        "release": _of_days({day: plan.release for day, plan in days}),
        "why": _of_days({day: plan.why for day, plan in days}),
        **({"missing": _of_days(planned.missing)} if planned.missing else {}),
    }


def sent_metadata(
    delivered: "stages.delivering.Delivered", options: "stages.delivering.Options"
) -> Metadata:
    """What a delivery did, or would do: counts, rates, and what was rejected."""
    forced = {"forced": dg.MetadataValue.text(options.force_reason)} if options.force_reason else {}
    return {
        "dry_run": delivered.dry_run,
        **forced,
        **delivered.counts,
        **_times(delivered),
        "why": dg.MetadataValue.text(delivered.why),
        "rejected_by_class": _table(["error class", "rows", "what to do"], delivered.rejections),
    }


def stands_metadata(
    project: "stages.project.Project", diff_set: str, roads: Sequence[str]
) -> Metadata:
    """What the ledger knows of the operations; a dry run of a delivered day shows it too."""
    counts = Counter[str]()
    for (lane, route, status), rows in project.ledger.status_counts(diff_set).items():
        if f"{lane}/{route}" in roads:
            counts[status] += rows
    return {
        "diff_set": dg.MetadataValue.text(diff_set),
        "accepted": counts["accepted"],
        "rejected": counts["rejected"],
        "ledger": _table(["status", "rows"], sorted(counts.items())),
    }


def columns_metadata(project: "stages.project.Project", key: dg.AssetKey) -> Metadata:
    """The columns that leave, and what each is made from."""
    sources = delivery_lineage(project.config).get(key)
    if sources is None:
        return {}
    return lineage_metadata(schema_of(sources), sources)


def _times(delivered: "stages.delivering.Delivered") -> Metadata:
    """What it was thought to take, what it took, and how far it was when."""
    if delivered.actual_s <= 0:
        return {}
    steps = [(s.rows, f"{s.seconds:.1f}", f"{s.rows_per_s:.0f}") for s in delivered.progress]
    return {
        "estimated_s": round(delivered.estimated_s, 1),
        "actual_s": round(delivered.actual_s, 1),
        "progress": _table(["answered", "after s", "per s"], steps),
    }


def _of_days(said: Mapping[str, str]) -> dg.MarkdownMetadataValue | dg.TextMetadataValue:
    """What is said of each day; of one day alone it needs no table."""
    if len(said) == 1:
        return dg.MetadataValue.text(*said.values())
    return _table(["day", "said of it"], sorted(said.items()))


def _table(columns: list[str], rows: Sequence[tuple[object, ...]]) -> dg.MarkdownMetadataValue:
    return dg.MetadataValue.md(as_markdown(columns, rows))
