"""The SFTP account over real SSH: host key checked, one session at a time, minutes apart."""

import errno
import hashlib
import os
import socket
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import paramiko
import pytest
from paramiko.packet import Packetizer

from vibes_pipelines.vibes import sftp, sftp_transfer
from vibes_pipelines.vibes.sftp import SftpAccount
from vibes_pipelines.vibes.sftp_errors import (
    AuthenticationRefused,
    HostKeyMismatch,
    RemoteFileMissing,
    SftpError,
    SftpUnavailable,
    TransferRefused,
)
from vibes_pipelines_tests.support.openssh import OpensshServer
from vibes_pipelines_tests.support.real_parts import refusing_port
from vibes_pipelines_tests.support.sandbox_parts import RunningSftp

BuildAccount = Callable[..., SftpAccount]


class FakeTime:
    """A clock that only moves when somebody sleeps."""

    def __init__(self) -> None:
        self.seconds = 1_767_312_000.0
        self.slept: list[float] = []

    def now(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.seconds += seconds


@pytest.fixture
def fake_time() -> FakeTime:
    return FakeTime()


@pytest.fixture
def build_account(sftp_account: RunningSftp, tmp_path: Path, fake_time: FakeTime) -> BuildAccount:
    def build(**changes: object) -> SftpAccount:
        given: dict[str, object] = {
            "host": sftp_account.host,
            "port": sftp_account.port,
            "user": sftp_account.user,
            "key_file": sftp_account.key_file,
            "known_hosts": sftp_account.known_hosts,
            "gap_s": 0.0,
            "state_file": tmp_path / "state" / "sftp",
            "sleep": fake_time.sleep,
            "now": fake_time.now,
        }
        return SftpAccount(**(given | changes))  # type: ignore[arg-type]

    return build


def test_list_names_regular_files_with_size_and_time(
    sftp_account: RunningSftp, build_account: BuildAccount
) -> None:
    out = sftp_account.root / "files" / "out"
    (out / "b.txt").write_bytes(b"12345")
    (out / "a.txt").write_bytes(b"")
    (out / "folder").mkdir()
    os.utime(out / "b.txt", (1_767_312_000, 1_767_312_000))
    with build_account().session() as session:
        files = session.list("/files/out")
    assert [(file.name, file.size) for file in files] == [("a.txt", 0), ("b.txt", 5)]
    assert files[1].modified_at == datetime(2026, 1, 2, tzinfo=UTC)


@pytest.mark.parametrize("size", [0, 1, 255 * 1024, 3_000_001])
def test_download_fetches_every_byte(
    sftp_account: RunningSftp,
    build_account: BuildAccount,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    size: int,
) -> None:
    monkeypatch.setattr(sftp_transfer, "IN_FLIGHT_BYTES", 3 * sftp_transfer.LARGEST_REQUEST_BYTES)
    content = os.urandom(size)
    (sftp_account.root / "files" / "out" / "a.txt").write_bytes(content)
    with build_account().session() as session:
        session.download("/files/out/a.txt", tmp_path / "a.txt")
    assert (tmp_path / "a.txt").read_bytes() == content


def test_a_full_disk_here_is_not_taken_for_the_servers(
    sftp_account: RunningSftp, build_account: BuildAccount, tmp_path: Path
) -> None:
    (sftp_account.root / "files" / "out" / "a.txt").write_bytes(b"12345")
    (tmp_path / "a.txt.unfinished").symlink_to("/dev/full")
    with build_account().session() as session:
        with pytest.raises(OSError, match=r"on this machine.*a\.txt\.unfinished") as raised:
            session.download("/files/out/a.txt", tmp_path / "a.txt")
        assert raised.value.errno == errno.ENOSPC
        session.download("/files/out/a.txt", tmp_path / "a.txt")


def test_upload_appears_whole_under_its_name_and_replaces(
    sftp_account: RunningSftp, build_account: BuildAccount, tmp_path: Path
) -> None:
    local = tmp_path / "local.persons"
    folder = sftp_account.root / "files" / "in"
    (folder / "a.persons").write_bytes(b"old")
    (folder / "a.persons.tmp").write_bytes(b"left over from a broken upload, longer than the new")
    local.write_bytes(b"external_person_id\nC-1\n")
    with build_account().session() as session:
        session.upload(local, "/files/in/", "a.persons")
    assert {entry.name for entry in folder.iterdir()} == {"a.persons"}
    assert (folder / "a.persons").read_bytes() == local.read_bytes()


def test_read_text_reads_a_small_file(
    sftp_account: RunningSftp, build_account: BuildAccount
) -> None:
    report = sftp_account.root / "files" / "reports" / "r.csv"
    report.write_text("rows,é\n", encoding="utf-8")
    with build_account().session() as session:
        assert session.read_text("/files/reports/r.csv") == "rows,é\n"
        report.write_bytes(b"\xff\xff")
        with pytest.raises(TransferRefused, match=r"r\.csv: not UTF-8 at byte 0"):
            session.read_text("/files/reports/r.csv")


def test_what_is_missing_on_the_server_is_named(
    build_account: BuildAccount, tmp_path: Path
) -> None:
    with build_account().session() as session:
        with pytest.raises(RemoteFileMissing, match="/files/nowhere: no such file or folder"):
            session.list("/files/nowhere")
        with pytest.raises(RemoteFileMissing, match=r"/files/out/a\.txt: no such file"):
            session.download("/files/out/a.txt", tmp_path / "a.txt")
    assert list(tmp_path.glob("a.txt*")) == []


def test_an_unknown_host_is_refused(build_account: BuildAccount, tmp_path: Path) -> None:
    known_hosts = tmp_path / "empty_known_hosts"
    known_hosts.write_text("", encoding="utf-8")
    with (
        pytest.raises(HostKeyMismatch, match=r"presents the key SHA256:.* does not list it"),
        build_account(known_hosts=known_hosts).session(),
    ):
        pass


def test_a_changed_host_key_is_refused(
    sftp_account: RunningSftp, build_account: BuildAccount, tmp_path: Path
) -> None:
    other = paramiko.Ed25519Key.from_path(sftp_account.key_file)
    known_hosts = tmp_path / "other_known_hosts"
    known_hosts.write_text(
        f"[127.0.0.1]:{sftp_account.port} {other.get_name()} {other.get_base64()}\n",
        encoding="utf-8",
    )
    with (
        pytest.raises(HostKeyMismatch, match=r"the host key changed; .* someone may be listening"),
        build_account(known_hosts=known_hosts).session(),
    ):
        pass


def test_a_refused_login_is_not_tried_again(
    build_account: BuildAccount, fake_time: FakeTime
) -> None:
    with (
        pytest.raises(AuthenticationRefused, match=r"user nobody with key .* Not tried again"),
        build_account(user="nobody").session(),
    ):
        pass
    assert fake_time.slept == []


@pytest.mark.parametrize(
    ("setting", "variable"),
    [("key_file", "VIBES_SFTP_KEY_FILE"), ("known_hosts", "VIBES_SFTP_KNOWN_HOSTS")],
)
def test_a_missing_file_names_its_variable(
    build_account: BuildAccount, tmp_path: Path, setting: str, variable: str
) -> None:
    account = build_account(**{setting: tmp_path / "nowhere"})
    with (
        pytest.raises(SftpError, match=f"nowhere: no such file; set {variable}"),
        account.session(),
    ):
        pass


def test_a_file_that_is_no_key_is_named(build_account: BuildAccount, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("not a key", encoding="utf-8")
    account = build_account(key_file=tmp_path / "key")
    with pytest.raises(SftpError, match="not a private key without passphrase"), account.session():
        pass


def test_an_unreachable_server_is_tried_three_times(
    build_account: BuildAccount, fake_time: FakeTime
) -> None:
    with (
        refusing_port() as port,
        pytest.raises(SftpUnavailable, match=r"cannot connect .* check VIBES_SFTP_HOST"),
        build_account(port=port, gap_s=300.0).session(),
    ):
        pass
    assert len(fake_time.slept) == sftp.CONNECT_ATTEMPTS - 1
    assert max(fake_time.slept) < 300, "nothing was reached, so no gap is due"


def test_a_connection_dropped_during_login_waits_for_the_gap(
    build_account: BuildAccount, fake_time: FakeTime
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        dropper = threading.Thread(target=_drop_connections, args=(listener, 3))
        dropper.start()
        account = build_account(port=listener.getsockname()[1], gap_s=300.0)
        with pytest.raises(SftpUnavailable, match="broke during login"), account.session():
            pass
        dropper.join()
    assert sum(fake_time.slept) == pytest.approx(600, abs=1)


def _drop_connections(listener: socket.socket, count: int) -> None:
    for _ in range(count):
        connection, _ = listener.accept()
        connection.close()


def test_sessions_keep_the_gap_across_processes(
    build_account: BuildAccount, fake_time: FakeTime
) -> None:
    with build_account(gap_s=300.0).session():
        fake_time.seconds += 40
    fake_time.seconds += 100
    with build_account(gap_s=300.0).session():
        pass
    assert fake_time.slept == [pytest.approx(200, abs=0.01)], "counted from the disconnect"


def test_no_wait_when_the_gap_is_over(build_account: BuildAccount, fake_time: FakeTime) -> None:
    for _ in range(2):
        fake_time.seconds += 301
        with build_account(gap_s=300.0).session():
            pass
    assert fake_time.slept == []


def test_a_clock_set_back_waits_no_longer_than_one_gap(
    build_account: BuildAccount, fake_time: FakeTime
) -> None:
    with build_account(gap_s=300.0).session():
        pass
    fake_time.seconds -= 86_400
    with build_account(gap_s=300.0).session():
        pass
    assert fake_time.slept == [300.0]


def test_a_spoilt_state_file_is_named(build_account: BuildAccount, tmp_path: Path) -> None:
    state = tmp_path / "state" / "sftp"
    state.parent.mkdir()
    state.write_text("yesterday\n", encoding="utf-8")
    with pytest.raises(SftpError, match="not the time of a session; delete it"):  # noqa: SIM117
        with build_account().session():
            pass


def test_a_second_session_waits_for_the_first(
    sftp_account: RunningSftp, build_account: BuildAccount
) -> None:
    order: list[str] = []
    first_open = threading.Event()
    real = {"sleep": time.sleep, "now": time.time}

    def first() -> None:
        with build_account(**real).session():
            first_open.set()
            time.sleep(0.4)
            order.append("first done")

    thread = threading.Thread(target=first)
    thread.start()
    assert first_open.wait(60)
    with build_account(**real).session():
        order.append("second open")
    thread.join()
    assert order == ["first done", "second open"]


def test_a_session_that_never_ends_is_given_up(
    build_account: BuildAccount, fake_time: FakeTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sftp, "LONGEST_WAIT_S", 5)
    with (
        build_account().session(),
        pytest.raises(SftpUnavailable, match="another process holds the one session"),
        build_account().session(),
    ):
        pass


def test_a_connection_lost_in_the_middle_is_transient(
    sftp_account: RunningSftp, build_account: BuildAccount
) -> None:
    with build_account().session() as session:
        sftp_account.server.stop()
        with pytest.raises(SftpUnavailable, match="/files/out: the connection broke"):
            session.list("/files/out")


def test_handshake_timeouts_outlast_paramikos_own_steps() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        transport = paramiko.Transport(ours)
        assert transport.banner_timeout + transport.handshake_timeout <= sftp.HANDSHAKE_TIMEOUT_S


def _account_at(openssh: OpensshServer, state_file: Path) -> SftpAccount:
    return SftpAccount(
        host=openssh.host,
        port=openssh.port,
        user=openssh.user,
        key_file=openssh.key_file,
        known_hosts=openssh.known_hosts,
        gap_s=0.0,
        state_file=state_file,
    )


@pytest.mark.openssh
def test_transfers_with_real_openssh(openssh: OpensshServer, tmp_path: Path) -> None:
    big = tmp_path / "big"
    big.write_bytes(os.urandom(40 * 2**20 + 17))
    with _account_at(openssh, tmp_path / "state").session() as session:
        folder = openssh.remote("files/in")
        session.upload(big, folder, "big.persons")
        assert [(f.name, f.size) for f in session.list(folder)] == [
            ("big.persons", big.stat().st_size)
        ]
        session.upload(big, folder, "big.persons")
        session.download(f"{folder}/big.persons", tmp_path / "back")
        with pytest.raises(RemoteFileMissing):
            session.read_text(f"{folder}/nowhere")
    assert _digest(tmp_path / "back") == _digest(big)


@pytest.mark.openssh
def test_keys_are_renewed_in_the_middle_of_a_file(
    openssh: OpensshServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As they are after 512 MiB; here after 2."""
    monkeypatch.setattr(Packetizer, "REKEY_BYTES", 2 * 2**20)
    with_new_keys, renewals = Packetizer.set_inbound_cipher, []

    def count(self: Packetizer, *keys: Any, **more: Any) -> None:
        renewals.append(self)
        with_new_keys(self, *keys, **more)

    monkeypatch.setattr(Packetizer, "set_inbound_cipher", count)
    big = tmp_path / "big"
    big.write_bytes(os.urandom(30 * 2**20))
    with _account_at(openssh, tmp_path / "state").session() as session:
        session.upload(big, openssh.remote("files/in"), "big.persons")
        session.download(openssh.remote("files/in/big.persons"), tmp_path / "back")
    assert _digest(tmp_path / "back") == _digest(big)
    assert len(renewals) > 5, (
        "once at login, and then on the way: the fewer, the more leaves while keys are agreed"
    )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
