"""Several receiver processes on one address: one inbox, one count, and no death stops them."""

import os
import re
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from vibes_pipelines.callbacks.metrics import Board, Tally
from vibes_pipelines_tests.support.callbacks import http_request, stored_rows
from vibes_pipelines_tests.support.real_parts import free_port
from vibes_pipelines_tests.support.served_receiver import WAIT_S, Served, removal, serving


def children(served: Served) -> set[int]:
    """The processes that were started to serve."""
    pids = map(int, _proc(served.process.pid, "task", str(served.process.pid), "children").split())
    return {pid for pid in pids if "spawn_main" in _proc(pid, "cmdline")}


def _proc(pid: int, *names: str) -> str:
    try:
        return Path("/proc", str(pid), *names).read_text(encoding="utf-8")
    except OSError:  # it ended meanwhile
        return ""


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def post(served: Served, event_id: str) -> int:
    return http_request(served.port, "POST", "/callbacks", removal(event_id))[0]


def counted(served: Served) -> dict[str, int]:
    _, text = http_request(served.port, "GET", "/metrics")
    found = re.findall(r"^vibes_callbacks_([a-z]+)_total (\d+)$", text, re.MULTILINE)
    return {name: int(number) for name, number in found}


@pytest.mark.postgresql
def test_processes_share_inbox_and_counts_and_one_that_dies_is_replaced(
    postgresql_url: str,
) -> None:
    url = postgresql_url
    with serving(url, "--processes", "2") as served:
        before = children(served)
        assert len(before) == 2
        answers = Counter(post(served, str(n % 20)) for n in range(40))
        assert answers == {200: 40}
        os.kill(min(before), signal.SIGKILL)
        until(lambda: len(children(served) - before) == 1)
        assert post(served, "after") == 200
        assert len(stored_rows(url)) == 21
        found = counted(served)
        assert (found["received"], found["stored"], found["duplicates"]) == (41, 21, 20)
        served.process.send_signal(signal.SIGTERM)
        _, errors = served.process.communicate(timeout=WAIT_S)
        assert served.process.returncode == 0
        assert "another takes its place" in errors
        assert "Traceback" not in errors


def test_processes_end_when_what_started_them_is_killed(tmp_path: Path) -> None:
    url, port = f"sqlite:///{tmp_path / 'ledger.db'}", free_port()
    with serving(url, "--processes", "2", port=port) as served:
        left = children(served)
        assert len(left) == 2
        os.kill(served.process.pid, signal.SIGKILL)
        until(lambda: not any(_is_alive(pid) for pid in left))
    with serving(url, "--processes", "2", port=port) as again:  # its port is free
        assert post(again, "again") == 200


def _is_alive(pid: int) -> bool:
    state = _proc(pid, "stat").rpartition(")")[2].split()
    return bool(state) and state[0] != "Z"


def test_a_board_adds_up_rows_and_a_successor_goes_on_from_its_row() -> None:
    cells = [0] * Board.size(2)
    one, other = Board(cells, 0), Board(cells, 1)
    one.publish(Tally(received=3, stored=2, failed=1))
    other.publish(Tally(received=4, duplicates=4))
    assert other.total() == Tally(received=7, stored=2, duplicates=4, failed=1)
    assert Board(cells, 0).own() == Tally(received=3, stored=2, failed=1)
