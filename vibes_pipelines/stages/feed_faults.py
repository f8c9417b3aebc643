"""Feed faults: what is counted in landed feeds to tell that one is not as it should be."""

from collections.abc import Sequence
from pathlib import Path

import duckdb

from vibes_pipelines.data_files import parquet
from vibes_pipelines.reconcile.sql import ident


def repeated_keys(data: Path, columns: Sequence[str]) -> int:
    """How many whole keys stand more than once; a key with a part missing names nothing."""
    listed = ", ".join(map(ident, columns))
    whole = " AND ".join(f"{ident(column)} IS NOT NULL" for column in columns)
    return _counted(
        f"SELECT count(*) FROM (SELECT {listed} FROM {parquet(data)} "  # noqa: S608 - quoted
        f"WHERE {whole} GROUP BY {listed} HAVING count(*) > 1)",
    )


def differing_subscriptions(extract: Path, share: Path) -> int:
    """How many subscriptions are active in only one of the extract and the share."""
    return _counted(
        f"""
        SELECT count(*) FROM (
            SELECT lower(person_key) AS p, subscription_list_id::VARCHAR AS l
            FROM {parquet(extract)}
        ) AS e FULL JOIN (
            SELECT DISTINCT lower(person_key) AS p, subscription_list_id::VARCHAR AS l
            FROM {parquet(share)} WHERE opt_out_date IS NULL
        ) AS s USING (p, l) WHERE e.p IS NULL OR s.p IS NULL
        """  # noqa: S608 - our own paths
    )


def _counted(query: str) -> int:
    with duckdb.connect() as engine:
        return int(engine.execute(query).fetchall()[0][0])
