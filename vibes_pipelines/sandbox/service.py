"""The sandbox as a whole: one process that serves the platform, its SFTP, its share and the CRM.

`Sandbox` starts and stops every part; `serve` does it for the command line. What the parts do is in
their own modules, how days pass in `days`.
"""

import os
import secrets
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from datetime import date, datetime, timedelta
from pathlib import Path
from types import FrameType

from vibes_pipelines.sandbox.account import Account
from vibes_pipelines.sandbox.acts import act
from vibes_pipelines.sandbox.all_switches import AllSwitches
from vibes_pipelines.sandbox.api import build_api
from vibes_pipelines.sandbox.api_limits import Credentials
from vibes_pipelines.sandbox.audit_log import AuditLog, Entry
from vibes_pipelines.sandbox.beside import start_beside
from vibes_pipelines.sandbox.callbacks_manner import CallbackManner
from vibes_pipelines.sandbox.callbacks_registry import Callbacks
from vibes_pipelines.sandbox.callbacks_sender import CallbackSender
from vibes_pipelines.sandbox.clock import SandboxClock, midnight
from vibes_pipelines.sandbox.control import ControlError, with_control
from vibes_pipelines.sandbox.crm import Crm
from vibes_pipelines.sandbox.days import Days
from vibes_pipelines.sandbox.extracts import ExtractDrop, kinds_of
from vibes_pipelines.sandbox.faults import Faults, parse_faults
from vibes_pipelines.sandbox.home import (
    EXTRACT_DIR,
    IMPORT_DIR,
    PRIVACY_DIRS,
    REPORT_DIR,
    SandboxHome,
)
from vibes_pipelines.sandbox.http_server import HttpServer
from vibes_pipelines.sandbox.journal import Journal
from vibes_pipelines.sandbox.parts import start_sftp, start_share
from vibes_pipelines.sandbox.pickup import ImportPickup
from vibes_pipelines.sandbox.platform import Platform
from vibes_pipelines.sandbox.population import START, build_world
from vibes_pipelines.sandbox.privacy import PrivacyDesk
from vibes_pipelines.sandbox.running import Running
from vibes_pipelines.sandbox.share_server import ShareServer
from vibes_pipelines.sandbox.switches import Switches
from vibes_pipelines.sandbox.texts import TextWord, text
from vibes_pipelines.sandbox.world import COMPANY_KEY, World

API_USER = "sandbox@localhost"

_PICKUP_EVERY_S = 0.2


