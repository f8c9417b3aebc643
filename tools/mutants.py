"""Mutation testing of the pure rules: which faults would the tests not notice?

`python -m tools.mutants` (make mutants) puts one fault of `mutations` at a time into a module of
`mutants.toml` and runs that module's tests. The files stay as they are: a process of its own per
mutant imports the changed module from memory. docs/mutation.md says how to read the result.
"""

import argparse
import ast
import gc
import importlib
import importlib.abc
import importlib.machinery
import importlib.metadata
import importlib.util
import json
import os
import random
import signal
import sys
import time
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import NoReturn

import hypothesis
import pytest

from tools.mutations import mutations

ROOT = Path(__file__).parent.parent
TESTS = ROOT / "vibes_pipelines_tests"
_FAILED = (
    pytest.ExitCode.TESTS_FAILED,
    pytest.ExitCode.INTERRUPTED,
    pytest.ExitCode.USAGE_ERROR,
)
"""A test file, or a conftest (the last), that cannot be imported any more has noticed too."""
_TIMED_OUT = -1
_LOADED_ONCE = (
    "phonenumbers",
    "pyarrow.parquet",
    "vibes_pipelines.sync_config",
    "vibes_pipelines.store.ledger",
    "vibes_pipelines_tests.conftest",
)
_NEVER_CHANGED = tuple(f"vibes_pipelines.{room}" for room in ("sandbox", "store", "sync_config"))
_PYTEST = ("-x", "-q", "--tb=no", "--assert=plain", "-p", "no:cacheprovider")
"""Plain asserts, for libraries that are loaded already cannot be rewritten."""


@dataclass(frozen=True)
class Mutant:
    """One mutation of one module; `number` counts those of the module."""

    module: str
    number: int
    line: int
    what: str


@dataclass(frozen=True)
class Result:
    """What became of a mutant: `killed`, `survived`, or `hung` (killed by its time limit)."""

    mutant: Mutant
    fate: str
    seconds: float


