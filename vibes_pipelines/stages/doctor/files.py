"""Checks of what lies on this machine: sync.yaml, settings, the data folder, the ledger."""

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import sqlalchemy as sa

from vibes_pipelines.settings import SettingsError
from vibes_pipelines.stages.doctor.bench import Bench
from vibes_pipelines.stages.doctor.findings import Check, Finding, fail, ok, warn
from vibes_pipelines.store.database import open_engine
from vibes_pipelines.store.revisions import Revision, revision_of
from vibes_pipelines.sync_config import SyncConfigError

LEAST_FREE_BYTES = 1 << 30
FEW_FREE_BYTES = 10 << 30
_REMOTE_DISKS = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "afs"})
_MIB = 1 << 20


def _sync_config(bench: Bench) -> Iterator[Finding]:
    path = bench.settings.sync_config
    if not path.exists():
        cure = "write one with `vibes-pipelines init`, or set VIBES_SYNC_CONFIG to yours"
        yield fail(f"{path}: no such file", cure)
        return
    config = bench.config
    if config.company_key == PLACEHOLDER_COMPANY:
        cure = "write the company key of your Vibes account into company_key of sync.yaml"
        yield fail(f"{path}: company_key is still the placeholder", cure)
        return
    parts = f"{len(config.fields)} fields, {len(config.consents)} consents"
    yield ok(f"{path}: {parts}")


PLACEHOLDER_COMPANY = "REPLACE"
"""What a new sync.yaml says where the company key is not known."""


def _env_file(bench: Bench) -> Iterator[Finding]:
    """Dagster lets .env win over the environment, the command line the environment over .env."""
    both = [name for name in bench.env_file if name in bench.environment]
    other = sorted(name for name in both if bench.environment[name] != bench.env_file[name])
    if other:
        told = f"{', '.join(other)}: .env says another thing than the environment"
        cure = "Dagster takes the one, commands the other: remove the line of .env, or the export"
        yield warn(told, cure)
    elif bench.env_file:
        yield ok(f".env has {len(bench.env_file)} settings")


def _needs(read: Callable[[Bench], object], what: str) -> Callable[[Bench], Iterator[Finding]]:
    def look(bench: Bench) -> Iterator[Finding]:
        try:
            read(bench)
        except SettingsError as missing:
            yield _of_missing(missing, what)
        else:
            yield ok(f"the settings of the {what} are there")

    return look


def _of_missing(missing: SettingsError, what: str) -> Finding:
    told, _, example = str(missing).partition("; ")
    if not example:
        return fail(f"the settings of the {what} are not complete", told)
    return fail(told, f"set it in the environment or in .env, {example}")


def _crm_settings(bench: Bench) -> Iterator[Finding]:
    """CRM_URL is needed where contacts come from a database; without sync.yaml, from there."""
    try:
        source = bench.config.contacts.source
    except SyncConfigError:
        source = "sql"
    if source == "sql":
        yield from _needs(lambda one: one.settings.crm_url, "CRM")(bench)
    else:
        yield Finding("not checked", f"contacts come from {source}")


def _home(bench: Bench) -> Iterator[Finding]:
    home = bench.settings.home
    yield from folder_findings(home, "VIBES_HOME")
    free = bench.free_bytes(home)
    told = f"{home}: {free // _MIB:,} MiB free"
    if free < LEAST_FREE_BYTES:
        yield fail(told, "free at least 1 GiB, or set VIBES_HOME to a folder on a larger disk")
    elif free < FEW_FREE_BYTES:
        yield warn(told, "every day is kept: watch it, or set VIBES_HOME to a larger disk")
    else:
        yield ok(told)


def folder_findings(folder: Path, variable: str) -> Iterator[Finding]:
    """Whether a folder can be used or made, and is on a local disk."""
    standing = folder
    while not standing.exists() and standing != standing.parent:
        standing = standing.parent
    if not standing.is_dir():
        yield fail(f"{standing} is not a folder", f"set {variable} to a folder")
        return
    if not os.access(standing, os.W_OK | os.X_OK, effective_ids=True):
        cure = f"let the user of this process write there, or set {variable} to another folder"
        yield fail(f"{standing} cannot be written", cure)
        return
    kind = disk_kind(standing)
    if kind in _REMOTE_DISKS:
        cure = f"SQLite and file locks need a local disk: set {variable} to one"
        yield fail(f"{standing} is on a network disk ({kind})", cure)
        return
    yield ok(str(folder) if standing == folder else f"{folder} will be made by the first run")


def disk_kind(folder: Path, mounts: Path = Path("/proc/mounts")) -> str | None:
    """The kind of file system that holds a folder; None where the machine does not tell."""
    if not mounts.is_file():
        return None
    found: tuple[str, str | None] = ("", None)
    for line in mounts.read_text(encoding="utf-8", errors="replace").splitlines():
        _, point, kind, *_ = line.split(" ")
        point = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), point)
        if folder.resolve().is_relative_to(point) and len(point) > len(found[0]):
            found = (point, kind)
    return found[1]


def _ledger(bench: Bench) -> Iterator[Finding]:
    try:
        url = sa.make_url(bench.settings.ledger_url)
    except sa.exc.ArgumentError:
        cure = "set VIBES_LEDGER_URL to e.g. postgresql+psycopg://user@host/vibes, or leave it out"
        yield fail("VIBES_LEDGER_URL is not a SQLAlchemy URL", cure)
        return
    place = url.render_as_string(hide_password=True)
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").exists():
        yield ok(f"{place} will be made by the first run")
        return
    try:
        revision = _revision(bench.settings.ledger_url)
    except sa.exc.SQLAlchemyError as refused:
        cure = "check VIBES_LEDGER_URL, that the server runs, and the password and rights there"
        yield fail(f"{place} cannot be opened ({type(refused).__name__})", cure)
        return
    yield _of_revision(place, revision)


def _revision(url: str) -> Revision:
    engine = open_engine(url)
    try:
        with engine.connect() as connection:
            return revision_of(connection)
    finally:
        engine.dispose()


def _of_revision(place: str, revision: Revision) -> Finding:
    if revision.is_current:
        return ok(f"{place} is of the newest shape ({revision.present})")
    if revision.present is None:
        return ok(f"{place} is empty; its tables will be made by the first run")
    cure = (
        "back it up, stop the schedule, and run any command such as `callbacks parked list`: it "
        "migrates; when the ledger is the newer one, update the program"
    )
    told = f"{place} is of shape {revision.present}, this program of {revision.newest}"
    return fail(told, cure)


CHECKS = (
    Check("files/sync.yaml", "sync.yaml is there and valid", _sync_config),
    Check("files/.env", ".env and the environment agree", _env_file),
    Check("files/home", "the data folder can be written, is local, and has space", _home),
    Check("settings/crm", "CRM_URL is set", _crm_settings),
    Check(
        "settings/api", "VIBES_API_* are set", _needs(lambda bench: bench.settings.api, "Vibes API")
    ),
    Check(
        "settings/sftp",
        "VIBES_SFTP_* are set",
        _needs(lambda bench: bench.settings.sftp, "SFTP account"),
    ),
    Check(
        "settings/share",
        "SNOWFLAKE_* are set",
        _needs(lambda bench: bench.settings.share, "share"),
    ),
    Check("ledger/tables", "the ledger can be opened and has the newest shape", _ledger),
)
