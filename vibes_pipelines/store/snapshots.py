"""Snapshots: one source's full state of one day, landed once as immutable Parquet.

Only the layout, its atomicity and the manifest belong here. What the values mean, and how they
are fetched, belongs to the room that lands them.

    <root>/<feed>/<YYYY-MM-DD>/{data.parquet, rejects.parquet, manifest.json}
"""

import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vibes_pipelines.store.placing import put

DATA = "data.parquet"
REJECTS = "rejects.parquet"
MANIFEST = "manifest.json"
REJECTS_SCHEMA = pa.schema(
    [("line", pa.int64()), ("raw", pa.string()), ("reason", pa.string())],
)

_FEED = re.compile(r"[a-z_]+/[a-z_]+")
_UNFINISHED = ".unfinished-"
_REJECTS_AT_ONCE = 10_000


class SnapshotError(Exception):
    """A snapshot cannot be landed or read; the message names its folder and the cure."""


class EmptySource(Exception):  # noqa: N818 - the name says what is wrong
    """A source that must hold rows holds none. Nothing is landed: an empty side would delete."""


@dataclass(frozen=True)
class Source:
    """Where landed rows came from: the name of a table or file, and the instant they show."""

    name: str
    as_of: datetime


CheckAge = Callable[[Source, str], None]
"""Raises when what a source shows does not belong to the day (ISO date) it is landed for."""


@dataclass(frozen=True)
class Reject:
    """One source line that could not be read as a row. `line` counts from 1, header included."""

    line: int
    raw: str
    reason: str


@dataclass(frozen=True)
class Manifest:
    """What is known of a snapshot. `bytes` and `content_hash` (SHA-256) are of data.parquet.

    `erased` are rows of people who were erased: their values are blank. What was blanked after the
    landing shows here alone; `bytes` and `content_hash` stay those of the landing.
    """

    feed: str
    day: str
    source: str
    as_of: datetime
    rows: int
    rejected: int
    bytes: int
    content_hash: str
    columns: Mapping[str, str]
    erased: int = 0

    def to_json(self) -> str:
        """The manifest as it stands in `manifest.json`."""
        document = asdict(self) | {"as_of": self.as_of.isoformat().replace("+00:00", "Z")}
        return json.dumps(document, indent=2, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Manifest":
        """Reads what `to_json` wrote."""
        document: dict[str, Any] = json.loads(text)
        return cls(**document | {"as_of": datetime.fromisoformat(document["as_of"])})


@dataclass(frozen=True)
class Snapshot:
    """A landed snapshot: its manifest and its two files, which nothing ever changes."""

    manifest: Manifest
    data: Path
    rejects: Path

    @property
    def folder(self) -> Path:
        """The folder that holds the snapshot."""
        return self.data.parent


class SnapshotStore:
    """Lands and finds snapshots below one folder.

    A snapshot appears whole or not at all: it is written beside its place and renamed there under
    a lock of its feed, which also keeps two processes from landing the same day twice.
    """

    def __init__(
        self,
        root: Path,
        check_age: CheckAge | None = None,
        blank: Callable[[Path], int] | None = None,
    ) -> None:
        """`blank` takes away what must not be landed, from the folder; returns how many rows."""
        self.root = root
        self._check_age = check_age
        self._blank = blank

    def find(self, feed: str, day: str) -> Snapshot | None:
        """The snapshot of `feed` landed for `day` (ISO date), if there is one."""
        folder = self._folder(feed, day)
        manifest = folder / MANIFEST
        if not manifest.exists():
            return None
        try:
            read = Manifest.from_json(manifest.read_text(encoding="utf-8"))
        except (ValueError, TypeError) as malformed:
            msg = f"{manifest}: not a manifest; restore the folder, or move it away to land anew"
            raise SnapshotError(msg) from malformed
        return Snapshot(read, folder / DATA, folder / REJECTS)

    def days(self, feed: str) -> list[str]:
        """The days for which `feed` is landed, oldest first."""
        folder = self._feed_folder(feed)
        if not folder.is_dir():
            return []
        return sorted(entry.name for entry in folder.iterdir() if (entry / MANIFEST).exists())

    def land(self, feed: str, day: str, write: Callable[[Path], Source]) -> tuple[Snapshot, bool]:
        """Lands `feed` for `day` unless it is landed already.

        Args:
            feed: e.g. `share/persons`.
            day: the ISO date the rows are landed for.
            write: writes `data.parquet`, and `rejects.parquet` if lines were rejected, into the
                folder it is given; anything else it leaves there is dropped.

        Returns:
            The snapshot, and whether this call landed it. A landed day is never touched again.
        """
        found = self.find(feed, day)
        if found:
            return found, False
        with self._only_one(feed):
            found = self.find(feed, day)
            if found:
                return found, False
            return self._land(feed, day, write), True

    def drop(self, feed: str, day: str) -> None:
        """Removes a snapshot from which nothing was made; it is gone whole or not at all."""
        with self._only_one(feed):
            place = self._folder(feed, day)
            if place.is_dir():
                doomed = place.with_name(f"{_UNFINISHED}{day}")
                place.rename(doomed)
                shutil.rmtree(doomed)

    def _land(self, feed: str, day: str, write: Callable[[Path], Source]) -> Snapshot:
        place = self._folder(feed, day)
        unfinished = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=place.parent))
        try:
            source = write(unfinished)
            if self._check_age:
                self._check_age(source, day)
            erased = self._blank(unfinished) if self._blank else 0
            manifest = _complete(unfinished, feed, day, source, erased)
            unfinished.chmod(0o755)
            put(unfinished, place)
        except OSError as failed:
            if failed.errno != errno.ENOSPC or failed.filename:
                raise
            raise OSError(failed.errno, os.strerror(failed.errno), str(place)) from failed
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        return Snapshot(manifest, place / DATA, place / REJECTS)

    @contextmanager
    def _only_one(self, feed: str) -> Iterator[None]:
        folder = self._feed_folder(feed)
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / ".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for left_by_a_killed_process in folder.glob(f"{_UNFINISHED}*"):
                shutil.rmtree(left_by_a_killed_process)
            yield

    def _feed_folder(self, feed: str) -> Path:
        if not _FEED.fullmatch(feed):
            msg = f"{feed!r} is not a feed; expected two lower-case words, e.g. share/persons"
            raise SnapshotError(msg)
        return self.root / feed

    def _folder(self, feed: str, day: str) -> Path:
        try:
            canonical = date.fromisoformat(day).isoformat()
        except ValueError:
            canonical = ""
        if canonical != day:
            msg = f"{day!r} is not a day; expected YYYY-MM-DD"
            raise SnapshotError(msg)
        return self._feed_folder(feed) / day


