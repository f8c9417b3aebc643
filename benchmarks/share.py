"""Landing the persons of the share against fetching the same Arrow batches and dropping them.

Both through the unmodified Snowflake connector, from the sandbox's server, which is a process of
its own.

    python -m benchmarks.share [--rows 1000000] [--rounds 3]
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.measure import compare, report

os.environ["SNOWFLAKE_DISABLE_PLATFORM_DETECTION"] = "true"

USER, PASSWORD = "READER", "correct horse"
COLUMNS = ("PERSON_KEY", "EXTERNAL_PERSON_ID", "MDN", "FIRST_NAME", "SCORE", "UPDATED_AT")
_BUDGETS = {"ours": 1.25}

_SERVE = f"""
import sys, tempfile, pyarrow as pa
from datetime import datetime
from pathlib import Path
from vibes_pipelines.sandbox.share_server import ShareServer

rows = int(sys.argv[1])
numbers = range(rows)
table = pa.table({{
    "PERSON_KEY": [f"{{n:08x}}-9f5b-4a2e" for n in numbers],
    "EXTERNAL_PERSON_ID": [f"C{{n}}" for n in numbers],
    "MDN": [f"+1{{2_000_000_000 + n}}" for n in numbers],
    "FIRST_NAME": [f"Ada {{n % 1000}}" for n in numbers],
    "SCORE": pa.array([n % 97 for n in numbers], pa.int64()),
    "UPDATED_AT": pa.array([datetime(2026, 1, 2, 12)] * rows, pa.timestamp("us")),
}})
with tempfile.TemporaryDirectory() as home:
    server = ShareServer(Path(home), "{USER}", "{PASSWORD}", chunk_rows=100_000)
    server.load({{"PERSONS": table}})
    print(server.start(), flush=True)
    sys.stdin.read()
    server.stop()
"""


@contextmanager
def serving(rows: int) -> Iterator[int]:
    """Serves so many persons; yields the port."""
    command = [sys.executable, "-c", _SERVE, str(rows)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.communicate()


def _connect(port: int) -> Any:
    import snowflake.connector  # noqa: PLC0415 - part of what is measured

    return snowflake.connector.connect(
        account="vibes",
        user=USER,
        password=PASSWORD,
        host="127.0.0.1",
        port=port,
        protocol="http",
        database="VIBES_SHARE",
        schema="PUBLIC",
        login_timeout=20,
        network_timeout=60,
    )


def _measure(mode: str, port: int, rows: int) -> None:
    found = _fetch(port) if mode == "bare" else _land(port)
    assert found == rows
    report({})


def _fetch(port: int) -> int:
    with _connect(port) as connection, connection.cursor() as cursor:
        cursor.execute(f"SELECT {', '.join(COLUMNS)} FROM PERSONS")
        return sum(batch.num_rows for batch in cursor.fetch_arrow_batches())


def _land(port: int) -> int:
    from vibes_pipelines.store.snapshots import SnapshotStore  # noqa: PLC0415 - as above
    from vibes_pipelines.sync_config import SyncConfig  # noqa: PLC0415 - as above
    from vibes_pipelines.vibes.share import land_share_feed  # noqa: PLC0415 - as above

    config = SyncConfig.model_validate(
        {
            "version": 1,
            "company_key": "A1b2C3",
            "contacts": {"key": "id"},
            "fields": [
                {"from": "first_name", "to": "first_name", "type": "string"},
                {"from": "score", "to": "score", "type": "number"},
            ],
        }
    )
    with tempfile.TemporaryDirectory() as home:
        store = SnapshotStore(Path(home))
        snapshot, _ = land_share_feed(
            store, "2026-01-02", "share/persons", lambda: _connect(port), config
        )
        return snapshot.manifest.rows


def main() -> None:
    """Prints the measurements and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mode")
    parser.add_argument("--port", type=int)
    given = parser.parse_args()
    if given.mode:
        _measure(given.mode, given.port, given.rows)
        return
    with serving(given.rows) as port:
        print(f"{given.rows:,} persons x {len(COLUMNS)} columns of the share; bare batches = 1")
        told = ["--rows", str(given.rows), "--port", str(port)]
        compare(
            ("bare", "ours"),
            lambda mode: ["-m", "benchmarks.share", *told, "--mode", mode],
            given.rounds,
            _BUDGETS,
        )


if __name__ == "__main__":
    main()
