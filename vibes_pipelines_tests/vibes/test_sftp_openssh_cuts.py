"""Refused logins and sessions cut in the middle of a file, on real OpenSSH.

sshd has no lock-out of its own: what protects the account is that a refused login is not tried
again, which its log shows. How a lock-out feels is in the tests of the sandbox's SFTP server.
"""

import hashlib
import os
import signal
from pathlib import Path

import pytest

from vibes_pipelines.delivery.file_import import FilesResult, Folders, deliver_files
from vibes_pipelines.sandbox.sftp_server import generate_key_pair
from vibes_pipelines.store.ledger import Ledger
from vibes_pipelines.vibes.sftp import SftpAccount
from vibes_pipelines.vibes.sftp_errors import AuthenticationRefused, SftpUnavailable
from vibes_pipelines.vibes.sftp_requests import Exchange
from vibes_pipelines_tests.support.deliveries import BY_FILE, TYPES, change, planned, update
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


class Cut:
    """Kills the server's side of the session at one of the next requests, once.

    Before every request it looks who stands in `folder`: a file that nobody saw was never there.
    """

    def __init__(self, server: OpensshServer, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: set[str] = set()
        self._server = server
        self._patch = monkeypatch

    def arm(self, folder: Path) -> None:
        send, sent = Exchange.send, 0

        def watched(exchange: Exchange, request: bytes) -> None:
            nonlocal sent
            sent += 1
            self.seen |= {file.name for file in folder.iterdir()}
            if sent == CUT_AT_REQUEST:
                for pid in _descendants(self._server.pid):
                    os.kill(pid, signal.SIGKILL)
            send(exchange, request)

        self._patch.setattr(Exchange, "send", watched)


@pytest.fixture
def cut(openssh: OpensshServer, monkeypatch: pytest.MonkeyPatch) -> Cut:
    return Cut(openssh, monkeypatch)


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


def test_an_upload_is_made_again_after_a_cut(
    openssh: OpensshServer, tmp_path: Path, big: Path, cut: Cut
) -> None:
    folder = openssh.root / "files" / "in"
    cut.arm(folder)
    broken = pytest.raises(SftpUnavailable, match="connection broke")
    with account(openssh, tmp_path).session() as session, broken:
        session.upload(big, openssh.remote("files/in"), "big.persons")
    (left,) = folder.iterdir()
    assert left.name == "big.persons.tmp", "nothing stands under the name that is picked up"
    assert left.stat().st_size < FILE_BYTES
    with account(openssh, tmp_path).session() as session:
        session.upload(big, openssh.remote("files/in"), "big.persons")
    assert cut.seen == {"big.persons.tmp"}, "no half of it was ever there under that name"
    assert [file.name for file in folder.iterdir()] == ["big.persons"]
    assert _digest(folder / "big.persons") == _digest(big)


def test_a_cut_upload_leaves_the_file_that_it_was_to_replace(
    openssh: OpensshServer, tmp_path: Path, big: Path, cut: Cut
) -> None:
    folder = openssh.root / "files" / "in"
    with account(openssh, tmp_path).session() as session:
        session.upload(openssh.key_file, openssh.remote("files/in"), "big.persons")
        before = _digest(folder / "big.persons")
        cut.arm(folder)
        with pytest.raises(SftpUnavailable, match="connection broke"):
            session.upload(big, openssh.remote("files/in"), "big.persons")
    assert before == _digest(openssh.key_file) == _digest(folder / "big.persons")


def test_a_download_is_made_again_after_a_cut(
    openssh: OpensshServer, tmp_path: Path, big: Path, cut: Cut
) -> None:
    (openssh.root / "files" / "out" / "big.txt").write_bytes(big.read_bytes())
    landing, remote = tmp_path / "landing", openssh.remote("files/out/big.txt")
    landing.mkdir()
    cut.arm(landing)
    broken = pytest.raises(SftpUnavailable, match="connection broke")
    with account(openssh, tmp_path).session() as session, broken:
        session.download(remote, landing / "big.txt")
    assert not list(landing.iterdir()), "what had arrived is removed"
    with account(openssh, tmp_path).session() as session:
        session.download(remote, landing / "big.txt")
    assert cut.seen == {"big.txt.unfinished"}, "no half of it was ever there under its name"
    assert [file.name for file in landing.iterdir()] == ["big.txt"]
    assert _digest(landing / "big.txt") == _digest(big)


def test_a_download_cut_with_its_process_is_overwritten_by_the_next(
    openssh: OpensshServer, tmp_path: Path, big: Path
) -> None:
    (openssh.root / "files" / "out" / "big.txt").write_bytes(big.read_bytes())
    landing = tmp_path / "landing"
    landing.mkdir()
    (landing / "big.txt.unfinished").write_bytes(b"x" * (FILE_BYTES + 1))
    with account(openssh, tmp_path).session() as session:
        session.download(openssh.remote("files/out/big.txt"), landing / "big.txt")
    assert [file.name for file in landing.iterdir()] == ["big.txt"]
    assert _digest(landing / "big.txt") == _digest(big)


def test_a_delivery_that_was_cut_leaves_one_whole_file(
    openssh: OpensshServer, tmp_path: Path, cut: Cut
) -> None:
    """The rows are more than a request, so that the cut is within the file."""
    folder, name = openssh.root / "files" / "in", "x" * 100_000
    there = Folders(openssh.remote("files/in"), openssh.remote("files/reports"))
    rows = [update(f"C{number}", change("first_name", name)) for number in range(200)]

    def deliver(ledger: Ledger) -> FilesResult:
        batches, open_session = ledger.batches(), account(openssh, tmp_path).session
        work = tmp_path / "work"
        return deliver_files(batches, open_session, there, ledger, TYPES, work, dry_run=False)

    with Ledger(f"sqlite:///{tmp_path / 'ledger.db'}") as ledger:
        planned(ledger, tmp_path / "out", persons=rows, estimates=BY_FILE)
        cut.arm(folder)
        with pytest.raises(SftpUnavailable, match="connection broke"):
            deliver(ledger)
        assert [file.suffix for file in folder.iterdir()] == [".tmp"]
        assert deliver(ledger).files == 1
        assert deliver(ledger) == FilesResult(already_there=1), "it is not uploaded twice"
    (file,) = folder.iterdir()
    assert _digest(file) == _digest(tmp_path / "work" / file.name)


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
