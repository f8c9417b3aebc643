"""What every test relies on: the environment, and the fixtures that start real parts."""

import gc
import os
import sys
from pathlib import Path

# The Snowflake connector otherwise asks cloud metadata services who it is, at every connect.
os.environ["SNOWFLAKE_DISABLE_PLATFORM_DETECTION"] = "true"

# Tests import `vibes_pipelines_tests.support`, which is not installed, from any working directory.
sys.path.insert(0, str(Path(__file__).parents[1]))

import pytest

from vibes_pipelines_tests.support.chromium import chromium_path
from vibes_pipelines_tests.support.examples import load_profile
from vibes_pipelines_tests.support.openssh import openssh
from vibes_pipelines_tests.support.postgresql import postgresql_server, postgresql_url
from vibes_pipelines_tests.support.sandbox_parts import sftp_account, share

__all__ = [
    "chromium_path",
    "openssh",
    "postgresql_server",
    "postgresql_url",
    "sftp_account",
    "share",
]

# Set before the tests are imported: their `@settings` start from the profile.
load_profile()

FOLDER = Path(__file__).parent
FIRST = ("deploy", "demo", "orchestration", "loop", "full_sync", "report", "slow", "cli")
"""Folders whose files take longest; begun first, none of them is left when all others are done."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the longest first; within a file the order stays."""
    items.sort(key=_place)


def pytest_collection_finish() -> None:
    """Thousands of tests and all that they import stay: no collection looks through them again.

    And one comes less often: by the interpreter's own measure they are a twentieth of all time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def _place(item: pytest.Item) -> int:
    folder = item.path.relative_to(FOLDER).parts[0]
    return FIRST.index(folder) if folder in FIRST else len(FIRST)
