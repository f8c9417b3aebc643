"""A world of two stand-ins for each test, or one for a module whose persons have agreed."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from vibes_pipelines_tests.full_sync.sync_parts import (
    MEMBER,
    NEWS_LABEL,
    Agreed,
    World,
    world_at,
)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with world_at(tmp_path / "home") as running:
        yield running


@pytest.fixture(scope="module")
def agreed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agreed]:
    """After a first full sync; a test takes persons that no other test of its module takes."""
    with world_at(tmp_path_factory.mktemp("agreed") / "home") as running:
        names = ("Ada", "Bo", "Cai", "Dee", "Eve")
        running.configure(overviews=[{"name": "VIP", "members": "label:VIP", "tag": MEMBER}])
        people = {name: running.person(name, NEWS_LABEL) for name in names}
        people |= {"Flo": running.person("Flo", "VIP"), "Gus": running.person("Gus")}
        running.sync()
        yield Agreed(running, people)
