"""Asynchronous work of a stage that ends in order when its process is interrupted.

A handler of signals that raises, as Dagster's does, raises in whatever runs just then. When that is
a callback of the event loop, the loop logs the error and goes on: the interrupt is lost.
"""

import asyncio
import signal
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def run_until_interrupted(work: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run`, in which an interrupt cancels `work` and then does what it did before."""
    former = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(former):
        return asyncio.run(work)  # noqa: TID251 - nothing else runs it
    ended = signal.getsignal(signal.SIGTERM)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # asyncio cancels for this one alone
    if ended is former:
        signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        return asyncio.run(work)  # noqa: TID251 - nothing else runs it
    except KeyboardInterrupt:
        former(signal.SIGINT, None)
        raise
    finally:
        signal.signal(signal.SIGINT, former)
        signal.signal(signal.SIGTERM, ended)
