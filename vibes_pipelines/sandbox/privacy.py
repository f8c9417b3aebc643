"""Privacy requests over SFTP: whether the platform knows a number, and deleting all about it.

A file in `/files/in_cpr` is removed once processed and a status file left in `/files/out_cpr`
(Vibes documentation, CPA Requests via SFTP). The status file's name and columns are an assumption,
and so are the words for what became of a request.
"""

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from vibes_pipelines.sandbox.account import Account
from vibes_pipelines.sandbox.platform_mdn import parse_import_mdn
from vibes_pipelines.sandbox.platform_refusals import MalformedMdnError
from vibes_pipelines.sandbox.shelf import Shelf

HEADER = ["RequestID", "MDN", "Type"]
STATUS_HEADER = [*HEADER, "Status"]

Status = Literal[
    "FOUND",
    "NOT_FOUND",
    "DELETED",
    "DUPLICATE_REQUEST",
    "INVALID_REQUEST",
    "INVALID_MDN",
    "UNREADABLE_FILE",
]

_PLAIN = ".csv"
_ENCRYPTED = frozenset({".gpg", ".pgp"})
"""These are taken and refused: the sandbox has no key to open them."""


class PrivacyDesk:
    """Works off privacy requests; request ids count once for ever."""

    def __init__(self, account: Account, in_dir: Path, out_dir: Path) -> None:
        self.seen: Shelf[str, str] = Shelf("privacy_requests")
        self._account = account
        self._in_dir = in_dir
        self._out_dir = out_dir

    def shelves(self) -> tuple[Shelf[Any, Any], ...]:
        """What the journal saves."""
        return (self.seen,)

    def scan(self) -> list[str]:
        """Process every file that is there; returns the names of the status files."""
        known = _ENCRYPTED | {_PLAIN}
        found = sorted(path for path in self._in_dir.iterdir() if path.suffix in known)
        return [self._process(path) for path in found if path.is_file()]

    def _process(self, path: Path) -> str:
        name = f"{path.stem}.status.csv"
        rows = list(self._answers(path))
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator="\n").writerows([STATUS_HEADER, *rows])
        self._account.save()
        path.unlink()
        partial = self._out_dir / f".{name}.tmp"
        partial.write_text(text.getvalue(), encoding="utf-8", newline="")
        partial.replace(self._out_dir / name)
        return name

    def _answers(self, path: Path) -> Iterator[list[str]]:
        try:
            requests = list(csv.reader(io.StringIO(path.read_text("utf-8")), strict=True))
        except (UnicodeDecodeError, csv.Error):
            requests = []
        if path.suffix in _ENCRYPTED or not requests or requests[0] != HEADER:
            yield ["", "", "", "UNREADABLE_FILE"]
            return
        for request in requests[1:]:
            if request:
                padded = [*request, "", "", ""][:3]
                yield [*padded, self._answer(request)]

    def _answer(self, request: list[str]) -> Status:
        if len(request) != 3 or not request[0] or request[2] not in {"0", "1"}:
            return "INVALID_REQUEST"
        request_id, text, kind = request
        if request_id in self.seen:
            return "DUPLICATE_REQUEST"
        try:
            mdn = parse_import_mdn(text)
        except MalformedMdnError:
            return "INVALID_MDN"
        with self._account.platform.lock:
            status = self._look_up(mdn, is_deletion=kind == "1")
        self.seen[request_id] = status
        return status

    def _look_up(self, mdn: str, *, is_deletion: bool) -> Status:
        person = self._account.platform.find(mdn=mdn)
        if person is None:
            return "NOT_FOUND"
        if not is_deletion:
            return "FOUND"
        self._account.erase(person.person_key)
        return "DELETED"
