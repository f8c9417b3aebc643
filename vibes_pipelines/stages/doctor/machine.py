"""Checks of this machine: Python and packages, time zone, the Dagster instance."""

import sys
from collections.abc import Iterator
from datetime import UTC, timedelta
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml
from packaging.requirements import InvalidRequirement, Requirement

from vibes_pipelines.stages.doctor.bench import Bench
from vibes_pipelines.stages.doctor.files import folder_findings
from vibes_pipelines.stages.doctor.findings import Check, Finding, fail, ok, warn

PACKAGE = "vibes-pipelines"
START_H = 7
"""When the daily schedule starts, UTC."""


def _python(bench: Bench) -> Iterator[Finding]:
    del bench
    version = ".".join(map(str, sys.version_info[:3]))
    wanted = metadata.metadata(PACKAGE)["Requires-Python"]
    if wanted and version not in Requirement(f"python{wanted}").specifier:
        yield fail(f"Python {version} runs, {wanted} is needed", "make the venv with another one")
        return
    unfit = list(_unfit_packages(metadata.requires(PACKAGE) or []))
    for told in unfit:
        yield fail(
            told, "install the project again: make install, or pip install -c constraints.txt"
        )
    if not unfit:
        yield ok(f"Python {version} and every package fit")


def _unfit_packages(requirements: list[str]) -> Iterator[str]:
    """The packages that are missing, or of a version that the project does not take."""
    for text in requirements:
        try:
            wanted = Requirement(text)
        except InvalidRequirement:
            continue
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        try:
            version = metadata.version(wanted.name)
        except metadata.PackageNotFoundError:
            yield f"{wanted.name} is not installed"
            continue
        if not wanted.specifier.contains(version, prereleases=True):
            yield f"{wanted.name} {version} is installed, {wanted.specifier} is needed"


def _time_zone(bench: Bench) -> Iterator[Finding]:
    """Days and hours are UTC everywhere; said in the hour that people here know."""
    start = bench.now().astimezone(UTC).replace(hour=START_H, minute=0, second=0, microsecond=0)
    local = start.astimezone()
    offset = local.utcoffset() or timedelta()
    where = "UTC" if not offset else f"{local:%H:%M} here ({local.tzname()})"
    yield ok(f"days are UTC; the schedule's {START_H:02d}:00 UTC is {where}")


def _dagster(bench: Bench) -> Iterator[Finding]:
    text = bench.environment.get("DAGSTER_HOME")
    if not text:
        cure = "set DAGSTER_HOME to the absolute path of the folder that holds dagster.yaml"
        yield fail("DAGSTER_HOME is not set: runs would be kept nowhere", cure)
        return
    home = Path(text)
    if not home.is_absolute() or not home.is_dir():
        yield fail(f"DAGSTER_HOME {text} is no absolute path of a folder", "correct DAGSTER_HOME")
        return
    document = _document(home / "dagster.yaml")
    if document is None:
        cure = "copy dagster.yaml of the project there (`vibes-pipelines init` writes it)"
        yield fail(f"{home} holds no dagster.yaml that can be read", cure)
        return
    yield ok(f"DAGSTER_HOME is {home}")
    storage = document.get("storage") or {}
    if "postgres" in storage:
        yield _of_postgres(bench)
    else:
        yield from _of_folder(bench)


def _document(path: Path) -> dict[str, Any] | None:
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return None
    return found if isinstance(found, dict) else None


def _of_postgres(bench: Bench) -> Finding:
    url = bench.environment.get("DAGSTER_POSTGRES_URL", "")
    if url.startswith("postgresql+psycopg2://"):
        return ok("Dagster keeps its runs in PostgreSQL")
    cure = "set DAGSTER_POSTGRES_URL=postgresql+psycopg2://user:password@host/dagster"
    return fail("Dagster's PostgreSQL storage needs a URL of the driver psycopg2", cure)


def _of_folder(bench: Bench) -> Iterator[Finding]:
    text = bench.environment.get("VIBES_DAGSTER_STORAGE")
    if not text:
        cure = "set VIBES_DAGSTER_STORAGE to the absolute path of a folder on a local disk"
        yield fail("VIBES_DAGSTER_STORAGE is not set", cure)
    elif not Path(text).is_absolute():
        cure = "write it from the root: processes of Dagster run in different folders"
        yield fail("VIBES_DAGSTER_STORAGE is no absolute path", cure)
    else:
        yield from folder_findings(Path(text), "VIBES_DAGSTER_STORAGE")


def _alerts(bench: Bench) -> Iterator[Finding]:
    if bench.environment.get("VIBES_ALERT_WEBHOOK"):
        yield ok("a failed run is told to VIBES_ALERT_WEBHOOK")
    else:
        yield warn("nobody is told of a failed run", "set VIBES_ALERT_WEBHOOK to an address")


CHECKS = (
    Check("machine/python", "Python and the packages fit", _python),
    Check("machine/time zone", "what the hours of the schedule are here", _time_zone),
    Check("machine/dagster", "the Dagster instance has its folder and storage", _dagster),
    Check("machine/alerts", "failed runs are told to somebody", _alerts),
)
