"""A server that offers nothing beyond SFTP version 3, over real SSH: paramiko's own."""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import paramiko
import pytest
from paramiko.common import AUTH_SUCCESSFUL, OPEN_SUCCEEDED
from paramiko.sftp import SFTP_EOF, SFTP_FAILURE, SFTP_OK, SFTP_PERMISSION_DENIED

from vibes_pipelines.sandbox.sftp_server import generate_key_pair
from vibes_pipelines.vibes.sftp import SftpAccount
from vibes_pipelines.vibes.sftp_errors import SftpUnavailable, TransferRefused

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

EVERY_SERVERS_BYTES = 32 * 1024
"""The SFTP protocol: the longest read and write that every server has to take."""


@dataclass
class Files:
    """The folder that is served, and how its server behaves."""

    root: Path
    asked: list[int] = field(default_factory=list)
    ends_at: int = 10**9
    breaks_at: int = 10**9
    may_rename: bool = True
    hang_up: Callable[[], None] = lambda: None

    def local(self, path: str) -> Path:
        return self.root / path.lstrip("/")


class PlainHandle(paramiko.SFTPHandle):
    """An open file; notes how much was asked for at once."""

    def __init__(self, files: Files, path: Path, flags: int) -> None:
        super().__init__(flags)
        self._files = files
        self._file = os.open(path, flags, 0o600)

    def read(self, offset: int, length: int) -> bytes | int:
        self._note(offset, length)
        wanted = max(0, min(length, self._files.ends_at - offset))
        return os.pread(self._file, wanted, offset) or SFTP_EOF

    def write(self, offset: int, data: "ReadableBuffer") -> int:
        self._note(offset, os.pwrite(self._file, data, offset))
        return SFTP_OK

    def _note(self, offset: int, length: int) -> None:
        self._files.asked.append(length)
        if offset >= self._files.breaks_at:
            self._files.hang_up()

    def stat(self) -> paramiko.SFTPAttributes:
        return paramiko.SFTPAttributes.from_stat(os.fstat(self._file))

    def close(self) -> None:
        os.close(self._file)


class PlainFolder(paramiko.SFTPServerInterface):
    """Opens, measures, renames and removes files. Over an existing one it renames none."""

    def __init__(self, server: paramiko.ServerInterface, files: Files) -> None:
        super().__init__(server)
        self._files = files

    def open(self, path: str, flags: int, attr: paramiko.SFTPAttributes) -> paramiko.SFTPHandle:
        del attr
        return PlainHandle(self._files, self._files.local(path), flags)

    def stat(self, path: str) -> paramiko.SFTPAttributes:
        return paramiko.SFTPAttributes.from_stat(self._files.local(path).stat())

    def rename(self, oldpath: str, newpath: str) -> int:
        if not self._files.may_rename:
            return SFTP_PERMISSION_DENIED
        if self._files.local(newpath).exists():
            return SFTP_FAILURE
        self._files.local(oldpath).rename(self._files.local(newpath))
        return SFTP_OK

    def remove(self, path: str) -> int:
        if not self._files.local(path).exists():
            return SFTP_FAILURE  # not every server says what is wrong
        self._files.local(path).unlink()
        return SFTP_OK


class LetsIn(paramiko.ServerInterface):
    """Takes every key."""

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        del username, key
        return AUTH_SUCCESSFUL

    def get_allowed_auths(self, username: str) -> str:
        del username
        return "publickey"

    def check_channel_request(self, kind: str, chanid: int) -> int:
        del kind, chanid
        return OPEN_SUCCEEDED


@pytest.fixture
def files(tmp_path: Path) -> Files:
    root = tmp_path / "served"
    root.mkdir()
    return Files(root)


@pytest.fixture
def account(files: Files, tmp_path: Path) -> Iterator[SftpAccount]:
    """The account of a server that serves one session, which every test has to open."""
    private, _ = generate_key_pair(tmp_path / "keys")
    host_key = paramiko.ECDSAKey.generate()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(60)
        port = listener.getsockname()[1]
        known_hosts = tmp_path / "known_hosts"
        line = f"[127.0.0.1]:{port} {host_key.get_name()} {host_key.get_base64()}\n"
        known_hosts.write_text(line, encoding="utf-8")
        server = threading.Thread(target=_serve_one, args=(listener, host_key, files))
        server.start()
        yield SftpAccount("127.0.0.1", port, "vibes", private, known_hosts, 0.0, tmp_path / "state")
        server.join()


