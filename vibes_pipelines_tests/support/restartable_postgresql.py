"""A PostgreSQL that keeps what it acknowledged, and that a test may kill and start again."""

import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from vibes_pipelines_tests.support.postgresql import USER, _server_owner, is_ready
from vibes_pipelines_tests.support.real_parts import end, find_program, free_port, wait_until

SETTINGS: Mapping[str, str] = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "50",
}


class RestartablePostgresql:
    """One server in one folder; `url` stays the same over restarts."""

    def __init__(self, programs: Path, home: Path) -> None:
        self._programs = programs
        self._home = home
        self._owner = _server_owner(home)
        self.port = free_port()
        self.process = self._start()

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://{USER}@127.0.0.1:{self.port}/postgres"

    def kill(self) -> None:
        """Ends it at once: no session is ended, nothing is written any more."""
        end(self.process, signal.SIGQUIT)

    def start(self) -> None:
        self.process = self._start()

    def stop(self) -> None:
        end(self.process, signal.SIGINT)

    def _start(self) -> "subprocess.Popen[bytes]":
        settings = [part for name, value in SETTINGS.items() for part in ("-c", f"{name}={value}")]
        log = self._home / "log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                [
                    self._programs / "postgres",
                    "-D",
                    self._home / "data",
                    "-p",
                    str(self.port),
                    *settings,
                ],
                stdout=output,
                stderr=output,
                **self._owner,
            )
        wait_until(lambda: is_ready(self._home / "data", process), process, log)
        return process


@contextmanager
def restartable_postgresql() -> Iterator[RestartablePostgresql]:
    """A new server, gone at the end."""
    programs = find_program("initdb", "postgresql", "usr/lib/postgresql/*/bin").parent
    with tempfile.TemporaryDirectory(
        prefix="vibes-postgresql-", ignore_cleanup_errors=True
    ) as name:
        home = Path(name)
        subprocess.run(
            [programs / "initdb", "-D", home / "data", "-U", USER, "--auth=trust", "-E", "UTF8"],
            check=True,
            stdout=subprocess.DEVNULL,
            **_server_owner(home),
        )
        server = RestartablePostgresql(programs, home)
        try:
            yield server
        finally:
            server.stop()
