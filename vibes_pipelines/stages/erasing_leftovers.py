"""What an erasure may not change and searches: files and tables of others, Dagster's above all."""

import mmap
import os
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import sqlalchemy as sa

from vibes_pipelines.settings import Settings
from vibes_pipelines.stages.erasing_open import ledgers
from vibes_pipelines.stages.erasing_subject import ErasureError, Subject
from vibes_pipelines.stages.erasing_walk import files_of_people
from vibes_pipelines.store.database import open_engine

UNFINISHED = "erasing"
"""The folder in the data folder where unfinished erasures stand."""

LEAST_WORD = 6
"""Shorter identifiers stand in foreign files by chance."""

_EDGE = "[^0-9A-Za-z]"


def leftovers(settings: Settings, subject: Subject) -> Iterator[str]:
    """Files of the data folder and of Dagster, and columns of its PostgreSQL, that still tell.

    In import files and ledgers, whose rows are blanked each, a number that is left is that of
    somebody else who has it too: of them the keys tell.

    Raises:
        ErasureError: Dagster's PostgreSQL cannot be read.
    """
    words = sorted(one for one in {*subject.keys, *subject.mdns} if len(one) >= LEAST_WORD)
    if not words:
        return
    keys = [one for one in words if one in subject.keys]
    yield from _in_files(settings.home, words, dict.fromkeys(_blanked_by_row(settings), keys))
    if url := os.environ.get("DAGSTER_POSTGRES_URL"):
        yield from _in_postgresql(url, words)


def _blanked_by_row(settings: Settings) -> Iterator[Path]:
    yield from (path.absolute() for _, path in files_of_people(settings.home))
    for one in ledgers(settings):
        url = sa.make_url(one.ledger_url)
        if url.get_backend_name() == "sqlite" and url.database:
            yield from (Path(url.database + end).absolute() for end in ("", "-wal"))


def _in_files(
    home: Path, words: Collection[str], of_file: Mapping[Path, Collection[str]]
) -> Iterator[str]:
    named = [os.environ.get(name) for name in ("DAGSTER_HOME", "VIBES_DAGSTER_STORAGE")]
    roots = [home, *(Path(one) for one in named if one)]
    for path in sorted({path.absolute() for root in roots for path in root.rglob("*")}):
        if not path.is_file() or path.suffix == ".parquet" or UNFINISHED in path.parts:
            continue
        sought = of_file.get(path, words)
        if sought and path.stat().st_size and _holds(path, _pattern(sought)):
            yield str(path)


def _pattern(words: Collection[str]) -> re.Pattern[bytes]:
    listed = b"|".join(re.escape(word.encode()) for word in words)
    return re.compile(rb"(?<![0-9A-Za-z])(?:" + listed + rb")(?![0-9A-Za-z])", re.IGNORECASE)


def _holds(path: Path, pattern: re.Pattern[bytes]) -> bool:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return pattern.search(content) is not None


def _in_postgresql(url: str, words: Collection[str]) -> Iterator[str]:
    """Every column of text is searched: a version of Dagster may keep a text anywhere."""
    pattern = rf"(^|{_EDGE})({'|'.join(re.escape(word) for word in words)})({_EDGE}|$)"
    try:
        engine = open_engine(
            sa.make_url(url)
            .set(drivername="postgresql+psycopg")
            .render_as_string(hide_password=False)
        )
        try:
            with engine.connect() as connection:
                for column in _columns_of_text(connection):
                    meant = column.regexp_match(pattern, flags="i")
                    found = sa.select(sa.func.count()).select_from(column.table).where(meant)
                    if rows := connection.execute(found).scalar_one():
                        place = f"{column.table.name}.{column.name}"
                        yield f"Dagster's PostgreSQL: {place} ({rows} rows)"
        finally:
            engine.dispose()
    except sa.exc.SQLAlchemyError as failed:
        msg = (
            "Dagster's PostgreSQL (DAGSTER_POSTGRES_URL) cannot be searched: "
            f"{type(failed).__name__}; start it or correct the URL, and run the same erase again"
        )
        raise ErasureError(msg) from failed


def _columns_of_text(connection: sa.Connection) -> list[sa.Column[str]]:
    inspector = sa.inspect(connection)
    columns = []
    for name in sorted(inspector.get_table_names()):
        of_text = [
            sa.Column(found["name"], sa.Text)
            for found in inspector.get_columns(name)
            if isinstance(found["type"], sa.String)
        ]
        columns += sa.Table(name, sa.MetaData(), *of_text).columns.values()
    return columns
