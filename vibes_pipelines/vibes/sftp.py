"""The customer's SFTP account at Vibes: one session at a time, minutes apart, host key checked.

Rules: the Vibes documentation, File Transfers via SFTP: public key only, no simultaneous
connections, at least five minutes between two connections, excessive failed logins block the user.
What the files hold belongs to `extracts` and the `import_*` files.
"""

import fcntl
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import paramiko
import tenacity
from paramiko.ssh_exception import IncompatiblePeer

from vibes_pipelines.vibes.read_ahead import ReadAheadSocket
from vibes_pipelines.vibes.sftp_errors import (
    AuthenticationRefused,
    HostKeyMismatch,
    SftpError,
    SftpUnavailable,
)
from vibes_pipelines.vibes.sftp_session import RemoteFile, SftpSession
from vibes_pipelines.vibes.sftp_transfer import open_sftp

__all__ = ["RemoteFile", "SftpAccount", "SftpError", "SftpSession"]

# paramiko waits 15 s each for the banner and the key exchange; a slow server needs more than both.
HANDSHAKE_TIMEOUT_S = 45
CHANNEL_TIMEOUT_S = 120
CONNECT_ATTEMPTS = 3
# Longer than any delivery of one day: a session that never ends must not block for ever.
LONGEST_WAIT_S = 4 * 3600


class _RefuseUnknownHost(paramiko.MissingHostKeyPolicy):
    """Rejects a host that is not in the known_hosts file, as an error of its own class."""

    def __init__(self, known_hosts: Path) -> None:
        self._known_hosts = known_hosts

    def missing_host_key(
        self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey
    ) -> None:
        del client
        msg = (
            f"{hostname} presents the key {key.fingerprint}, and {self._known_hosts} does not list "
            "it; compare the fingerprint with your Vibes representative, then add the host's line"
        )
        raise HostKeyMismatch(msg)


