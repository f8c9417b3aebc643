"""The sandbox's folder: what lies where; nothing but a sandbox's own files is ever cleared.

A start is a new world unless told to resume: whatever an earlier sandbox left is removed first.
"""

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_MARKER = ".vibes-sandbox"
_SQLITE = ("", "-wal", "-shm")

IMPORT_DIR = "/files/in"
REPORT_DIR = "/files/reports"
EXTRACT_DIR = "/files/out"
PRIVACY_DIRS = ("/files/in_cpr", "/files/out_cpr")
"""The SFTP's folders; only the privacy ones are documented, the others an analogy."""


class SandboxHomeError(ValueError):
    """The folder cannot be a sandbox's, or is another one's; the message names it."""


@dataclass(frozen=True)
class SandboxHome:
    """Paths within the sandbox's folder; all absolute."""

    root: Path

    @property
    def crm(self) -> Path:
        """The CRM's database file."""
        return self.root / "crm.db"

    @property
    def share(self) -> Path:
        """The share's databases."""
        return self.root / "share"

    @property
    def keys(self) -> Path:
        """Host key, client key pair, known_hosts."""
        return self.root / "keys"

    @property
    def sftp(self) -> Path:
        """What SFTP clients see as `/`."""
        return self.root / "sftp"

    @property
    def journal(self) -> Path:
        """The state of the platform, for the next start."""
        return self.root / "state.db"

    @property
    def accounts(self) -> Path:
        """The state of Tribe and APSIS One, for the next start."""
        return self.root / "accounts"

    @property
    def audit_log(self) -> Path:
        """Every request, import row and session, a line of JSON each."""
        return self.root / "audit.jsonl"

    @property
    def environment_file(self) -> Path:
        """The environment to use, as shell exports; it holds passwords."""
        return self.root / "environment.env"

    def sftp_folder(self, remote: str) -> Path:
        """The local folder behind a remote one."""
        return self.sftp / remote.lstrip("/")

    @contextmanager
    def prepared(self, *, resume: bool = False) -> Iterator[None]:
        """The folder, ready for a new world or for the one that it holds; nobody else's meanwhile.

        Raises SandboxHomeError when it cannot be used, holds files that no sandbox has put there,
        holds no world to resume, or is that of a sandbox that runs.
        """
        if "'" in str(self.root):
            raise SandboxHomeError(
                f"{self.root} has an apostrophe in its path, from which no share is served;"
                " choose another folder"
            )
        if resume and not self.journal.exists():
            raise SandboxHomeError(
                f"{self.root} holds no sandbox's state to resume; start a new world there"
            )
        marker = self.root / _MARKER
        if self.root.is_dir() and not marker.exists() and any(self.root.iterdir()):
            raise SandboxHomeError(
                f"{self.root} holds files of somebody else; give the sandbox an empty folder"
            )
        self.root.mkdir(parents=True, exist_ok=True)
        with marker.open("a") as lock:  # the system ends a lock with its process
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as busy:
                raise SandboxHomeError(
                    f"a sandbox runs in {self.root}; end it first, or choose another folder"
                ) from busy
            self.environment_file.unlink(missing_ok=True)
            if not resume:
                self._clear()
            yield

    def _clear(self) -> None:
        """Remove what an earlier sandbox left, and make the folders of a new one."""
        for folder in (self.share, self.keys, self.sftp, self.accounts):
            if folder.exists():
                shutil.rmtree(folder)
        for file in (
            self.crm,
            self.audit_log,
            *(self.root / f"{self.journal.name}{end}" for end in _SQLITE),
        ):
            file.unlink(missing_ok=True)
        for remote in (IMPORT_DIR, REPORT_DIR, EXTRACT_DIR, *PRIVACY_DIRS):
            self.sftp_folder(remote).mkdir(parents=True)
        self.keys.mkdir(mode=0o700)
