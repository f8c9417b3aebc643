"""A delivery of thousands by file takes about as long as was estimated, on real SFTP and HTTP."""

from pathlib import Path

import pytest

from vibes_pipelines.delivery.routes import Estimates
from vibes_pipelines.sandbox.population import build_world
from vibes_pipelines.stages import delivering
from vibes_pipelines_tests.support.loop import SEND, agreed_keys
from vibes_pipelines_tests.support.second_morning import running_second_morning

POPULATION = (6_000, 57)  # people and seed
ASSUMED = Estimates()
FACTOR = 1.5
"""What the estimate may be wrong by, where the platform is as fast as is assumed."""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_file_of_thousands_takes_as_long_as_estimated(tmp_path: Path) -> None:
    with running_second_morning(tmp_path, POPULATION) as loop:
        edited = agreed_keys(build_world(*POPULATION))
        loop.edit_contacts("last_name = 'All Of Them'", edited)
        loop.approve(loop.reconcile())
        # The sandbox imports faster than the platform may: its report comes when that one would.
        late = {"on": "reports", "action": "late", "delay_s": len(edited) / ASSUMED.rows_per_s}
        loop.sandbox.set_faults([late])
        by_file = delivering.import_persons(loop.project, loop.today, SEND)
        assert by_file.counts["rows"] == by_file.counts["accepted"] > 5_000
        assert by_file.estimated_s / FACTOR <= by_file.actual_s <= FACTOR * by_file.estimated_s
        by_api_s = by_file.counts["rows"] / ASSUMED.rate_per_s
        assert by_file.actual_s < by_api_s, "the road that was not chosen is the slower one"
