"""The demo from start to end: sandbox up, days through Dagster, an account of each, the UI."""

import fcntl
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from vibes_pipelines.demo.days import INSTANCE, dagster_instance, run_day
from vibes_pipelines.demo.report_pages import served_pages
from vibes_pipelines.demo.sandbox_process import RunningSandbox, sandbox_process
from vibes_pipelines.demo.ui_process import serve_ui
from vibes_pipelines.orchestration.day_metadata import REPORT_URL
from vibes_pipelines.orchestration.links import DOCS_URL
from vibes_pipelines.report.account import DayAccount, render

# Days with edits on both sides. Later days are left alone: one sees the loop close.
EDITED_DAYS = 3
MARKER = "made-by-vibes-pipelines-demo"
EXAMPLE = "sync.example.yaml"
SITE = Path(".vibes/site")
"""Where `make docs` builds the documentation."""


class DemoFolderError(ValueError):
    """The demo was started in the wrong folder, or would have to remove one it did not make."""


def run_demo(home: Path, persons: int, days: int, *, as_json: bool, serve: bool) -> None:
    """Runs `days` simulated days over `persons` people in a fresh `home`.

    Progress goes to standard error, the account to standard output and to `home/account.txt`.
    """
    begun = time.monotonic()
    for needed in (INSTANCE, EXAMPLE):
        if not Path(needed).exists():
            msg = f"{needed} is not here; run the demo in the project's folder"
            raise DemoFolderError(msg)
    with ExitStack() as running:
        running.enter_context(_fresh(home))
        _say(f"sandbox: {persons:,} people, in {home}")
        running.enter_context(_ended_in_order())
        sandbox = running.enter_context(sandbox_process(home / "sandbox", persons))
        _use(sandbox, home)
        if serve:
            os.environ[REPORT_URL] = running.enter_context(served_pages(_reports(home)))
            if (SITE / "index.html").exists():
                os.environ[DOCS_URL] = running.enter_context(served_pages(SITE))
        with dagster_instance(home) as instance:
            accounts = []
            for number in range(1, days + 1):
                if number > 1:
                    sandbox.next_day(edits=number <= EDITED_DAYS)
                day = sandbox.today()
                _say(f"day {number}: {day}")
                accounts.append(run_day(instance, day, first=number == 1, say=_say))
            _tell(home, accounts, as_json=as_json, seconds=time.monotonic() - begun)
        if serve:
            _serve(home)


@contextmanager
def _fresh(home: Path) -> Iterator[None]:
    """An empty folder that is this demo's alone until it ends."""
    if home.exists():
        if not (home / MARKER).exists():
            msg = f"{home} exists and was not made by the demo; give another folder with --home"
            raise DemoFolderError(msg)
        with _locked(home):
            shutil.rmtree(home)
    home.mkdir(parents=True)
    (home / MARKER).touch()
    with _locked(home):
        yield


@contextmanager
def _locked(home: Path) -> Iterator[None]:
    """A lock of the operating system, which ends with its process."""
    with (home / MARKER).open() as marker:
        try:
            fcntl.flock(marker, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as busy:
            msg = f"a demo runs in {home}; end it first, or give another folder with --home"
            raise DemoFolderError(msg) from busy
        yield


def _use(sandbox: RunningSandbox, home: Path) -> None:
    """Points this process, and every run that it starts, at the sandbox."""
    ours = {
        "VIBES_HOME": str(home / "data"),
        "VIBES_LEDGER_URL": f"sqlite:///{home / 'data' / 'ledger.db'}",
        "VIBES_SYNC_CONFIG": str(Path(EXAMPLE).absolute()),
    }
    environment = {**sandbox.environment, **ours}
    os.environ.update(environment)
    lines = [f"export {name}='{value}'" for name, value in sorted(environment.items())]
    folder = home / "dagster"
    lines += [f"export {name}='{folder}'" for name in ("DAGSTER_HOME", "VIBES_DAGSTER_STORAGE")]
    file = home / "environment.sh"
    file.touch(mode=0o600)
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _tell(home: Path, accounts: Sequence[DayAccount], *, as_json: bool, seconds: float) -> None:
    text = "\n\n".join(render(account) for account in accounts) + "\n"
    (home / "account.txt").write_text(text, encoding="utf-8")
    if as_json:
        document = {"days": [account.to_json() for account in accounts]}
        (home / "account.json").write_text(json.dumps(document, indent=2), encoding="utf-8")
        sys.stdout.write(json.dumps(document) + "\n")
        return
    sys.stdout.write(f"\n{text}\n{_where_next(home, seconds)}\n")


def _reports(home: Path) -> Path:
    return home / "data" / "reports"


def _where_next(home: Path, seconds: float) -> str:
    data = home / "data"
    return "\n".join(
        [
            f"{seconds:.0f} s. Where to look next:",
            f"  {_reports(home) / 'index.html'}  the daily reports: open them in a browser",
            f"  {data / 'diff_sets'}       what each day wanted to change, and why",
            f"  {data / 'certificates'}    what became of every send",
            f"  {data / 'ledger.db'}       each operation with its receipt",
            f"  {home / 'account.txt'}         this account",
            "  make dev    the same in the Dagster UI, with the sandbox behind it",
        ]
    )


def _serve(home: Path) -> None:
    address = ("127.0.0.1", os.environ.get("DAGSTER_PORT", "3000"))
    _say(f"Dagster UI: http://{address[0]}:{address[1]} (Ctrl-C ends it and the sandbox)")
    _say(f"the daily reports: {os.environ[REPORT_URL]}/")
    _say(f"in another terminal: source {home / 'environment.sh'}")
    serve_ui(*address)


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """A SIGTERM unwinds like a Ctrl-C, also where the shell ignores Ctrl-C: nothing is orphaned."""
    former = {
        n: signal.signal(n, signal.default_int_handler) for n in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