def _serve_one(listener: socket.socket, host_key: paramiko.PKey, files: Files) -> None:
    connection, _ = listener.accept()
    with paramiko.Transport(connection) as transport:
        transport.add_server_key(host_key)
        transport.set_subsystem_handler("sftp", paramiko.SFTPServer, PlainFolder, files)
        files.hang_up = transport.close
        # With an event of ours it does not ask, perhaps too late, whether the session has begun.
        transport.start_server(threading.Event(), LetsIn())
        transport.join()


def test_a_file_travels_both_ways_in_requests_that_every_server_takes(
    account: SftpAccount, files: Files, tmp_path: Path
) -> None:
    content = os.urandom(10 * EVERY_SERVERS_BYTES + 17)
    (tmp_path / "local").write_bytes(content)
    with account.session() as session:
        session.upload(tmp_path / "local", "/", "a.persons")
        session.download("/a.persons", tmp_path / "back")
    assert (files.root / "a.persons").read_bytes() == content
    assert (tmp_path / "back").read_bytes() == content
    assert files.asked == [*10 * [EVERY_SERVERS_BYTES], 17] * 2


def test_a_file_that_is_there_already_is_replaced(
    account: SftpAccount, files: Files, tmp_path: Path
) -> None:
    (files.root / "a.persons").write_bytes(b"older")
    (tmp_path / "local").write_bytes(b"newer")
    with account.session() as session:
        session.upload(tmp_path / "local", "/", "a.persons")
    assert {file.name: file.read_bytes() for file in files.root.iterdir()} == {
        "a.persons": b"newer"
    }


@pytest.mark.parametrize("may_rename", [True, False])
def test_a_probe_finds_out_whether_files_can_be_renamed(
    account: SftpAccount, files: Files, *, may_rename: bool
) -> None:
    files.may_rename = may_rename
    with account.session() as session:
        if may_rename:
            session.probe("/")
        else:
            with pytest.raises(TransferRefused, match="ask Vibes for rights on this folder"):
                session.probe("/")
    assert list(files.root.iterdir()) == []


def test_a_file_that_ends_early_is_refused_and_the_session_goes_on(
    account: SftpAccount, files: Files, tmp_path: Path
) -> None:
    (files.root / "a.txt").write_bytes(bytes(100_000))
    files.ends_at = 70_000
    with account.session() as session:
        with pytest.raises(TransferRefused, match=r"70000 bytes arrived of 100000; download again"):
            session.download("/a.txt", tmp_path / "a.txt")
        assert not (tmp_path / "a.txt").exists()
        files.ends_at = 100_000
        session.download("/a.txt", tmp_path / "a.txt")
    assert (tmp_path / "a.txt").stat().st_size == 100_000


def test_a_line_that_breaks_within_a_download_is_transient_and_leaves_no_file(
    account: SftpAccount, files: Files, tmp_path: Path
) -> None:
    (files.root / "a.txt").write_bytes(bytes(3_000_000))
    files.breaks_at = 1_000_000
    with account.session() as session, pytest.raises(SftpUnavailable, match="connection broke"):
        session.download("/a.txt", tmp_path / "a.txt")
    assert list(tmp_path.glob("a.txt*")) == []


def test_a_line_that_breaks_within_an_upload_is_transient_and_leaves_no_file(
    account: SftpAccount, files: Files, tmp_path: Path
) -> None:
    (tmp_path / "local").write_bytes(bytes(3_000_000))
    files.breaks_at = 1_000_000
    with account.session() as session, pytest.raises(SftpUnavailable, match="connection broke"):
        session.upload(tmp_path / "local", "/", "a.persons")
    assert [file.name for file in files.root.iterdir()] == ["a.persons.tmp"]
