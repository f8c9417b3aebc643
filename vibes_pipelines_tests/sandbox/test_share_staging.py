"""Staging at the share's stand-in: what it accepts, and that it refuses what Snowflake refuses."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import snowflake.connector
from snowflake.connector import SnowflakeConnection
from snowflake.connector.errors import ProgrammingError

from vibes_pipelines.sandbox.share_staging import WORK, SessionStages
from vibes_pipelines_tests.support.sandbox_parts import RunningShare

TABLE = "CREATE TEMPORARY TABLE T (N NUMBER(38,0), V VARCHAR)"
STAGE = "CREATE TEMPORARY STAGE S"
COPY = (
    "COPY INTO T (N, V) FROM (SELECT $1:N::NUMBER(38,0), $1:V::VARCHAR FROM @S)"
    " FILE_FORMAT = (TYPE = PARQUET NULL_IF = ()) ON_ERROR = ABORT_STATEMENT"
)


@pytest.fixture
def connection(share: RunningShare) -> Iterator[SnowflakeConnection]:
    database, schema = WORK
    arguments = share.arguments(database=database, schema=schema, warehouse="SMALL")
    with snowflake.connector.connect(**arguments) as opened:
        yield opened


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "it's here.parquet"
    pq.write_table(pa.table({"N": [1, 2, 3], "V": ["\\N", None, " é "]}), path)
    return path


def run(connection: SnowflakeConnection, *statements: str) -> list[Any]:
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
        return list(cursor.fetchall())


def put(file: Path) -> str:
    path = str(file).replace("'", "\\'")
    return f"PUT 'file://{path}' @S AUTO_COMPRESS = FALSE"


def rows(connection: SnowflakeConnection) -> list[Any]:
    return run(connection, "SELECT N, V FROM T ORDER BY N")


def test_a_file_becomes_a_table_of_this_session(
    connection: SnowflakeConnection, share: RunningShare, file: Path
) -> None:
    uploaded = run(connection, TABLE, STAGE, put(file))
    assert uploaded[0][6] == "UPLOADED"
    assert run(connection, COPY) == [(file.name, "LOADED", 3, 3)]
    assert rows(connection) == [(1, "\\N"), (2, None), (3, " é ")]
    database, schema = WORK
    with (
        snowflake.connector.connect(**share.arguments(database=database, schema=schema)) as other,
        pytest.raises(ProgrammingError, match="002003"),
    ):
        rows(other)


def test_without_null_if_a_text_turns_into_null(
    connection: SnowflakeConnection, file: Path
) -> None:
    run(connection, TABLE, STAGE, put(file), COPY.replace(" NULL_IF = ()", ""))
    assert rows(connection)[0] == (1, None)


def test_a_path_in_another_case_is_null(connection: SnowflakeConnection, file: Path) -> None:
    run(connection, TABLE, STAGE, put(file), COPY.replace("$1:V", "$1:v"))
    assert rows(connection)[2] == (3, None)


def test_an_empty_stage_loads_nothing(connection: SnowflakeConnection) -> None:
    assert run(connection, TABLE, STAGE, COPY) == []
    assert rows(connection) == []


REFUSED = {
    TABLE: 2002,
    STAGE: 2002,
    "CREATE TEMPORARY TABLE U (V GEOGRAPHY)": 1003,
    "CREATE TABLE U (V VARCHAR)": 3001,
    "CREATE STAGE U": 3001,
    "DROP TABLE T": 3001,
    "INSERT INTO T VALUES (1, 'x')": 3001,
    "CREATE TEMPORARY TABLE VIBES_SHARE.PUBLIC.U (V VARCHAR)": 3001,
    "PUT 'file:///tmp/x' @NONE AUTO_COMPRESS = FALSE": 2003,
    COPY.replace("@S", "@NONE"): 2003,
    COPY.replace("INTO T", "INTO NONE"): 2003,
    COPY.replace("(N, V)", "(N, W)"): 904,
    COPY.replace("(N, V)", "(N)"): 2020,
    COPY.replace("::VARCHAR", "::BLOB"): 1003,
    COPY.replace("ABORT_STATEMENT", "CONTINUE"): 3001,
}


def refusal(connection: SnowflakeConnection, statement: str) -> int | None:
    with pytest.raises(ProgrammingError) as refused:
        run(connection, statement)
    return refused.value.errno


def test_whatever_is_not_known_or_not_granted_is_refused(connection: SnowflakeConnection) -> None:
    run(connection, TABLE, STAGE)
    assert {one: refusal(connection, one) for one in REFUSED} == REFUSED


def test_a_share_is_read_only(share: RunningShare) -> None:
    share.load(PERSONS=pa.table({"MDN": ["+13125550100"]}))
    with snowflake.connector.connect(**share.arguments(warehouse="SMALL")) as connection:
        assert refusal(connection, TABLE) == 3001
        assert refusal(connection, STAGE) == 3001


def test_what_is_no_parquet_file_is_refused(
    connection: SnowflakeConnection, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"not Parquet")
    run(connection, TABLE, STAGE, put(broken))
    assert refusal(connection, COPY) == 100152


def test_the_files_go_with_the_session(share: RunningShare, file: Path) -> None:
    database, schema = WORK
    arguments = share.arguments(database=database, schema=schema, warehouse="SMALL")
    with snowflake.connector.connect(**arguments) as connection:
        run(connection, TABLE, STAGE, put(file))
        [session] = share.server.protocol.sessions.values()
        stages = session._stages
        assert isinstance(stages, SessionStages)
        folder = Path(stages._folder.name)
        assert [one.name for one in folder.rglob("*.parquet")] == [file.name]
    assert not folder.exists()
