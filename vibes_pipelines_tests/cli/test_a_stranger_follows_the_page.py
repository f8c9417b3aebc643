"""A fresh clone, a CRM of one's own, and docs/set-up.md: its commands typed as they stand there."""

import json
import os
import re
import shlex
import signal
import sqlite3
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tools.first_hour import COLUMNS, EXAMPLE_CRM_URL, HASH
from tools.page_blocks import Block, parts
from vibes_pipelines_tests.support.customers import address, fill_customers
from vibes_pipelines_tests.support.real_parts import end, find_program, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.postgresql, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
INSTALL = "make install && source .venv/bin/activate"
"""The one line that is not typed: this interpreter has everything, and takes the clone's code."""

IN_ANOTHER_TERMINAL = "vibes-pipelines sandbox up"
ENDS_RED = "-j reconcile_daily"
NAMED = re.compile(r"vibes-pipelines approve ([0-9a-f]{12}) ")


class Terminal:
    """One shell, kept from the first command to the last."""

    def __init__(self, shell: subprocess.Popen[str]) -> None:
        self._shell = shell
        assert shell.stdin is not None
        assert shell.stdout is not None
        self._keys, self._screen = shell.stdin, shell.stdout

    def type(self, text: str) -> tuple[int, str]:
        """Types commands; returns how the last one ended and all that was shown."""
        self._keys.write(f"{text}\nprintf '\\n# ended %s\\n' $?\n")
        self._keys.flush()
        shown = []
        for line in self._screen:
            if line.startswith("# ended "):
                return int(line.split()[2]), "".join(shown)
            shown.append(line)
        raise AssertionError(f"the shell went away:\n{''.join(shown)}")


@contextmanager
def terminal(environment: dict[str, str], folder: Path) -> Iterator[Terminal]:
    shell = subprocess.Popen(
        ["bash", "--norc"],
        cwd=folder,
        env=environment,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    with shell:
        yield Terminal(shell)
        assert shell.stdin is not None
        shell.stdin.close()
        assert shell.wait(60) is not None


@contextmanager
def another_terminal(command: str, environment: dict[str, str], folder: Path) -> Iterator[None]:
    """The sandbox, until the end."""
    log = folder.parent / "sandbox.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            shlex.split(command), cwd=folder, env=environment, stdout=output, stderr=output
        )
    try:
        wait_until(lambda: "# ready" in log.read_text("utf-8"), process, log, timeout_s=120)
        yield
    finally:
        end(process, signal.SIGTERM)


def strangers_environment(clone: Path, home: Path) -> dict[str, str]:
    """Nothing of ours, but for the interpreter; the clone's code comes first."""
    home.mkdir()
    kept = {name: os.environ[name] for name in ("LANG", "LC_ALL", "TMPDIR") if name in os.environ}
    return {
        **kept,
        "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
        "HOME": str(home),
        "PYTHONPATH": str(clone),
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def effects(api_url: str) -> dict[str, int]:
    """What changed at the platform, by its own record."""
    with urllib.request.urlopen(f"{api_url}/sandbox/audit", timeout=60) as answer:
        found: dict[str, int] = json.loads(answer.read())["effects"]
    return found


def contacts_of(path: Path) -> list[dict[str, Any]]:
    with closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute("SELECT * FROM contacts").fetchall()]


def test_every_command_of_the_page_does_what_the_page_says(
    postgresql_url: str, tmp_path: Path
) -> None:
    """From `git clone` to the first approved delivery, which platform and CRM then have."""
    clone = tmp_path / "vibes_pipelines"
    git = find_program("git", "git")
    subprocess.run([git, "clone", "--quiet", ROOT, clone], check=True)
    page = (clone / "docs" / "set-up.md").read_text("utf-8")
    blocks = [part.text for part in parts(page) if isinstance(part, Block)]
    assert blocks.pop(0) == INSTALL
    environment = strangers_environment(clone, tmp_path / "home")
    sandbox_up = blocks.pop(0)
    assert sandbox_up.startswith(IN_ANOTHER_TERMINAL)
    with (
        another_terminal(sandbox_up, environment, clone),
        terminal(environment, clone) as shell,
    ):
        fill_customers(postgresql_url, contacts_of(clone / ".vibes" / "sandbox" / "crm.db"))
        found = shell.type('python -c "import vibes_pipelines as v; print(v.__file__)"')
        assert str(clone) in found[1]
        shown, named = [], ""
        for block in blocks:
            text = block.replace(EXAMPLE_CRM_URL, postgresql_url).replace(HASH, named)
            ended, told = shell.type(text)
            assert (ended != 0) == (ENDS_RED in text), told
            named = [named, *NAMED.findall(told)][-1]
            shown.append(told)
        _, api_url = shell.type("echo $VIBES_API_URL")
        changed = effects(api_url.split()[0])
    init, _edit, doctor, preview, _red, approved, _sent, after = shown[-8:]
    assert "next: " in init
    assert "\nfail " not in doctor
    assert "held: persons: first run" in preview
    assert f"{named} is approved" in approved
    assert "nothing is left of this day" in after
    assert "would go\n  nothing\n" in after
    assert re.search(r"^  added +\d", after, re.MULTILINE), after
    counted = re.search(r"persons, by API: (\d+) add, (\d+) update", preview)
    assert counted is not None, preview
    assert sum(changed.values()) >= int(counted[1]) + int(counted[2])
    told_to_crm = re.search(r"opt-outs to the CRM: (\d+) crm_opt_out", preview)
    assert told_to_crm is not None, preview
    assert opted_out(postgresql_url) == opted_out_before(clone) + int(told_to_crm[1])


def opted_out(url: str) -> int:
    """The customers of PostgreSQL that are opted out by now."""
    with closing(psycopg.connect(address(url))) as connection:
        row = connection.execute("SELECT count(*) FROM customers WHERE sms_consent = 'false'")
        return int(row.fetchall()[0][0])


def opted_out_before(clone: Path) -> int:
    """Those of the CRM that the customers were copied from, which nobody touched."""
    rows = {row["contact_id"]: row for row in contacts_of(clone / ".vibes/sandbox/crm.db")[::-1]}
    column = COLUMNS["sms_consent"]
    return sum(row[column] == "false" for row in rows.values())
