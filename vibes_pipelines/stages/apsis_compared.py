"""What the comparison behind a delivery to APSIS One knew, for the last look before a write."""

from collections.abc import Collection
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from vibes_pipelines.stages.apsis_known import read_known
from vibes_pipelines.stages.apsis_landing import newest_reads
from vibes_pipelines.stages.apsis_opt_out_times import OPT_OUT
from vibes_pipelines.stages.apsis_sync import ApsisSync
from vibes_pipelines.store.full_syncs import FullSyncs

TAKEN_UP = "taken_up"
"""In the progress of a full sync that was cut, held or cancelled, and goes on since."""


@dataclass(frozen=True)
class ComparedReads:
    """The reads that the newest full sync compared; `lists` are those that sync.yaml maps."""

    reads: Path | None
    lists: frozenset[str]
    is_taken_up: bool

    def knew_opt_outs(self, key: str, lists: Collection[str]) -> bool:
        """Whether a profile's opt-outs of these lists were all read; others are not ours."""
        known = read_known(self.reads, [key]).get(key)
        there = known.consents if known else {}
        read = {name for name, state in there.items() if state["type"] == OPT_OUT}
        return self.lists & set(lists) <= read


def compared_reads(sync: ApsisSync) -> ComparedReads:
    """Those behind the newest full sync."""
    reads = newest_reads(sync)
    with closing(FullSyncs(sync.project.settings.ledger_url)) as book:
        newest = book.newest()
    is_taken_up = bool(newest and newest.progress.get(TAKEN_UP))
    lists = frozenset(consent.list for consent in sync.section.consents)
    return ComparedReads(reads.data if reads else None, lists, is_taken_up)
