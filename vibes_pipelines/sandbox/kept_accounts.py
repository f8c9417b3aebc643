"""Keeping the accounts of Tribe and APSIS One for the next start, beside the platform's journal.

Each is one JSON file in the sandbox's folder, written whole, at the end and every few seconds where
something changed. A sandbox that is killed loses no more than those seconds.
"""

import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from vibes_pipelines.sandbox.home import SandboxHomeError

EVERY_S = 2.0


class Account(Protocol):
    """A part whose state can be written down and put back."""

    def saved(self) -> dict[str, Any]:
        """Everything, as plain JSON values."""

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Takes the place of whatever is there by what `saved` gave."""


class KeptAccounts:
    """The accounts by name; `<folder>/<name>.json` each."""

    def __init__(self, folder: Path, accounts: Mapping[str, Account]) -> None:
        self._folder = folder
        self._accounts = accounts
        self._written: dict[str, str] = {}
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._work, name="kept-accounts")

    def restore(self) -> None:
        """Puts back what an earlier sandbox left; an account without a file stays as it began.

        Raises:
            SandboxHomeError: a file cannot be read; names it.
        """
        for name, account in self._accounts.items():
            path = self._path(name)
            if not path.exists():
                continue
            try:
                account.restore(json.loads(path.read_text(encoding="utf-8")))
            except (ValueError, KeyError, TypeError) as unreadable:
                msg = f"{path} is no state of this sandbox; start a new world, without --resume"
                raise SandboxHomeError(msg) from unreadable

    def start(self) -> None:
        """Writes from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Writes for the last time."""
        self._is_over.set()
        self._thread.join()
        self._write()

    def _work(self) -> None:
        while not self._is_over.wait(EVERY_S):
            self._write()

    def _write(self) -> None:
        for name, account in self._accounts.items():
            text = json.dumps(account.saved())
            if self._written.get(name) != text:
                _write_whole(self._path(name), text)
                self._written[name] = text

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.json"


def _write_whole(path: Path, text: str) -> None:
    """Only its owner can read it: there are secrets of webhooks in it."""
    draft = path.with_suffix(".draft")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    draft.replace(path)
