"""One process at a time delivers a lane; a dead or silent one does not hold it for ever."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from vibes_pipelines.store import database, leases
from vibes_pipelines.store.kept_lease import kept_lease
from vibes_pipelines.store.leases import LaneBusy, LeaseLost
from vibes_pipelines.store.ledger import Ledger

MINUTE = timedelta(minutes=1)
LANE = "persons/api"

HOLD = """
import sys, time
from datetime import timedelta
from vibes_pipelines.store.ledger import Ledger
ledger = Ledger(sys.argv[1]).open()
ledger.take_lease("persons/api", timedelta(hours=1))
print("held", flush=True)
time.sleep(300)
"""


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2026, 1, 2, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'ledger.db'}"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(url: str, clock: Clock) -> Iterator[Ledger]:
    with Ledger(url, clock) as opened:
        yield opened


def test_a_held_lane_is_busy_until_it_is_given_back(ledger: Ledger) -> None:
    lease = ledger.take_lease(LANE, MINUTE)
    with pytest.raises(LaneBusy, match=r"persons/api is being delivered .* wait for its end"):
        ledger.take_lease(LANE, MINUTE)
    ledger.take_lease("opt_outs/api", MINUTE)
    assert ledger.live_leases([LANE, "opt_outs/api", "invites/api"]) == {LANE, "opt_outs/api"}
    ledger.give_lease_back(lease)
    assert ledger.live_leases([LANE]) == set()
    ledger.take_lease(LANE, MINUTE)


def test_a_silent_process_loses_its_lane_and_notices(ledger: Ledger, clock: Clock) -> None:
    silent = ledger.take_lease(LANE, MINUTE)
    clock.now += MINUTE
    other = ledger.take_lease(LANE, MINUTE)
    with pytest.raises(LeaseLost, match="another process took it"):
        ledger.renew_lease(silent)
    ledger.give_lease_back(silent)
    assert ledger.live_leases([LANE]) == {LANE}
    ledger.renew_lease(other)


def test_renewing_begins_the_length_anew(ledger: Ledger, clock: Clock) -> None:
    lease = ledger.take_lease(LANE, MINUTE)
    for _ in range(5):
        clock.now += MINUTE * 0.9
        ledger.renew_lease(lease)
    with pytest.raises(LaneBusy):
        ledger.take_lease(LANE, MINUTE)


def test_who_reads_again_and_again_sees_it_renewed_whatever_the_clock(
    ledger: Ledger, clock: Clock
) -> None:
    assert ledger.standing(LANE) is None
    lease = ledger.take_lease(LANE, MINUTE)
    taken = ledger.standing(LANE)
    clock.now += 10 * MINUTE  # a reader whose clock is ahead
    assert ledger.standing(LANE) == taken is not None
    ledger.renew_lease(lease)
    assert ledger.standing(LANE) not in {taken, None}
    ledger.give_lease_back(lease)
    assert ledger.standing(LANE) is None


def test_a_killed_process_of_this_machine_holds_nothing(url: str) -> None:
    with Ledger(url) as ledger:
        holder = subprocess.Popen(
            [sys.executable, "-c", HOLD, url], stdout=subprocess.PIPE, env=dict(os.environ)
        )
        assert holder.stdout is not None
        with holder.stdout:
            assert holder.stdout.readline() == b"held\n"
            assert ledger.standing(LANE) is not None
            with pytest.raises(LaneBusy):
                ledger.take_lease(LANE, MINUTE)
            holder.send_signal(signal.SIGKILL)
            holder.wait()
        assert ledger.standing(LANE) is None
        ledger.take_lease(LANE, MINUTE)


def test_a_process_of_another_machine_is_never_taken_for_dead(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(leases, "_machine", lambda: "elsewhere/pid:[1]")
        elsewhere.setattr(os, "getpid", lambda: 2**22 - 1)
        ledger.take_lease(LANE, MINUTE)
    with pytest.raises(LaneBusy):
        ledger.take_lease(LANE, MINUTE)


def test_a_kept_lease_outlives_a_short_absence_of_the_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_TIMEOUT_MS", 20)
    monkeypatch.setattr("vibes_pipelines.store.kept_lease.RENEW_S", 0.02)
    file = tmp_path / "ledger.db"
    with Ledger(f"sqlite:///{file}") as ledger, kept_lease(ledger, LANE) as kept:
        with closing(sqlite3.connect(file)) as other:
            other.execute("BEGIN IMMEDIATE").close()
            time.sleep(0.2)
            other.rollback()
        locked_until = time.monotonic()
        while kept.renewed_at < locked_until:
            assert time.monotonic() < locked_until + 30, "it is not renewed any more"
            time.sleep(0.01)
