"""Landing the share through the unmodified Snowflake connector, over its real protocol."""

import errno
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import snowflake.connector
from snowflake.connector import result_batch
from snowflake.connector.cursor import ResultMetadata

from vibes_pipelines.sandbox.share_results import Chunk
from vibes_pipelines.store.snapshots import EmptySource, SnapshotStore
from vibes_pipelines.sync_config import SyncConfig
from vibes_pipelines.vibes.share import (
    ShareError,
    ShareRefreshed,
    ShareUnavailable,
    _schema,
    _Table,
    _write_batches,
    land_share_feed,
    shown_instant,
)
from vibes_pipelines.vibes.share_errors import share_errors
from vibes_pipelines_tests.support.sandbox_parts import RunningShare

DAY = "2026-01-02"
PERSONS, SUBSCRIPTIONS = "share/persons", "share/subscriptions"
NOON = datetime(2026, 1, 2, 12)  # noqa: DTZ001 - TIMESTAMP_NTZ, UTC by convention
COUNT = 2_500
Connect = Callable[[], AbstractContextManager[Any]]


def build_config(**feeds: dict[str, Any]) -> SyncConfig:
    return SyncConfig.model_validate(
        {
            "version": 1,
            "company_key": "A1b2C3",
            "contacts": {"key": "contact_id"},
            "fields": [
                {"from": "first_name", "to": "first_name", "type": "string"},
                {"from": "score", "to": "score", "type": "number"},
                {"from": "birth_date", "to": "birthdate", "type": "date"},
            ],
            "feeds": {f"share/{name}": feed for name, feed in feeds.items()},
        }
    )


def persons(count: int = COUNT) -> pa.Table:
    return pa.table(
        {
            "PERSON_KEY": [f"p{n}" for n in range(count)],
            "EXTERNAL_PERSON_ID": [f"C-{n}" if n % 2 else None for n in range(count)],
            "MDN": pa.array([f"+1312555{n:04}" for n in range(count)], pa.string()),
            "FIRST_NAME": pa.array(["  Ada " for _ in range(count)], pa.string()),
            "SCORE": pa.array([Decimal("0.1000")] * count, pa.decimal128(18, 4)),
            "BIRTHDATE": pa.array([NOON if n % 2 else None for n in range(count)], timestamps()),
            "UPDATED_AT": pa.array([NOON] * count, timestamps()),
            "IGNORED": pa.array(["x"] * count, pa.string()),
        }
    )


def subscriptions(count: int) -> pa.Table:
    return pa.table(
        {
            "PERSON_KEY": pa.array([f"p{n}" for n in range(count)], pa.string()),
            "SUBSCRIPTION_LIST_ID": pa.array(["1234"] * count, pa.string()),
            "OPT_IN_DATE": pa.array([NOON] * count, timestamps()),
            "OPT_OUT_DATE": pa.array([None] * count, timestamps()),
            "OPT_OUT_REASON": pa.array([None] * count, pa.string()),
        }
    )


def timestamps() -> pa.DataType:
    return pa.timestamp("us")


def connect_to(share: RunningShare, **changes: Any) -> Connect:
    @contextmanager
    def connect() -> Iterator[Any]:
        with snowflake.connector.connect(**share.arguments(**changes)) as connection:
            yield connection

    return connect


@pytest.fixture
def store(tmp_path: Path) -> SnapshotStore:
    return SnapshotStore(tmp_path / "landing")


def test_persons_land_typed_under_logical_names(share: RunningShare, store: SnapshotStore) -> None:
    share.load(PERSONS=persons())
    snapshot, is_new = land_share_feed(store, DAY, PERSONS, connect_to(share), build_config())

    assert is_new
    assert snapshot.manifest.source == "VIBES_SHARE.PUBLIC.PERSONS"
    assert snapshot.manifest.columns == {
        "person_key": "string",
        "external_person_id": "string",
        "mdn": "string",
        "first_name": "string",
        "score": "decimal128(18, 4)",
        "birthdate": "timestamp[us]",
    }
    landed = pq.read_table(snapshot.data).sort_by("mdn")
    assert landed.num_rows == COUNT
    assert landed.slice(0, 2).to_pylist() == [
        row("p0", None, "+13125550000", None),
        row("p1", "C-1", "+13125550001", NOON),
    ]


