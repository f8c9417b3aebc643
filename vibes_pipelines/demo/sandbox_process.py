"""The sandbox as a child process: started, asked for the next day, stopped.

The demo meets it only as a customer would, over its protocols, and through its control routes.
"""

import json
import os
import shlex
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STOP_S = 20


class SandboxFailed(RuntimeError):  # noqa: N818 - the name says what happened
    """The sandbox did not come up or stopped answering."""


@dataclass(frozen=True)
class RunningSandbox:
    """A sandbox that is up, and the environment that leads to it."""

    environment: dict[str, str]

    def next_day(self, *, edits: bool) -> str:
        """Moves the sandbox to its next day; returns that day."""
        return str(self._control("next-day", {"edits": edits})["date"])

    def today(self) -> str:
        """The sandbox's day."""
        return str(self._control("now")["now"])[:10]

    def _control(self, route: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        request = urllib.request.Request(  # noqa: S310 - loopback
            f"{self.environment['VIBES_API_URL']}/sandbox/{route}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=120) as answer:  # noqa: S310 - loopback
            document: dict[str, Any] = json.loads(answer.read())
            return document


@contextmanager
def sandbox_process(home: Path, persons: int) -> Iterator[RunningSandbox]:
    """Starts `vibes-pipelines sandbox up` and stops it at the end.

    Raises:
        SandboxFailed: it ended before it was ready; its own words are on standard error.
    """
    command = [sys.executable, "-m", "vibes_pipelines.cli", "sandbox", "up"]
    process = subprocess.Popen(  # noqa: S603 - our own command
        [*command, "--persons", str(persons), "--home", str(home)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        yield RunningSandbox(_environment(process))
    finally:
        _stop(process)


def _environment(process: subprocess.Popen[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in process.stdout or ():
        if line.strip() == "# ready":
            return found
        words = shlex.split(line)
        if len(words) == 2 and words[0] == "export":
            name, _, value = words[1].partition("=")
            found[name] = value
    msg = f"the sandbox ended with status {process.wait()} before it was ready"
    raise SandboxFailed(msg)


def _stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout:
        process.stdout.close()
