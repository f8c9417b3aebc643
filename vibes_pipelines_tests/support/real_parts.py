"""Finding the programs of real parts, and what a test does when one is not installed."""

import os
import random
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

REQUIRE = "VIBES_TESTS_REQUIRE_REAL_PARTS"
STOP_TIMEOUT_S = 60
START_TIMEOUT_S = 120
_NEVER_GIVEN_AWAY = (12_000, 32_000)
"""Below the range from which systems take ports by themselves."""
_WORKERS = 16


def find_program(name: str, package: str, *folders: str) -> Path:
    """Find a program on PATH or in `folders` (patterns below /).

    Without it the test is skipped, or fails when VIBES_TESTS_REQUIRE_REAL_PARTS is 1.
    """
    found = shutil.which(name)
    if found:
        return Path(found).resolve()
    for folder in folders:
        for program in sorted(Path("/").glob(f"{folder.strip('/')}/{name}"), reverse=True):
            return program
    sentence = f"{name} is not installed: install the Debian package {package} to run this test"
    if os.environ.get(REQUIRE) == "1":
        pytest.fail(sentence)
    pytest.skip(sentence)


def free_port() -> int:
    """Return a port of the loopback that is free, and that nobody else is given meanwhile.

    It is none that the system gives away by itself, to a client or for port 0, and another process
    of the same test run chooses among others.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    mine = [port for port in range(*_NEVER_GIVEN_AWAY) if port % _WORKERS == worker % _WORKERS]
    while True:
        port = random.choice(mine)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


@contextmanager
def refusing_port() -> Iterator[int]:
    """A port of the loopback that refuses every connection: it is taken, and nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def wait_until(
    ready: Callable[[], bool],
    process: subprocess.Popen[bytes],
    log: Path,
    timeout_s: float = START_TIMEOUT_S,
) -> None:
    """Wait for a started process to serve; raises with its log when it ends or is too slow."""
    deadline = time.monotonic() + timeout_s
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(
                f"{process.args!r} did not start:\n{log.read_text(errors='replace')}"
            )
        time.sleep(0.02)


def accepts_connections(port: int) -> bool:
    """Say whether something listens on the loopback port."""
    try:
        with socket.create_connection(("127.0.0.1", port), 0.5):
            return True
    except OSError:
        return False


def end(process: subprocess.Popen[bytes], signal_number: int) -> None:
    """End a process of ours by its id and wait for it; one that does not listen is killed."""
    process.send_signal(signal_number)
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
