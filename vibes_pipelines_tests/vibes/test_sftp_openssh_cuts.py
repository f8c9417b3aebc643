"""Refused logins and sessions cut in the middle of a file, on real OpenSSH.

sshd has no lock-out of its own: what protects the account is that a refused login is not tried
again, which its log shows. How a lock-out feels is in the tests of the sandbox's SFTP server.
"""

import hashlib
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from vibes_pipelines.sandbox.sftp_server import generate_key_pair
from vibes_pipelines.vibes.sftp import SftpAccount
from vibes_pipelines.vibes.sftp_errors import AuthenticationRefused, SftpUnavailable
from vibes_pipelines.vibes.sftp_requests import Exchange
from vibes_pipelines_tests.support.openssh import OpensshServer

pytestmark = pytest.mark.openssh

FILE_BYTES = 20 * 2**20 + 7
"""More than is ever in flight, so that a cut after some requests is one within the file."""

CUT_AT_REQUEST = 3
"""Reads leave many at a time: the third time, most of the file has not been asked for yet."""


def account(server: OpensshServer, folder: Path, **changes: object) -> SftpAccount:
    arguments = {
        "host": server.host,
        "port": server.port,
        "user": server.user,
        "key_file": server.key_file,
        "known_hosts": server.known_hosts,
        "gap_s": 0,
        "state_file": folder / "session.json",
    }
    return SftpAccount(**(arguments | changes))  # type: ignore[arg-type]


@pytest.fixture
def big(tmp_path: Path) -> Path:
    path = tmp_path / "big"
    path.write_bytes(os.urandom(FILE_BYTES))
    return path


@pytest.fixture
def cut(openssh: OpensshServer, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Kills the server's side of the session at one of the next requests, once."""
    send = Exchange.send

    def arm() -> None:
        sent = 0

        def counted(self: Exchange, request: bytes) -> None:
            nonlocal sent
            sent += 1
            if sent == CUT_AT_REQUEST:
                for pid in _descendants(openssh.pid):
                    os.kill(pid, signal.SIGKILL)
            send(self, request)

        monkeypatch.setattr(Exchange, "send", counted)

    return arm


@pytest.mark.parametrize("wrong", ["key", "user"])
def test_a_refused_login_is_one_attempt(openssh: OpensshServer, tmp_path: Path, wrong: str) -> None:
    other_key, _ = generate_key_pair(tmp_path / "keys")
    cases: dict[str, tuple[dict[str, object], str]] = {
        "key": ({"key_file": other_key}, f"Failed publickey for {openssh.user} "),
        "user": ({"user": "stranger"}, "Invalid user stranger "),
    }
    changes, refusal = cases[wrong]
    waits: list[float] = []
    refused = account(openssh, tmp_path, sleep=waits.append, **changes)
    with pytest.raises(AuthenticationRefused, match="Not tried again"), refused.session():
        pass
    assert openssh.log().count(refusal) == 1
    assert waits == []


def test_an_upload_resumes_after_a_cut(
    openssh: OpensshServer, tmp_path: Path, big: Path, cut: Callable[[], None]
) -> None:
    folder = openssh.root / "files" / "in"
    cut()
    broken = pytest.raises(SftpUnavailable, match="connection broke")
    with account(openssh, tmp_path).session() as session, broken:
        session.upload(big, openssh.remote("files/in"), "big.persons")
    (left,) = folder.iterdir()
    assert left.name == "big.persons.tmp", "nothing stands under the name that is picked up"
    assert left.stat().st_size < FILE_BYTES
    with account(openssh, tmp_path).session() as session:
        session.upload(big, openssh.remote("files/in"), "big.persons")
    assert [file.name for file in folder.iterdir()] == ["big.persons"]
    assert _digest(folder / "big.persons") == _digest(big)


def test_a_download_resumes_after_a_cut(
    openssh: OpensshServer, tmp_path: Path, big: Path, cut: Callable[[], None]
) -> None:
    (openssh.root / "files" / "out" / "big.txt").write_bytes(big.read_bytes())
    fetched, remote = tmp_path / "fetched", openssh.remote("files/out/big.txt")
    cut()
    broken = pytest.raises(SftpUnavailable, match="connection broke")
    with account(openssh, tmp_path).session() as session, broken:
        session.download(remote, fetched)
    assert not fetched.exists()
    with account(openssh, tmp_path).session() as session:
        session.download(remote, fetched)
    assert _digest(fetched) == _digest(big)


def _descendants(pid: int) -> list[int]:
    """The processes that serve sessions, which the listening one has started."""
    parents = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text(encoding="utf-8").rpartition(")")[2].split()
        except OSError:  # it ended meanwhile
            continue
        parents[int(status.parent.name)] = int(fields[1])
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found[1:]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
