"""A room that is a door costs nothing to name, and gives its modules when they are used."""

import gc
import random
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from vibes_pipelines.loading import modules_on_use, no_collections

ROOT = Path(__file__).parents[1]
DOORS = ("crm", "delivery", "report", "stages", "store")


def _printed(statements: str) -> str:
    """What a process of its own prints: here everything may have been loaded already."""
    command = [sys.executable, "-W", "ignore", "-c", f"import sys\n{statements}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_a_module_is_loaded_when_it_is_first_used_and_no_earlier() -> None:
    name = "vibes_pipelines.stages.alert_settings"
    printed = _printed(
        "from vibes_pipelines import stages\n"
        f"print('{name}' in sys.modules)\n"
        "print(stages.alert_settings is sys.modules.get(stages.alert_settings.__name__))\n"
        f"print('{name}' in sys.modules)"
    )
    assert printed.split() == ["False", "True", "True"]


@pytest.mark.parametrize("room", DOORS)
def test_what_a_door_names_is_there(room: str) -> None:
    door = import_module(f"vibes_pipelines.{room}")
    found = [getattr(door, name).__name__ for name in door.__all__]
    assert found == [f"vibes_pipelines.{room}.{name}" for name in door.__all__]


def test_threads_may_use_every_module_first_at_once_in_any_order() -> None:
    seed = random.randrange(1_000_000)
    printed = _printed(
        "import random\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "from importlib import import_module\n"
        "from threading import Barrier\n"
        f"doors = [import_module('vibes_pipelines.' + room) for room in {DOORS}]\n"
        "every = [(door, name) for door in doors for name in door.__all__]\n"
        "together = Barrier(4)\n"
        "def use(seed):\n"
        "    mine = random.Random(seed).sample(every, len(every))\n"
        "    together.wait()\n"
        "    return [getattr(door, name).__name__ for door, name in mine]\n"
        "with ThreadPoolExecutor(4) as threads:\n"
        f"    used = list(threads.map(use, range({seed}, {seed} + 4)))\n"
        "print(all(len(set(one)) == len(every) > 0 for one in used))"
    )
    assert printed == "True", f"seed {seed}"


def test_a_door_gives_nothing_else() -> None:
    given = modules_on_use("vibes_pipelines.stages", ["landing"])
    with pytest.raises(AttributeError, match="has no attribute 'judging'"):
        given("judging")


def test_collections_go_on_after_loading_even_when_it_fails() -> None:
    given = modules_on_use("vibes_pipelines.stages", ["not_there"])
    with pytest.raises(ModuleNotFoundError):
        given("not_there")
    assert gc.isenabled()
    with no_collections():
        with no_collections():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()


def test_what_is_loaded_for_good_is_looked_through_no_more() -> None:
    printed = _printed(
        "import gc\n"
        "from vibes_pipelines.loading import kept_for_good\n"
        "with kept_for_good():\n"
        "    import vibes_pipelines.loading\n"
        "print(gc.get_freeze_count())\n"
        "with kept_for_good():\n"
        "    import dagster\n"
        "print(gc.get_freeze_count() > 50_000, len(gc.get_objects()) < 10_000, gc.isenabled())"
    )
    assert printed.split() == ["0", "True", "True", "True"]


def test_beside_duckdb_nothing_is_kept() -> None:
    printed = _printed(
        "import gc, duckdb\n"
        "from vibes_pipelines.loading import kept_for_good\n"
        "with kept_for_good():\n"
        "    import yaml\n"
        "print(gc.get_freeze_count(), gc.isenabled())"
    )
    assert printed.split() == ["0", "True"]


def test_what_fails_to_load_is_not_kept() -> None:
    printed = _printed(
        "import gc\n"
        "from vibes_pipelines.loading import kept_for_good\n"
        "try:\n"
        "    with kept_for_good():\n"
        "        import yaml, vibes_pipelines.not_there\n"
        "except ModuleNotFoundError:\n"
        "    print('yaml' in sys.modules, gc.get_freeze_count(), gc.isenabled())"
    )
    assert printed.split() == ["True", "0", "True"]


def test_a_start_asks_no_package_for_plugins_unless_told_to() -> None:
    start = (
        "import importlib.metadata, os\n"
        "def refuse(**_): raise AssertionError('asked')\n"
        "importlib.metadata.entry_points = refuse\n"
    )
    assert _printed(f"{start}import vibes_pipelines.sync_config\nprint('loaded')") == "loaded"
    told = "os.environ['PYDANTIC_DISABLE_PLUGINS'] = ''\n"
    printed = _printed(
        f"{start}{told}import vibes_pipelines\nprint(repr(os.environ['PYDANTIC_DISABLE_PLUGINS']))"
    )
    assert printed == "''"
