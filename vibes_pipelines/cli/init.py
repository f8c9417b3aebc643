"""`vibes-pipelines init`: the first files, from what the CRM and the platform show."""

import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from vibes_pipelines.settings import Settings
    from vibes_pipelines.stages.init.guess import Guessed
    from vibes_pipelines.stages.init.look import PlatformSeen
    from vibes_pipelines.sync_config import SyncConfig

Seen = TypeVar("Seen")


@click.command()
@click.option("--crm-url", help="SQLAlchemy URL of the CRM; goes into .env. Default: CRM_URL.")
@click.option("--table", help="Its table of contacts; default: the likeliest by name.")
@click.option("--company-key", help="The key of your account at Vibes.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(),
    help="Folder for the files; default: this one.",
)
def init(crm_url: str | None, table: str | None, company_key: str | None, out: Path) -> None:
    """Write sync.yaml, .env and what Dagster needs; never over a file that is there.

    Reads the CRM's columns and up to 1,000 rows, the share's columns when SNOWFLAKE_* are set, the
    lists when VIBES_API_* and --company-key are. A password in --crm-url is seen by others on this
    machine: rather set CRM_URL.
    """
    from vibes_pipelines.settings import Settings  # noqa: PLC0415 - slow to import
    from vibes_pipelines.stages.init.files import (  # noqa: PLC0415
        SYNC_YAML,
        refuse_to_overwrite,
        write_files,
    )
    from vibes_pipelines.stages.init.guess import guess  # noqa: PLC0415
    from vibes_pipelines.stages.init.look import look_at_crm  # noqa: PLC0415
    from vibes_pipelines.stages.init.write import sync_yaml  # noqa: PLC0415
    from vibes_pipelines.sync_config import load_sync_config  # noqa: PLC0415

    refuse_to_overwrite(out)
    if company_key is not None and not company_key.isalnum():
        raise click.BadParameter("letters and digits only", param_hint="--company-key")
    settings = Settings()
    crm = look_at_crm(crm_url or settings.crm_url, table)
    platform = _look_at_platform(settings, company_key)
    guessed = guess(crm, platform)
    text = sync_yaml(crm, platform, guessed, company_key)
    for path in write_files(out, text, crm_url, os.environ):
        click.echo(f"wrote {path}")
    click.echo(_counted(load_sync_config(out / SYNC_YAML), guessed))
    place = "" if out == Path() else f"cd {shlex.quote(str(out))}; "
    click.echo(f"next: {place}$EDITOR sync.yaml (every `guess`), $EDITOR .env (what is commented)")
    click.echo("then: vibes-pipelines doctor; vibes-pipelines preview")


def _counted(config: "SyncConfig", guessed: "Guessed") -> str:
    """What of the proposal loads; a consent whose list is not known stands behind a `#`."""
    from vibes_pipelines.report.day_blocks import counted  # noqa: PLC0415 - slow to import

    waiting = len(guessed.consents) - len(config.consents)
    behind = f" ({waiting} more behind a #: the list is not known)" if waiting else ""
    left_out = len(guessed.left_out)
    return (
        f"{counted(len(config.fields), 'field')}, {counted(len(config.consents), 'consent')}"
        f"{behind}; {counted(left_out, 'column')} {'is' if left_out == 1 else 'are'} left out"
    )


def _look_at_platform(settings: "Settings", company_key: str | None) -> "PlatformSeen":
    """What can be reached; what cannot is said, and left to the person."""
    from dataclasses import replace  # noqa: PLC0415 - beside what it is used with

    from vibes_pipelines.orchestration.resources import ShareResource  # noqa: PLC0415 - slow
    from vibes_pipelines.stages.init.look import (  # noqa: PLC0415
        PlatformSeen,
        look_at_lists,
        look_at_share,
    )

    def share() -> PlatformSeen:
        database = settings.share.database or "VIBES_SHARE"
        return look_at_share(ShareResource().connector(), database)

    seen = _if_reachable("share", share, PlatformSeen())
    if company_key is None:
        click.echo("the platform's lists were not looked at: give --company-key", err=True)
        return seen
    lists: Any = _if_reachable("API", lambda: look_at_lists(settings.api, company_key), None)
    return seen if lists is None else replace(seen, lists=lists, has_lists=True)


def _if_reachable(what: str, look: Callable[[], Seen], otherwise: Seen) -> Seen:
    from vibes_pipelines.settings import SettingsError  # noqa: PLC0415 - slow to import
    from vibes_pipelines.vibes.api_transport import VibesApiError  # noqa: PLC0415
    from vibes_pipelines.vibes.share_errors import ShareError  # noqa: PLC0415

    try:
        return look()
    except (SettingsError, ShareError, VibesApiError) as unreachable:
        click.echo(f"the {what} was not looked at: {unreachable}", err=True)
        return otherwise
