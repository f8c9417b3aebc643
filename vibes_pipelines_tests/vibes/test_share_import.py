"""Loading the share's client must not cost the seconds that the connector takes to import."""

import subprocess
import sys


def test_the_connector_is_imported_only_when_the_share_is_read() -> None:
    script = "import sys, vibes_pipelines.vibes.share; print('snowflake.connector' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"
