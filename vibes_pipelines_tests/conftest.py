"""What every test relies on: the environment, and the fixtures that start real parts."""

import os
import sys
from pathlib import Path

# The Snowflake connector otherwise asks cloud metadata services who it is, at every connect.
os.environ["SNOWFLAKE_DISABLE_PLATFORM_DETECTION"] = "true"
