"""Putting the first files down: never over one that is there, secrets for the owner's eyes only."""

import os
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

from vibes_pipelines.stages.init.look import InitError

SYNC_YAML = "sync.yaml"
ENV = ".env"
_OF_DAGSTER = ("dagster.yaml", "workspace.yaml")

_EXAMPLES: tuple[tuple[str, str], ...] = (
    ("CRM_URL", "postgresql+psycopg://reader@host/crm"),
    ("VIBES_API_URL", "https://public-api.vibescm.com"),
    ("VIBES_API_USER", "integration@your-company.com"),
    ("VIBES_API_PASSWORD", "better in the environment than here"),
    ("VIBES_SFTP_HOST", "the host of your account"),
    ("VIBES_SFTP_USER", "the user of your account"),
    ("VIBES_SFTP_KEY_FILE", "~/.ssh/vibes_ed25519"),
    ("VIBES_SFTP_KNOWN_HOSTS", "~/.ssh/known_hosts"),
    ("SNOWFLAKE_ACCOUNT", "your-organisation-account"),
    ("SNOWFLAKE_USER", "VIBES_READER"),
    ("SNOWFLAKE_PRIVATE_KEY_PATH", "~/.ssh/snowflake.p8"),
    ("SNOWFLAKE_WAREHOUSE", "LOADING"),
    ("SNOWFLAKE_ROLE", "VIBES_READER"),
    ("VIBES_LEDGER_URL", "postgresql+psycopg://vibes@host/vibes"),
    ("VIBES_ALERT_WEBHOOK", "https://hooks.your-company.com/vibes"),
)
"""The settings that a first day needs, each with an example; .env.example has them all."""


def refuse_to_overwrite(folder: Path) -> None:
    """Raises InitError when a file that would be written is there already."""
    for name in (SYNC_YAML, ENV):
        if (folder / name).exists():
            msg = f"{folder / name} is there already; move it away, or give another folder by --out"
            raise InitError(msg)


def write_files(
    folder: Path, sync_yaml: str, crm_url: str | None, environment: Mapping[str, str]
) -> list[Path]:
    """Writes sync.yaml and .env, and the files of Dagster where they are missing."""
    refuse_to_overwrite(folder)
    folder.mkdir(parents=True, exist_ok=True)
    written = [folder / SYNC_YAML, folder / ENV]
    _create(written[0], sync_yaml, 0o644)
    _create(written[1], env_text(folder, crm_url, environment), 0o600)
    for name in _OF_DAGSTER:
        if not (folder / name).exists():
            text = resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
            _create(folder / name, text, 0o644)
            written.append(folder / name)
    return written


def env_text(folder: Path, crm_url: str | None, environment: Mapping[str, str]) -> str:
    """The lines of .env; nothing of the environment is copied into it."""
    folder = folder.absolute()
    lines = [
        "# Read by Dagster, where its lines win over the environment, and by vibes-pipelines,",
        "# where the environment wins. Keep this file to yourself: it may hold secrets.",
        f"DAGSTER_HOME={_quoted(str(folder))}",
        f"VIBES_DAGSTER_STORAGE={_quoted(str(folder / '.vibes' / 'dagster'))}",
        "# VIBES_HOME=  # is in the environment"
        if environment.get("VIBES_HOME")
        else f"VIBES_HOME={_quoted(str(folder / '.vibes' / 'data'))}",
        f"VIBES_SYNC_CONFIG={_quoted(str(folder / SYNC_YAML))}",
        "SNOWFLAKE_DISABLE_PLATFORM_DETECTION=true",
        "",
    ]
    for name, example in _EXAMPLES:
        if name == "CRM_URL" and crm_url is not None:
            lines.append(f"CRM_URL={_quoted(crm_url)}")
        elif environment.get(name):
            lines.append(f"# {name}=  # is in the environment")
        else:
            lines.append(f"# {name}=  # e.g. {example}")
    return "\n".join(lines) + "\n"


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _create(path: Path, text: str, mode: int) -> None:
    """Writes a new file with its rights from the first moment; never over another."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError as there:
        msg = f"{path} is there already; move it away, or give another folder by --out"
        raise InitError(msg) from there
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
