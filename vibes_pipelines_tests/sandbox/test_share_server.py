"""The share's stand-in as the unmodified Snowflake connector reads it."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import snowflake.connector
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from snowflake.connector import SnowflakeConnection
from snowflake.connector.errors import DatabaseError, ProgrammingError

from vibes_pipelines.sandbox.share_database import ShareLoadError
from vibes_pipelines.sandbox.share_server import ShareServer
from vibes_pipelines_tests.support.examples import examples
from vibes_pipelines_tests.support.sandbox_parts import CHUNK_ROWS, RunningShare


def ntz(*parts: int) -> datetime:
    """Return an instant of UTC as the connector gives TIMESTAMP_NTZ: without a time zone."""
    return datetime(*parts, tzinfo=UTC).replace(tzinfo=None)  # type: ignore[misc, arg-type]


PERSONS = pa.table(
    {
        "person_key": ["k1", "k2", "k3"],
        "first_name": ["Ann", None, "Zoë"],
        "score": pa.array(
            [Decimal("1.5000"), None, Decimal("-99999999999999.9999")], pa.decimal128(18, 4)
        ),
        "created_at": pa.array(
            [datetime(2026, 1, 1, 1, 2, 3, 456789, UTC), None, datetime(1931, 5, 6, tzinfo=UTC)],
            pa.timestamp("us", tz="UTC"),
        ),
        "visits": [7, None, 0],
    }
)


@pytest.fixture
def connection(share: RunningShare) -> Iterator[SnowflakeConnection]:
    share.load(PERSONS=PERSONS)
    with snowflake.connector.connect(**share.arguments()) as opened:
        yield opened


def rows(connection: SnowflakeConnection, sql: str, *values: Any) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(sql, values or None)
        return list(cursor.fetchall())


def test_values_and_nulls_arrive_as_they_were_loaded(connection: SnowflakeConnection) -> None:
    assert rows(connection, "SELECT * FROM PERSONS ORDER BY PERSON_KEY") == [
        ("k1", "Ann", Decimal("1.5000"), ntz(2026, 1, 1, 1, 2, 3, 456789), 7),
        ("k2", None, None, None, None),
        ("k3", "Zoë", Decimal("-99999999999999.9999"), ntz(1931, 5, 6), 0),
    ]


def test_null_timestamps_are_null_in_arrow(connection: SnowflakeConnection) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT CREATED_AT FROM PERSONS ORDER BY PERSON_KEY")
        column = cursor.fetch_arrow_all(force_return_table=True).column("CREATED_AT")
    assert column.null_count == 1
    assert not column[1].is_valid
    assert column[2].as_py() == ntz(1931, 5, 6)


@settings(
    max_examples=examples(25),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    instants=st.lists(st.none() | st.datetimes(ntz(1800, 1, 1), ntz(2200, 1, 1)), min_size=1),
    scaled=st.none() | st.integers(-(10**18) + 1, 10**18 - 1),
)
def test_every_instant_and_number_survives(
    share: RunningShare, instants: list[datetime | None], scaled: int | None
) -> None:
    number = None if scaled is None else Decimal(scaled).scaleb(-4)
    share.load(
        VALUES_TO_READ=pa.table(
            {
                "n": range(len(instants)),
                "seen_at": pa.array(instants, pa.timestamp("us")),
                "score": pa.array([number] * len(instants), pa.decimal128(18, 4)),
            }
        )
    )
    with snowflake.connector.connect(**share.arguments()) as connection:
        found = rows(connection, "SELECT SEEN_AT, SCORE FROM VALUES_TO_READ ORDER BY N")
    assert found == [(instant, number) for instant in instants]


def test_numbers_are_decimals_in_arrow_only_when_asked_for(share: RunningShare) -> None:
    """Snowflake sends small NUMBERs as scaled integers; the connector's default is float."""
    share.load(PERSONS=PERSONS)
    expected = {False: pa.float64(), True: pa.decimal128(38, 4)}
    for decimals, arrow_type in expected.items():
        with (
            snowflake.connector.connect(
                **share.arguments(arrow_number_to_decimal=decimals)
            ) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute("SELECT SCORE FROM PERSONS")
            found = cursor.fetch_arrow_all(force_return_table=True)
            assert found.schema.field("SCORE").type == arrow_type


def test_large_result_streams_in_batches(share: RunningShare) -> None:
    count = 10 * CHUNK_ROWS + 1
    share.load(NUMBERS=pa.table({"n": range(count)}))
    with (
        snowflake.connector.connect(**share.arguments()) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("SELECT N FROM NUMBERS ORDER BY N")
        batches = list(cursor.fetch_arrow_batches())
    assert len(batches) == 11
    assert pa.concat_tables(batches).column("N").to_pylist() == list(range(count))


def test_empty_result_has_its_columns(connection: SnowflakeConnection) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT * FROM PERSONS WHERE 1 = 0")
        empty = cursor.fetch_arrow_all(force_return_table=True)
    assert empty.num_rows == 0
    assert empty.column_names == ["PERSON_KEY", "FIRST_NAME", "SCORE", "CREATED_AT", "VISITS"]


def test_results_are_kept_for_the_newest_queries_and_open_sessions_only(tmp_path: Path) -> None:
    server = ShareServer(tmp_path, "READER", "pw", chunk_rows=10, kept_results=2)
    share = RunningShare(server, server.start())
    try:
        share.load(NUMBERS=pa.table({"n": range(100)}))
        with snowflake.connector.connect(**share.arguments(password="pw")) as connection:
            for _ in range(5):
                rows(connection, "SELECT * FROM NUMBERS")
            assert len(server.protocol.chunks) == 2
            assert len(server.protocol.sessions) == 1
        assert len(server.protocol.chunks) == 0
        assert len(server.protocol.sessions) == 0
    finally:
        server.stop()


def test_loading_replaces_named_tables_and_keeps_others(share: RunningShare) -> None:
    share.load(A=pa.table({"n": [1]}), B=pa.table({"n": [1]}))
    share.load(A=pa.table({"other": ["x", "y"]}))
    with snowflake.connector.connect(**share.arguments()) as connection:
        assert rows(connection, "SELECT OTHER FROM A ORDER BY OTHER") == [("x",), ("y",)]
        assert rows(connection, "SELECT N FROM B") == [(1,)]


def test_readers_see_all_tables_of_one_load_or_none(share: RunningShare) -> None:
    def version(number: int) -> dict[str, pa.Table]:
        return {"A": pa.table({"n": [number]}), "B": pa.table({"n": [number]})}

    def read() -> list[tuple[int, int]]:
        with snowflake.connector.connect(**share.arguments()) as connection:
            sql = "SELECT A.N, B.N FROM A CROSS JOIN B"
            return [rows(connection, sql)[0] for _ in range(40)]

    share.load(**version(0))
    with ThreadPoolExecutor(2) as readers:
        reading = [readers.submit(read) for _ in range(2)]
        for number in range(1, 41):
            share.load(**version(number))
        seen = [pair for future in reading for pair in future.result()]
    assert all(a == b for a, b in seen)


def test_failed_load_changes_nothing(share: RunningShare) -> None:
    share.load(A=pa.table({"n": [1]}))
    with pytest.raises(ShareLoadError, match="table B, column wrong"):
        share.load(A=pa.table({"n": [2]}), B=pa.table({"wrong": [[1]]}))
    with pytest.raises(ShareLoadError, match="plain identifier"):
        share.load(**{"A": pa.table({"n": [2]}), 'B"; --': pa.table({"n": [2]})})
    with snowflake.connector.connect(**share.arguments()) as connection:
        assert rows(connection, "SELECT N FROM A") == [(1,)]


def test_tables_outlive_the_server(tmp_path: Path) -> None:
    for run in range(2):
        server = ShareServer(tmp_path, "READER", "pw")
        try:
            if run == 0:
                server.load({"A": pa.table({"n": [1]})})
            share = RunningShare(server, server.start())
            with snowflake.connector.connect(**share.arguments(password="pw")) as connection:
                assert rows(connection, "SELECT N FROM A") == [(1,)]
        finally:
            server.stop()


def test_information_schema_tells_columns_and_types(connection: SnowflakeConnection) -> None:
    sql = """
        SELECT COLUMN_NAME, DATA_TYPE, NUMERIC_PRECISION, NUMERIC_SCALE
        FROM VIBES_SHARE.INFORMATION_SCHEMA.COLUMNS
        WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s ORDER BY ORDINAL_POSITION
    """
    assert rows(connection, sql, "PUBLIC", "PERSONS") == [
        ("PERSON_KEY", "TEXT", None, None),
        ("FIRST_NAME", "TEXT", None, None),
        ("SCORE", "NUMBER", 18, 4),
        ("CREATED_AT", "TIMESTAMP_NTZ", None, None),
        ("VISITS", "NUMBER", 38, 0),
    ]


def test_describing_a_query_needs_no_rows(connection: SnowflakeConnection) -> None:
    with connection.cursor() as cursor:
        columns = cursor.describe("SELECT SCORE, CREATED_AT FROM PERSONS")
    assert [(column.name, column.scale) for column in columns] == [("SCORE", 4), ("CREATED_AT", 9)]


def test_values_are_bound_by_the_client_and_by_the_server(share: RunningShare) -> None:
    share.load(PERSONS=PERSONS)
    for style, mark in (("pyformat", "%s"), ("qmark", "?")):
        with snowflake.connector.connect(**share.arguments(paramstyle=style)) as connection:
            sql = f"SELECT PERSON_KEY FROM PERSONS WHERE FIRST_NAME = {mark}"
            assert rows(connection, sql, "Zoë") == [("k3",)]


@pytest.mark.parametrize(
    ("sql", "code", "sql_state"),
    [
        ("SELECT * FROM NOPE", 2003, "42S02"),
        ("SELECT * FROM VIBES_SHARE.NOPE.PERSONS", 2003, "42S02"),
        ("SELECT * FROM NOPE.PUBLIC.PERSONS", 2003, "42S02"),
        ("SELECT * FROM NOPE.INFORMATION_SCHEMA.COLUMNS", 2003, "42S02"),
        ("SELECT NOPE FROM PERSONS", 904, "42000"),
        ("SELECT NOPE(1)", 2140, "42601"),
        ("SELECT FROM WHERE", 1003, "42000"),
        ("SELEC", 1003, "42000"),
        ("SELECT CAST('x' AS INT)", 100035, "22007"),
        ("INSERT INTO PERSONS (PERSON_KEY) VALUES ('k4')", 3001, "42501"),
        ("DELETE FROM PERSONS", 3001, "42501"),
        ("DROP TABLE PERSONS", 3001, "42501"),
        ("CREATE TABLE T (N INT)", 3001, "42501"),
    ],
)
def test_failures_have_snowflakes_codes(
    connection: SnowflakeConnection, sql: str, code: int, sql_state: str
) -> None:
    with pytest.raises(ProgrammingError) as failure:
        rows(connection, sql)
    assert (failure.value.errno, failure.value.sqlstate) == (code, sql_state)
    assert rows(connection, "SELECT COUNT(*) FROM PERSONS") == [(3,)]


def test_failure_inside_the_server_is_an_answer_not_a_retry(
    connection: SnowflakeConnection,
) -> None:
    """An HTTP 500 would be repeated by the connector until its network timeout."""
    with pytest.raises(ProgrammingError) as failure:
        rows(connection, "SELECT INTERVAL '1 day'")
    assert (failure.value.errno, failure.value.sqlstate) == (603, "XX000")


@pytest.mark.parametrize(
    "sql", ["ALTER SESSION SET QUERY_TAG = 'x'", "USE WAREHOUSE W", "USE ROLE R", "COMMIT"]
)
def test_session_statements_are_accepted_without_effect(
    connection: SnowflakeConnection, sql: str
) -> None:
    assert rows(connection, sql) == [("Statement executed successfully.",)]


def test_login_does_not_create_the_database_it_names(share: RunningShare) -> None:
    share.load(PERSONS=PERSONS)
    with snowflake.connector.connect(**share.arguments(database="NOPE")) as connection:
        assert connection.database is None
        with pytest.raises(ProgrammingError) as failure:
            rows(connection, "SELECT * FROM PERSONS")
    assert failure.value.errno == 90105


@pytest.mark.parametrize("wrong", [{"password": "guess"}, {"user": "SOMEONE"}])
def test_wrong_password_or_user_is_refused(share: RunningShare, wrong: dict[str, str]) -> None:
    with pytest.raises(DatabaseError, match="Incorrect username or password") as refusal:
        snowflake.connector.connect(**share.arguments(**wrong))
    assert refusal.value.errno == 390100


@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@pytest.fixture
def key_pair_share(tmp_path: Path, key: rsa.RSAPrivateKey) -> Iterator[RunningShare]:
    public_key_file = tmp_path / "reader.pub"
    public_key_file.write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    server = ShareServer(tmp_path / "key_pair_share", "READER", "pw", public_key_file)
    try:
        server.load({"PERSONS": PERSONS})
        yield RunningShare(server, server.start())
    finally:
        server.stop()


def log_in_with(share: RunningShare, key: rsa.RSAPrivateKey, **changes: Any) -> SnowflakeConnection:
    der = key.private_bytes(
        serialization.Encoding.DER,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    arguments = share.arguments(private_key=der, authenticator="SNOWFLAKE_JWT", **changes)
    del arguments["password"]
    return snowflake.connector.connect(**arguments)


def test_registered_key_pair_logs_in(key_pair_share: RunningShare, key: rsa.RSAPrivateKey) -> None:
    with log_in_with(key_pair_share, key) as connection:
        assert rows(connection, "SELECT COUNT(*) FROM PERSONS") == [(3,)]


def test_other_key_other_user_and_unregistered_key_are_refused(
    key_pair_share: RunningShare, share: RunningShare, key: rsa.RSAPrivateKey
) -> None:
    other = rsa.generate_private_key(65537, 2048)
    for server, presented, user in (
        (key_pair_share, other, "READER"),
        (key_pair_share, key, "SOMEONE"),
        (share, key, "READER"),
    ):
        with pytest.raises(DatabaseError, match="JWT token is invalid") as refusal:
            log_in_with(server, presented, user=user)
        assert refusal.value.errno == 390144


def test_clients_read_side_by_side(share: RunningShare) -> None:
    share.load(NUMBERS=pa.table({"n": range(3 * CHUNK_ROWS)}))

    def total(_: int) -> Any:
        with (
            snowflake.connector.connect(**share.arguments()) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute("SELECT N FROM NUMBERS")
            return sum(cursor.fetch_arrow_all(force_return_table=True).column("N").to_pylist())

    with ThreadPoolExecutor(8) as clients:
        assert set(clients.map(total, range(8))) == {sum(range(3 * CHUNK_ROWS))}
