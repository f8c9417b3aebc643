"""What every test relies on: the environment, and the fixtures that start real parts."""

import os
import sys
from pathlib import Path

# The Snowflake connector otherwise asks cloud metadata services who it is, at every connect.
os.environ["SNOWFLAKE_DISABLE_PLATFORM_DETECTION"] = "true"

# Tests import `vibes_pipelines_tests.support`, which is not installed, from any working directory.
sys.path.insert(0, str(Path(__file__).parents[1]))

from vibes_pipelines_tests.support.chromium import chromium_path
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
