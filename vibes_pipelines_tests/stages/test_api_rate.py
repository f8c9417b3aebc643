"""Deliveries have the whole rate while no lane of opt-outs is at work; both never exceed it."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vibes_pipelines.settings import ApiSettings
from vibes_pipelines.stages import api_rate
from vibes_pipelines.stages.api_rate import (
    ANNOUNCED_S,
    GOOD_S,
    LEASE,
    LOOK_S,
    GivingWay,
    calls_of_deliveries,
    calls_of_opt_outs,
    delivery_rate_per_s,
)
from vibes_pipelines.store.kept_lease import LENGTH, KeptLease, kept_lease
from vibes_pipelines.store.leases import LeaseLost, Leases
from vibes_pipelines.vibes.rate_limit import SECOND_S

WHOLE, REST = 100, 98
NOBODY = None


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def way(clock: Clock) -> GivingWay:
    return GivingWay(WHOLE, REST, clock)


def look(way: GivingWay, clock: Clock, standing: str | None, *, after_s: float = LOOK_S) -> float:
    """The rate right after a look, which is so long after the one before."""
    clock.now += after_s
    way.looked(clock.now, standing)
    return way.rate_per_s()


def be_alone(way: GivingWay, clock: Clock) -> None:
    while look(way, clock, NOBODY) == REST:
        assert clock.now < 100


class TestGivingWay:
    def test_nothing_is_known_before_the_first_look(self, way: GivingWay) -> None:
        assert way.rate_per_s() == REST

    def test_alone_for_a_second_it_has_the_whole_rate(self, way: GivingWay, clock: Clock) -> None:
        """What the lane sent last before it was gone is past then."""
        assert [look(way, clock, NOBODY, after_s=0.4) for _ in range(4)] == [REST] * 3 + [WHOLE]

    def test_it_gives_way_with_the_look_that_sees_the_lane(
        self, way: GivingWay, clock: Clock
    ) -> None:
        be_alone(way, clock)
        assert look(way, clock, "lane 1") == REST
        assert look(way, clock, NOBODY) == REST
        be_alone(way, clock)
        assert way.rate_per_s() == WHOLE

    def test_a_look_is_good_for_a_moment_only(self, way: GivingWay, clock: Clock) -> None:
        be_alone(way, clock)
        clock.now += GOOD_S - 0.01
        assert way.rate_per_s() == WHOLE
        clock.now += 0.01
        assert way.rate_per_s() == REST

    def test_an_answer_that_took_long_is_as_old_as_its_question(
        self, way: GivingWay, clock: Clock
    ) -> None:
        be_alone(way, clock)
        began = clock.now
        clock.now += 3 * GOOD_S
        way.looked(began, NOBODY)
        assert way.rate_per_s() == REST

    def test_after_a_pause_nobody_knows_who_was_there(self, way: GivingWay, clock: Clock) -> None:
        be_alone(way, clock)
        assert look(way, clock, NOBODY, after_s=GOOD_S + 0.1) == REST
        assert look(way, clock, NOBODY, after_s=SECOND_S / 2) == REST
        assert look(way, clock, NOBODY, after_s=SECOND_S / 2) == WHOLE

    def test_a_failed_look_is_as_if_the_lane_were_at_work(
        self, way: GivingWay, clock: Clock
    ) -> None:
        be_alone(way, clock)
        way.knows_nothing()
        assert way.rate_per_s() == REST
        assert look(way, clock, NOBODY) == REST

    def test_a_lease_that_nobody_renews_runs_out_by_the_own_clock(
        self, way: GivingWay, clock: Clock
    ) -> None:
        """The lane was killed on another machine, whose clock may say anything."""
        be_alone(way, clock)
        first_seen = clock.now + LOOK_S
        while look(way, clock, "lane 1") == REST:
            assert clock.now < first_seen + 2 * LENGTH.total_seconds()
        assert clock.now >= first_seen + LENGTH.total_seconds() + SECOND_S

    def test_a_lease_that_is_renewed_stands(self, way: GivingWay, clock: Clock) -> None:
        seconds = int(3 * LENGTH.total_seconds())
        rates = [look(way, clock, f"lane {n // 10}", after_s=1) for n in range(seconds)]
        assert set(rates) == {REST}

    @given(
        gaps=st.lists(st.sampled_from([0.2, 0.4, 0.5, 0.5, 0.5, 0.6, 0.9, 2.5]), min_size=9),
        took=st.floats(0, 8),
        worked=st.floats(0, 5),
        query=st.sampled_from([0, 0.01, 0.3, 1.5]),
    )
    def test_it_never_has_the_whole_rate_within_a_second_of_a_request_of_the_lane(
        self, gaps: list[float], took: float, worked: float, query: float
    ) -> None:
        """Whenever the lane comes and goes, however late the looks are and long they take."""
        clock = Clock()
        way = GivingWay(WHOLE, REST, clock)
        first = took + ANNOUNCED_S
        gone = first + worked
        for gap in gaps:
            began = clock.now
            read_at = began + query / 2
            way.looked(began, "lane 1" if took <= read_at < gone else NOBODY)
            for moment in range(20):
                clock.now = began + (query + gap) * moment / 20
                if first - 1 < clock.now < gone + 1 and clock.now >= began + query:
                    assert way.rate_per_s() == REST
            clock.now = began + query + gap


class TestTheLane:
    def test_it_waits_until_every_delivery_knows(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(api_rate, "ANNOUNCED_S", 0.3)
        assert self.ask(KeptLease(LEASE, time.monotonic())) >= 0.3

    def test_it_sends_nothing_after_its_lease(self) -> None:
        """A process that stood still: the deliveries do not give way to it any more."""
        over = time.monotonic() - LENGTH.total_seconds()
        with pytest.raises(LeaseLost, match="sent by the next run"):
            self.ask(KeptLease(LEASE, over))

    def test_what_is_announced_covers_a_look_and_a_second(self) -> None:
        assert ANNOUNCED_S >= GOOD_S + SECOND_S
        assert 2 * LOOK_S <= GOOD_S, "one look may be late"

    def ask(self, lease: KeptLease) -> float:
        of_lane = project("unused", share_per_s=50)

        async def one() -> float:
            began = time.monotonic()
            calls = calls_of_opt_outs(of_lane.settings, lease)
            async with calls.turn():
                return time.monotonic() - began

        return asyncio.run(one())


def project(
    ledger_url: str, *, rate_per_s: int = 100, share_per_s: int = 2, signup: object = None
) -> Any:
    account = ApiSettings("", "", SimpleNamespace(), rate_per_s, share_per_s)  # type: ignore[arg-type]
    settings = SimpleNamespace(api=account, ledger_url=ledger_url)
    return SimpleNamespace(settings=settings, config=SimpleNamespace(signup=signup))


@pytest.fixture
def ledger_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'ledger.db'}"


@pytest.fixture
def leases(ledger_url: str) -> Iterator[Leases]:
    with Leases(ledger_url) as opened:
        yield opened


class TestTheLooks:
    """Of a delivery, at a ledger."""

    @pytest.fixture(autouse=True)
    def quick(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(api_rate, "LOOK_S", 0.01)

    def test_the_rate_follows_the_lease_of_the_lane(
        self, leases: Leases, ledger_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        told = self.told(monkeypatch)
        with calls_of_deliveries(project(ledger_url)):
            await_until(lambda: told[-1:] == [None])
            with kept_lease(leases, LEASE):
                await_until(lambda: told[-1] is not None)
            await_until(lambda: told[-1] is None)
        ended = len(told)
        time.sleep(0.05)
        assert len(told) == ended, "nobody looks after the delivery"

    def test_a_ledger_that_does_not_answer_leaves_opt_outs_their_share(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        nowhere = f"sqlite:///{tmp_path / 'empty.db'}"
        with (
            caplog.at_level(logging.WARNING),
            calls_of_deliveries(project(nowhere)),
        ):
            await_until(lambda: bool(caplog.messages))
        assert "leaves them their share of the rate" in caplog.messages[0]

    def told(self, monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
        """What the looks found."""
        found: list[str | None] = []
        looked = GivingWay.looked

        def noted(way: GivingWay, began: float, standing: str | None) -> None:
            looked(way, began, standing)
            found.append(standing)

        monkeypatch.setattr(GivingWay, "looked", noted)
        return found


def await_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("rate_per_s", "signup", "most"),
    [(100, None, 100), (100, "a form", 98), (1, None, 1), (1, "a form", 1)],
)
def test_a_form_cannot_announce_itself_so_that_a_part_is_always_left(
    rate_per_s: int, signup: object, most: int, ledger_url: str
) -> None:
    assert delivery_rate_per_s(project(ledger_url, rate_per_s=rate_per_s, signup=signup)) == most
