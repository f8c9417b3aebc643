"""Landing the extracts of a day: all of them whole, in one session, or none."""

from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from vibes_pipelines.store.snapshots import SnapshotStore
from vibes_pipelines.sync_config import SyncConfig
from vibes_pipelines.vibes.extract_reader import ExtractError
from vibes_pipelines.vibes.extracts import (
    COLUMNS,
    ExtractMissing,
    IncompleteExtract,
    file_name,
    land_extracts,
)
from vibes_pipelines.vibes.sftp_session import RemoteFile

DAY = "2026-01-02"
CURRENT, EVENTS = "extract/current_subscribers", "extract/subscriptions"
CURRENT_FILE = "current_subscribers_A1b2C3_2026-01-02.txt"
EVENTS_FILE = "subscriptions_A1b2C3_2026-01-02.txt"


class FakeSession:
    """A session over a dictionary of files, which counts what it is asked."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.listed = 0
        self.downloaded: list[str] = []

    def list(self, directory: str) -> list[RemoteFile]:
        assert directory.rstrip("/") == "/files/out"
        self.listed += 1
        now = datetime(2026, 1, 2, 6, tzinfo=UTC)
        return [RemoteFile(name, len(content), now) for name, content in self.files.items()]

    def download(self, remote: str, local: Path) -> None:
        self.downloaded.append(remote)
        local.write_bytes(self.files[remote.removeprefix("/files/out/")])

    def read_text(self, remote: str) -> str:
        return self.files[remote.removeprefix("/files/out/")].decode()


def extract(feed: str, rows: int) -> bytes:
    header = "\t".join(COLUMNS[feed])
    body = ["\t".join(f"v{n}" for _ in COLUMNS[feed]) for n in range(rows)]
    return ("\n".join([header, *body]) + "\n").encode()


def done(content: bytes, rows: int) -> bytes:
    return f"rows={rows} bytes={len(content)}\n".encode()


@pytest.fixture
def session() -> FakeSession:
    current, events = extract(CURRENT, 3), extract(EVENTS, 0)
    return FakeSession(
        {
            CURRENT_FILE: current,
            f"{CURRENT_FILE}.done": done(current, 3),
            EVENTS_FILE: events,
            f"{EVENTS_FILE}.done": done(events, 0),
        }
    )


@pytest.fixture
def config() -> SyncConfig:
    return SyncConfig.model_validate(
        {
            "version": 1,
            "company_key": "A1b2C3",
            "contacts": {"key": "contact_id"},
            "fields": [{"from": "first_name", "to": "first_name", "type": "string"}],
        }
    )


@pytest.fixture
def store(tmp_path: Path) -> SnapshotStore:
    return SnapshotStore(tmp_path)


def test_all_feeds_land_in_one_session_as_of_midnight(
    store: SnapshotStore, config: SyncConfig, session: FakeSession
) -> None:
    landed = land_extracts(store, DAY, config, session, "/files/out/")
    assert list(landed) == [CURRENT, EVENTS]
    snapshot, is_new = landed[CURRENT]
    assert is_new
    assert snapshot.manifest.source == CURRENT_FILE
    assert snapshot.manifest.as_of == datetime(2026, 1, 2, tzinfo=UTC)
    assert snapshot.manifest.rows == 3
    assert pq.read_schema(snapshot.data).names[:3] == ["mdn", "person_key", "external_person_id"]
    assert landed[EVENTS][0].manifest.rows == 0
    assert session.listed == 1


def test_landed_feeds_are_not_asked_for_again(
    store: SnapshotStore, config: SyncConfig, session: FakeSession
) -> None:
    first = land_extracts(store, DAY, config, session, "/files/out")
    again = land_extracts(store, DAY, config, session, "/files/out")
    assert {feed: (snapshot, False) for feed, (snapshot, _) in first.items()} == again
    assert session.listed == 1


def test_rejects_count_as_lines_of_the_done_file(
    store: SnapshotStore, config: SyncConfig, session: FakeSession
) -> None:
    content = extract(CURRENT, 2) + b"short line\n"
    session.files[CURRENT_FILE] = content
    session.files[f"{CURRENT_FILE}.done"] = done(content, 3)
    snapshot, _ = land_extracts(store, DAY, config, session, "/files/out")[CURRENT]
    assert (snapshot.manifest.rows, snapshot.manifest.rejected) == (2, 1)


def test_an_extract_that_is_not_there_is_named(
    store: SnapshotStore, config: SyncConfig, session: FakeSession
) -> None:
    del session.files[EVENTS_FILE]
    with pytest.raises(ExtractMissing, match=rf"no {EVENTS_FILE} yet; try again later"):
        land_extracts(store, DAY, config, session, "/files/out")
    assert session.downloaded == [], "nothing is fetched before all are found"


def test_an_extract_without_done_file_is_still_being_written(
    store: SnapshotStore, config: SyncConfig, session: FakeSession
) -> None:
    del session.files[f"{CURRENT_FILE}.done"]
    with pytest.raises(IncompleteExtract, match=rf"no {CURRENT_FILE}\.done beside it"):
        land_extracts(store, DAY, config, session, "/files/out")


def test_a_cut_file_is_not_landed(
    store: SnapshotStore, config: SyncConfig, session: FakeSession
) -> None:
    session.files[CURRENT_FILE] = session.files[CURRENT_FILE][:-5]
    with pytest.raises(IncompleteExtract, match=r"bytes, but its \.done file says .* is cut"):
        land_extracts(store, DAY, config, session, "/files/out")
    assert store.find(CURRENT, DAY) is None


def test_a_wrong_count_of_rows_is_not_landed(
    store: SnapshotStore, config: SyncConfig, session: FakeSession
) -> None:
    session.files[f"{CURRENT_FILE}.done"] = done(session.files[CURRENT_FILE], 4)
    with pytest.raises(IncompleteExtract, match=r"3 rows, but its \.done file says 4"):
        land_extracts(store, DAY, config, session, "/files/out")
    assert store.find(CURRENT, DAY) is None


@pytest.mark.parametrize("written", [b"", b"rows=3", b"rows=3 bytes=1"])
def test_half_a_done_file_is_still_being_written(
    store: SnapshotStore, config: SyncConfig, session: FakeSession, written: bytes
) -> None:
    session.files[f"{CURRENT_FILE}.done"] = written
    with pytest.raises(IncompleteExtract, match="still being written; try again later"):
        land_extracts(store, DAY, config, session, "/files/out")


def test_a_malformed_done_file_is_named(
    store: SnapshotStore, config: SyncConfig, session: FakeSession
) -> None:
    session.files[f"{CURRENT_FILE}.done"] = b"ok\n"
    with pytest.raises(ExtractError, match=r"\.done: expected one line `rows=<n> bytes=<n>`"):
        land_extracts(store, DAY, config, session, "/files/out")


def test_the_pattern_of_sync_yaml_names_the_file(config: SyncConfig) -> None:
    feeds = {CURRENT: {"pattern": "CURRENT_SUBSCRIBERS_{date}.TXT"}}
    renamed = SyncConfig.model_validate(
        config.model_dump(by_alias=True, exclude_none=True) | {"feeds": feeds}
    )
    assert file_name(renamed, CURRENT, DAY) == "CURRENT_SUBSCRIBERS_2026-01-02.TXT"
    assert file_name(renamed, EVENTS, DAY) == EVENTS_FILE
