"""What others would do with the same two sides: every row compared, every changed row written.

They are given both sides in one spelling (`write_peer_sides`), so they neither parse phones and
dates nor map options; and they resolve no identity, hold nothing back and check nothing.
"""

import tempfile
from pathlib import Path

KEY = "external_person_id"


def write_peer_sides(contacts: Path, persons: Path, folder: Path) -> tuple[Path, Path]:
    """Writes the mapped columns of both sides in the platform's names and spelling, once."""
    import duckdb  # noqa: PLC0415  (the imports of each peer are part of what is measured)

    from benchmarks.data import build_config  # noqa: PLC0415

    folder.mkdir(parents=True, exist_ok=True)
    sides = folder / "contacts.parquet", folder / "persons.parquet"
    if all(side.exists() for side in sides):
        return sides
    spelt = {
        "date": "{}::TIMESTAMP",
        "single_select": "lower({})",
        "multi_select": "replace({}, ';', '|')",
    }
    fields = build_config().fields
    crm = ", ".join(f"{spelt.get(f.type, '{}').format(f.from_)} AS {f.to}" for f in fields)
    platform = ", ".join(field.to for field in fields)
    for side, sql in zip(
        sides,
        (
            f"SELECT contact_id AS {KEY}, {crm} FROM '{contacts}'",
            f"SELECT {KEY}, {platform} FROM '{persons}'",
        ),
        strict=True,
    ):
        duckdb.execute(f"COPY ({sql}) TO '{side}' (COMPRESSION zstd)")
    return sides


def join_naively(contacts: Path, persons: Path) -> int:
    """DuckDB: a full join, every column of every row compared."""
    import duckdb  # noqa: PLC0415

    connection = duckdb.connect(config={"preserve_insertion_order": "false"})
    names = [name for name, *_ in connection.execute(f"DESCRIBE FROM '{contacts}'").fetchall()]
    changes = ", ".join(
        f"CASE WHEN c.{name} IS DISTINCT FROM p.{name} THEN {{'field': '{name}',"
        f" 'before': p.{name}::VARCHAR, 'after': c.{name}::VARCHAR}} END"
        for name in names
    )
    with tempfile.TemporaryDirectory() as out:
        connection.execute(f"""
            COPY (SELECT * FROM (
                SELECT coalesce(c.{KEY}, p.{KEY}) AS {KEY},
                       list_filter([{changes}], lambda x: x IS NOT NULL) AS changes
                FROM '{contacts}' c FULL JOIN '{persons}' p USING ({KEY})) WHERE len(changes) > 0)
            TO '{out}/diff.parquet' (COMPRESSION zstd)""")
        return _rows(Path(out) / "diff.parquet")


def merge_in_pandas(contacts: Path, persons: Path) -> int:
    """pandas: an outer merge, then column by column."""
    import pandas as pd  # noqa: PLC0415

    merged = pd.read_parquet(contacts).merge(
        pd.read_parquet(persons), "outer", on=KEY, indicator=True
    )
    differs = merged["_merge"] != "both"
    for left in [name for name in merged.columns if name.endswith("_x")]:
        crm, platform = merged[left], merged[left[:-2] + "_y"]
        differs |= (crm != platform) & ~(crm.isna() & platform.isna())
    return _written(merged[differs])


def merge_in_polars(contacts: Path, persons: Path) -> int:
    """Polars, streaming: the same full join."""
    import polars as pl  # noqa: PLC0415

    sides = pl.scan_parquet(contacts), pl.scan_parquet(persons)
    names = [name for name in sides[0].collect_schema().names() if name != KEY]
    differs = [pl.col(name).ne_missing(pl.col(f"{name}_right")) for name in names]
    alone = pl.col(KEY).is_null() | pl.col(f"{KEY}_right").is_null()
    with tempfile.TemporaryDirectory() as out:
        diff = Path(out) / "diff.parquet"
        sides[0].join(sides[1], on=KEY, how="full").filter(
            pl.any_horizontal(alone, *differs)
        ).sink_parquet(diff)
        return _rows(diff)


def compare_with_datacompy_on_pandas(contacts: Path, persons: Path) -> int:
    """Datacompy's own comparison; it tells the rows that differ, not their fields."""
    import datacompy  # noqa: PLC0415
    import pandas as pd  # noqa: PLC0415

    compared = datacompy.PandasCompare(
        pd.read_parquet(contacts), pd.read_parquet(persons), join_columns=KEY
    )
    return len(compared.all_mismatch()) + len(compared.df1_unq_rows) + len(compared.df2_unq_rows)


def compare_with_datacompy_on_polars(contacts: Path, persons: Path) -> int:
    """The same on Polars."""
    import datacompy  # noqa: PLC0415
    import polars as pl  # noqa: PLC0415

    compared = datacompy.PolarsCompare(
        pl.read_parquet(contacts), pl.read_parquet(persons), join_columns=KEY
    )
    return len(compared.all_mismatch()) + len(compared.df1_unq_rows) + len(compared.df2_unq_rows)


def diff_with_reladiff(contacts: Path, persons: Path) -> int:
    """Reladiff's diff by hashes of segments, over DuckDB files into which it has to be loaded."""
    import duckdb  # noqa: PLC0415
    import reladiff  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as out:
        tables = []
        for name, side in (("contacts", contacts), ("persons", persons)):
            file = f"{out}/{name}.duckdb"
            with duckdb.connect(file) as connection:
                connection.execute(f"CREATE TABLE side AS FROM '{side}'")
                described = connection.execute("DESCRIBE side").fetchall()
            table = {"driver": "duckdb", "filepath": file}
            tables.append(reladiff.connect_to_table(table, "side", KEY))
        columns = tuple(column for column, *_ in described if column != KEY)
        # Its sort cannot compare a text with a null.
        rows = reladiff.diff_tables(
            *tables,
            extra_columns=columns,
            algorithm=reladiff.Algorithm.HASHDIFF,
            skip_sort_results=True,
        )
        return len({row[0] for _, row in rows})


def _written(frame: object) -> int:
    with tempfile.TemporaryDirectory() as out:
        diff = Path(out) / "diff.parquet"
        frame.to_parquet(diff)  # type: ignore[attr-defined]
        return _rows(diff)


def _rows(parquet: Path) -> int:
    import pyarrow.parquet as pq  # noqa: PLC0415

    return int(pq.read_metadata(parquet).num_rows)


PEERS = {
    "naive": join_naively,
    "polars": merge_in_polars,
    "pandas": merge_in_pandas,
    "datacompy/polars": compare_with_datacompy_on_polars,
    "datacompy/pandas": compare_with_datacompy_on_pandas,
    "reladiff": diff_with_reladiff,
}
