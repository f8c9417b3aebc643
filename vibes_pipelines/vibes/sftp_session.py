"""What can be done inside one SFTP session: list, download, upload, read a small file."""

import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

import paramiko

from vibes_pipelines.vibes.sftp_errors import (
    LocalDiskError,
    RemoteFileMissing,
    SftpUnavailable,
    TransferRefused,
)
from vibes_pipelines.vibes.sftp_transfer import Transfers


@dataclass(frozen=True)
class RemoteFile:
    """A regular file on the server; `size` in bytes."""

    name: str
    size: int
    modified_at: datetime


class SftpSession:
    """An open session. Every failure of the server is an `SftpError` that names the path.

    One of this machine's disk is a `LocalDiskError`.
    """

    def __init__(self, sftp: paramiko.SFTPClient, host: str) -> None:
        self._sftp = sftp
        self._host = host
        self._transfers = Transfers(sftp)

    def list(self, directory: str) -> list[RemoteFile]:
        """The regular files of a folder, by name."""
        with self._errors_of(directory):
            entries = self._sftp.listdir_attr(directory)
        files = [entry for entry in entries if stat.S_ISREG(entry.st_mode or 0)]
        return sorted((_remote_file(entry) for entry in files), key=lambda file: file.name)

    def download(self, remote: str, local: Path) -> None:
        """Fetches a whole file; `local` appears only when its size is right."""
        unfinished = local.with_name(f"{local.name}.unfinished")
        try:
            with (
                unfinished.open("wb") as target,
                self._errors_of(remote, unfinished),
                self._sftp.open(remote, "rb") as source,
            ):
                self._get(source, target, remote)
            unfinished.rename(local)
        finally:
            unfinished.unlink(missing_ok=True)

    def _get(self, source: paramiko.SFTPFile, target: IO[bytes], remote: str) -> None:
        size = source.stat().st_size or 0
        arrived = self._transfers.fetch(source, target, size)
        if arrived != size:
            msg = f"{remote}: {arrived} bytes arrived of {size}; download again"
            raise TransferRefused(msg)

    def upload(self, local: Path, remote_dir: str, name: str) -> None:
        """Puts a file under `<name>.tmp`, checks its size there, then renames it to `name`.

        The platform never sees a half file. An existing `name` is replaced; on a server that cannot
        rename over a file, there is none for a moment.
        """
        final = f"{remote_dir.rstrip('/')}/{name}"
        temporary = f"{final}.tmp"
        size = local.stat().st_size
        with local.open("rb") as source, self._errors_of(final, local):
            with self._sftp.open(temporary, "wb") as target:
                self._transfers.put(source, target, size)
            arrived = self._sftp.stat(temporary).st_size
            if arrived != size:
                msg = f"{temporary}: {arrived} bytes arrived of {size}; not renamed, upload again"
                raise TransferRefused(msg)
            self._replace(temporary, final)

    def read_text(self, remote: str) -> str:
        """The text of a small UTF-8 file, such as a report."""
        with self._errors_of(remote), self._sftp.open(remote, "rb") as file:
            content = file.read()
        try:
            return content.decode("utf-8-sig")
        except UnicodeDecodeError as undecodable:
            msg = f"{remote}: not UTF-8 at byte {undecodable.start}"
            raise TransferRefused(msg) from undecodable

    def probe(self, remote_dir: str) -> datetime:
        """Puts an empty file into a folder, renames and removes it; returns the server's time.

        Its names end in `.tmp`, like that of every file that is not whole yet.

        Raises:
            RemoteFileMissing: there is no such folder.
            TransferRefused: nothing may be written or renamed there.
        """
        name = f"{remote_dir.rstrip('/')}/.vibes-pipelines-probe-{uuid.uuid4().hex[:12]}.tmp"
        renamed = f"{name.removesuffix('.tmp')}-renamed.tmp"
        with self._errors_of(remote_dir):
            with self._sftp.open(name, "wb"):
                pass
            modified = self._sftp.stat(name).st_mtime or 0
            try:
                self._replace(name, renamed)
            except OSError:
                self._sftp.remove(name)
                raise
            self._sftp.remove(renamed)
        return datetime.fromtimestamp(modified, UTC)

    def _replace(self, temporary: str, final: str) -> None:
        try:
            self._sftp.posix_rename(temporary, final)
        except OSError as refused:
            if self._is_broken(refused) or not _is_unsupported(refused):
                raise
            self._rename(temporary, final)

    def _rename(self, temporary: str, final: str) -> None:
        """Renames as version 3 of the protocol does: to a free name only."""
        try:
            self._sftp.rename(temporary, final)
        except OSError as taken:
            if self._is_broken(taken) or isinstance(taken, PermissionError):
                raise
            with suppress(OSError):  # what keeps it from going, the second attempt says
                self._sftp.remove(final)
            self._sftp.rename(temporary, final)

    @contextmanager
    def _errors_of(self, path: str, local: Path | None = None) -> Iterator[None]:
        place = f"SFTP {self._host}:{path}"
        try:
            yield
        except LocalDiskError as failed:
            failed.filename = str(local)
            raise
        except FileNotFoundError as missing:
            msg = f"{place}: no such file or folder on the server"
            raise RemoteFileMissing(msg) from missing
        except PermissionError as refused:
            msg = f"{place}: the server refused access; ask Vibes for rights on this folder"
            raise TransferRefused(msg) from refused
        except (EOFError, OSError, paramiko.SSHException) as failed:
            if isinstance(failed, OSError) and not self._is_broken(failed):
                msg = f"{place}: {failed}"
                raise TransferRefused(msg) from failed
            msg = f"{place}: the connection broke ({type(failed).__name__}); try again later"
            raise SftpUnavailable(msg) from failed

    def _is_broken(self, failed: OSError) -> bool:
        """Whether the line is gone; paramiko's own errors for that carry no number."""
        channel = self._sftp.get_channel()
        gone = channel is None or channel.closed
        return gone or isinstance(failed, (ConnectionError, TimeoutError))


def _is_unsupported(refused: OSError) -> bool:
    """Whether the server does not know the request; paramiko keeps of that its words alone."""
    words = str(refused).lower()
    return not words or "unsupported" in words or "not supported" in words


def _remote_file(entry: paramiko.SFTPAttributes) -> RemoteFile:
    modified_at = datetime.fromtimestamp(entry.st_mtime or 0, UTC)
    return RemoteFile(entry.filename, entry.st_size or 0, modified_at)
