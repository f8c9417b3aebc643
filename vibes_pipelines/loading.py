"""Loading code: what keeps the start of every process short."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_collections() -> Iterator[None]:
    """Within it the garbage collector rests.

    Loading makes hundreds of thousands of objects that stay for good, and looking for garbage among
    them takes a third of its time, in every run and every start of a service.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
