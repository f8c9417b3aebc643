"""The sandbox's folder: what lies where; nothing but a sandbox's own files is ever cleared.

Every start is a new world: whatever an earlier sandbox left in the folder is removed first.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

_MARKER = ".vibes-sandbox"

IMPORT_DIR = "/files/in"
REPORT_DIR = "/files/reports"
EXTRACT_DIR = "/files/out"
PRIVACY_DIRS = ("/files/in_cpr", "/files/out_cpr")
"""The SFTP's folders; only the privacy ones are documented, the others an analogy."""


class SandboxHomeError(ValueError):
    """The folder holds something else than a sandbox; the message names it."""


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
    def environment_file(self) -> Path:
        """The environment to use, as shell exports; it holds passwords."""
        return self.root / "environment.env"

    def sftp_folder(self, remote: str) -> Path:
        """The local folder behind a remote one."""
        return self.sftp / remote.lstrip("/")

    def prepare(self) -> None:
        """Make the folder ready for a new world.

        Raises SandboxHomeError when it cannot be used or holds files that no sandbox has put there.
        """
        if "'" in str(self.root):
            raise SandboxHomeError(
                f"{self.root} has an apostrophe in its path, from which no share is served;"
                " choose another folder"
            )
        marker = self.root / _MARKER
        if self.root.is_dir() and not marker.exists() and any(self.root.iterdir()):
            raise SandboxHomeError(
                f"{self.root} holds files of somebody else; give the sandbox an empty folder"
            )
        self.root.mkdir(parents=True, exist_ok=True)
        marker.touch()
        for folder in (self.share, self.keys, self.sftp):
            if folder.exists():
                shutil.rmtree(folder)
        for file in (self.crm, self.environment_file):
            file.unlink(missing_ok=True)
        for remote in (IMPORT_DIR, REPORT_DIR, EXTRACT_DIR, *PRIVACY_DIRS):
            self.sftp_folder(remote).mkdir(parents=True)
        self.keys.mkdir(mode=0o700)
