"""The fixtures `postgresql_server` and `postgresql_url`: a real PostgreSQL, a database a test."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from vibes_pipelines_tests.support.real_parts import end, find_program, free_port, wait_until

USER = "crm"

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    # Nothing outlives the tests, so nothing needs to reach the disk.
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_connections": "50",
}


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[int]:
    """Start a server for the test session and yield its port."""
    initdb = find_program("initdb", "postgresql", "usr/lib/postgresql/*/bin")
    home = Path(tempfile.mkdtemp(prefix="vibes-postgresql-"))
    try:
        yield from _run(initdb.parent, home)
    finally:
        shutil.rmtree(home)


@pytest.fixture
def postgresql_url(postgresql_server: int) -> Iterator[str]:
    """Create an empty database for one test and yield its SQLAlchemy URL."""
    name = f"test_{uuid.uuid4().hex}"
    _administer(postgresql_server, "CREATE DATABASE {}", name)
    yield f"postgresql+psycopg://{USER}@127.0.0.1:{postgresql_server}/{name}"
    _administer(postgresql_server, "DROP DATABASE {} WITH (FORCE)", name)


def _run(programs: Path, home: Path) -> Iterator[int]:
    owner = _server_owner(home)
    data, log, port = home / "data", home / "log", free_port()
    subprocess.run(
        [programs / "initdb", "-D", data, "-U", USER, "--auth=trust", "--no-sync", "-E", "UTF8"],
        check=True,
        stdout=subprocess.DEVNULL,
        **owner,
    )
    settings = [part for name, value in SETTINGS.items() for part in ("-c", f"{name}={value}")]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [programs / "postgres", "-D", data, "-p", str(port), *settings],
            stdout=output,
            stderr=output,
            **owner,
        )
    try:
        wait_until(lambda: is_ready(data, process), process, log)
        yield port
    finally:
        end(process, signal.SIGINT)  # fast shutdown: sessions left open are ended


def _server_owner(home: Path) -> dict[str, Any]:
    """Say how to start a program of the server: it refuses to run as root."""
    options: dict[str, Any] = {"cwd": "/", "env": {**os.environ, "LC_ALL": "C.UTF-8"}}
    if os.geteuid() == 0:
        postgres = pwd.getpwnam("postgres")
        os.chown(home, postgres.pw_uid, postgres.pw_gid)
        options |= {"user": postgres.pw_uid, "group": postgres.pw_gid, "extra_groups": []}
    return options


def is_ready(data: Path, process: "subprocess.Popen[bytes]") -> bool:
    """Say whether the server takes connections, by what it wrote itself into its folder."""
    try:
        lines = (data / "postmaster.pid").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return False
    return lines[:1] == [str(process.pid)] and [line.strip() for line in lines[7:8]] == ["ready"]


def _administer(port: int, statement: str, database: str) -> None:
    address = f"postgresql://{USER}@127.0.0.1:{port}/postgres"
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute(sql.SQL(statement).format(sql.Identifier(database)))
