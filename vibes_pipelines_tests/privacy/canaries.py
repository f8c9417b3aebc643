"""What the canary tests share: a watch over what people may read, and the commands there are."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import click
from click.testing import CliRunner

from vibes_pipelines.cli.main import main

DATA = frozenset({".parquet", ".persons", ".opt_outs", ".db", ".db-wal", ".db-shm", ".key"})
"""Files that hold people on purpose, and the key of the hashes."""

VIBES_COMMANDS = frozenset(
    {
        *("approve", "doctor", "erase", "explain", "init", "preview", "reconcile", "report"),
        *("callbacks apply", "callbacks plan", "callbacks serve"),
        *("callbacks parked drop", "callbacks parked list", "callbacks parked retry"),
        *("events send", "events send-new", "events status"),
        *("quarantine list", "quarantine resolve", "quarantine show", "quarantine undo"),
        *("retention apply", "retention plan", "upload-files"),
    }
)
"""What meets the canaries of test_canary_people.py."""

TRIBE_COMMANDS = frozenset(
    f"tribe {name}" for name in ("cancel", "full-sync", "messages", "overview", "status")
)
"""What meets the canaries of test_canary_tribe.py."""

EXCUSED = {
    "end-lost-runs": "knows runs of Dagster by their ids, and opens nothing of a project",
    "demo": "has generated people of its own, in days that are those of reconcile_daily",
    "sandbox up": "serves generated people of its own, and never meets those of a project",
}
"""What meets no canary, and why not."""

VIBES_JOBS = frozenset(
    {
        *("reconcile_daily", "approve", "repush", "person_import", "api_push", "crm_write_back"),
        *("callback_inbox", "crm_changes", "opt_outs", "send_events", "apply_retention"),
        *("import_reports", "look_for_newest_day", "look_for_late_opt_outs"),
    }
)
"""What meets the canaries of test_canary_jobs.py."""

JOBS_AS_COMMANDS = {
    "tribe_full_sync": "tribe full-sync",
    "apsis_push": "tribe full-sync",
    "apsis_overviews": "tribe overview",
    "tribe_messages": "tribe messages",
}
"""Jobs whose function meets the canaries by a command of test_canary_tribe.py."""

SHORTEST = 6
"""Shorter values stand in other words by chance."""


@dataclass
class Watch:
    """Collects what people may read, and knows every value of the canaries."""

    values: set[str] = field(default_factory=set)
    seen: list[tuple[str, str, frozenset[str]]] = field(default_factory=list)
    ran: set[str] = field(default_factory=set)
    own: dict[str | None, set[str]] = field(default_factory=dict)

    def learn(self, *values: object, of: str | None = None) -> None:
        """More values of canaries; of numbers their digits, too. `of` is whose key they have."""
        for value in values:
            text = str(value)
            digits = re.sub(r"\D", "", text) if text.startswith(("+", "(")) else ""
            known = {text, digits, digits[-10:]}
            told = {one for one in known if len(one) >= SHORTEST and one != "None"}
            self.values |= told
            self.own.setdefault(of, set()).update(told)

    def values_of(self, key: str) -> frozenset[str]:
        """Every value that one canary has had, for whoever asks for it in clear."""
        return frozenset(self.own.get(key, ()))

    def note(self, where: str, text: str, allowed: frozenset[str] = frozenset()) -> None:
        """Something that people may read; `allowed` are values that were asked for in clear."""
        self.seen.append((where, text, allowed))

    def note_files(self, folder: Path) -> None:
        """The names of all files, and the text of those that should hold nobody."""
        for path in folder.rglob("*"):
            self.note("file name", str(path.relative_to(folder)))
            if path.is_file() and path.suffix not in DATA:
                self.note(f"file {path.relative_to(folder)}", path.read_text("utf-8", "replace"))

    def command(self, *arguments: str, allowed: frozenset[str] = frozenset()) -> str:
        """Runs a command of the program; returns its standard output."""
        result = CliRunner().invoke(main, arguments)
        name = command_name(arguments)
        self.ran.add(name)
        told = f"{result.output}\n{result.stderr}\n{result.exception}"
        self.note(f"output of {name}", told, allowed)
        return result.stdout

    def leaks(self) -> dict[str, set[str]]:
        """Where a value was seen, by where it was noted."""
        words = "|".join(re.escape(value) for value in sorted(self.values, key=len, reverse=True))
        pattern = re.compile(rf"(?<![0-9A-Za-z])(?:{words})(?![0-9A-Za-z])")
        found: dict[str, set[str]] = {}
        for where, text, allowed in self.seen:
            hits = set(pattern.findall(text)) - allowed
            if hits:
                found.setdefault(where, set()).update(sorted(hits)[:5])
        return found


def command_name(arguments: tuple[str, ...]) -> str:
    """The words of a command line that name the command."""
    command: click.Command | None = main
    words: list[str] = []
    for word in arguments:
        if not isinstance(command, click.Group) or word not in command.commands:
            break
        command = command.commands[word]
        words.append(word)
    return " ".join(words)


def every_command(command: click.Command = main, path: str = "") -> Iterator[str]:
    """The name of every command of the program, as it is typed."""
    if not isinstance(command, click.Group):
        yield path
        return
    for name, below in command.commands.items():
        yield from every_command(below, f"{path} {name}".strip())
