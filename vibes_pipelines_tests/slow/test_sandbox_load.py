"""The sandbox under the load that it has to stand: all answers right, as many as were asked."""

import asyncio
from pathlib import Path

import pytest

from benchmarks.sandbox import LEAST_PER_S, drive, serving

PERSONS = 10_000
KINDS = {"read", "found", "changed", "added", "listed"}


@pytest.mark.slow
def test_the_sandbox_serves_a_thousand_requests_a_second(tmp_path: Path) -> None:
    with serving(PERSONS, tmp_path / "sandbox") as served:
        load = asyncio.run(drive(served, 10, LEAST_PER_S))
    assert load.wrong == {}
    assert load.kinds.keys() == KINDS
    assert served.answered.keys() == {200, 201}, "no limit turned one away"
    assert served.answered.total() == len(load.answers_s) == load.kinds.total()
    assert len(served.persons) > 0.9 * PERSONS
    assert load.per_s >= 0.98 * LEAST_PER_S
