"""The fixture `chromium_path`: the Chromium that drives pages."""

import pytest

from vibes_pipelines_tests.support.real_parts import find_program


@pytest.fixture(scope="session")
def chromium_path() -> str:
    """Return the path of the installed Chromium."""
    return str(find_program("chromium", "chromium", "usr/bin"))
