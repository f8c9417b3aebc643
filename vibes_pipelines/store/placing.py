"""Putting files and folders where they are read: whole, and on the disk before they have the name.

After a power cut a rename may be there without the bytes that it names.
"""

import os
import tempfile
from pathlib import Path


def put(draft: Path, place: Path) -> None:
    """Renames a written file, or a folder of files, to its place on the same disk.

    A file that is there is replaced; a folder that is there must be empty.

    Raises:
        OSError: there is a folder with something in it.
    """
    _sync_all(draft)
    draft.replace(place)
    sync(place.parent)


def put_instead(draft: Path, place: Path) -> None:
    """As `put`; a folder that is there goes, and for a moment there is none."""
    _sync_all(draft)
    with tempfile.TemporaryDirectory(prefix=".removing-", dir=place.parent) as aside:
        former = Path(aside) / place.name
        if place.is_dir():
            place.rename(former)
        try:
            draft.rename(place)
        except OSError:
            if former.is_dir():
                former.rename(place)
            raise
        sync(place.parent)


def write_text(place: Path, text: str) -> None:
    """Writes a file beside its place and puts it there."""
    with tempfile.TemporaryDirectory(prefix=".unfinished-", dir=place.parent) as folder:
        draft = Path(folder) / place.name
        draft.write_text(text, encoding="utf-8")
        put(draft, place)


def sync(path: Path) -> None:
    """Forces a file or a folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_all(draft: Path) -> None:
    for entry in draft.rglob("*") if draft.is_dir() else ():
        sync(entry)
    sync(draft)
