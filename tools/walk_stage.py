"""What the walk walks through: the served demo as a process, and what happens outside meanwhile.

The demo is started as `make dev` starts it, with few people, in a folder and on ports of its own.
Beside it stand the CRM's users, who edit their database, and the sandbox's record of what reached
the platform.
"""

import json
import os
import shlex
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from vibes_pipelines.demo.sandbox_process import RunningSandbox

ROOT = Path(__file__).parents[1]
PEOPLE, DAYS = 300, 3
# Generous: a busy machine takes ten times what an idle one does.
START_S, STOP_S = 480, 90


class WalkError(RuntimeError):
    """The walk cannot go on: something did not come up, or does not show what it should."""


@dataclass(frozen=True)
class Stage:
    """A served demo: the address of its UI, and the sandbox behind it."""

    url: str
    sandbox: RunningSandbox

    def campaign_night(self) -> str:
        """The night in which somebody makes all of the CRM's contacts Gold; returns the new day."""
        day = self.sandbox.next_day(edits=True)
        path = self.sandbox.environment["CRM_URL"].removeprefix("sqlite:///")
        with closing(sqlite3.connect(path, timeout=30)) as crm, crm:
            crm.execute("UPDATE contacts SET tier = 'Gold' WHERE tier IN ('Silver', 'Bronze')")
        return day

    def effects(self) -> dict[str, int]:
        """What changed at the platform so far, by kind, as the sandbox recorded it."""
        address = f"{self.sandbox.environment['VIBES_API_URL']}/sandbox/audit"
        with urllib.request.urlopen(address, timeout=60) as answer:  # noqa: S310 - loopback
            found: dict[str, int] = json.loads(answer.read())["effects"]
        return found


@contextmanager
def served_demo(home: Path) -> Iterator[Stage]:
    """Runs the demo's days below `home`, serves its UI, and ends all of it in order.

    Raises:
        WalkError: the UI did not come up; the message has the end of the demo's own words.
    """
    log = home / "demo.log"
    port = _free_port()
    command = [sys.executable, "-m", "vibes_pipelines.cli", "demo", "--serve"]
    command += ["--persons", str(PEOPLE), "--days", str(DAYS), "--home", str(home / "demo")]
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - our own command
            command,
            cwd=ROOT,
            env={**os.environ, "DAGSTER_PORT": str(port)},
            stdout=output,
            stderr=output,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        _await(url, process, log)
        yield Stage(url, RunningSandbox(_exported(home / "demo" / "environment.sh")))
    finally:
        _end(process)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def _await(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(urllib.error.URLError, ConnectionError, TimeoutError):
            urllib.request.urlopen(f"{url}/server_info", timeout=10).close()  # noqa: S310 - loopback
            return
        time.sleep(0.5)
    raise WalkError(f"the demo did not come up:\n{log.read_text(encoding='utf-8')[-4000:]}")


def _exported(file: Path) -> dict[str, str]:
    """The variables of the demo's environment.sh."""
    lines = file.read_text(encoding="utf-8").splitlines()
    pairs = (shlex.split(line)[1].partition("=") for line in lines)
    return {name: value for name, _, value in pairs}


def _end(process: subprocess.Popen[bytes]) -> None:
    """The demo ends its own children on a SIGTERM; they are orphans only if it is killed."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise WalkError(f"the demo did not end within {STOP_S} s of a SIGTERM") from None
