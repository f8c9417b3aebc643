"""The file `.env` of the working folder, for commands in a terminal: as Dagster reads it.

Unlike there, what the environment already says wins.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ENV_FILE = Path(".env")


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
    """Its variables with a value; a line without one says nothing."""
    if not path.is_file():
        return {}
    from dotenv import dotenv_values  # noqa: PLC0415 - only where there is a file

    return {name: value for name, value in dotenv_values(path).items() if value}
