"""A small sandbox and a Dagster instance in memory, for the jobs and sensors."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from vibes_pipelines.sandbox.population import build_world
from vibes_pipelines.settings import Settings
from vibes_pipelines.store.inbox import Inbox
from vibes_pipelines_tests.support.loop import EXAMPLE, Loop, process_environment, running_loop


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


@pytest.fixture
def ledger_url(tmp_path: Path) -> Iterator[str]:
    """An empty project without a CRM; the process's environment leads to it."""
    environment = {
        "VIBES_HOME": str(tmp_path / "data"),
        "VIBES_LEDGER_URL": "",
        "VIBES_SYNC_CONFIG": str(EXAMPLE),
        "CRM_URL": f"sqlite:///{tmp_path / 'crm.db'}",
    }
    with process_environment(environment):
        url = Settings().ledger_url
        with Inbox(url):
            yield url
