"""Import files for the platform's upload page, where a person puts them instead of the SFTP.

The page takes smaller files than the SFTP (the Vibes documentation, File-Based Data Imports): a
larger one is written again in parts. What the rows say is the business of whoever wrote the file.
"""

import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pyarrow as pa

from vibes_pipelines.vibes.import_errors import ImportFileError, ImportFileUnwritable
from vibes_pipelines.vibes.import_kinds import KINDS, kind_of
from vibes_pipelines.vibes.import_reader import ImportFile, read_file
from vibes_pipelines.vibes.import_writer import (
    Layout,
    PartLimits,
    Table,
    WrittenFile,
    write_parts,
)

BY_UPLOAD = PartLimits(max_rows=100_000, max_bytes=5_000_000)
"""What the documentation advises for the page; it has no limit for SFTP."""

# Said by the layout itself, or the same in every file of a kind.
_OF_THE_LAYOUT = frozenset({"fields", "delimiter", "multi-select-delimiter", "content-type"})


def write_for_upload(path: Path, folder: Path, limits: PartLimits = BY_UPLOAD) -> list[WrittenFile]:
    """Writes the import file at `path` into `folder`, in as many parts as the page needs.

    Each has the header section and the columns of the whole; no row is cut. The parts are named
    `<name>-001` and so on, are read back, and say the same as the whole; only this user may read
    them. Where that fails none of them stays.

    Raises:
        ImportFileError: the file cannot be read, or a row alone is larger than the page takes.
        ImportFileUnwritable: a part cannot be written there.
    """
    whole = read_file(path)
    table = Table(kind_of(path.name), whole.columns, _layout(whole))
    with ExitStack() as undone:
        undone.callback(_remove_parts, folder, path.name)
        with _only_for_this_user():
            parts = write_parts(folder, path.stem, table, whole.rows, limits)
        _check(whole, [read_file(part.path) for part in parts])
        undone.pop_all()
    return parts


def make_folder(folder: Path) -> None:
    """Makes the folder for the files, if it is not there; only this user may read it then.

    Raises:
        ImportFileUnwritable: it cannot be made there.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as refused:
        msg = (
            f"{folder}: the folder for the files cannot be made: {refused.strerror}; nothing was "
            "handed over: name one that this user may make"
        )
        raise ImportFileUnwritable(msg) from refused


def remove_earlier(folder: Path, name: str) -> None:
    """Removes what an earlier run left of the import file `name`, whole or in parts.

    Raises:
        ImportFileUnwritable: it cannot be removed.
    """
    try:
        (folder / name).unlink(missing_ok=True)
        _remove_parts(folder, name)
    except OSError as refused:
        msg = (
            f"{folder}: what an earlier run left of {name} cannot be removed: {refused.strerror}; "
            "let this user write into the folder, or name another one"
        )
        raise ImportFileUnwritable(msg) from refused


def _remove_parts(folder: Path, name: str) -> None:
    stem, _, kind = name.rpartition(".")
    is_part = re.compile(rf"{re.escape(stem)}-\d{{3,}}\.{re.escape(kind)}").fullmatch
    for path in [path for path in folder.glob("*") if is_part(path.name)]:
        path.unlink(missing_ok=True)


@contextmanager
def _only_for_this_user() -> Iterator[None]:
    """New files are readable and writable for this user alone, from their first byte."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


def _layout(whole: ImportFile) -> Layout:
    spelt = {name.lower(): name for name in KINDS[kind_of(whole.name)].headers}
    return Layout(
        delimiter=whole.headers.get("delimiter", ","),
        multi_select_delimiter=whole.multi_select_delimiter,
        fields_in_header="fields" in whole.headers,
        headers={
            spelt[name]: value
            for name, value in whole.headers.items()
            if name not in _OF_THE_LAYOUT
        },
    )


def _check(whole: ImportFile, parts: list[ImportFile]) -> None:
    """Raises ImportFileError when the parts together are not the whole."""
    said = pa.concat_tables([whole.cells.slice(0, 0), *(part.cells for part in parts)])
    if any(part.headers != whole.headers for part in parts) or not said.equals(whole.cells):
        msg = f"{whole.name}: its parts say something else than the whole; upload the whole file"
        raise ImportFileError(msg)
