"""The stand-in API, served once for the tests of a file and as new for each of them."""

from collections.abc import Iterator

import pytest

from vibes_pipelines_tests.sandbox.stand_in import StandIn, served_platform


@pytest.fixture(scope="module")
def served_api() -> Iterator[StandIn]:
    with served_platform() as running:
        yield running


@pytest.fixture
def api(served_api: StandIn) -> StandIn:
    served_api.reset()
    return served_api