def row(key: str, external_id: str | None, mdn: str, birthdate: datetime | None) -> dict[str, Any]:
    return {
        "person_key": key,
        "external_person_id": external_id,
        "mdn": mdn,
        "first_name": "  Ada ",
        "score": Decimal("0.1000"),
        "birthdate": birthdate,
    }


def test_rows_arrive_in_batches_not_at_once(share: RunningShare, store: SnapshotStore) -> None:
    share.load(PERSONS=persons())
    snapshot, _ = land_share_feed(store, DAY, PERSONS, connect_to(share), build_config())
    assert pq.read_metadata(snapshot.data).num_row_groups == 3


def test_without_refreshes_the_newest_update_is_the_instant(
    share: RunningShare, store: SnapshotStore
) -> None:
    share.load(PERSONS=persons(), SUBSCRIPTIONS=subscriptions(1))
    snapshot, _ = land_share_feed(store, DAY, SUBSCRIPTIONS, connect_to(share), build_config())
    assert snapshot.manifest.as_of == NOON.replace(tzinfo=UTC)


def test_mapped_refreshes_give_the_instant(share: RunningShare, store: SnapshotStore) -> None:
    as_of = datetime(2026, 1, 2, 5)  # noqa: DTZ001 - TIMESTAMP_NTZ
    share.load(PERSONS=persons(3), REFRESHES=pa.table({"AT": pa.array([as_of], timestamps())}))
    config = build_config(refreshes={"columns": {"as_of": "AT"}})
    snapshot, _ = land_share_feed(store, DAY, PERSONS, connect_to(share), config)
    assert snapshot.manifest.as_of == as_of.replace(tzinfo=UTC)


def test_objects_and_columns_are_mapped_by_sync_yaml(
    share: RunningShare, store: SnapshotStore
) -> None:
    odd = persons(2).rename_columns(
        ["KEY", "EXTERNAL_PERSON_ID", "MDN", "First Name", "SCORE", "BIRTHDATE", "UPDATED_AT", "X"]
    )
    share.load(PEOPLE=odd)
    feed = {
        "object": 'vibes_share.public."PEOPLE"',
        "columns": {"person_key": "key", "first_name": '"First Name"', "carrier_code": "X"},
    }
    snapshot, _ = land_share_feed(
        store, DAY, PERSONS, connect_to(share), build_config(persons=feed)
    )
    names = list(snapshot.manifest.columns)
    assert names == [
        "person_key",
        "external_person_id",
        "mdn",
        "first_name",
        "score",
        "birthdate",
        "carrier_code",
    ]
    assert pq.read_table(snapshot.data)["person_key"].to_pylist() == ["p0", "p1"]


def test_a_landed_feed_needs_no_connection(share: RunningShare, store: SnapshotStore) -> None:
    share.load(PERSONS=persons(2))
    first, _ = land_share_feed(store, DAY, PERSONS, connect_to(share), build_config())
    unreachable = connect_to(share, port=1)
    assert land_share_feed(store, DAY, PERSONS, unreachable, build_config()) == (first, False)


def test_no_subscriptions_are_a_snapshot_without_rows(
    share: RunningShare, store: SnapshotStore
) -> None:
    share.load(PERSONS=persons(2), SUBSCRIPTIONS=subscriptions(0))
    snapshot, _ = land_share_feed(store, DAY, SUBSCRIPTIONS, connect_to(share), build_config())
    assert snapshot.manifest.rows == 0
    assert pq.read_schema(snapshot.data).field("opt_out_date").type == timestamps()


def test_no_persons_are_an_error(share: RunningShare, store: SnapshotStore) -> None:
    refreshes = pa.table({"AS_OF": pa.array([NOON], timestamps())})
    share.load(PERSONS=persons(0), REFRESHES=refreshes)
    with pytest.raises(EmptySource, match=r"PERSONS holds no row, .* feeds\.share/persons\.object"):
        land_share_feed(store, DAY, PERSONS, connect_to(share), build_config(refreshes={}))
    assert store.find(PERSONS, DAY) is None


def test_a_share_without_an_instant_is_an_error(share: RunningShare, store: SnapshotStore) -> None:
    share.load(PERSONS=persons(0))
    with pytest.raises(EmptySource, match=r"PERSONS\.UPDATED_AT holds no instant"):
        land_share_feed(store, DAY, PERSONS, connect_to(share), build_config())


