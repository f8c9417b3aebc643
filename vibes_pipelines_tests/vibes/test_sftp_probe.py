"""Looking whether a folder can be written, and whether a session may begin, on real OpenSSH."""

import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from vibes_pipelines.vibes.sftp import SftpAccount
from vibes_pipelines.vibes.sftp_errors import RemoteFileMissing, SftpUnavailable, TransferRefused
from vibes_pipelines_tests.support.openssh import OpensshServer
from vibes_pipelines_tests.support.real_parts import refusing_port

pytestmark = pytest.mark.openssh


def account(server: OpensshServer, folder: Path, **changes: object) -> SftpAccount:
    arguments = {
        "host": server.host,
        "port": server.port,
        "user": server.user,
        "key_file": server.key_file,
        "known_hosts": server.known_hosts,
        "gap_s": 300,
        "state_file": folder / "session.json",
    }
    return SftpAccount(**(arguments | changes))  # type: ignore[arg-type]


def test_a_probe_leaves_nothing_and_tells_the_time(openssh: OpensshServer, tmp_path: Path) -> None:
    with account(openssh, tmp_path).session() as session:
        told = session.probe(openssh.remote("files/in"))
    assert abs((datetime.now(UTC) - told).total_seconds()) < 60
    assert list((openssh.root / "files" / "in").iterdir()) == []


def test_what_cannot_be_written_is_told(openssh: OpensshServer, tmp_path: Path) -> None:
    (openssh.root / "files" / "out").chmod(0o555)
    with account(openssh, tmp_path).session() as session:
        with pytest.raises(TransferRefused, match="rights on this folder"):
            session.probe(openssh.remote("files/out"))
        with pytest.raises(RemoteFileMissing, match="no such file or folder"):
            session.probe(openssh.remote("files/nowhere"))


def test_the_rest_of_the_gap_is_known_without_a_session(
    openssh: OpensshServer, tmp_path: Path
) -> None:
    now = time.time()
    ours = account(openssh, tmp_path, now=lambda: now)
    assert ours.gap_left_s() == 0
    with ours.session():
        pass
    assert ours.gap_left_s() == pytest.approx(300, abs=0.01)
    later = account(openssh, tmp_path, now=lambda: now + 301)
    assert later.gap_left_s() == 0


def test_one_attempt_is_one(openssh: OpensshServer, tmp_path: Path) -> None:
    waits: list[float] = []
    with refusing_port() as port:
        once = account(openssh, tmp_path, port=port, attempts=1, sleep=waits.append)
        with pytest.raises(SftpUnavailable), once.session():
            pass
    assert waits == []
