"""What only APSIS One keeps beside landed days and diff sets, and how old it is.

Removing belongs to `retention`; of Vibes' folder nothing is found here.
"""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from vibes_pipelines.stages.apsis_landing import REPLACED
from vibes_pipelines.stages.apsis_merges import MERGES
from vibes_pipelines.stages.project import Project
from vibes_pipelines.store.full_syncs import FullSyncs


def replaced_days(project: Project) -> Path:
    """The folder of what earlier full syncs of a day landed, one folder a day."""
    return project.settings.home / REPLACED


def old_merges(project: Project, before: str) -> Iterator[Path]:
    """The reports of merges of full syncs of days before that one."""
    reports = sorted((project.settings.home / MERGES).glob("*.parquet"))
    if not reports:
        return
    with closing(FullSyncs(project.settings.ledger_url)) as book:
        old = book.ids_before(before)
    yield from (report for report in reports if report.stem in old)
