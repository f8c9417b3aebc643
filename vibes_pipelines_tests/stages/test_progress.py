"""How far a push is: a line for every few hundred answers, and at most some of them afterwards."""

import pytest

from vibes_pipelines.stages import progress
from vibes_pipelines.stages.progress import MAX_STEPS, STEP_ROWS, Progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def push(told: Progress, clock: list[float], rows: int, per_s: float) -> None:
    for row in range(1, rows + 1):
        clock[0] += 1 / per_s
        told.answered(row)


def test_each_step_is_told_with_its_own_rate(clock: list[float]) -> None:
    lines: list[str] = []
    told = Progress(lines.append)
    push(told, clock, 2 * STEP_ROWS, per_s=100)
    assert lines == ["500 answered after 5 s, 100/s", "1000 answered after 10 s, 100/s"]
    assert told.seconds == pytest.approx(10)


def test_few_answers_are_shown_in_one_line(clock: list[float]) -> None:
    told = Progress()
    push(told, clock, 7, per_s=10)
    assert [step.rows for step in told.steps] == [7]
    assert told.steps[0].rows_per_s == pytest.approx(10, rel=0.01)


def test_nothing_sent_shows_nothing(clock: list[float]) -> None:
    told = Progress()
    assert (told.steps, told.seconds) == ((), 0.0)


def test_of_many_steps_some_are_shown_and_always_the_last(clock: list[float]) -> None:
    told = Progress()
    push(told, clock, 45 * STEP_ROWS + 3, per_s=1_000)
    rows = [step.rows for step in told.steps]
    assert len(rows) <= MAX_STEPS + 1
    assert rows == sorted(set(rows))
    assert rows[-1] == 45 * STEP_ROWS + 3
