"""The fixtures that start real parts do what the tests that use them rely on."""

import io
import subprocess
from pathlib import Path

import paramiko
import psycopg
import pytest

from vibes_pipelines_tests.support import real_parts
from vibes_pipelines_tests.support.openssh import FOLDERS, OpensshServer


@pytest.mark.openssh
def test_openssh_offers_writable_folders_below_its_root(openssh: OpensshServer) -> None:
    with paramiko.SSHClient() as client:
        client.load_host_keys(str(openssh.known_hosts))
        client.connect(
            openssh.host,
            openssh.port,
            openssh.user,
            key_filename=str(openssh.key_file),
            allow_agent=False,
            look_for_keys=False,
        )
        with client.open_sftp() as sftp:
            for folder in FOLDERS:
                sftp.putfo(io.BytesIO(b"x"), openssh.remote(f"{folder}/a.txt"))
    assert all((openssh.root / folder / "a.txt").read_bytes() == b"x" for folder in FOLDERS)


@pytest.mark.postgresql
def test_postgresql_database_is_empty_and_a_tests_own(postgresql_url: str) -> None:
    address = postgresql_url.replace("postgresql+psycopg://", "postgresql://")
    with psycopg.connect(address) as connection:
        connection.execute("CREATE TABLE contacts (id int)")
        tables = connection.execute(
            "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
        ).fetchall()
    assert tables == [("contacts",)]


@pytest.mark.chromium
def test_chromium_runs(chromium_path: str) -> None:
    said = subprocess.run(
        [chromium_path, "--no-sandbox", "--version"], check=True, capture_output=True, timeout=60
    )
    assert b"Chromium" in said.stdout


def test_missing_program_skips_and_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(real_parts.REQUIRE, raising=False)
    with pytest.raises(pytest.skip.Exception, match="install the Debian package nothing-real"):
        real_parts.find_program("no-such-program", "nothing-real", "usr/bin")


def test_missing_program_fails_where_real_parts_are_required(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(real_parts.REQUIRE, "1")
    with pytest.raises(pytest.fail.Exception, match="install the Debian package nothing-real"):
        real_parts.find_program("no-such-program", "nothing-real", "usr/bin")


def test_program_outside_the_path_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "15" / "bin" / "some-server"
    program.parent.mkdir(parents=True)
    program.touch()
    monkeypatch.setenv("PATH", "")
    assert real_parts.find_program("some-server", "a-package", f"{tmp_path}/*/bin") == program
