"""The Dagster UI as a child process: served until the demo is ended, and ended with all it started.

`dagster dev` is a family of processes. It gets a session of its own, so that a Ctrl-C in the
terminal reaches the demo alone, which then ends the family in order.
"""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

STOP_S = 20
FAMILY_STOP_S = 5


def serve_ui(host: str, port: str) -> None:
    """Serves the UI until it ends or the demo is interrupted; leaves no process behind.

    It runs in its Dagster home: the folder of the project may have an `.env` that leads to real
    systems, and Dagster would let its lines win over the sandbox.
    """
    command = [sys.executable, "-m", "dagster", "dev", "-h", host, "-p", port]
    command += ["-m", "vibes_pipelines.definitions"]
    home = os.environ["DAGSTER_HOME"]
    process = subprocess.Popen(command, cwd=home, start_new_session=True)  # noqa: S603 - our own
    try:
        process.wait()
    except KeyboardInterrupt:
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_S)
    finally:
        _end_family(process)


def _end_family(process: subprocess.Popen[bytes]) -> None:
    """Ends what is left: the code server waits for a missed heartbeat before it goes by itself."""
    deadline = time.monotonic() + FAMILY_STOP_S
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        while time.monotonic() < deadline:
            process.poll()
            os.killpg(process.pid, 0)
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
