"""A world of two stand-ins for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from vibes_pipelines_tests.full_sync.sync_parts import World, world_at


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with world_at(tmp_path / "home") as running:
        yield running
