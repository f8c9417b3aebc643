"""An interrupt ends asynchronous work, also where it comes inside a callback of the event loop."""

import asyncio
import signal
from collections.abc import Iterator

import pytest

from vibes_pipelines.stages.interrupts import run_until_interrupted

STEPS = 1000


class StepInterrupted(BaseException):
    """What an orchestrator's handler of signals raises."""


@pytest.fixture(params=[signal.SIGINT, signal.SIGTERM])
def number(request: pytest.FixtureRequest) -> Iterator[signal.Signals]:
    """A signal whose handler raises, as Dagster's does."""
    former = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}
    for one in former:
        signal.signal(one, _raise)
    yield request.param
    for one, handler in former.items():
        signal.signal(one, handler)


def _raise(*_: object) -> None:
    raise StepInterrupted


async def _work(number: signal.Signals, done: list[int]) -> str:
    asyncio.get_running_loop().call_soon(signal.raise_signal, number)
    for step in range(STEPS):
        await asyncio.sleep(0)
        done.append(step)
    return "finished"


def test_an_interrupt_inside_a_callback_ends_the_work_and_is_told(number: signal.Signals) -> None:
    done: list[int] = []
    before = signal.getsignal(number)
    with pytest.raises(StepInterrupted):
        run_until_interrupted(_work(number, done))
    assert len(done) < STEPS
    assert signal.getsignal(number) is before


def test_work_without_an_interrupt_gives_its_result() -> None:
    async def work() -> int:
        return 7

    assert run_until_interrupted(work()) == 7
