"""Several processes that serve one address: started, told to stop, replaced when one dies.

What a process serves is in `serve`; this file knows processes only.
"""

import logging
import multiprocessing
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.context import SpawnContext, SpawnProcess
from multiprocessing.synchronize import Event
from typing import Any

log = logging.getLogger("vibes_pipelines.callbacks")

START_TIMEOUT_S = 60
LOOK_S = 0.2
REPLACE_AFTER_S = 1.0
"""Between the end of a process and the start of its successor, so that none spins."""

Work = Callable[[int, Event], None]
"""What a process does: told its number, counted from 0; sets the event once it serves."""


class WorkerFailed(RuntimeError):  # noqa: N818 - the name says what happened
    """A process ended before it served; its own message is above."""


@dataclass
class _Worker:
    number: int
    process: SpawnProcess
    serves: Event


def context() -> SpawnContext:
    """How processes are started: afresh, since a fork would share the database's connections."""
    return multiprocessing.get_context("spawn")


class Workers:
    """A fixed number of processes that do the same work; `work` has to be picklable."""

    def __init__(self, work: Work, processes: int, stop_timeout_s: float) -> None:
        self._work = work
        self._stop_timeout_s = stop_timeout_s
        self._context = context()
        self._workers = [self._start(number) for number in range(processes)]
        self._stopping = threading.Event()

    def run(self, ready: Callable[[], None]) -> None:
        """Runs until SIGTERM or SIGINT; `ready` is called once every process serves.

        Raises:
            WorkerFailed: one ended, or did not serve within a minute, at the start.
        """
        numbers = (signal.SIGTERM, signal.SIGINT)
        former = {n: signal.signal(n, lambda *_: self._stopping.set()) for n in numbers}
        try:
            if self._all_serve():
                ready()
            while not self._stopping.is_set():
                self._look()
        finally:
            self._end()
            for number, handler in former.items():
                signal.signal(number, handler)

    def _start(self, number: int) -> _Worker:
        serves = self._context.Event()
        process = self._context.Process(target=self._work, args=(number, serves), daemon=True)
        process.start()
        return _Worker(number, process, serves)

    def _all_serve(self) -> bool:
        """False when told to stop meanwhile."""
        deadline = time.monotonic() + START_TIMEOUT_S
        for worker in self._workers:
            while not worker.serves.wait(LOOK_S):
                if self._stopping.is_set():
                    return False
                if not worker.process.is_alive() or time.monotonic() > deadline:
                    msg = f"process {worker.number + 1} of the receiver did not start to serve"
                    raise WorkerFailed(msg)
        return True

    def _look(self) -> None:
        """Replaces a process that has ended."""
        wait([worker.process.sentinel for worker in self._workers], LOOK_S)
        ended = [worker for worker in self._workers if not worker.process.is_alive()]
        if not ended or self._stopping.wait(REPLACE_AFTER_S):
            return
        for worker in ended:
            log.error(
                "process %d of the receiver ended with %s; another takes its place",
                worker.number + 1,
                worker.process.exitcode,
            )
            worker.process.close()
            self._workers[worker.number] = self._start(worker.number)

    def _end(self) -> None:
        for worker in self._workers:
            if worker.process.is_alive():
                worker.process.terminate()
        deadline = time.monotonic() + self._stop_timeout_s
        for worker in self._workers:
            worker.process.join(max(deadline - time.monotonic(), 0.0))
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
            worker.process.close()


def when_orphaned(stop: Callable[[], Any]) -> None:
    """Calls `stop` when the process that started this one is gone, however it went."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    sentinel = parent.sentinel

    def watch() -> None:
        wait([sentinel])
        stop()

    threading.Thread(target=watch, name="callbacks-parent", daemon=True).start()