@dataclass(frozen=True)
class SftpAccount:
    """How to reach the account. `gap_s`: the least seconds between two connections.

    `state_file` holds the time of the last contact and is locked while a session is open, so that
    every process on this machine keeps the platform's rules together.
    """

    host: str
    port: int
    user: str
    key_file: Path
    known_hosts: Path
    gap_s: float
    state_file: Path
    sleep: Callable[[float], None] = time.sleep
    now: Callable[[], float] = time.time
    attempts: int = CONNECT_ATTEMPTS

    def gap_left_s(self) -> float:
        """Seconds until the next session may begin, as far as this machine knows; 0: now.

        Raises:
            SftpError: the state file holds no time.
        """
        if not self.state_file.exists():
            return 0.0
        with self.state_file.open(encoding="utf-8") as state:
            return max(0.0, min(_last_contact(state) + self.gap_s - self.now(), self.gap_s))

    @contextmanager
    def session(self) -> Iterator[SftpSession]:
        """Opens the one session, after waiting for the rest of the gap, and closes it.

        Raises:
            HostKeyMismatch: the server is not the one in the known_hosts file.
            AuthenticationRefused: the key or the user was refused; never tried again.
            SftpUnavailable: transient; raised after `attempts` to connect.
        """
        key = self._key()
        self._existing(self.known_hosts, "VIBES_SFTP_KNOWN_HOSTS")
        self.state_file.parent.mkdir(parents=True, exist_ok=True)
        self.state_file.touch()
        with self.state_file.open("r+", encoding="utf-8") as state:
            self._wait_for_other_sessions(state)
            client = self._connect_persistently(state, key)
            try:
                with client, self._open_sftp(client) as sftp:
                    yield SftpSession(sftp, self.host)
            finally:
                self._note_contact(state)

    def _connect_persistently(self, state: TextIO, key: paramiko.PKey) -> paramiko.SSHClient:
        attempts = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(SftpUnavailable),
            stop=tenacity.stop_after_attempt(self.attempts),
            wait=tenacity.wait_exponential_jitter(initial=1, max=30),
            sleep=self.sleep,
            reraise=True,
        )
        return attempts(self._connect_after_gap, state, key)

    def _connect_after_gap(self, state: TextIO, key: paramiko.PKey) -> paramiko.SSHClient:
        self._wait_for_gap(state)
        sock = self._dial()
        self._note_contact(state)
        return self._log_in(sock, key)

    def _dial(self) -> socket.socket:
        try:
            sock = socket.create_connection((self.host, self.port), HANDSHAKE_TIMEOUT_S)
        except OSError as unreachable:
            msg = f"{self._place}: cannot connect ({unreachable}); check VIBES_SFTP_HOST and _PORT"
            raise SftpUnavailable(msg) from unreachable
        # Without it, small requests wait for acknowledgements and downloads crawl.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return ReadAheadSocket(sock)

    def _log_in(self, sock: socket.socket, key: paramiko.PKey) -> paramiko.SSHClient:
        client = paramiko.SSHClient()
        try:
            client.load_host_keys(str(self.known_hosts))
            client.set_missing_host_key_policy(_RefuseUnknownHost(self.known_hosts))
            with self._login_errors():
                self._authenticate(client, sock, key)
        except BaseException:
            client.close()
            sock.close()
            raise
        return client

    def _authenticate(
        self, client: paramiko.SSHClient, sock: socket.socket, key: paramiko.PKey
    ) -> None:
        client.connect(
            self.host,
            self.port,
            self.user,
            pkey=key,
            sock=sock,
            allow_agent=False,
            look_for_keys=False,
            timeout=HANDSHAKE_TIMEOUT_S,
            banner_timeout=HANDSHAKE_TIMEOUT_S,
            auth_timeout=HANDSHAKE_TIMEOUT_S,
            channel_timeout=HANDSHAKE_TIMEOUT_S,
        )

    def _open_sftp(self, client: paramiko.SSHClient) -> paramiko.SFTPClient:
        with self._login_errors():
            sftp = open_sftp(client)
        sftp.sock.settimeout(CHANNEL_TIMEOUT_S)
        return sftp

    @contextmanager
    def _login_errors(self) -> Iterator[None]:
        """Translates a failed login; permanent classes first, the rest is transient."""
        try:
            yield
        except paramiko.BadHostKeyException as changed:
            msg = (
                f"{self._place}: the host key changed; {self.known_hosts} lists another one. Ask "
                "your Vibes representative before you replace the line: someone may be listening"
            )
            raise HostKeyMismatch(msg) from changed
        except paramiko.AuthenticationException as refused:
            msg = (
                f"{self._place}: user {self.user} with key {self.key_file} was refused; check "
                "VIBES_SFTP_USER and that Vibes has this key. Not tried again: repeated failures "
                "block the user"
            )
            raise AuthenticationRefused(msg) from refused
        except IncompatiblePeer as peer:
            msg = f"{self._place}: no common cipher or key exchange ({peer}); ask Vibes for theirs"
            raise SftpError(msg) from peer
        except (paramiko.SSHException, EOFError, OSError) as broken:
            msg = f"{self._place}: the connection broke during login ({broken}); try again later"
            raise SftpUnavailable(msg) from broken

    def _key(self) -> paramiko.PKey:
        path = self._existing(self.key_file, "VIBES_SFTP_KEY_FILE")
        try:
            return paramiko.PKey.from_path(path)
        except (paramiko.SSHException, ValueError, TypeError) as unreadable:
            msg = f"{path}: not a private key without passphrase; set VIBES_SFTP_KEY_FILE to one"
            raise SftpError(msg) from unreadable

    def _existing(self, path: Path, variable: str) -> Path:
        if not path.is_file():
            msg = f"{path}: no such file; set {variable}"
            raise SftpError(msg)
        return path

    def _wait_for_other_sessions(self, state: TextIO) -> None:
        deadline = self.now() + LONGEST_WAIT_S
        while not _try_lock(state):
            if self.now() > deadline:
                msg = f"{self._place}: another process holds the one session ({self.state_file})"
                raise SftpUnavailable(msg)
            self.sleep(0.2)

    def _wait_for_gap(self, state: TextIO) -> None:
        rest = _last_contact(state) + self.gap_s - self.now()
        if rest > 0:
            self.sleep(min(rest, self.gap_s))

    def _note_contact(self, state: TextIO) -> None:
        state.seek(0)
        state.write(f"{self.now():.3f}\n")
        state.flush()

    @property
    def _place(self) -> str:
        return f"SFTP {self.host}:{self.port}"


def _try_lock(state: TextIO) -> bool:
    try:
        fcntl.flock(state, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _last_contact(state: TextIO) -> float:
    """Seconds since the epoch of the last contact; 0 when there was none."""
    state.seek(0)
    text = state.readline()
    try:
        return float(text or 0)
    except ValueError as malformed:
        msg = f"{state.name}: not the time of a session; delete it and wait for one gap"
        raise SftpError(msg) from malformed
