"""A small sandbox and a Dagster instance in memory, for the jobs and sensors."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from vibes_pipelines.sandbox.population import build_world
from vibes_pipelines_tests.support.loop import Loop, running_loop


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Loop]:
    """The first morning of 150 people; the process's environment leads to it."""
    with running_loop(tmp_path, build_world(150, seed=3)) as running:
        yield running


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    """An empty instance that keeps nothing."""
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral
