"""The SFTP stand-in: one account on loopback, as strict as the Vibes documentation ("SFTP") says.

Public keys only, AES in counter mode only, no simultaneous connections, and a lock after too many
failed logins. The client sees `root` as `/` and cannot leave it. What is in the folders is the
business of others.
"""

import asyncio
import contextlib
import logging
import os
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import BinaryIO, Literal, cast

import asyncssh
from asyncssh.channel import SSHChannel, SSHServerChannel
from asyncssh.constants import DISC_TOO_MANY_CONNECTIONS, OPEN_ADMINISTRATIVELY_PROHIBITED
from asyncssh.stream import SSHServerStreamSession

from vibes_pipelines.sandbox.faults import Fault, Faults

logger = logging.getLogger(__name__)

SessionEvent = Literal["opened", "closed", "refused"]

CIPHERS = ("aes256-ctr", "aes192-ctr", "aes128-ctr")
MACS = ("hmac-sha2-512", "hmac-sha2-256")
REFUSAL = "another connection of this account is open"

# A client's library may hold its socket open for a moment after it has closed the connection:
# a new login waits that long for the old session to end.
CLOSING_S = 0.5

# A refused client learns why when it asks for its session; one that never asks is thrown out.
REFUSAL_S = 2.0

SFTP_VERSION = 3
START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 10.0


def generate_key_pair(folder: Path, name: str = "id_ed25519") -> tuple[Path, Path]:
    """Write a new key pair in OpenSSH format and return the paths (private, public)."""
    folder.mkdir(parents=True, exist_ok=True)
    private, public = folder / name, folder / f"{name}.pub"
    key = asyncssh.generate_private_key("ssh-ed25519")
    private.touch(mode=0o600)
    key.write_private_key(private)
    key.write_public_key(public)
    return private, public


def keep_key_pair(folder: Path, name: str) -> tuple[Path, Path]:
    """The key pair of this name in the folder, which is made when it is not there."""
    private, public = folder / name, folder / f"{name}.pub"
    return (private, public) if public.exists() else generate_key_pair(folder, name)


class SftpServer:
    """Serves `root` to one user, on 127.0.0.1.

    Args:
        root: Folder that the client sees as `/`.
        user: Login name.
        authorized_public_key: The user's public key file in OpenSSH format.
        host_key: The server's private key file; None generates one for this run.
        on_session: Told of each session in the server's thread: `opened`, `closed`, or `refused`
            when another session was open.
        max_failed_logins: Failed logins in a row that lock the user; `unlock` ends the lock.
        faults: Scripted faults; those of the SFTP strike here.
    """

    def __init__(
        self,
        root: Path,
        user: str,
        authorized_public_key: Path,
        host_key: Path | None = None,
        *,
        on_session: Callable[[SessionEvent], None] | None = None,
        max_failed_logins: int = 10,
        faults: Faults | None = None,
    ) -> None:
        self._faults = faults or Faults()
        self._root = root.resolve()
        self._host_key = (
            asyncssh.read_private_key(host_key)
            if host_key
            else asyncssh.generate_private_key("ssh-ed25519")
        )
        public_key = asyncssh.read_public_key(authorized_public_key)
        self._account = _Account(user, public_key, max_failed_logins, on_session or _ignore)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="sftp-server", daemon=True
        )
        self._acceptor: asyncssh.SSHAcceptor | None = None
        self._port = 0

    @property
    def host_public_key(self) -> str:
        """The host key as `<algorithm> <base64>`."""
        return self._host_key.export_public_key().decode().strip()

    def known_hosts_line(self) -> str:
        """Return the line for a known_hosts file; the server must have been started."""
        return f"[127.0.0.1]:{self._port} {self.host_public_key}\n"

    def unlock(self) -> None:
        """Let a locked user log in again."""
        self._loop.call_soon_threadsafe(self._account.unlock)

    def start(self) -> int:
        """Serve in a thread and return the port once connections are accepted."""
        self._thread.start()
        listening = asyncio.run_coroutine_threadsafe(self._listen(), self._loop)
        self._acceptor = listening.result(START_TIMEOUT_S)
        self._port = self._acceptor.get_port()
        return self._port

    def stop(self) -> None:
        """End every session and stop serving."""
        if self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(STOP_TIMEOUT_S)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(STOP_TIMEOUT_S)
        self._loop.close()

    async def _listen(self) -> asyncssh.SSHAcceptor:
        return await asyncssh.listen(
            "127.0.0.1",
            0,
            server_factory=lambda: _Login(self._account, self._root, self._faults),
            server_host_keys=[self._host_key],
            encryption_algs=list(CIPHERS),
            mac_algs=list(MACS),
            agent_forwarding=False,
        )

    async def _close(self) -> None:
        if self._acceptor is not None:
            self._acceptor.close()
            await self._acceptor.wait_closed()
        await self._account.close_connections()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _ignore(_event: SessionEvent) -> None:
    """Tell nobody."""


