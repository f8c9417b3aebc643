"""`vibes-pipelines callbacks serve` as a process of its own, until the block ends."""

import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from vibes_pipelines_tests.support.callbacks import REMOVED, as_bytes, subscription_body

WAIT_S = 120


@dataclass(frozen=True)
class Served:
    """A running receiver; `lines` is what it printed before it was ready."""

    process: subprocess.Popen[str]
    lines: list[str]

    @property
    def address(self) -> str:
        return self.lines[0].strip().removesuffix("/callbacks")

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])


@contextmanager
def serving(
    url: str,
    *options: str,
    port: int = 0,
    errors: int = subprocess.PIPE,
    **environment: str,
) -> Iterator[Served]:
    """Starts a receiver over the database at `url`; kills it at the end.

    Nobody reads its standard error before that: give `errors` another end where it says much.
    """
    command = [sys.executable, "-m", "vibes_pipelines.cli", "callbacks", "serve"]
    process = subprocess.Popen(
        [*command, "--port", str(port), *options],
        env={**os.environ, **environment, "VIBES_LEDGER_URL": url},
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        bufsize=1,
    )
    try:
        yield Served(process, _until_ready(process))
    finally:
        process.kill()
        process.communicate(timeout=WAIT_S)


def removal(event_id: str) -> bytes:
    """The body of an opt-out."""
    return as_bytes(
        subscription_body(REMOVED, event_id, "2026-01-02T03:04:05Z", external_person_id="C1")
    )


def _until_ready(process: "subprocess.Popen[str]") -> list[str]:
    assert process.stdout is not None
    lines: list[str] = []
    deadline = time.monotonic() + WAIT_S
    assert select.select([process.stdout], [], [], WAIT_S)[0]
    while (line := process.stdout.readline()) != "# ready\n":
        assert line, process.communicate()[1]
        assert time.monotonic() < deadline
        lines.append(line)
    return lines
