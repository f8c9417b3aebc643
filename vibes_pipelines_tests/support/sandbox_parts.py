"""The fixtures `share` and `sftp_account`: stand-ins of the sandbox, served for one test."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from vibes_pipelines.sandbox.sftp_server import SessionEvent, SftpServer, generate_key_pair
from vibes_pipelines.sandbox.share_server import ShareServer

USER = "READER"
PASSWORD = "correct horse"
CHUNK_ROWS = 1_000


@dataclass
class RunningShare:
    """A share server and the arguments with which the Snowflake connector reaches it."""

    server: ShareServer
    port: int

    def load(self, **tables: pa.Table) -> None:
        """Replace tables of VIBES_SHARE.PUBLIC."""
        self.server.load(tables)

    def arguments(self, **changes: Any) -> dict[str, Any]:
        """Return arguments for `snowflake.connector.connect`, with some of them changed."""
        return {
            "account": "vibes",
            "user": USER,
            "password": PASSWORD,
            "host": "127.0.0.1",
            "port": self.port,
            "protocol": "http",
            "database": "VIBES_SHARE",
            "schema": "PUBLIC",
            # The connector repeats failed requests for minutes unless told to stop.
            "login_timeout": 60,
            "network_timeout": 60,
        } | changes


@pytest.fixture
def share(tmp_path: Path) -> Iterator[RunningShare]:
    """Serve an empty share; results come in pieces of 1,000 rows."""
    server = ShareServer(tmp_path / "share", USER, PASSWORD, chunk_rows=CHUNK_ROWS)
    try:
        yield RunningShare(server, server.start())
    finally:
        server.stop()


@dataclass
class RunningSftp:
    """An SFTP server, what a client needs to reach it, and the sessions it saw."""

    server: SftpServer
    port: int
    user: str
    key_file: Path
    known_hosts: Path
    root: Path
    events: list[SessionEvent]
    host: str = "127.0.0.1"


@pytest.fixture
def sftp_account(tmp_path: Path) -> Iterator[RunningSftp]:
    """Serve the folders files/in, files/reports and files/out of a new account."""
    root = tmp_path / "sftp"
    for folder in ("in", "reports", "out"):
        (root / "files" / folder).mkdir(parents=True)
    private, public = generate_key_pair(tmp_path / "keys")
    events: list[SessionEvent] = []
    server = SftpServer(root, "vibes", public, on_session=events.append, max_failed_logins=3)
    try:
        port = server.start()
        known_hosts = tmp_path / "known_hosts"
        known_hosts.write_text(server.known_hosts_line())
        yield RunningSftp(server, port, "vibes", private, known_hosts, root, events)
    finally:
        server.stop()