class _Account:
    """The state of the one account over all connections; used in the server's thread only."""

    def __init__(
        self,
        user: str,
        public_key: asyncssh.SSHKey,
        max_failed_logins: int,
        report: Callable[[SessionEvent], None],
    ) -> None:
        self._user = user
        self._public_data = public_key.public_data
        self._max_failed_logins = max_failed_logins
        self._failed_logins = 0
        self._report = report
        self._session: asyncssh.SSHServerConnection | None = None
        self._free = asyncio.Event()
        self._free.set()
        self._connections: set[asyncssh.SSHServerConnection] = set()

    def accepts(self, user: str, key: asyncssh.SSHKey) -> bool:
        """Say whether the key opens the account now."""
        locked = self._failed_logins >= self._max_failed_logins
        return not locked and user == self._user and key.public_data == self._public_data

    def connected(self, connection: asyncssh.SSHServerConnection) -> None:
        """Remember a connection, logged in or not."""
        self._connections.add(connection)

    async def wait_until_free(self) -> None:
        """Give a session that its client has just closed the time to end here too."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._free.wait(), CLOSING_S)

    def open_session(self, connection: asyncssh.SSHServerConnection) -> bool:
        """Open the session of a login; False while another is open."""
        self._failed_logins = 0
        if self._session is not None:
            self._report("refused")
            return False
        self._session = connection
        self._free.clear()
        self._report("opened")
        return True

    def failed_login(self, user: str) -> None:
        """Count a failed login of the account's user."""
        if user == self._user:
            self._failed_logins += 1
            logger.info("failed login %d of the SFTP user", self._failed_logins)

    def disconnected(self, connection: asyncssh.SSHServerConnection) -> None:
        """Forget a connection, and close the session if it was the one."""
        self._connections.discard(connection)
        if connection is self._session:
            self._session = None
            self._free.set()
            self._report("closed")

    def unlock(self) -> None:
        """Forget the failed logins."""
        self._failed_logins = 0

    async def close_connections(self) -> None:
        """Break every connection off."""
        connections = list(self._connections)
        for connection in connections:
            connection.abort()
        for connection in connections:
            await connection.wait_closed()


class _Login(asyncssh.SSHServer):
    """One connection: public key authentication, then at most one session an account."""

    def __init__(self, account: _Account, root: Path, faults: Faults) -> None:
        self._account = account
        self._faults = faults
        self._root = root
        self._connection: asyncssh.SSHServerConnection
        self._has_failed = False
        self._is_open = False

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connection = conn
        self._account.connected(conn)

    async def begin_auth(self, username: str) -> bool:  # noqa: ARG002 - asyncssh's signature
        await self._account.wait_until_free()
        return True

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        accepted = self._account.accepts(username, key)
        if not accepted and not self._has_failed:  # a client may offer several keys in one login
            self._has_failed = True
            self._account.failed_login(username)
        return accepted

    def auth_completed(self) -> None:
        self._is_open = self._account.open_session(self._connection)
        if not self._is_open:
            asyncio.get_running_loop().call_later(
                REFUSAL_S, self._connection.disconnect, DISC_TOO_MANY_CONNECTIONS, REFUSAL
            )

    def session_requested(self) -> SSHServerStreamSession[bytes]:
        if not self._is_open:
            raise asyncssh.ChannelOpenError(OPEN_ADMINISTRATIVELY_PROHIBITED, REFUSAL)
        if self._faults.take("SESSION", "/", "sftp", {"refuse"}):
            raise asyncssh.ChannelOpenError(OPEN_ADMINISTRATIVELY_PROHIBITED, "try again later")
        return SSHServerStreamSession(None, self._serve_files, SFTP_VERSION)

    def _serve_files(self, channel: SSHChannel[bytes]) -> "_Files":
        return _Files(channel, self._root, self._faults)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncssh's signature
        self._account.disconnected(self._connection)


