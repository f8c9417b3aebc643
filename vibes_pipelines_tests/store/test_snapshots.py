"""A snapshot is landed once, whole, and never changes."""

import hashlib
import json
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vibes_pipelines.store.snapshots import (
    Reject,
    SnapshotError,
    SnapshotStore,
    Source,
    write_rejects,
)

FEED = "share/persons"
DAY = "2026-01-01"
AS_OF = datetime(2026, 1, 1, 5, tzinfo=UTC)


def write_two_rows(folder: Path) -> Source:
    pq.write_table(pa.table({"person_key": ["p1", "p2"], "score": [1, 2]}), folder / "data.parquet")
    return Source("VIBES_SHARE.PUBLIC.PERSONS", AS_OF)


def contents(folder: Path) -> dict[str, bytes]:
    return {entry.name: entry.read_bytes() for entry in folder.iterdir()}


def test_landing_counts_hashes_and_describes(tmp_path: Path) -> None:
    snapshot, landed = SnapshotStore(tmp_path).land(FEED, DAY, write_two_rows)

    assert landed
    assert snapshot.data == tmp_path / "share" / "persons" / DAY / "data.parquet"
    manifest = snapshot.manifest
    assert (manifest.feed, manifest.day, manifest.as_of) == (FEED, DAY, AS_OF)
    assert manifest.source == "VIBES_SHARE.PUBLIC.PERSONS"
    assert (manifest.rows, manifest.rejected) == (2, 0)
    assert manifest.columns == {"person_key": "string", "score": "int64"}
    data = snapshot.data.read_bytes()
    assert (manifest.bytes, manifest.content_hash) == (len(data), hashlib.sha256(data).hexdigest())


def test_a_found_snapshot_equals_the_landed_one(tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path)
    landed, _ = store.land(FEED, DAY, write_two_rows)
    assert SnapshotStore(tmp_path).find(FEED, DAY) == landed
    assert store.find(FEED, "2026-01-02") is None
    assert store.days(FEED) == [DAY]
    assert store.days("crm/contacts") == []


def test_landing_again_returns_the_old_one_and_writes_nothing(tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path)
    first, _ = store.land(FEED, DAY, write_two_rows)
    before = contents(first.folder)

    def must_not_be_called(folder: Path) -> Source:
        raise AssertionError(folder)

    assert store.land(FEED, DAY, must_not_be_called) == (first, False)
    assert contents(first.folder) == before


def test_rejects_are_kept_with_line_text_and_reason(tmp_path: Path) -> None:
    def write(folder: Path) -> Source:
        write_rejects(folder, [Reject(3, "a\tb\tc", "3 columns, expected 2")])
        return write_two_rows(folder)

    snapshot, _ = SnapshotStore(tmp_path).land(FEED, DAY, write)
    assert snapshot.manifest.rejected == 1
    assert pq.read_table(snapshot.rejects).to_pylist() == [
        {"line": 3, "raw": "a\tb\tc", "reason": "3 columns, expected 2"}
    ]


def test_a_failing_source_leaves_nothing(tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path)

    def fail(folder: Path) -> Source:
        write_two_rows(folder)
        raise ConnectionResetError("in the middle")

    with pytest.raises(ConnectionResetError):
        store.land(FEED, DAY, fail)
    assert store.find(FEED, DAY) is None
    assert [entry.name for entry in (tmp_path / FEED).iterdir()] == [".lock"]


def test_a_full_disk_is_told_with_its_place(tmp_path: Path) -> None:
    def write(folder: Path) -> Source:
        (folder / "data.parquet").symlink_to("/dev/full")
        return write_two_rows(folder)

    with pytest.raises(OSError, match=f"No space left on device: '{tmp_path}/{FEED}/{DAY}'"):
        SnapshotStore(tmp_path).land(FEED, DAY, write)


def test_a_killed_landing_is_invisible_and_swept_by_the_next(tmp_path: Path) -> None:
    script = (
        "import os, sys; from pathlib import Path\n"
        "from vibes_pipelines.store.snapshots import SnapshotStore\n"
        "def write(folder):\n"
        "    (folder / 'data.parquet').write_bytes(b'half'); os._exit(9)\n"
        f"SnapshotStore(Path(sys.argv[1])).land({FEED!r}, {DAY!r}, write)\n"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False)
    assert killed.returncode == 9
    store = SnapshotStore(tmp_path)
    assert store.find(FEED, DAY) is None
    assert store.days(FEED) == []

    store.land(FEED, DAY, write_two_rows)
    assert sorted(entry.name for entry in (tmp_path / FEED).iterdir()) == [".lock", DAY]


def test_what_the_source_left_beside_its_data_is_dropped(tmp_path: Path) -> None:
    def write(folder: Path) -> Source:
        (folder / "download.txt").write_text("raw", encoding="utf-8")
        (folder / "parts").mkdir()
        return write_two_rows(folder)

    snapshot, _ = SnapshotStore(tmp_path).land(FEED, DAY, write)
    assert sorted(contents(snapshot.folder)) == ["data.parquet", "manifest.json", "rejects.parquet"]


def test_two_landings_at_once_read_the_source_once(tmp_path: Path) -> None:
    calls: list[Path] = []
    entered, go_on = threading.Event(), threading.Event()

    def slow(folder: Path) -> Source:
        calls.append(folder)
        entered.set()
        assert go_on.wait(60)
        return write_two_rows(folder)

    results: list[bool] = []

    def land() -> None:
        results.append(SnapshotStore(tmp_path).land(FEED, DAY, slow)[1])

    threads = [threading.Thread(target=land) for _ in range(2)]
    threads[0].start()
    assert entered.wait(60)
    threads[1].start()
    go_on.set()
    for thread in threads:
        thread.join()
    assert sorted(results) == [False, True]
    assert len(calls) == 1


def test_the_instant_is_kept_in_utc(tmp_path: Path) -> None:
    def write(folder: Path) -> Source:
        write_two_rows(folder)
        return Source("t", AS_OF.astimezone(timezone(timedelta(hours=-6))))

    snapshot, _ = SnapshotStore(tmp_path).land(FEED, DAY, write)
    document = json.loads((snapshot.folder / "manifest.json").read_text(encoding="utf-8"))
    assert document["as_of"] == "2026-01-01T05:00:00Z"


def test_an_instant_without_a_zone_is_refused(tmp_path: Path) -> None:
    def write(folder: Path) -> Source:
        write_two_rows(folder)
        return Source("t", AS_OF.replace(tzinfo=None))

    with pytest.raises(SnapshotError, match="no time zone; give an aware instant"):
        SnapshotStore(tmp_path).land(FEED, DAY, write)


@pytest.mark.parametrize("day", ["2026-1-1", "20260101", "today", "../2026-01-01"])
def test_a_day_is_an_iso_date(tmp_path: Path, day: str) -> None:
    with pytest.raises(SnapshotError, match="expected YYYY-MM-DD"):
        SnapshotStore(tmp_path).land(FEED, day, write_two_rows)


@pytest.mark.parametrize("feed", ["persons", "../persons", "share/Persons", "a/b/c"])
def test_a_feed_is_two_words(tmp_path: Path, feed: str) -> None:
    with pytest.raises(SnapshotError, match="expected two lower-case words"):
        SnapshotStore(tmp_path).find(feed, DAY)


def test_a_spoilt_manifest_is_named(tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path)
    snapshot, _ = store.land(FEED, DAY, write_two_rows)
    (snapshot.folder / "manifest.json").write_text("{", encoding="utf-8")
    with pytest.raises(SnapshotError, match=r"manifest\.json: not a manifest; restore"):
        store.find(FEED, DAY)
