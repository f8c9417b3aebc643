"""The code location as a whole: what it holds, what it costs to load, what every part carries."""

import os
import statistics
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.assets.graph.base_asset_graph import BaseAssetNode

from vibes_pipelines.orchestration.assets.delivery import DeliveryConfig
from vibes_pipelines.orchestration.build import build_defs
from vibes_pipelines.orchestration.partitions import DAILY

ROOT = Path(__file__).parents[2]

ASSETS = """
outside: outside/crm_contacts <-
outside: outside/sftp_current_subscribers <-
outside: outside/sftp_subscriptions <-
outside: outside/share_persons <-
outside: outside/share_subscriptions <-
crm: crm/contacts <- outside/crm_contacts
extract: extract/current_subscribers <- outside/sftp_current_subscribers
extract: extract/subscriptions <- outside/sftp_subscriptions
share: share/persons <- outside/share_persons
share: share/subscriptions <- outside/share_subscriptions
"""

JOBS = """
"""

CHECKS = """
"""


@pytest.fixture(scope="module")
def repository() -> dg.RepositoryDefinition:
    return build_defs().get_repository_def()


@pytest.fixture(scope="module")
def nodes(repository: dg.RepositoryDefinition) -> list[BaseAssetNode]:
    return list(repository.asset_graph.asset_nodes)


def _cpu_seconds(statement: str) -> tuple[float, str]:
    """Median CPU of three fresh interpreters, and what the last one printed."""
    code = f"import time, sys\n{statement}\nprint(time.process_time())"
    lines: list[str] = []
    seconds = []
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code],
            cwd=ROOT, capture_output=True, text=True, check=True,
        )  # fmt: skip
        *lines, cpu = done.stdout.split("\n")[:-1]
        seconds.append(float(cpu))
    return statistics.median(seconds), "\n".join(lines)


def test_loading_costs_little_and_imports_no_snowflake() -> None:
    dagster_alone, _ = _cpu_seconds("import dagster")
    location, imported = _cpu_seconds(
        "from vibes_pipelines.definitions import defs\n"
        "defs().get_repository_def()\n"
        "print({'snowflake', 'dagster_snowflake'} & set(sys.modules))"
    )
    assert imported == "set()"
    assert location <= 2 * dagster_alone


def test_dagster_validates_the_location_as_its_workspace_names_it(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dagster", "definitions", "validate", "-w", "workspace.yaml"],
        cwd=ROOT,
        env={**os.environ, "DAGSTER_HOME": str(tmp_path), "VIBES_DAGSTER_STORAGE": str(tmp_path)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Validation successful for code location vibes_pipelines" in done.stderr + done.stdout


def _text(lines: list[str]) -> str:
    return "\n" + "\n".join(lines) + "\n"
