"""The file `.env` of the working folder, for commands in a terminal: as Dagster reads it.

Unlike there, what the environment already says wins.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ENV_FILE = Path(".env")


class EnvFileError(ValueError):
    """The file cannot be read; the message names the line."""


@contextmanager
def env_file(path: Path = ENV_FILE) -> Iterator[Path | None]:
    """Adds the file's variables to the environment meanwhile; yields its path when it has any."""
    added = {name: value for name, value in read_env_file(path).items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield path.absolute() if path.is_file() else None
    finally:
        for name in added:
            os.environ.pop(name, None)


def read_env_file(path: Path = ENV_FILE) -> dict[str, str]:
    """Its variables with a value; a line without one says nothing.

    Raises:
        EnvFileError: the file is not UTF-8.
    """
    if not path.is_file():
        return {}
    from dotenv import dotenv_values  # noqa: PLC0415 - only where there is a file

    try:
        return {name: value for name, value in dotenv_values(path).items() if value}
    except UnicodeDecodeError as other_encoding:
        line = path.read_bytes().count(b"\n", 0, other_encoding.start) + 1
        msg = f"{path.absolute()}:{line}: not UTF-8; save the file as UTF-8"
        raise EnvFileError(msg) from None  # the cause holds the line, which may be a password