class _Changed(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module from a changed tree."""

    def __init__(self, module: str, number: int) -> None:
        self.module, self.number = module, number

    def find_spec(self, fullname: str, *_: object) -> importlib.machinery.ModuleSpec | None:
        if fullname != self.module:
            return None
        return importlib.util.spec_from_loader(fullname, self, origin=str(_file(fullname)))

    def exec_module(self, module: ModuleType) -> None:
        file = _file(self.module)
        module.__file__ = str(file)
        code = compile(_changed(file, self.number), file, "exec")
        exec(code, module.__dict__)  # noqa: S102 - what importing a module is


def _file(module: str) -> Path:
    return ROOT.joinpath(*module.split(".")).with_suffix(".py")


def _changed(file: Path, number: int) -> ast.Module:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for at, mutation in enumerate(mutations(tree)):
        if at == number:
            mutation.apply()
            return ast.fix_missing_locations(tree)
    raise IndexError(number)


def _mutants(module: str) -> Iterator[Mutant]:
    found = mutations(ast.parse(_file(module).read_text(encoding="utf-8")))
    for number, mutation in enumerate(found):
        yield Mutant(module, number, mutation.line, mutation.what)


def _is_python(mutant: Mutant) -> bool:
    file = _file(mutant.module)
    try:
        compile(_changed(file, mutant.number), file, "exec")
    except (SyntaxError, ValueError):
        return False
    return True


def _load_libraries() -> None:
    """Imports once what every mutant's process would have to: libraries, and rooms below the rules.

    What may import a changed module is forgotten again.
    """
    plugins = {plugin.module for plugin in importlib.metadata.entry_points(group="pytest11")}
    for module in sorted(plugins.union(_LOADED_ONCE)):
        importlib.import_module(module)
    for name in list(sys.modules):
        is_ours = name.startswith(("vibes_pipelines.", "vibes_pipelines_tests"))
        if is_ours and not name.startswith(_NEVER_CHANGED):
            del sys.modules[name]
    gc.freeze()  # or each process would look through all of them at its end


def _tested(tests: Sequence[str], changed: _Changed | None, limit_s: float) -> int:
    """The exit code of the tests in a process of their own."""
    child = os.fork()
    if child == 0:
        _run_tests(tests, changed)
    until = time.monotonic() + limit_s
    while time.monotonic() < until:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return _TIMED_OUT


def _run_tests(tests: Sequence[str], changed: _Changed | None) -> NoReturn:
    """Runs in the child, and ends it; a failure is found, not made smaller."""
    code = 70
    try:
        with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
            os.dup2(nowhere.fileno(), 1)
            os.dup2(nowhere.fileno(), 2)
        phases = [hypothesis.Phase.explicit, hypothesis.Phase.generate]
        hypothesis.settings.register_profile(
            "mutants", phases=phases, derandomize=True, database=None
        )
        hypothesis.settings.load_profile("mutants")
        if changed:
            sys.meta_path.insert(0, changed)
        files = [str(TESTS / test) for test in tests]
        code = int(pytest.main([*_PYTEST, *files]))
    finally:
        os._exit(code)


def _fate(code: int, mutant: Mutant) -> str:
    if code in _FAILED:
        return "killed"
    if code == _TIMED_OUT or code < 0:
        return "hung"
    if code == pytest.ExitCode.OK:
        return "survived"
    raise SystemExit(f"pytest ended with {code} on {mutant}; run its tests alone to see why")


def _baseline(module: str, tests: Sequence[str]) -> float:
    """The seconds that the tests take on the module as it is."""
    started = time.monotonic()
    code = _tested(tests, None, 900)
    if code != pytest.ExitCode.OK:
        raise SystemExit(f"{module}: its tests do not pass unchanged ({code}): {', '.join(tests)}")
    return time.monotonic() - started


def _told(results: Sequence[Result], left: int) -> str:
    """The scores as a Markdown table, and the survivors."""
    by_module = Counter(one.mutant.module for one in results)
    survived = Counter(one.mutant.module for one in results if one.fate == "survived")
    lines = ["| module | mutants | killed | score |", "|---|---|---|---|"]
    for module, rows in [*sorted(by_module.items()), ("all", len(results))]:
        killed = rows - (survived.total() if module == "all" else survived[module])
        name = module.removeprefix("vibes_pipelines.")
        lines.append(f"| {name} | {rows} | {killed} | {killed / max(1, rows):.1%} |")
    lines += [f"\n{left} mutants were not run." if left else "", "\nSurvivors:\n"]
    alive = [one.mutant for one in results if one.fate == "survived"]
    lines += [f"- `{one.module.split('.', 1)[1]}:{one.line}` `{one.what}`" for one in alive]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Runs the mutants and prints the table; 1 when fewer than `--least` of them are killed."""
    options = _options()
    os.environ["SNOWFLAKE_DISABLE_PLATFORM_DETECTION"] = "true"
    os.chdir(ROOT)
    settings = Path(__file__).with_suffix(".toml").read_text(encoding="utf-8")
    tests: dict[str, list[str]] = tomllib.loads(settings)["modules"]
    _load_libraries()
    chosen = _chosen(options, tests)
    until = time.monotonic() + 60 * options.minutes
    results = list(_results(chosen, tests, until, options.results))
    sys.stdout.write(_told(results, len(chosen) - len(results)))
    survived = sum(one.fate == "survived" for one in results)
    return int(survived > (1 - options.least) * len(results))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.mutants", description=__doc__)
    parser.add_argument("--module", action="append", help="end of a module's name; repeatable")
    parser.add_argument("--sample", type=int, help="run no more than these, drawn by --seed")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=110, help="stop after these")
    parser.add_argument("--least", type=float, default=0.9, help="the least score")
    parser.add_argument("--results", type=Path, help="write each result there, as a line of JSON")
    parser.add_argument("--retry", type=Path, help="run only what survived in such a file")
    return parser.parse_args()


def _chosen(options: argparse.Namespace, tests: Mapping[str, Sequence[str]]) -> list[Mutant]:
    wanted = tuple(options.module or ("",))
    chosen = [one for name in tests if name.endswith(wanted) for one in _mutants(name)]
    if options.retry:
        known = map(json.loads, options.retry.read_text(encoding="utf-8").splitlines())
        alive = {(one["module"], one["what"]) for one in known if one["fate"] == "survived"}
        chosen = [one for one in chosen if (one.module, one.what) in alive]
    if options.sample and options.sample < len(chosen):
        drawn = random.Random(options.seed).sample(range(len(chosen)), options.sample)  # noqa: S311
        chosen = [chosen[at] for at in sorted(drawn)]
    return [one for one in chosen if _is_python(one)]


def _results(
    chosen: Sequence[Mutant], tests: Mapping[str, Sequence[str]], until: float, file: Path | None
) -> Iterator[Result]:
    baselines: dict[str, float] = {}
    for mutant in chosen:
        if time.monotonic() > until:
            return
        module = mutant.module
        if module not in baselines:
            baselines[module] = _baseline(module, tests[module])
        started = time.monotonic()
        limit_s = 30 + 5 * baselines[module]
        code = _tested(tests[module], _Changed(module, mutant.number), limit_s)
        result = Result(mutant, _fate(code, mutant), time.monotonic() - started)
        if file:
            with file.open("a", encoding="utf-8") as out:
                known = asdict(mutant) | {"fate": result.fate, "seconds": result.seconds}
                out.write(json.dumps(known) + "\n")
        yield result


if __name__ == "__main__":
    sys.exit(main())