@pytest.mark.parametrize(
    "updated", [date(2026, 1, 2), "2026-01-02 12:00:00", 1767355200, Decimal("1.5")]
)
def test_an_instant_that_is_no_timestamp_is_named_with_its_entry(
    share: RunningShare, store: SnapshotStore, updated: object
) -> None:
    table = persons(2)
    index = table.column_names.index("UPDATED_AT")
    share.load(PERSONS=table.set_column(index, "UPDATED_AT", pa.array([updated] * 2)))
    message = r"UPDATED_AT is no TIMESTAMP, .* map feeds\.share/persons\.columns\.updated_at"
    with pytest.raises(ShareError, match=message):
        land_share_feed(store, DAY, PERSONS, connect_to(share), build_config())
    with connect_to(share)() as connection, pytest.raises(ShareError, match=message):
        shown_instant(connection, build_config())


@pytest.mark.parametrize(
    "values", [pa.array([b"\xff\x00"]), pa.array([[1.0, 2.0]], pa.list_(pa.float32(), 2))]
)
def test_bytes_and_vectors_are_named_with_their_cure(values: pa.Array, tmp_path: Path) -> None:
    class Cursor:
        """A result of a type that the stand-in has not."""

        def fetch_arrow_batches(self, **_: bool) -> list[pa.Table]:
            return [pa.table({"FIRST_NAME": values})]

    schema = pa.schema([("first_name", pa.string())])
    with pytest.raises(ShareError, match=r"first_name is mapped to a column of .* VARCHAR"):
        _write_batches(Cursor(), schema, tmp_path / "data.parquet")


@pytest.mark.parametrize(("code", "kind"), [(5, "VARIANT"), (9, "OBJECT"), (10, "ARRAY")])
def test_columns_of_json_are_named_with_their_cure(code: int, kind: str) -> None:
    """Types that the stand-in has not: their JSON would differ from every contact's value."""
    described = [
        ResultMetadata("PERSON_KEY", 2, None, None, None, None, is_nullable=False),
        ResultMetadata("TIER", code, None, None, None, None, is_nullable=True),
    ]
    table = _Table(PERSONS, "V.PUBLIC.P", {"person_key": "PERSON_KEY", "tier": "TIER"})
    with pytest.raises(ShareError) as error:
        _schema(table, described)
    assert str(error.value) == (
        f"share: V.PUBLIC.P.TIER is of type {kind}; map feeds.share/persons in sync.yaml to a view "
        "that has it as VARCHAR: a plain text or option key, or option keys joined by |"
    )


def test_a_missing_column_is_named_with_its_entry(
    share: RunningShare, store: SnapshotStore
) -> None:
    share.load(PERSONS=persons(2).drop_columns(["SCORE", "MDN"]))
    with pytest.raises(ShareError) as error:
        land_share_feed(store, DAY, PERSONS, connect_to(share), build_config())
    assert str(error.value) == (
        "share: VIBES_SHARE.PUBLIC.PERSONS has no column MDN (feeds.share/persons.columns.mdn), "
        "SCORE (feeds.share/persons.columns.score); map it in sync.yaml. The object has: "
        "PERSON_KEY, EXTERNAL_PERSON_ID, FIRST_NAME, BIRTHDATE, UPDATED_AT, IGNORED"
    )


@pytest.mark.parametrize("name", ["VIBES_SHARE.PUBLIC.NOWHERE", "NOWHERE.PUBLIC.PERSONS"])
def test_a_missing_object_is_named_with_its_entry(
    share: RunningShare, store: SnapshotStore, name: str
) -> None:
    share.load(PERSONS=persons(2), REFRESHES=pa.table({"AS_OF": pa.array([NOON], timestamps())}))
    config = build_config(persons={"object": name}, refreshes={})
    with pytest.raises(ShareError, match=rf"{name} does not exist or .* feeds\.share/persons\.obj"):
        land_share_feed(store, DAY, PERSONS, connect_to(share), config)


