"""Picks person imports up from the SFTP's import folder and leaves the platform's reports behind.

Where folders, names and order of appearance are concerned everything here is an assumption: the
Vibes documentation does not say how results come back.
"""

from pathlib import Path
from threading import Lock

from vibes_pipelines.sandbox.imports import ImportOutcome, process_import
from vibes_pipelines.sandbox.platform import Platform
from vibes_pipelines.sandbox.switches import Switches


def _age(path: Path) -> tuple[int, str]:
    return path.stat().st_mtime_ns, path.name


class ImportPickup:
    """Processes whole files; uploads in progress (`.tmp`) and unknown kinds are left alone."""

    def __init__(
        self, platform: Platform, in_dir: Path, report_dir: Path, switches: Switches | None = None
    ) -> None:
        self.platform = platform
        self.in_dir = in_dir
        self.report_dir = report_dir
        self.switches = switches or Switches()
        self._lock = Lock()

    def scan(self) -> list[ImportOutcome]:
        """Process every import that is there, the oldest first, one scan at a time."""
        with self._lock:
            pattern = f"*.{self.switches.person_extension}"
            whole = [path for path in self.in_dir.glob(pattern) if path.is_file()]
            return [self._process(path) for path in sorted(whole, key=_age)]

    def _process(self, path: Path) -> ImportOutcome:
        """Apply and remove one file; its summary comes last and means done."""
        outcome = process_import(self.platform, path.name, path.read_bytes(), self.switches)
        path.unlink()
        self._drop(f"{path.name}.report.csv", outcome.report_csv)
        self._drop(f"{path.name}.summary.csv", outcome.summary_csv)
        return outcome

    def _drop(self, name: str, text: str) -> None:
        """Let a file appear whole or not at all."""
        partial = self.report_dir / f".{name}.tmp"
        partial.write_text(text, encoding="utf-8", newline="")
        partial.replace(self.report_dir / name)
