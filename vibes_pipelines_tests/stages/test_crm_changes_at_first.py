"""Changes of the CRM before anything may be carried: the first approval, and where to look."""

from contextlib import closing
from pathlib import Path

import pytest

from vibes_pipelines.sandbox.population import build_world
from vibes_pipelines.stages.changes import carry_changes, changes_waiting
from vibes_pipelines.store.realtime import RealtimeBook
from vibes_pipelines.sync_config import SyncConfigError, load_sync_config
from vibes_pipelines_tests.support.loop import edited_sync_config, running_loop
from vibes_pipelines_tests.support.realtime import CHANGES


def test_nothing_leaves_before_the_first_diff_set_was_approved_and_delivered(
    tmp_path: Path,
) -> None:
    changes = ("  when_unmatched: keep", CHANGES + "  when_unmatched: keep")
    config = edited_sync_config(tmp_path, changes)
    with running_loop(tmp_path, build_world(20, seed=1), config) as loop:
        assert changes_waiting(loop.project) is None
        loop.reconcile()
        carried = carry_changes(loop.project, dry_run=False)
        assert carried.why == ("first run: no diff set was approved and delivered yet",)
        with closing(RealtimeBook(loop.project.settings.ledger_url)) as book:
            assert book.size() == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ("  changes: {by: updated_at}\n", "by: updated_at needs column"),
        ("  changes: {by: outbox}\n", "by: outbox needs table"),
    ],
)
def test_a_way_without_its_place_is_refused(tmp_path: Path, changes: str, message: str) -> None:
    edit = ("  when_unmatched: keep", changes + "  when_unmatched: keep")
    with pytest.raises(SyncConfigError, match=message):
        load_sync_config(edited_sync_config(tmp_path, edit))
