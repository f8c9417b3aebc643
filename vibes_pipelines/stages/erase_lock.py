"""The lock between an erasure and whatever copies rows of people from one place to another.

Reconciling, planning, sending and previewing share it; an erasure holds it alone, so that nothing
that was read before it is written after it. It is a lock of the operating system on a file in the
data folder, one for all destinations, and ends with its process.
"""

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from vibes_pipelines.settings import Settings

LOCK = ".erasing.lock"


class RowsAreMovingError(RuntimeError):
    """A day is being reconciled, delivered or previewed, or somebody else is being erased."""


class _OfSettings(Protocol):
    @property
    def settings(self) -> Settings: ...


@contextmanager
def no_erasure(settings: Settings) -> Iterator[None]:
    """No erasure runs meanwhile; waits for the one that does."""
    with _locked(settings, fcntl.LOCK_SH):
        yield


_P = TypeVar("_P", bound=_OfSettings)
_Q = ParamSpec("_Q")
_R = TypeVar("_R")


def not_while_erasing(
    work: Callable[Concatenate[_P, _Q], _R],
) -> Callable[Concatenate[_P, _Q], _R]:
    """A function of a project during which no erasure runs."""

    @wraps(work)
    def guarded(project: _P, /, *arguments: _Q.args, **options: _Q.kwargs) -> _R:
        with no_erasure(project.settings):
            return work(project, *arguments, **options)

    return guarded


@contextmanager
def nothing_moves(settings: Settings) -> Iterator[None]:
    """Nobody copies rows meanwhile.

    Raises:
        RowsAreMovingError: at once, when somebody does.
    """
    with _locked(settings, fcntl.LOCK_EX | fcntl.LOCK_NB):
        yield


@contextmanager
def _locked(settings: Settings, how: int) -> Iterator[None]:
    settings.keys_home.mkdir(parents=True, exist_ok=True)
    with (settings.keys_home / LOCK).open("a") as lock:
        try:
            fcntl.flock(lock, how)
        except BlockingIOError as busy:
            msg = "a day is being reconciled, delivered or previewed, or somebody is being erased"
            raise RowsAreMovingError(msg) from busy
        yield
