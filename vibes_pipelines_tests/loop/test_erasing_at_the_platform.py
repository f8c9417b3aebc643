"""Erasing a person at the platform: by API and by a privacy request, over the real protocols."""

from pathlib import Path

import pytest

from vibes_pipelines.sandbox.population import build_world
from vibes_pipelines.stages import erasing_platform
from vibes_pipelines.stages.erasing import erase
from vibes_pipelines.stages.erasing_subject import ErasureError
from vibes_pipelines.stages.slices import reconcile_slice
from vibes_pipelines_tests.stages.test_erasing import readable
from vibes_pipelines_tests.support.loop import agreed_keys, edited_sync_config, running_loop


def test_the_platform_forgets_by_both_roads_and_the_loop_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request that is not answered in time leaves the erasure open; the same command ends it."""
    config = edited_sync_config(tmp_path, ("erasure: api", "erasure: both"))
    world = build_world(60, seed=9)
    by_file = agreed_keys(world)[0]
    with running_loop(tmp_path, world, config) as loop:
        loop.day(approve=True)
        platform = loop.sandbox.platform
        person = platform.find(external_person_id=by_file)
        assert person is not None
        words = [by_file, person.person_key, str(person.mdn)[2:]]
        with monkeypatch.context() as patch:
            patch.setattr(erasing_platform, "STATUS_WAIT_S", -1.0)
            patch.setattr(erasing_platform, "OUT_DIR", "/files/reports")
            with pytest.raises(ErasureError, match="run the same erase again later"):
                erase(loop.project, by_file, "asked for", "ann")
        assert readable(loop.project.settings.home, words)
        done = erase(loop.project, by_file, "asked for", "ann")
        assert done.platform["api accepted"] == 1
        assert sum(n for word, n in done.platform.items() if word.startswith("file ")) == 1
        assert platform.find(mdn=str(person.mdn)) is None
        assert platform.find(external_person_id=by_file) is None
        assert readable(loop.project.settings.home, words) == {}
        loop.edit_contacts("first_name = 'Zoe'", [by_file])
        between_days = reconcile_slice(loop.project, [by_file], "between two days")
        assert (between_days.persons, between_days.opt_outs, between_days.crm) == ((), (), ())
        loop.sandbox.next_day(edits=False)
        summary = loop.reconcile()
        assert summary.contacts == len(world.contacts)
        assert summary.quarantine_kinds["erased"] >= 1
        assert readable(loop.project.settings.home, words) == {}
