"""The SFTP stand-in as paramiko, a client of its own, meets it."""

import io
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncssh
import paramiko
import pytest

from vibes_pipelines.sandbox.sftp_server import SftpServer, generate_key_pair
from vibes_pipelines_tests.support.sandbox_parts import RunningSftp


@contextmanager
def connected(
    account: RunningSftp, key_file: Path | None = None, user: str | None = None
) -> Iterator[paramiko.SFTPClient]:
    """Log in with the host key checked, and out again."""
    with paramiko.SSHClient() as client:
        client.load_host_keys(str(account.known_hosts))
        client.connect(
            account.host,
            account.port,
            user or account.user,
            key_filename=str(key_file or account.key_file),
            allow_agent=False,
            look_for_keys=False,
            timeout=60,
        )
        with client.open_sftp() as sftp:
            yield sftp


def wait_for(account: RunningSftp, events: list[str]) -> None:
    deadline = time.monotonic() + 60
    while account.events != events and time.monotonic() < deadline:
        time.sleep(0.01)
    assert account.events == events


def fail_to_log_in(account: RunningSftp, key_file: Path, user: str | None = None) -> None:
    with (
        pytest.raises(paramiko.AuthenticationException),
        connected(account, key_file, user),
    ):
        pass


@pytest.fixture
def strange_key(tmp_path: Path) -> Path:
    private, _ = generate_key_pair(tmp_path / "strange")
    return private


def test_file_travels_there_and_back(sftp_account: RunningSftp) -> None:
    content = os.urandom(300_000)
    with connected(sftp_account) as sftp:
        sftp.putfo(io.BytesIO(content), "/files/in/a.persons")
        back = io.BytesIO()
        sftp.getfo("/files/in/a.persons", back)
    assert back.getvalue() == content
    assert (sftp_account.root / "files/in/a.persons").read_bytes() == content


def test_posix_rename_replaces_and_plain_rename_does_not(sftp_account: RunningSftp) -> None:
    folder = sftp_account.root / "files/in"
    (folder / "a.persons").write_text("old")
    (folder / "a.persons.tmp").write_text("new")
    with connected(sftp_account) as sftp:
        with pytest.raises(OSError, match="exists"):
            sftp.rename("/files/in/a.persons.tmp", "/files/in/a.persons")
        sftp.posix_rename("/files/in/a.persons.tmp", "/files/in/a.persons")
    assert (folder / "a.persons").read_text() == "new"
    assert not (folder / "a.persons.tmp").exists()


def test_only_a_public_key_is_asked_for(sftp_account: RunningSftp) -> None:
    with paramiko.SSHClient() as client:
        client.load_host_keys(str(sftp_account.known_hosts))
        with pytest.raises(paramiko.BadAuthenticationType) as refusal:
            client.connect(
                sftp_account.host,
                sftp_account.port,
                sftp_account.user,
                password="guess",
                allow_agent=False,
                look_for_keys=False,
            )
    assert refusal.value.allowed_types == ["publickey"]


def test_strange_key_and_strange_user_are_refused(
    sftp_account: RunningSftp, strange_key: Path
) -> None:
    fail_to_log_in(sftp_account, strange_key)
    fail_to_log_in(sftp_account, sftp_account.key_file, user="someone")
    assert sftp_account.events == []


def test_failed_logins_lock_the_user_until_unlocked(
    sftp_account: RunningSftp, strange_key: Path
) -> None:
    for _ in range(3):
        fail_to_log_in(sftp_account, strange_key)
    fail_to_log_in(sftp_account, sftp_account.key_file)
    sftp_account.server.unlock()
    with connected(sftp_account) as sftp:
        assert sftp.listdir("/files") != []


def test_a_successful_login_ends_the_count_of_failed_ones(
    sftp_account: RunningSftp, strange_key: Path
) -> None:
    for _ in range(2):
        fail_to_log_in(sftp_account, strange_key)
        fail_to_log_in(sftp_account, strange_key)
        with connected(sftp_account):
            pass


def test_second_connection_is_refused_while_one_is_open(sftp_account: RunningSftp) -> None:
    with connected(sftp_account) as first:
        with (
            pytest.raises(paramiko.ChannelException, match="Administratively prohibited"),
            connected(sftp_account),
        ):
            pass
        assert sorted(first.listdir("/files")) == ["in", "out", "reports"]
    wait_for(sftp_account, ["opened", "refused", "closed"])
    with connected(sftp_account) as again:
        assert again.listdir("/files/in") == []
    wait_for(sftp_account, ["opened", "refused", "closed", "opened", "closed"])


