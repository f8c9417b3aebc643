"""The services of deploy/systemd as processes of this machine, on PostgreSQL, for tests."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

from vibes_pipelines_tests.support.real_parts import free_port

ROOT = Path(__file__).parents[2]
START_S, STOP_S = 120, 20


@dataclass(frozen=True)
class Services:
    """What runs: the UI's address and the process of each unit."""

    url: str
    processes: dict[str, "subprocess.Popen[bytes]"]
    home: Path
    environment: Mapping[str, str]

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        """Asks the GraphQL API."""
        request = urllib.request.Request(
            f"{self.url}/graphql",
            json.dumps({"query": query, "variables": variables}).encode(),
            {"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                document = json.loads(answer.read())
        except urllib.error.HTTPError as refused:
            raise RuntimeError(refused.read().decode()) from refused
        assert "errors" not in document, document
        found: dict[str, Any] = document["data"]
        return found

    def kill(self, unit: str) -> None:
        """Kills the unit and all that it started, as a power cut does."""
        process = self.processes[unit]
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def end(self, unit: str) -> None:
        """Stops the unit as systemd does."""
        _end(self.processes[unit])

    def start_code_server(self) -> None:
        """Starts it as systemd does: the line before it, itself, and those after it."""
        self._run("ExecStartPre")
        self.processes["code-server"] = _start("code-server", self.home, self.environment)
        _await_health(self.environment)
        self._run("ExecStartPost")

    def _run(self, entry: str) -> None:
        command = _command("code-server", entry, self.environment)
        subprocess.run(command, env=dict(self.environment), cwd=self.home, check=True)

    def memory_mb(self, unit: str) -> float:
        """The resident memory of one unit's main process."""
        status = Path(f"/proc/{self.processes[unit].pid}/status").read_text(encoding="utf-8")
        [line] = [line for line in status.splitlines() if line.startswith("VmRSS")]
        return int(line.split()[1]) / 1024


@contextmanager
def running_services(
    home: Path, environment: Mapping[str, str], postgres_url: str
) -> Iterator[Services]:
    """Starts code server, webserver and daemon by the lines of their units."""
    storage = home / "dagster"
    storage.mkdir()
    shutil.copy(ROOT / "deploy" / "dagster.yaml", storage)
    port = free_port()
    ours = {
        **os.environ,
        **environment,
        "DAGSTER_HOME": str(storage),
        "VIBES_DAGSTER_STORAGE": str(storage),
        "DAGSTER_POSTGRES_URL": postgres_url,
        "UI_PORT": str(port),
        "VIBES_CODE_SERVER_HOST": "127.0.0.1",
        "VIBES_CODE_SERVER_PORT": str(free_port()),
    }
    url = f"http://127.0.0.1:{port}"
    with ExitStack() as stack:
        services = Services(url, {}, home, ours)
        for unit in ("code-server", "webserver", "daemon"):
            stack.callback(services.end, unit)
            if unit == "code-server":
                services.start_code_server()
                continue
            process = services.processes[unit] = _start(unit, home, ours)
            if unit == "webserver":
                _await_answer(url, process, home / "webserver.log")
        yield services


def _command(unit: str, entry: str, environment: Mapping[str, str]) -> list[str]:
    """One line of the unit, on this machine."""
    text = (ROOT / "deploy" / "systemd" / f"vibes-{unit}.service").read_text(encoding="utf-8")
    # The last line of several: those before it wait for the health that is awaited here.
    *_, line = [each for each in text.splitlines() if each.startswith(f"{entry}=")]
    line = line.removeprefix(f"{entry}=").replace("--port 3000", f"--port {environment['UI_PORT']}")
    line = line.replace("/opt/vibes-pipelines/.venv/bin", f"{sys.prefix}/bin")
    line = line.replace("/opt/vibes-pipelines", str(ROOT))
    for name in ("VIBES_CODE_SERVER_HOST", "VIBES_CODE_SERVER_PORT"):
        line = line.replace(f"${{{name}}}", environment[name])
    return shlex.split(line)


def _start(unit: str, home: Path, environment: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    command = _command(unit, "ExecStart", environment)
    # A shell that runs the tests in the background lets its children ignore the interrupt.
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with (home / f"{unit}.log").open("ab") as output:
            return subprocess.Popen(
                command,
                cwd=home,
                env=dict(environment),
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
    finally:
        signal.signal(signal.SIGINT, former)


def _await_health(environment: Mapping[str, str]) -> None:
    """What the unit does after its start."""
    host, port = (environment[f"VIBES_CODE_SERVER_{name}"] for name in ("HOST", "PORT"))
    check = ("api", "grpc-health-check", "--host", host, "--port", port)
    command = [f"{sys.prefix}/bin/dagster", *check]
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if subprocess.run(command, check=False, capture_output=True).returncode == 0:
            return
    raise TimeoutError("the code server does not answer")


def _await_answer(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(OSError, HTTPException):  # also one that is too slow yet
            urllib.request.urlopen(f"{url}/server_info", timeout=20).close()
            return
        time.sleep(0.3)
    raise RuntimeError(f"the webserver did not start:\n{log.read_text(encoding='utf-8')}")


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.send_signal(signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