def write_rejects(folder: Path, rejects: Iterable[Reject]) -> None:
    """Writes `rejects.parquet` into a folder being landed, ordered as given, in flat memory."""
    remaining = iter(rejects)
    with pq.ParquetWriter(folder / REJECTS, REJECTS_SCHEMA) as writer:
        while batch := list(islice(remaining, _REJECTS_AT_ONCE)):
            lines = pa.py_buffer(np.array([reject.line for reject in batch], np.int64))
            columns = [
                pa.Array.from_buffers(pa.int64(), len(batch), [None, lines]),
                _texts([reject.raw for reject in batch]),
                _texts([reject.reason for reject in batch]),
            ]
            writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=REJECTS_SCHEMA))


def _texts(values: Sequence[str]) -> pa.StringArray:
    """As `pa.array`, which would load pandas: a fifth of a second, for rejects alone."""
    encoded = [value.encode() for value in values]
    bounds = np.cumsum([0, *map(len, encoded)], dtype=np.int32)
    texts = pa.py_buffer(b"".join(encoded))
    return pa.StringArray.from_buffers(len(values), pa.py_buffer(bounds), texts)


def _complete(folder: Path, feed: str, day: str, source: Source, erased: int) -> Manifest:
    """Counts and hashes what was written, and adds the manifest."""
    if not (folder / REJECTS).exists():
        write_rejects(folder, [])
    data = folder / DATA
    if source.as_of.tzinfo is None:
        msg = f"{feed} of {day}: as_of {source.as_of} has no time zone; give an aware instant"
        raise SnapshotError(msg)
    facts = pq.read_metadata(data)
    manifest = Manifest(
        feed=feed,
        day=day,
        source=source.name,
        as_of=source.as_of.astimezone(UTC),
        rows=facts.num_rows,
        rejected=pq.read_metadata(folder / REJECTS).num_rows,
        bytes=data.stat().st_size,
        content_hash=_sha256(data),
        columns={field.name: str(field.type) for field in pq.read_schema(data)},
        erased=erased,
    )
    (folder / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
    _keep_only(folder, {DATA, REJECTS, MANIFEST})
    return manifest


def _keep_only(folder: Path, names: set[str]) -> None:
    for entry in folder.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        elif entry.name not in names:
            entry.unlink()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
