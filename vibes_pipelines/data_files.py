"""Files as DuckDB relations: a path names one file, whose columns are those that are in it.

By itself DuckDB takes a path for a pattern, and a folder `key=value` above a file for a column that
goes before the file's own. So every path that it is to read goes through here.
"""

import re
from collections.abc import Mapping
from pathlib import Path

_PATTERN = re.compile(r"[\[*?]")
_NO_PARQUET = re.compile(
    r"Invalid Input Error: "
    r"(?:File '(.+)' too small to be a Parquet file|No magic bytes found at end of file '(.+)')"
)


def exact(path: Path | str) -> str:
    """The path as DuckDB has to be given it for reading; for writing it takes paths as they are."""
    return _PATTERN.sub(r"[\g<0>]", str(path))


def parquet(*paths: Path | str, **options: str | bool) -> str:
    """SQL for the rows of Parquet files; `options` are those of `read_parquet`."""
    files = ", ".join(_literal(exact(path)) for path in paths)
    return f"read_parquet([{files}], hive_partitioning = false{_written(options)})"


def csv_file(path: Path, **options: str | bool | int) -> str:
    """SQL for the rows of a CSV file; `options` are those of `read_csv`."""
    file = _literal(exact(path))
    return f"read_csv({file}, hive_partitioning = false{_written(options)})"


def unreadable_parquet(refused: Exception) -> Path | None:
    """The file that DuckDB refuses since it is no Parquet file; None when it refuses otherwise."""
    found = _NO_PARQUET.match(str(refused))
    return Path(found[1] or found[2]) if found else None


def _written(options: Mapping[str, str | bool | int]) -> str:
    return "".join(
        f", {name} = {_literal(value) if isinstance(value, str) else str(value).lower()}"
        for name, value in options.items()
    )


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
