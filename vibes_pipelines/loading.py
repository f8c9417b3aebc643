"""Loading code: what keeps the start of every process short."""

import gc
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType


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


@contextmanager
def kept_for_good() -> Iterator[None]:
    """For what a process loads at its start: no later collection looks through it again.

    The interpreter looks through everything several times before it ends, which otherwise takes a
    process that has loaded Dagster a third of a second. Garbage that is there already is kept too:
    not for the midst of a run. Where DuckDB is loaded nothing is kept: at the end its binding would
    print what is left as leaks.
    """
    before = len(sys.modules)
    with no_collections():
        yield
    if len(sys.modules) > before and "_duckdb" not in sys.modules:
        gc.freeze()


def modules_on_use(package: str, names: Collection[str]) -> Callable[[str], ModuleType]:
    """The `__getattr__` of a room that is a door: each module is imported when it is first used.

    `from vibes_pipelines import stages` then costs nothing, and `stages.landing` the first time
    what the module costs. The room imports the same names for type checkers only.
    """

    def module(name: str) -> ModuleType:
        if name not in names:
            raise AttributeError(f"module {package!r} has no attribute {name!r}", name=name)
        with no_collections():
            return import_module(f"{package}.{name}")

    return module
