"""The numbers of a day under stable names, and their plots: what the UI draws over partitions.

Plain numbers make Dagster's own plots; the drawings show thirty days beside each other.
"""

import base64
import os
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg

from vibes_pipelines import report, stages
from vibes_pipelines.orchestration.metadata import Metadata, content_hash, share
from vibes_pipelines.reconcile.summary import Summary

REPORT_URL = "VIBES_REPORT_URL"
"""The address under which the folder of reports is served, if it is."""


def page_metadata(
    project: "stages.project.Project", day: str, page: Path, began: float
) -> Metadata:
    """What a report asset shows of one day: its numbers, thirty days of plots, where it is."""
    return {
        **page_link(page.stem),
        **day_numbers(project, day),
        **made_of(project, day, began),
        **content_hash(page),
        "trends": dg.MetadataValue.md("\n\n".join(_drawings(project, day))),
    }


def page_link(day: str) -> Metadata:
    """The address of the day's page, where the folder of reports is served; else nothing."""
    served = os.environ.get(REPORT_URL, "").rstrip("/")
    return {"link": dg.MetadataValue.url(f"{served}/{day}.html")} if served else {}


def day_numbers(project: "stages.project.Project", day: str) -> Metadata:
    """The numbers of the trends that the day has, by the names of `trends.NAMES`."""
    return dict(report.trends.trend(project, day, days=1)[0].known)


def made_of(project: "stages.project.Project", day: str, began: float) -> Metadata:
    """Under which configuration a partition was made, how long it took, and its day's page.

    `began` is of `time.monotonic()`.
    """
    return {
        "seconds": round(time.monotonic() - began, 3),
        "config_version": dg.MetadataValue.text(str(project.config.version)),
        "config_hash": dg.MetadataValue.text(project.config.config_hash),
        "mapping_hash": dg.MetadataValue.text(project.config.mapping_hash),
        "report": dg.MetadataValue.path(
            str(report.day_page.report_folder(project) / f"{day}.html")
        ),
    }


def diff_numbers(key: dg.AssetKey, summary: Summary) -> Metadata:
    """The counts and rates of one file of a diff set, and the hash of its content."""
    name = key.path[-1]
    counts: dict[str, Metadata] = {
        "person_changes": {
            "added": summary.added,
            "updated": summary.updated,
            "clears": summary.clears,
            "changed_share": share(summary.added + summary.updated, summary.contacts),
        },
        "subscription_changes": {
            "opt_outs_to_platform": summary.opt_outs_to_platform,
            "opt_outs_to_crm": summary.opt_outs_to_crm,
            "invites": summary.invites,
        },
        "crm_changes": {"changes": summary.crm_changes},
        "quarantine": {
            "contacts": summary.quarantined,
            "persons": summary.quarantined_persons,
            "quarantined_share": share(summary.quarantined, summary.contacts),
        },
    }
    content = summary.content_hashes.get(f"{name}.parquet", "")
    return {**counts[name], "content_hash": dg.MetadataValue.text(content)}


def _drawings(project: "stages.project.Project", day: str) -> Iterator[str]:
    for one in report.trends.series(report.trends.trend(project, day)):
        drawing = report.day_plots.bars(one, stands_alone=True)
        picture = base64.b64encode(drawing.encode()).decode()
        yield f"**{one.name}**: {one.unit}\n\n![{one.name}](data:image/svg+xml;base64,{picture})"
