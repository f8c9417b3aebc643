"""Picks imports up from the SFTP's import folder and leaves the platform's reports behind.

Where folders, names and order of appearance are concerned everything here is an assumption: the
Vibes documentation does not say how results come back.
"""

import time
from pathlib import Path
from threading import Lock

from vibes_pipelines.sandbox.account import Account
from vibes_pipelines.sandbox.faults import Faults
from vibes_pipelines.sandbox.import_kinds import KINDS
from vibes_pipelines.sandbox.imports import ImportOutcome, process_import, process_kind
from vibes_pipelines.sandbox.platform import Platform
from vibes_pipelines.sandbox.switches import Switches


def _age(path: Path) -> tuple[int, str]:
    return path.stat().st_mtime_ns, path.name


class ImportPickup:
    """Processes whole files; uploads in progress (`.tmp`) and unknown kinds are left alone.

    Without an account there is nothing but persons to import.
    """

    def __init__(
        self,
        platform: Platform,
        in_dir: Path,
        report_dir: Path,
        switches: Switches | None = None,
        account: Account | None = None,
        faults: Faults | None = None,
    ) -> None:
        self.platform = platform
        self.in_dir = in_dir
        self.report_dir = report_dir
        self.switches = switches or Switches()
        self._account = account
        self._faults = faults or Faults()
        self._later: list[tuple[float, str, str]] = []
        self._kinds = {self.switches.person_extension, *(KINDS if account else ())}
        self._lock = Lock()

    def scan(self) -> list[ImportOutcome]:
        """Process every import that is there, the oldest first, one scan at a time."""
        with self._lock:
            self._drop_later()
            whole = [
                path
                for path in self.in_dir.iterdir()
                if path.suffix.removeprefix(".") in self._kinds and path.is_file()
                if not path.name.startswith(".")
            ]
            return [self._process(path) for path in sorted(whole, key=_age)]

    def _process(self, path: Path) -> ImportOutcome:
        """Apply and remove one file; its summary comes last and means done."""
        outcome = self._import(path.name, path.read_bytes())
        if self._account is not None:
            self._account.save()
        path.unlink()
        self._report(outcome)
        return outcome

    def _report(self, outcome: ImportOutcome) -> None:
        """Leave the outcome's two files behind, unless a fault delays, doubles or cuts them."""
        name, report, summary = outcome.name, outcome.report_csv, outcome.summary_csv
        files = [(f"{name}.report.csv", report), (f"{name}.summary.csv", summary)]
        fault = self._faults.take("IMPORT", name, "reports")
        if fault is not None and fault.action == "half":
            files = [(f"{name}.report.csv", report[: len(report) // 2])]
        if fault is None or fault.action != "late":
            for file in files:
                self._drop(*file)
        if fault is not None and fault.action in {"late", "duplicate"}:
            due = time.monotonic() + fault.delay_s
            self._later += [(due, *file) for file in files]

    def _drop_later(self) -> None:
        """Deliver what a fault has held back for long enough."""
        now = time.monotonic()
        due = [entry for entry in self._later if entry[0] <= now]
        self._later = [entry for entry in self._later if entry[0] > now]
        for _, name, text in due:
            self._drop(name, text)

    def _import(self, name: str, data: bytes) -> ImportOutcome:
        if self._account is None or name.endswith(f".{self.switches.person_extension}"):
            return process_import(self.platform, name, data, self.switches)
        return process_kind(self._account, name, data)

    def _drop(self, name: str, text: str) -> None:
        """Let a file appear whole or not at all."""
        partial = self.report_dir / f".{name}.tmp"
        partial.write_text(text, encoding="utf-8", newline="")
        partial.replace(self.report_dir / name)
