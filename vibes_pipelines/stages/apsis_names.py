"""Every name of `destinations.apsis` that one of the two sides does not have, all at once.

A sync stops at the first; whoever corrects sync.yaml wants to know of all of them.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from vibes_pipelines.apsis.errors import ApsisError, ApsisSetupError
from vibes_pipelines.crm.contacts import column_names, place_of
from vibes_pipelines.crm.database import CrmError, crm_engine, missing_column
from vibes_pipelines.crm.mapped_columns import mapped_columns
from vibes_pipelines.stages.apsis_sync import ApsisSync
from vibes_pipelines.stages.interrupts import run_until_interrupted
from vibes_pipelines.stages.tribe_contacts import tribe_client
from vibes_pipelines.sync_config import SyncConfig
from vibes_pipelines.sync_config.apsis import Apsis
from vibes_pipelines.sync_config.tribe import label_of
from vibes_pipelines.tribe.errors import TribeError, TribeFieldError
from vibes_pipelines.tribe.labels import label_id_of

if TYPE_CHECKING:
    from vibes_pipelines.tribe.labels import Label
    from vibes_pipelines.tribe.metadata import Metadata

OF_NAMES = (ApsisSetupError, TribeFieldError, CrmError)
"""What a sync stops with that may be one of several wrong names."""


def named_columns(view: SyncConfig, section: Apsis) -> dict[str, str]:
    """Every contact column of the section, with the entry of sync.yaml that names it.

    `view` is the section as landing sees it.
    """
    entries = {field.from_: f"fields: to: {field.to}" for field in section.fields}
    entries |= {section.email: "email"} if section.email else {}
    entries |= {consent.from_: f"consents: topic: {consent.topic}" for consent in section.consents}
    entries |= {one.column: "conditions" for one in section.conditions}
    entries |= {one.members: f"overviews: {one.name}" for one in section.overviews}
    named = mapped_columns(view) | dict.fromkeys(entries, "")
    own = {column: f"destinations.apsis.{entry}" for column, entry in entries.items()}
    return {column: own.get(column) or entry for column, entry in named.items()}


def missing_in_tribe(
    named: Mapping[str, str], metadata: "Metadata", labels: "Sequence[Label]"
) -> dict[str, str]:
    """The columns that Tribe has not, with what is wrong and near."""
    missing = {}
    for column, entry in named.items():
        label = label_of(column)
        try:
            if label is None:
                metadata.require({column: entry})
            else:
                label_id_of(labels, label)
        except TribeFieldError as unknown:
            missing[column] = str(unknown)
    return missing


def missing_in_database(
    named: Mapping[str, str], place: str, existing: list[str]
) -> dict[str, str]:
    """The columns that the CRM's table or query has not, with what it has."""
    return {
        column: str(missing_column(entry, column, place, existing))
        for column, entry in named.items()
        if column not in existing
    }


def all_missing(sync: ApsisSync) -> list[str]:
    """What either side lacks. A side that is away adds nothing."""
    found: list[str] = []
    with suppress(TribeError, CrmError):
        found += _of_contacts(sync).values()
    with suppress(ApsisError):
        found += run_until_interrupted(_of_account(sync))
    return found


def _of_contacts(sync: ApsisSync) -> dict[str, str]:
    project = sync.landing_project
    named = named_columns(project.config, sync.section)
    if project.config.contacts.source == "tribe":
        return run_until_interrupted(_of_tribe(sync, named))
    with crm_engine(project.settings.crm_url) as engine, engine.connect() as connection:
        existing = column_names(connection, project.config)
    return missing_in_database(named, place_of(project.config), existing)


async def _of_tribe(sync: ApsisSync, named: Mapping[str, str]) -> dict[str, str]:
    async with tribe_client(sync.landing_project) as client:
        return missing_in_tribe(named, await client.metadata(), await client.labels())


async def _of_account(sync: ApsisSync) -> list[str]:
    async with sync.client() as client:
        try:
            await sync.require_mapping(client)
        except ApsisSetupError as lacking:
            return [str(lacking)]
    return []