@pytest.mark.parametrize(
    ("feed", "message"),
    [
        ({"object": "PERSONS"}, r"feeds\.share/persons\.object: 'PERSONS' .* DATABASE\.SCHEMA"),
        ({"columns": {"mdn": "MDN; DROP"}}, "'MDN; DROP' is not a column or object name"),
    ],
)
def test_a_malformed_name_is_refused(
    share: RunningShare, store: SnapshotStore, feed: dict[str, Any], message: str
) -> None:
    share.load(REFRESHES=pa.table({"AS_OF": pa.array([NOON], timestamps())}))
    config = build_config(persons=feed, refreshes={})
    with pytest.raises(ShareError, match=message):
        land_share_feed(store, DAY, PERSONS, connect_to(share), config)


def test_a_wrong_password_is_permanent_and_says_what_to_check(
    share: RunningShare, store: SnapshotStore
) -> None:
    wrong = connect_to(share, password="wrong horse")
    with pytest.raises(ShareError, match="390100; check SNOWFLAKE_USER and SNOWFLAKE_P") as error:
        land_share_feed(store, DAY, PERSONS, wrong, build_config())
    assert not isinstance(error.value, ShareUnavailable)
    assert "wrong horse" not in str(error.value)


def test_an_unreachable_account_is_transient(share: RunningShare, store: SnapshotStore) -> None:
    nowhere = connect_to(share, port=1, login_timeout=2)
    with pytest.raises(ShareUnavailable, match="did not answer; check SNOWFLAKE_ACCOUNT"):
        land_share_feed(store, DAY, PERSONS, nowhere, build_config())


def test_a_result_that_cannot_be_fetched_is_transient_and_its_address_is_not_shown(
    share: RunningShare,
    store: SnapshotStore,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def elsewhere(chunk: Chunk, base_url: str) -> dict[str, Any]:
        return reference(chunk, "http://127.0.0.1:1/signed/")

    reference = Chunk.reference
    monkeypatch.setattr(Chunk, "reference", elsewhere)
    monkeypatch.setattr(result_batch, "MAX_DOWNLOAD_RETRY", 1)
    share.load(PERSONS=persons())
    with pytest.raises(ShareUnavailable, match="reading broke off with ConnectionError") as error:
        land_share_feed(store, DAY, PERSONS, connect_to(share), build_config())
    assert error.value.__cause__ is None
    assert "signed" not in f"{error.value}{caplog.text}"
    assert "a request failed" in caplog.text
    assert store.find(PERSONS, DAY) is None


def test_a_full_disk_is_not_taken_for_a_broken_connection() -> None:
    with pytest.raises(OSError, match="No space left"), share_errors("reading"):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_connection_that_would_retry_for_ever_is_refused(
    share: RunningShare, store: SnapshotStore
) -> None:
    share.load(PERSONS=persons(2))
    endless = connect_to(share, network_timeout=None)
    with pytest.raises(ShareError, match="no network_timeout"):
        land_share_feed(store, DAY, PERSONS, endless, build_config())


def test_a_refresh_while_reading_is_noticed(share: RunningShare, store: SnapshotStore) -> None:
    share.load(PERSONS=persons(2))

    @contextmanager
    def connect() -> Iterator[Any]:
        with connect_to(share)() as connection:
            yield RefreshingConnection(connection, share)

    with pytest.raises(ShareRefreshed, match="refreshed while it was read"):
        land_share_feed(store, DAY, PERSONS, connect, build_config())
    assert store.find(PERSONS, DAY) is None


class RefreshingConnection:
    """The real connection, to a share that is refreshed before the third statement."""

    def __init__(self, connection: Any, share: RunningShare) -> None:
        self._connection = connection
        self._share = share
        self._cursors = 0
        self.network_timeout = connection.network_timeout

    def cursor(self) -> Any:
        self._cursors += 1
        if self._cursors == 3:
            newer = pa.array([datetime(2026, 1, 3)] * 2, timestamps())  # noqa: DTZ001
            table = persons(2)
            index = table.column_names.index("UPDATED_AT")
            self._share.load(PERSONS=table.set_column(index, "UPDATED_AT", newer))
        return self._connection.cursor()


def test_dates_stay_dates(share: RunningShare, store: SnapshotStore) -> None:
    table = persons(1).set_column(5, "BIRTHDATE", pa.array([date(1990, 12, 1)]))
    share.load(PERSONS=table)
    snapshot, _ = land_share_feed(store, DAY, PERSONS, connect_to(share), build_config())
    assert pq.read_table(snapshot.data)["birthdate"].to_pylist() == [date(1990, 12, 1)]
