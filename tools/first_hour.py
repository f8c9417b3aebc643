"""The first hour of docs/set-up.md, really run: what each command prints, for the pages to show.

A sandbox, a CRM with columns of another name in SQLite, and the commands of the page in its order.
"""

import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import chdir, closing, contextmanager
from pathlib import Path

from click.testing import CliRunner

from vibes_pipelines.cli.main import main
from vibes_pipelines.sandbox.population import build_world
from vibes_pipelines.sandbox.service import Sandbox

PEOPLE, SEED = 500, 6
SHOWN_FOLDER = "~/vibes"

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
# What the page tells the reader to decide.
EDIT = (
    "  # conditions: [{column: customer_type, equals: A}]",
    "  conditions: [{column: kind, equals: A}]",
)
# The reader has these of their own, in the new folder's .env.
READERS_OWN = ("VIBES_HOME", "VIBES_LEDGER_URL")


class FirstHourError(RuntimeError):
    """A command of the page did not end well: the page would be wrong."""


def outputs() -> dict[str, str]:
    """What the page shows, by name: `init`, `sync.yaml`, `doctor`, `preview`."""
    with tempfile.TemporaryDirectory(prefix="first-hour-") as scratch:
        root = Path(scratch)
        folder = root / "vibes"
        with Sandbox(root / "sandbox", build_world(PEOPLE, seed=SEED)) as sandbox:
            url = f"sqlite:///{_crm(root, sandbox)}"
            day = sandbox.today.isoformat()
            with _environment({**sandbox.environment(), "CRM_URL": url}):
                made = _run("init", "--company-key", "A1b2C3", "--out", str(folder))
                config = folder / "sync.yaml"
                guessed = config.read_text(encoding="utf-8")
                if EDIT[0] not in guessed:
                    raise FirstHourError(f"init wrote no line {EDIT[0]!r}")
                config.write_text(guessed.replace(*EDIT), encoding="utf-8")
                with chdir(folder):
                    well = _run("doctor", "--day", day)
                    shown = _run("preview", "--day", day)
        found = {"init": made, "sync.yaml": guessed, "doctor": well, "preview": shown}
        return {name: _neutral(text, root, folder) for name, text in found.items()}


def _crm(root: Path, sandbox: Sandbox) -> Path:
    path = root / "crm.db"
    columns = ", ".join(f"{name} TEXT" for name in COLUMNS)
    marks = ", ".join("?" for _ in COLUMNS)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"CREATE TABLE customers ({columns}, PRIMARY KEY (customer_no))")
        connection.executemany(
            f"INSERT OR IGNORE INTO customers VALUES ({marks})",  # noqa: S608 - marks only
            [[row[theirs] for theirs in COLUMNS.values()] for row in sandbox.crm.rows()],
        )
    return path


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """The sandbox's environment, and nothing of ours that would win over the new `.env`."""
    kept = dict(os.environ)
    os.environ.update(variables)
    for name in (*READERS_OWN, "VIBES_SYNC_CONFIG", "DAGSTER_HOME"):
        os.environ.pop(name, None)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(kept)


def _run(*arguments: str) -> str:
    ended = CliRunner().invoke(main, arguments)
    if ended.exit_code:
        raise FirstHourError(f"{' '.join(arguments)}: {ended.output}{ended.exception or ''}")
    return ended.stdout


def _neutral(text: str, root: Path, folder: Path) -> str:
    return text.replace(str(folder), SHOWN_FOLDER).replace(str(root), "~").rstrip()
