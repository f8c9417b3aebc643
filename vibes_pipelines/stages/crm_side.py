"""The CRM's side, whichever it is: `contacts.source` of sync.yaml decides who is asked and told."""

from collections.abc import Collection
from pathlib import Path

from vibes_pipelines.crm.contacts import copy_contacts
from vibes_pipelines.crm.database import CrmError, crm_engine
from vibes_pipelines.crm.write_back import CrmTable
from vibes_pipelines.stages.project import Project
from vibes_pipelines.stages.tribe_contacts import copy_tribe_contacts
from vibes_pipelines.stages.tribe_write_back import TribeWriter
from vibes_pipelines.tribe.errors import TribeError


def crm_writer(project: Project) -> CrmTable | TribeWriter:
    """Who takes opt-outs and fields back."""
    if project.config.contacts.source == "tribe":
        return TribeWriter(project)
    return CrmTable(project.settings.crm_url, project.config)


def copy_crm_contacts(project: Project, path: Path, keys: Collection[str]) -> int:
    """Writes the contacts with these keys, as they are now, in the form in which a day's are.

    Raises:
        CrmError: the CRM cannot be read.
    """
    if project.config.contacts.source == "tribe":
        try:
            return copy_tribe_contacts(project, path, keys)
        except TribeError as failed:
            raise CrmError(str(failed)) from failed
    with crm_engine(project.settings.crm_url) as engine, engine.connect() as connection:
        return copy_contacts(connection, project.config, path, keys)
