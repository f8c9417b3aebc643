"""The receiver tried out by its own description: 5XX only for what it could not store."""

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings

from vibes_pipelines.callbacks.signup import ANSWERS, SignupAnswer
from vibes_pipelines.store.inbox import Inbox
from vibes_pipelines_tests.support.callbacks import RunningReceiver, running_receiver
from vibes_pipelines_tests.support.receiver_description import describe

EXAMPLES = [
    pytest.param(6, id="few"),
    pytest.param(2_000, id="many", marks=[pytest.mark.slow, pytest.mark.timeout(900)]),
]
ROUTES = {
    "/callbacks": {"post", "put"},
    "/callbacks/{anything}": {"post", "put"},
    "/signup": {"post"},
    "/health": {"get"},
    "/metrics": {"get"},
}


class EveryAnswer:
    """A registrar that gives each of its answers in turn, and now and then none."""

    def __init__(self) -> None:
        self.asked = 0

    async def sign_up(self, form: Mapping[str, object], address: str) -> SignupAnswer:
        self.asked += 1
        results = [*ANSWERS, None]
        result = results[self.asked % len(results)]
        if result is None:
            raise RuntimeError("a fault of the registrar")
        return SignupAnswer(result)


@asynccontextmanager
async def registrar() -> AsyncIterator[EveryAnswer]:
    yield EveryAnswer()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningReceiver]:
    url = f"sqlite:///{tmp_path_factory.mktemp('described') / 'ledger.db'}"
    with Inbox(url) as inbox, running_receiver(inbox, signup=registrar) as running:
        yield running


def statuses(served: RunningReceiver, examples: int) -> dict[str, set[int]]:
    """What each operation answered to so many requests made from the description."""
    schema = schemathesis.openapi.from_dict(describe(served.receiver))
    base = f"http://127.0.0.1:{served.port}"
    operations = [described.ok() for described in schema.get_all_operations()]
    return {one.label: statuses_of(one, base, examples) for one in operations}


def statuses_of(operation: Any, base: str, examples: int) -> set[int]:
    seen = set()

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy())
    def ask(case: Any) -> None:
        seen.add(case.call(base_url=base).status_code)

    ask()
    return seen


def test_the_description_has_every_route(served: RunningReceiver) -> None:
    paths = describe(served.receiver)["paths"]
    assert {path: set(methods) for path, methods in paths.items()} == ROUTES


@pytest.mark.parametrize("examples", EXAMPLES)
def test_no_request_that_is_described_makes_the_receiver_fail(
    served: RunningReceiver, examples: int
) -> None:
    found = statuses(served, examples)
    assert found.pop("POST /signup") <= {status for status, _ in ANSWERS.values()}
    assert len(found) == 6
    # A path with a line break in it is no path of the receiver's.
    assert set().union(*found.values()) <= {200, 404}, found
    assert served.receiver.tally.failed == 0


def test_what_cannot_be_stored_is_answered_with_503_and_nothing_else(tmp_path: Path) -> None:
    class Full(Inbox):
        def store(self, arrivals: Any) -> Any:
            raise OSError("no space left")

    with Full(f"sqlite:///{tmp_path / 'l.db'}") as inbox, running_receiver(inbox) as running:
        found = statuses(running, 5)
        assert found.pop("GET /health") == found.pop("GET /metrics") == {200}
        # A path with a line break in it is no path of the receiver's.
        assert set().union(*found.values()) - {404} == {503}
