"""Standard data extracts: found, checked for wholeness, fetched and landed in one SFTP session.

Columns and layout: the Vibes documentation, Current Subscriber Extract and Subscription Extract.
That a complete file has a sibling `<file>.done` is an assumption: the documentation is silent.
How a file becomes rows and rejects belongs to `extract_reader`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from vibes_pipelines.store.snapshots import Snapshot, SnapshotStore, Source
from vibes_pipelines.sync_config import EXTRACT_FEEDS, Feed, SyncConfig
from vibes_pipelines.vibes.extract_reader import ExtractError, convert_extract

if TYPE_CHECKING:  # paramiko is slow to import
    from vibes_pipelines.vibes.sftp_session import RemoteFile

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "extract/current_subscribers": (
        "mdn",
        "person_id",
        "external_person_id",
        "carrier_code",
        "mdn_e164_format",
        "country_code",
        "subscription_list_id",
    ),
    "extract/subscriptions": (
        "person_id",
        "external_person_id",
        "mdn",
        "company_id",
        "carrier_code",
        "subscription_list_id",
        "subscription_list_name",
        "opt_in_date",
        "opt_out_date",
        "subscription_event",
        "opt_out_reason",
        "activity_description",
        "activity_id",
    ),
}
"""The documented columns of each feed; `person_id` holds the person_key."""

_DEFAULT_PATTERNS: Mapping[str, str] = {
    "extract/current_subscribers": "current_subscribers_{company_key}_{date}.txt",
    "extract/subscriptions": "subscriptions_{company_key}_{date}.txt",
}
_DONE = re.compile(r"rows=(\d+) bytes=(\d+)\s*")


class ExtractMissing(ExtractError):  # noqa: N818 - the name says what is wrong
    """The extract of the day is not on the server yet. Transient: try again later."""


class IncompleteExtract(ExtractError):  # noqa: N818 - the name says what is wrong
    """The extract is there but not whole. Transient while it is being written."""


class Session(Protocol):
    """What landing needs of an open SFTP session."""

    def list(self, directory: str) -> "Sequence[RemoteFile]":
        """The files of a folder."""

    def download(self, remote: str, local: Path) -> None:
        """Fetches a whole file."""

    def read_text(self, remote: str) -> str:
        """The text of a small file."""


@dataclass(frozen=True)
class _Promise:
    """What the `.done` file says of an extract: its body rows and its bytes."""

    rows: int
    bytes: int


@dataclass(frozen=True)
class _Found:
    """An extract on the server that claims to be complete."""

    name: str
    remote: str
    promise: _Promise


def file_name(config: SyncConfig, feed: str, day: str) -> str:
    """The name of a feed's file of `day`, by `feeds` of sync.yaml or the documented pattern."""
    pattern = config.feeds.get(feed, Feed()).pattern or _DEFAULT_PATTERNS[feed]
    return pattern.replace("{company_key}", config.company_key).replace("{date}", day)


def land_extracts(
    store: SnapshotStore, day: str, config: SyncConfig, session: Session, directory: str
) -> dict[str, tuple[Snapshot, bool]]:
    """Lands every extract feed of `day` in one session; as of 00:00 UTC of the day.

    All extracts are found whole before the first is fetched; the server is not asked at all when
    every feed is landed.

    Raises:
        ExtractMissing: a file is not there (transient).
        IncompleteExtract: a file is cut or still being written (transient).
        ExtractError: a file is not what the documentation describes.
    """
    landed = {feed: store.find(feed, day) for feed in EXTRACT_FEEDS}
    wanted = [feed for feed, snapshot in landed.items() if snapshot is None]
    found = _find_all(session, directory, {f: file_name(config, f, day) for f in wanted})
    result = {feed: (snapshot, False) for feed, snapshot in landed.items() if snapshot}
    for feed, extract in found.items():
        result[feed] = store.land(feed, day, _Landing(session, feed, extract, day).write)
    return {feed: result[feed] for feed in EXTRACT_FEEDS}


@dataclass(frozen=True)
class _Landing:
    """Fetches and converts one extract into the folder of its snapshot."""

    session: Session
    feed: str
    extract: _Found
    day: str

    def write(self, folder: Path) -> Source:
        local = folder / "extract.txt"
        self.session.download(self.extract.remote, local)
        _check_bytes(self.extract, local.stat().st_size)
        rows = convert_extract(local, self.extract.name, COLUMNS[self.feed], folder)
        _check_rows(self.extract, rows)
        local.unlink()
        return Source(self.extract.name, datetime.fromisoformat(self.day).replace(tzinfo=UTC))


def _find_all(session: Session, directory: str, names: Mapping[str, str]) -> dict[str, _Found]:
    if not names:
        return {}
    files = {file.name: file for file in session.list(directory)}
    return {feed: _find(session, directory, files, name) for feed, name in names.items()}


def _find(session: Session, directory: str, files: "Mapping[str, RemoteFile]", name: str) -> _Found:
    if name not in files:
        msg = f"{directory}: no {name} yet; try again later, or correct its pattern in sync.yaml"
        raise ExtractMissing(msg)
    if f"{name}.done" not in files:
        msg = f"{name}: no {name}.done beside it, so it is still being written; try again later"
        raise IncompleteExtract(msg)
    remote = f"{directory.rstrip('/')}/{name}"
    found = _Found(name, remote, _read_promise(name, session.read_text(f"{remote}.done")))
    _check_bytes(found, files[name].size)
    return found


def _read_promise(name: str, text: str) -> _Promise:
    match = _DONE.fullmatch(text)
    if not match and not text.endswith("\n"):
        msg = (
            f"{name}.done: no whole line `rows=<n> bytes=<n>`, so it is still being written; try "
            "again later"
        )
        raise IncompleteExtract(msg)
    if not match:
        msg = f"{name}.done: expected one line `rows=<n> bytes=<n>`; ask Vibes what changed"
        raise ExtractError(msg)
    return _Promise(int(match[1]), int(match[2]))


def _check_bytes(extract: _Found, size: int) -> None:
    if size != extract.promise.bytes:
        msg = (
            f"{extract.name}: {size} bytes, but its .done file says {extract.promise.bytes}; "
            "the file is cut or still being written; try again later"
        )
        raise IncompleteExtract(msg)


def _check_rows(extract: _Found, rows: int) -> None:
    if rows != extract.promise.rows:
        msg = (
            f"{extract.name}: {rows} rows, but its .done file says {extract.promise.rows}; "
            "ask Vibes to deliver it again"
        )
        raise IncompleteExtract(msg)
