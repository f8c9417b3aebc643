"""The platform's rate is shared between opt-outs beside a job and everything else, and kept to."""

import time
from types import SimpleNamespace

import pytest

from benchmarks import push_at_limit
from benchmarks.push_at_limit import Load, run
from vibes_pipelines.settings import Settings
from vibes_pipelines.stages.api_rate import ANNOUNCED_S, GivingWay

API = {
    "VIBES_API_URL": "http://127.0.0.1",
    "VIBES_API_USER": "u@example.com",
    "VIBES_API_PASSWORD": "x",
}


def rates(rate_per_s: int, **share: str) -> tuple[int, int]:
    """What opt-outs may take, and what all else may."""
    account = Settings({**API, "VIBES_API_RATE_PER_S": str(rate_per_s), **share}).api
    return account.opt_out_rate_per_s, account.bulk_rate_per_s


def test_two_of_a_hundred_are_kept_for_opt_outs() -> None:
    assert rates(100) == (2, 98)
    assert rates(100, VIBES_API_OPT_OUTS_PER_S="10") == (10, 90)
    assert rates(100, VIBES_API_OPT_OUTS_PER_S="0") == (1, 99)  # never none: they would not leave


@pytest.mark.parametrize("share", ["0", "2", "50", "1000"])
@pytest.mark.parametrize("rate_per_s", [2, 3, 10, 100])
def test_both_together_are_never_more_than_the_limit(rate_per_s: int, share: str) -> None:
    opt_outs, others = rates(rate_per_s, VIBES_API_OPT_OUTS_PER_S=share)
    assert opt_outs >= 1
    assert others >= opt_outs or others >= rate_per_s // 2
    assert opt_outs + others == rate_per_s


def test_one_a_second_cannot_be_shared() -> None:
    assert rates(1) == (1, 1)


@pytest.fixture
def rates_taken(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Each rate that the delivery had, one after the other."""
    had: list[float] = []
    rate_per_s = GivingWay.rate_per_s

    def noted(way: GivingWay) -> float:
        now = rate_per_s(way)
        if had[-1:] != [now]:
            had.append(now)
        return now

    def sleep(seconds: float) -> None:
        """Opt-outs begin after so long, and not before the delivery knows that it is alone."""
        time.sleep(seconds)
        deadline = time.monotonic() + 60
        while len(had) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)

    monkeypatch.setattr(GivingWay, "rate_per_s", noted)
    timed = SimpleNamespace(sleep=sleep, perf_counter=time.perf_counter)
    monkeypatch.setattr(push_at_limit, "time", timed)
    return had


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "load",
    [
        pytest.param(
            Load(seconds=6, opt_outs=5, rate_per_s=20, opt_outs_per_s=4), id="20 a second"
        ),
        pytest.param(Load(seconds=40, opt_outs=20, killed=True), marks=pytest.mark.slow, id="100"),
        pytest.param(
            Load(seconds=40, opt_outs=200, killed=True, opt_outs_per_s=25),
            marks=pytest.mark.slow,
            id="100, of them 25 for opt-outs",
        ),
    ],
)
def test_a_push_and_opt_outs_beside_it_are_never_told_that_they_are_too_many(
    load: Load, rates_taken: list[float]
) -> None:
    """Two processes; the delivery has the whole rate before, and gives way meanwhile."""
    outcome = run(load)
    assert outcome.refused == 0, outcome.sentence
    assert len(outcome.opt_outs_s) == load.opt_outs + load.killed
    assert min(outcome.opt_outs_s) >= ANNOUNCED_S
    rest = load.rate_per_s - load.opt_outs_per_s
    assert rates_taken[:3] == [rest, load.rate_per_s, rest]