class _Files(asyncssh.SFTPServer):
    """The files below a root that no path and no link leads out of."""

    def __init__(self, channel: SSHChannel[bytes], root: Path, faults: Faults) -> None:
        super().__init__(cast("SSHServerChannel[bytes]", channel), chroot=os.fsencode(root))
        self._root = root
        self._faults = faults
        self._struck: dict[object, Fault] = {}

    def open(self, path: bytes, pflags: int, attrs: asyncssh.SFTPAttrs) -> object:
        """Open a file, which a fault may strike from now on."""
        file = super().open(path, pflags, attrs)
        fault = self._faults.take("OPEN", os.fsdecode(path), "sftp", {"slow", "half", "reset"})
        if fault is not None:
            self._struck[file] = fault
        return file

    async def read(self, file_obj: object, offset: int, size: int) -> bytes:
        """Read a part of a file; of one that a fault has cut only what is in its first half."""
        fault = await self._suffer(file_obj)
        data = cast("bytes", super().read(file_obj, offset, size))
        if fault is not None and fault.action == "half":
            whole = os.fstat(cast("BinaryIO", file_obj).fileno()).st_size
            data = data[: max(0, whole // 2 - offset)]
        return data

    async def write(self, file_obj: object, offset: int, data: bytes) -> int:
        """Write a part of a file."""
        await self._suffer(file_obj)
        return cast("int", super().write(file_obj, offset, data))

    def close(self, file_obj: object) -> None:
        """Close a file."""
        self._struck.pop(file_obj, None)
        super().close(file_obj)

    async def _suffer(self, file: object) -> Fault | None:
        """Let the file's fault strike a read or a write; returns it."""
        fault = self._struck.get(file)
        if fault is not None and fault.action == "slow":
            await asyncio.sleep(fault.delay_s)
        elif fault is not None and fault.action == "reset":
            self.channel.get_connection().abort()
        return fault

    def map_path(self, path: bytes) -> bytes:
        """Map to a local path; one that leads out of the root through a link is refused."""
        local = super().map_path(path)
        real = Path(os.fsdecode(local)).resolve()
        if not real.is_relative_to(self._root):
            raise asyncssh.SFTPPermissionDenied("the path leads out of the account's folder")
        return local

    async def scandir(self, path: bytes) -> AsyncIterator[asyncssh.SFTPName]:
        """The entries of a folder; one that vanishes meanwhile is left out, as OpenSSH does."""
        folder = Path(os.fsdecode(self.map_path(path)))
        for name in (".", "..", *sorted(entry.name for entry in folder.iterdir())):
            with contextlib.suppress(FileNotFoundError):
                attributes = asyncssh.SFTPAttrs.from_local((folder / name).lstat())
                yield asyncssh.SFTPName(os.fsencode(name), attrs=attributes)

    def symlink(self, oldpath: bytes, newpath: bytes) -> None:  # noqa: ARG002 - asyncssh's signature
        raise asyncssh.SFTPPermissionDenied("links are not allowed")

    def link(self, oldpath: bytes, newpath: bytes) -> None:  # noqa: ARG002 - asyncssh's signature
        raise asyncssh.SFTPPermissionDenied("links are not allowed")