class Sandbox(Running):
    """Every stand-in over one world; days pass when asked to.

    Args:
        home: The sandbox's folder; an earlier sandbox's files in it are removed.
        world: Both sides' state at the beginning.
        start: The first day; its morning is prepared by `start()`, without edits.
        lag_h: Hours by which the share is behind the platform.
        seed: Of new persons' keys and of the nights' edits.
        rate_per_s: The API's request limit; None lifts it and the one of Google Wallet.
    """

    def __init__(
        self,
        home: Path,
        world: World,
        start: date = START,
        lag_h: float = 0,
        faults: Faults | None = None,
        switches: Switches | None = None,
        *,
        seed: int = 0,
        rate_per_s: int | None = 100,
    ) -> None:
        self.home = SandboxHome(home.absolute())
        self.crm = Crm(self.home.crm)
        self.clock = SandboxClock(midnight(start))
        self.platform = Platform(
            COMPANY_KEY, world.custom_fields, world.lists, self.clock, seed=seed
        )
        self._switches = switches or Switches()
        self.account = Account(
            self.platform,
            world.catalogue,
            self._switches,
            google_rate_per_s=None if rate_per_s is None else 20,
        )
        self._world = world
        self._start, self._seed, self._lag = start, seed, timedelta(hours=lag_h)
        self._rate_per_s = rate_per_s
        self._faults = faults or Faults()
        self._drop = ExtractDrop(
            self.home.sftp_folder(EXTRACT_DIR), account=self.account, switches=self._switches
        )
        self._running = ExitStack()
        self._environment: dict[str, str] = {}
        self._days: Days
        self._callbacks: Callbacks

    def start(self, *, resume: bool = False) -> None:
        """Prepare the first morning and serve it, or resume the world that the folder holds.

        Raises SandboxHomeError for a folder that holds something else or is in use, JournalError
        for a state that cannot be read. When a part fails to start, the others are stopped.
        """
        with ExitStack() as starting:
            starting.enter_context(self.home.prepared(resume=resume))
            self._log = AuditLog(self.home.audit_log, self.clock.now)
            starting.callback(self._log.close)
            self.platform.audit.log = self._log.write
            share, environment = start_share(self.home, starting)
            self._environment |= environment
            self._days = self._build_days(share)
            self._callbacks = Callbacks(self.platform, self._switches)
            self._privacy = PrivacyDesk(
                self.account, *(self.home.sftp_folder(folder) for folder in PRIVACY_DIRS)
            )
            self._open_journal(starting)
            if resume:
                self._resume()
            else:
                self._begin()
            self.account.save = self._journal.commit
            self._environment |= start_sftp(self.home, starting, self.platform.audit, self._faults)
            self._start_pickup(starting)
            self._start_callbacks(starting)
            self._start_api(starting)
            self._running = starting.pop_all()
        self._environment |= {
            "CRM_URL": self.crm.url,
            "VIBES_SIMULATED_DAYS": "1",
            "VIBES_HOME": str(self.home.root / "vibes"),
            "VIBES_LEDGER_URL": f"sqlite:///{self.home.root / 'vibes' / 'ledger.db'}",
        }

    def stop(self) -> None:
        """Stop serving; the folder stays for inspection until the next start."""
        self._running.close()

    def environment(self) -> dict[str, str]:
        """The environment with which the product reaches this sandbox; holds passwords."""
        return dict(sorted(self._environment.items()))

    def next_day(self, *, edits: bool = True) -> date:
        """The next morning, after a night of edits on both sides unless told otherwise.

        Callbacks that wait for their next attempt have waited long enough by then.
        """
        self._pickup.scan()
        self._callbacks.queue.make_due()
        with self._journal.held():
            return self._days.next_day(edits=edits)

    @property
    def today(self) -> date:
        """The sandbox's present day."""
        return self._days.today

    def now(self) -> datetime:
        """The sandbox's present instant, UTC."""
        return self.clock.now()

    def audit(self) -> dict[str, object]:
        """What was done to the platform so far, counted; and how many callbacks wait."""
        waiting = len(self._callbacks.queue)
        return {**self.platform.audit.as_dict(), "callbacks_waiting": waiting}

    def audit_log(self, kind: str | None, count: int) -> list[Entry]:
        """The latest requests, import rows and sessions one by one."""
        return self._log.latest(kind, count)

    def set_callback_manner(self, script: object) -> None:
        """Send callbacks in this manner from now on; raises FaultScriptError."""
        self._callbacks.queue.set_manner(CallbackManner.from_mapping(script))

    def text(self, word: TextWord, identifier: Mapping[str, str], list_id: str) -> bool:
        """A person texts the stop word or the keyword of a list; False when nothing changes."""
        changed = text(self.account, word, identifier, list_id)
        self.account.save()
        return changed

    def act(self, name: str, wish: Mapping[str, object]) -> dict[str, object]:
        """Let somebody outside the platform do something; raises ActError, TextError."""
        return act(self.account, name, wish)

    def set_faults(self, script: object) -> None:
        """Put a fault script in force instead of the present one; raises FaultScriptError."""
        self._faults.replace(parse_faults(script))

    def cut_next_extracts(self, kinds: Sequence[str]) -> None:
        """Let the next morning's extracts of these kinds end in the middle."""
        known = kinds_of(self._switches)
        unknown = sorted(set(kinds) - set(known))
        if unknown:
            raise ControlError(f"no extract is called {unknown[0]!r}; known: {', '.join(known)}")
        self._days.cut_next_extracts(kinds)

    def complete_extracts(self) -> list[str]:
        """Deliver every cut extract once more, whole; returns the files' names."""
        return self._days.complete_extracts()

    def _begin(self) -> None:
        """Set a new world up."""
        self.crm.create(self._world.contacts_schema, self._world.contacts)
        self.platform.load(self._world.persons, self._world.subscriptions)
        self._days.begin()
        self._journal.begin()

    def _resume(self) -> None:
        """Put the saved world back; share, CRM and files are as they were left."""
        place = self._journal.restore()
        self.clock.reach(place["now"])
        self._drop.since = place["extracts_since"]
        self._days.resume(place["today"])
        self._callbacks.queue.resume()

    def _open_journal(self, starting: ExitStack) -> None:
        shelves = (
            *self.account.shelves(),
            *self._callbacks.shelves(),
            *self._privacy.shelves(),
        )
        self._journal = Journal(self.home.journal, self.platform, shelves, self._place)
        starting.callback(self._journal.close)

    def _place(self) -> dict[str, date | datetime]:
        """Where the sandbox stands in time."""
        return {
            "now": self.clock.now(),
            "today": self._days.today,
            "extracts_since": self._drop.since,
        }

    def _build_days(self, share: ShareServer) -> Days:
        return Days(
            self.platform,
            self.crm,
            self.clock,
            self._drop,
            start=self._start,
            lag=self._lag,
            publish=share.load,
            seed=self._seed,
        )

    def _start_pickup(self, starting: ExitStack) -> None:
        """Look for imports and privacy requests all the time, as long as the sandbox runs."""
        self._pickup = ImportPickup(
            self.platform,
            self.home.sftp_folder(IMPORT_DIR),
            self.home.sftp_folder(REPORT_DIR),
            self._switches,
            self.account,
            self._faults,
        )
        is_over = threading.Event()

        def look() -> None:
            while not is_over.wait(_PICKUP_EVERY_S):
                self._pickup.scan()
                self._privacy.scan()
                self.account.save()

        thread = threading.Thread(target=look, name="import-pickup")
        thread.start()
        starting.callback(thread.join)
        starting.callback(is_over.set)

    def _start_callbacks(self, starting: ExitStack) -> None:
        """Send what waits, and what will."""
        sender = CallbackSender(self._callbacks)
        sender.start()
        starting.callback(sender.stop)

    def _start_api(self, starting: ExitStack) -> None:
        password = secrets.token_urlsafe(24)
        api = build_api(
            self.platform,
            Credentials(API_USER, password),
            self._switches,
            self._faults,
            callbacks=self._callbacks,
            account=self.account,
            rate_per_s=self._rate_per_s,
        )
        server = HttpServer(with_control(self, api), "sandbox-api")
        starting.callback(server.stop)
        self._environment |= {
            "VIBES_API_URL": f"http://127.0.0.1:{server.start()}",
            "VIBES_API_USER": API_USER,
            "VIBES_API_PASSWORD": password,
            "VIBES_API_RATE_PER_S": str(self._rate_per_s or 100_000),
        }


