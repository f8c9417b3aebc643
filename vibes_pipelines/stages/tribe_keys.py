"""Which contact a person of Tribe is: messages name persons by `ID`, contacts may have another key.

Only the look-up belongs here; what is done with the contact is decided in `tribe_messages`.
"""

from collections.abc import Collection

from vibes_pipelines.crm.arrow_columns import as_text
from vibes_pipelines.crm.database import CrmError
from vibes_pipelines.stages.interrupts import run_until_interrupted
from vibes_pipelines.stages.project import Project
from vibes_pipelines.stages.tribe_contacts import tribe_client
from vibes_pipelines.tribe.errors import TribeError

ID = "ID"


def contact_keys(project: Project, persons: Collection[str]) -> dict[str, str]:
    """Person → key of the contact; one that Tribe has no more, or that has no key, is left out.

    Raises:
        CrmError: Tribe cannot be read.
    """
    contacts = project.config.contacts
    if contacts.source != "tribe":
        return {person: person for person in persons}
    if contacts.key == ID:  # records have it in lower case, messages in either
        return {person: person.lower() for person in persons}
    try:
        return run_until_interrupted(_read(project, contacts.key, persons)) if persons else {}
    except TribeError as failed:
        raise CrmError(str(failed)) from failed


async def _read(project: Project, key: str, persons: Collection[str]) -> dict[str, str]:
    async with tribe_client(project) as client:
        found = await client.find(ID, persons, [key])
    keys = {str(person[ID]).lower(): as_text(person.get(key)) for person in found}
    return {one: known for one in persons if (known := keys.get(one.lower()))}