def test_new_connection_right_after_the_old_is_accepted(sftp_account: RunningSftp) -> None:
    for _ in range(5):
        with connected(sftp_account) as sftp:
            sftp.listdir("/")
    wait_for(sftp_account, ["opened", "closed"] * 5)


@pytest.mark.parametrize("path", ["/../secret", "../../secret", "/files/../../secret"])
def test_dots_do_not_leave_the_root(sftp_account: RunningSftp, path: str) -> None:
    (sftp_account.root.parent / "secret").write_text("not for clients")
    with connected(sftp_account) as sftp, pytest.raises(FileNotFoundError):
        sftp.stat(path)


def test_links_do_not_leave_the_root(sftp_account: RunningSftp) -> None:
    outside = sftp_account.root.parent / "outside"
    outside.mkdir()
    (outside / "secret").write_text("not for clients")
    (sftp_account.root / "files/escape").symlink_to(outside)
    with connected(sftp_account) as sftp:
        with pytest.raises(PermissionError):
            sftp.listdir("/files/escape")
        with pytest.raises(PermissionError):
            sftp.open("/files/escape/secret")
        with pytest.raises(PermissionError):
            sftp.putfo(io.BytesIO(b"x"), "/files/escape/new", confirm=False)
        with pytest.raises(PermissionError):
            sftp.symlink("/files/in", "/files/link")
        assert "escape" in sftp.listdir("/files")
    assert [path.name for path in outside.iterdir()] == ["secret"]


def test_shell_is_refused(sftp_account: RunningSftp) -> None:
    with paramiko.SSHClient() as client:
        client.load_host_keys(str(sftp_account.known_hosts))
        client.connect(
            sftp_account.host,
            sftp_account.port,
            sftp_account.user,
            key_filename=str(sftp_account.key_file),
            allow_agent=False,
            look_for_keys=False,
        )
        with pytest.raises(paramiko.SSHException):
            client.exec_command("true")


@pytest.mark.parametrize(
    ("offer", "name"), [("ciphers", "aes256-gcm@openssh.com"), ("digests", "hmac-sha1")]
)
def test_other_ciphers_and_macs_find_no_agreement(
    sftp_account: RunningSftp, offer: str, name: str
) -> None:
    address = (sftp_account.host, sftp_account.port)
    with (
        socket.create_connection(address, 60) as connection,
        paramiko.Transport(connection) as transport,
    ):
        setattr(transport.get_security_options(), offer, (name,))
        with pytest.raises(paramiko.SSHException):
            transport.start_client(timeout=60)


@pytest.mark.parametrize("cipher", ["aes256-ctr", "aes192-ctr", "aes128-ctr"])
def test_counter_mode_ciphers_are_agreed_on(sftp_account: RunningSftp, cipher: str) -> None:
    address = (sftp_account.host, sftp_account.port)
    with (
        socket.create_connection(address, 60) as connection,
        paramiko.Transport(connection) as transport,
    ):
        transport.get_security_options().ciphers = (cipher,)
        transport.start_client(timeout=60)
        assert transport.is_active()


def test_given_host_key_is_kept_over_a_restart(tmp_path: Path) -> None:
    host_private, host_public = generate_key_pair(tmp_path / "host")
    _, public = generate_key_pair(tmp_path / "user")
    expected = " ".join(host_public.read_text().split()[:2])
    for _ in range(2):
        server = SftpServer(tmp_path, "vibes", public, host_private)
        port = server.start()
        try:
            assert server.known_hosts_line() == f"[127.0.0.1]:{port} {expected}\n"
        finally:
            server.stop()


def test_key_pair_is_openssh_format_and_private(tmp_path: Path) -> None:
    private, public = generate_key_pair(tmp_path)
    assert private.read_text().startswith("-----BEGIN OPENSSH PRIVATE KEY-----")
    assert private.stat().st_mode & 0o777 == 0o600
    key = paramiko.Ed25519Key.from_private_key_file(str(private))
    assert key.get_base64() == public.read_text().split()[1]
    assert asyncssh.read_public_key(public).get_algorithm() == "ssh-ed25519"


def test_stopping_ends_open_sessions(sftp_account: RunningSftp) -> None:
    with connected(sftp_account) as sftp:
        sftp_account.server.stop()
        # Which of the two depends on whether the end came before the request or in its middle.
        with pytest.raises((OSError, paramiko.SSHException), match=r"[Cc]losed|dropped"):
            sftp.listdir("/files")
    assert sftp_account.events == ["opened", "closed"]
