"""What stops a comparison in Snowflake: each cause with its cure, and nothing half landed."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import snowflake.connector

from vibes_pipelines.sandbox.share_database import QueryError
from vibes_pipelines.sandbox.share_staging import WORK
from vibes_pipelines.store.snapshots import SnapshotStore
from vibes_pipelines.vibes.share import _Reading, land_share_feed
from vibes_pipelines.vibes.share_errors import ShareError, ShareUnavailable
from vibes_pipelines.vibes.share_staging import stage_file
from vibes_pipelines_tests.support.sandbox_parts import RunningShare
from vibes_pipelines_tests.vibes.test_share import DAY, build_config, persons

IN_WORK = {"database": WORK[0], "schema": WORK[1], "warehouse": "SMALL"}


class NothingAtHand:
    """Stages one contact that no person equals."""

    row: ClassVar[str] = "ROW_AT_HAND"

    def __init__(self) -> None:
        self.types: Mapping[str, str] = {}

    def comparable(self, types: Mapping[str, str]) -> dict[str, str]:
        self.types = types
        return {"external_person_id": types["external_person_id"]}

    def stage(self, compared: Mapping[str, str], path: Path) -> None:
        pq.write_table(pa.table({self.row: [1], "VALUE_0": ["nobody"]}), path)

    def select(
        self, persons: str, staged: str, columns: Mapping[str, str], compared: Mapping[str, str]
    ) -> str:
        shown = ", ".join(f"p.{column}" for column in columns.values())
        return f"SELECT c.{self.row}, {shown} FROM {persons} p LEFT JOIN {staged} c ON 1 = 0"

    def complete(
        self, came_back: Path, staged: Path, compared: Mapping[str, str], out: Path
    ) -> int:
        pq.write_table(pq.read_table(came_back).drop_columns(self.row), out)
        return 0


def land(
    share: RunningShare, folder: Path, at_hand: NothingAtHand | None = None, **changes: Any
) -> SnapshotStore:
    @contextmanager
    def connect() -> Iterator[Any]:
        with snowflake.connector.connect(**share.arguments(**IN_WORK | changes)) as connection:
            yield connection

    store = SnapshotStore(folder / "landing")
    config = build_config()
    try:
        land_share_feed(store, DAY, "share/persons", connect, config, at_hand or NothingAtHand())
    finally:
        assert not list(folder.rglob("staged.parquet"))
    return store


def test_persons_that_nothing_equals_land_whole(share: RunningShare, tmp_path: Path) -> None:
    share.load(PERSONS=persons())
    landed = land(share, tmp_path).find("share/persons", DAY)
    assert landed is not None
    assert landed.manifest.rows == persons().num_rows


def test_columns_compared_by_the_rules_of_a_language_are_read(
    share: RunningShare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    share.load(PERSONS=persons(3))
    at_hand = NothingAtHand()
    land(share, tmp_path / "plain", at_hand)
    assert at_hand.types["first_name"] == "VARCHAR"
    monkeypatch.setattr(
        _Reading,
        "_described_columns",
        lambda _self, _table: [("FIRST_NAME", "en-ci"), ("EXTERNAL_PERSON_ID", None)],
    )
    land(share, tmp_path / "collated", at_hand)
    assert "first_name" not in at_hand.types
    assert "external_person_id" in at_hand.types


MISSING: list[tuple[dict[str, Any], str]] = [
    ({"database": "VIBES_SHARE"}, r"creating a temporary table .*3001; .*SNOWFLAKE_SCHEMA"),
    ({"database": None}, r"90105; the session has no database: set SNOWFLAKE_DATABASE"),
    ({"schema": None}, r"90106; the session has no schema: set SNOWFLAKE_DATABASE"),
    ({"warehouse": None}, r"loading the staged contacts .*606; .*set SNOWFLAKE_WAREHOUSE"),
]


def test_a_missing_right_or_place_is_told_with_its_cure(
    share: RunningShare, tmp_path: Path
) -> None:
    share.load(PERSONS=persons(3))
    for changes, cure in MISSING:
        with pytest.raises(ShareError, match=cure):
            land(share, tmp_path, **changes)
    assert SnapshotStore(tmp_path / "landing").find("share/persons", DAY) is None


BROKEN: list[tuple[str, QueryError, type[ShareError], str]] = [
    ("SELECT c.", QueryError(630, "57014", "timeout"), ShareUnavailable, "cancelled.*TIMEOUT"),
    ("COPY", QueryError(604, "57014", "canceled"), ShareUnavailable, "loading.*cancelled"),
    ("CREATE TEMPORARY STAGE", QueryError(3001, "42501", "no"), ShareError, "stage.*3001"),
    ("COPY", QueryError(90073, "22000", "quota"), ShareError, "resource monitor"),
    ("SELECT c.", QueryError(606, "57P03", "suspended"), ShareError, "reading .*no warehouse"),
]


def test_what_breaks_on_the_way_is_told_and_leaves_nothing(
    share: RunningShare, tmp_path: Path
) -> None:
    share.load(PERSONS=persons(3))
    for statement, refused, kind, cure in BROKEN:
        share.server.protocol.faults = {statement: refused}
        with pytest.raises(kind, match=cure) as told:
            land(share, tmp_path)
        assert type(told.value) is kind
        assert SnapshotStore(tmp_path / "landing").find("share/persons", DAY) is None
    share.server.protocol.faults = {}
    assert land(share, tmp_path).find("share/persons", DAY) is not None


def test_a_missing_column_is_named_before_anything_is_staged(
    share: RunningShare, tmp_path: Path
) -> None:
    share.load(PERSONS=persons(3).drop_columns("SCORE"))
    with pytest.raises(ShareError, match=r"has no column SCORE \(feeds.share/persons.columns"):
        land(share, tmp_path)


def test_texts_that_arrive_changed_are_noticed(
    share: RunningShare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    share.load(PERSONS=persons(3))
    staged = tmp_path / "texts.parquet"
    pq.write_table(pa.table({"ROW_NO": [1, 2], "VALUE_0": ["\\N", "é"]}), staged)
    with snowflake.connector.connect(**share.arguments(**IN_WORK)) as connection:
        table = stage_file(connection, staged)
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT VALUE_0 FROM {table} ORDER BY ROW_NO")
            assert cursor.fetchall() == [("\\N",), ("é",)]
        monkeypatch.setattr("vibes_pipelines.vibes.share_staging._FORMAT", "TYPE = PARQUET")
        with pytest.raises(ShareError, match="arrived in Snowflake changed"):
            stage_file(connection, staged)
