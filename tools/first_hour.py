"""A stranger's installation, in which the commands of the pages are really run.

A sandbox, and a CRM in SQLite whose columns have names of their own. The commands are run in this
process, which is sooner than one for each; the jobs of Dagster are the functions that their assets
call. `page_outputs` says which page is followed when.
"""

import os
import re
import shlex
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from click.testing import CliRunner

from tools.page_blocks import Block, Place
from vibes_pipelines.cli.env_file import env_file
from vibes_pipelines.cli.main import main
from vibes_pipelines.orchestration.resources import ShareResource
from vibes_pipelines.sandbox.service import Sandbox
from vibes_pipelines.settings import Settings
from vibes_pipelines.stages import delivering, landing
from vibes_pipelines.stages.certifying import certify_day
from vibes_pipelines.stages.project import Project, open_project
from vibes_pipelines.stages.reconciling import reconcile_day

COLUMNS = {
    "customer_no": "contact_id",
    "cell_phone": "mobile",
    "given_name": "first_name",
    "family_name": "last_name",
    "born_on": "birth_date",
    "points": "score",
    "loyalty_level": "tier",
    "hobbies": "interests",
    "post_code": "zip",
    "kind": "customer_type",
    "sms_consent": "sms_opt_in",
    "sms_consent_changed_at": "sms_opt_in_at",
}
"""The columns of the stranger's CRM, with their names in the sandbox's."""

EXAMPLE_CRM_URL = "postgresql+psycopg://reader@crm.internal/crm"
"""What the page says where the reader has an address of their own."""

HASH = "HASH"
"""The word of the page for what a check names."""

ELSEWHERE = ("make install", "vibes-pipelines sandbox up", "set -a; source", "unset ")
"""Lines that are done when an installation is made: it is installed, and its sandbox is up."""

_OWN = ("VIBES_HOME", "VIBES_LEDGER_URL", "VIBES_SYNC_CONFIG", "DAGSTER_HOME")
"""The reader has these in the new folder's .env; ours must not win over them."""


class FirstHourError(RuntimeError):
    """A command of a page did not end as the page says: the page would be wrong."""


@dataclass
class FirstHour:
    """One installation below `root`, which is the reader's home, and where its reader stands."""

    root: Path
    sandbox: Sandbox
    hash: str = ""
    printed: str = field(default="", init=False)

    @property
    def today(self) -> str:
        """The sandbox's day."""
        return self.sandbox.today.isoformat()

    def do(self, part: Block | Place, ends: int = 0) -> str | None:
        """Types a block, or looks at a place; returns what a place shows.

        Raises:
            FirstHourError: a command does not end with `ends`, or is not known here.
        """
        if isinstance(part, Block):
            self._type(part.text, ends)
            return None
        text = Path(part.file).expanduser().read_text("utf-8") if part.file else self.printed
        return text.replace(str(self.root), "~").rstrip()

    def _type(self, text: str, ends: int) -> None:
        job = re.search(r"^dagster job execute .*-j (\w+)", text, re.MULTILINE)
        if job:
            with self.project() as project:
                _JOBS[job[1]](project, self)
            return
        for line in text.splitlines():
            if not line.startswith(ELSEWHERE):
                self._line(line, ends)

    def _line(self, line: str, ends: int) -> None:
        command, _, rest = line.partition(" | ")
        words = shlex.split(os.path.expandvars(command).replace(HASH, self.hash), comments=True)
        match words:
            case ["vibes-pipelines", *arguments]:
                self.printed = _run(arguments, ends)
            case ["export", assignment]:
                name, _, value = assignment.partition("=")
                os.environ[name] = self._crm_url() if value == EXAMPLE_CRM_URL else value
            case ["cd", folder]:
                os.chdir(Path(folder).expanduser())
            case ["sed", *_]:
                self.printed = _in_shell(command, "")
            case _:
                raise FirstHourError(f"nobody knows here how to do: {line}")
        if rest:
            self.printed = _in_shell(rest, self.printed)

    def _crm_url(self) -> str:
        return f"sqlite:///{self.root / 'crm.db'}"

    @contextmanager
    def project(self) -> Iterator[Project]:
        """The project as a command in the reader's folder opens it."""
        with env_file(), open_project(Settings(dict(os.environ))) as project:
            yield project

    def edit_crm(self, statement: str, *values: str) -> None:
        """What users of the CRM do."""
        with closing(sqlite3.connect(self.root / "crm.db")) as crm, crm:
            crm.execute(statement, values)

    def next_day(self) -> None:
        """The next morning: nobody did anything, the job runs with effects."""
        self.sandbox.next_day(edits=False)
        os.environ["DAY"] = self.today
        with self.project() as project:
            _reconcile(project, self)
            _deliver(project, self)


@contextmanager
def first_hour(root: Path, sandbox: Sandbox) -> Iterator[FirstHour]:
    """An installation that is about to begin, in an environment and a folder of its own."""
    hour, stood = FirstHour(root, sandbox), Path.cwd()
    with closing(sqlite3.connect(root / "crm.db")) as crm, crm:
        columns = ", ".join(f"{name} TEXT" for name in COLUMNS)
        crm.execute(f"CREATE TABLE customers ({columns}, PRIMARY KEY (customer_no))")
        crm.executemany(
            f"INSERT OR IGNORE INTO customers VALUES ({', '.join('?' for _ in COLUMNS)})",  # noqa: S608 - marks only
            [[row[theirs] for theirs in COLUMNS.values()] for row in sandbox.crm.rows()],
        )
    kept = dict(os.environ)
    os.environ.update({**sandbox.environment(), "HOME": str(root)})
    for name in (*_OWN, "CRM_URL"):
        os.environ.pop(name, None)
    try:
        yield hour
    finally:
        os.chdir(stood)
        os.environ.clear()
        os.environ.update(kept)


def _run(arguments: list[str], ends: int) -> str:
    ended = CliRunner().invoke(main, [os.path.expanduser(word) for word in arguments])  # noqa: PTH111 - options too
    if ended.exit_code != ends:
        raise FirstHourError(f"{' '.join(arguments)}: {ended.output}{ended.exception or ''}")
    return ended.stdout


def _in_shell(command: str, given: str) -> str:
    ended = subprocess.run(  # noqa: S603 - what our own page says
        ["/bin/sh", "-c", command], input=given, capture_output=True, text=True, check=False
    )
    if ended.returncode:
        raise FirstHourError(f"{command}: {ended.stderr}")
    return ended.stdout


def _reconcile(project: Project, hour: FirstHour) -> None:
    for feed in landing.LANDED_SHARE_FEEDS:
        landing.land_share(project, hour.today, feed, ShareResource().connector())
    landing.land_extracts(project, hour.today)
    landing.land_contacts(project, hour.today)
    certify_day(project, hour.today)
    hour.hash = reconcile_day(project, hour.today).diff_set[:12]


def _deliver(project: Project, hour: FirstHour) -> None:
    for stage in (
        delivering.deliver_opt_outs,
        delivering.write_back,
        delivering.import_persons,
        delivering.push_persons,
        delivering.deliver_invites,
    ):
        stage(project, hour.today, delivering.Options(dry_run=False))


_JOBS: dict[str, Callable[[Project, FirstHour], None]] = {
    "reconcile_daily": _reconcile,
    "repush": _deliver,
}
