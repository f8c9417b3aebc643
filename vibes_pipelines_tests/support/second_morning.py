"""A loop whose first day was approved and delivered: lived once a process, copied per test."""

import atexit
import functools
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vibes_pipelines.sandbox.population import build_world
from vibes_pipelines_tests.support.loop import EXAMPLE, Loop, running_loop

Population = tuple[int, int]
"""People and seed."""


@contextmanager
def running_second_morning(
    home: Path, population: Population, sync_config: Path = EXAMPLE, *, next_day: bool = True
) -> Iterator[Loop]:
    """The loop after a delivered first day, and a quiet night unless told otherwise.

    Nothing is in the sandbox's audit yet.
    """
    lived = _first_day(population, sync_config.read_text(encoding="utf-8"))
    shutil.copytree(lived, home, dirs_exist_ok=True)
    with running_loop(home, build_world(*population), sync_config, resume=True) as loop:
        if next_day:
            loop.sandbox.next_day(edits=False)
        yield loop


@functools.cache
def _first_day(population: Population, sync_config: str) -> Path:
    """The folders of a sandbox and a project after that day."""
    home = Path(tempfile.mkdtemp(prefix="vibes-first-day-"))
    atexit.register(shutil.rmtree, home)
    config = home / "first-day.yaml"
    config.write_text(sync_config, encoding="utf-8")
    with running_loop(home, build_world(*population), config) as loop:
        loop.day(approve=True)
    return home
