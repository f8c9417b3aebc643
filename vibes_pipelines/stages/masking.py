"""Masks: a value as a short keyed hash, where a person may look but no personal data belong.

The same value has the same mask everywhere in one installation, so that rows can be matched by eye;
without the key nobody can try numbers until one fits.
"""

import hashlib
import hmac
import os
import secrets
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from vibes_pipelines.settings import Settings

KEY_FILE = "hash.key"
_SHOWN_DIGITS = 8


def mask(value: object, key: bytes) -> str:
    """A short keyed hash with `#` before it; empty for None."""
    if value is None:
        return ""
    return "#" + keyed_hash(str(value), key)[:_SHOWN_DIGITS]


def keyed_hash(text: str, key: bytes) -> str:
    """HMAC-SHA-256 in hexadecimal digits."""
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def hash_of(settings: Settings) -> Callable[[str], str]:
    """The keyed hash of this installation."""
    return partial(keyed_hash, key=hash_key(settings.keys_home))


def hash_key(home: Path) -> bytes:
    """The key of this installation's hashes; made once, kept beside its data."""
    path = home / KEY_FILE
    if not path.exists():
        _create_key(path)
    return path.read_bytes()


def _create_key(path: Path) -> None:
    """Makes the key appear whole; of two processes at once, the first one's stays."""
    descriptor, whole = tempfile.mkstemp(prefix=".hash-key-", dir=path.parent)  # of mode 600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(32))
        with suppress(FileExistsError):
            os.link(whole, path)
    finally:
        Path(whole).unlink()