def serve(
    home: Path,
    persons: int,
    faults_file: Path | None = None,
    seed: int = 1,
    start: date = START,
    lag_h: float = 0,
    *,
    resume: bool = False,
    switches: AllSwitches | None = None,
) -> None:
    """Serve a sandbox until SIGTERM or SIGINT; for the command line's main thread.

    Standard output gets the environment as `export NAME='value'` lines and a line `# ready`,
    standard error the progress. The environment is also written to `environment.env` in the folder.
    `resume` goes on with the world that the folder holds; people, seed and start must be those with
    which it was begun. Ports and passwords are new, SFTP keys are not.
    """
    is_over = threading.Event()

    def end(_number: int, _frame: FrameType | None) -> None:
        is_over.set()

    former = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        faults = Faults.load(faults_file) if faults_file else None
        _progress(f"building a world of {persons:,} people")
        world = build_world(persons, seed, start)
        _progress("starting the platform, its SFTP, its share and the CRM")
        switches = switches or AllSwitches()
        sandbox = Sandbox(home, world, start, lag_h, faults, switches.platform, seed=seed)
        with ExitStack() as running:
            sandbox.start(resume=resume)
            running.callback(sandbox.stop)
            beside = start_beside(
                running,
                sandbox.home.accounts,
                world.contacts,
                sandbox.clock,
                seed,
                switches,
                resume=resume,
            )
            exports = _exports({**sandbox.environment(), **beside})
            _write_private(sandbox.home.environment_file, exports)
            sys.stdout.write(f"{exports}# ready\n")
            sys.stdout.flush()
            is_over.wait()
            _progress("stopping")
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _exports(environment: Mapping[str, str]) -> str:
    """The environment as shell commands, every value in single quotes."""
    escaped = {name: value.replace("'", "'\\''") for name, value in environment.items()}
    return "".join(f"export {name}='{value}'\n" for name, value in escaped.items())


def _write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)


def _progress(text: str) -> None:
    sys.stderr.write(f"sandbox: {text}\n")
    sys.stderr.flush()
