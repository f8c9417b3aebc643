"""The last look before an invitation leaves: what callbacks told, and what the CRM says now.

A diff set may wait for days. Who opted out meanwhile, on either side, is not asked.
"""

# ruff: noqa: S608  (SQL is composed here on purpose: names and texts go through reconcile.sql)

import tempfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from vibes_pipelines.crm.contacts import copy_contacts
from vibes_pipelines.crm.database import crm_engine
from vibes_pipelines.delivery.consent_watch import CONSENT_KINDS, InboxWatch
from vibes_pipelines.reconcile.consent import OPTED_IN, state_column
from vibes_pipelines.reconcile.engine import Limits, engine
from vibes_pipelines.reconcile.identifiers import contact_identifiers
from vibes_pipelines.reconcile.sources import open_source
from vibes_pipelines.stages.project import Project
from vibes_pipelines.store.inbox import Inbox
from vibes_pipelines.store.records import Operation

NOT_OPTED_IN = "the CRM does not say any more that the person opted in"


class LastLook:
    """Looks into the callback inbox, then into the CRM."""

    def __init__(self, project: Project, inbox: Inbox) -> None:
        self._project = project
        self._inbox = InboxWatch(inbox, project.config.company_key)

    def withdrawn(self, operations: Sequence[Operation]) -> Mapping[str, str]:
        """Invitations that must not leave any more: operation id → why.

        Raises:
            CrmError: the CRM cannot be read; nobody is invited then.
        """
        told = self._inbox.withdrawn(operations)
        asking = [
            operation
            for operation in operations
            if operation.kind in CONSENT_KINDS and operation.operation_id not in told
        ]
        if not asking:
            return told
        opted_in = self._opted_in({o.external_person_id for o in asking if o.external_person_id})
        return {
            **told,
            **{
                o.operation_id: NOT_OPTED_IN
                for o in asking
                if (o.external_person_id, o.subscription_list_id) not in opted_in
            },
        }

    def _opted_in(self, contacts: Collection[str]) -> set[tuple[str, str]]:
        """(contact, list) of these contacts, by the rules of the reconcile."""
        config = self._project.config
        with tempfile.TemporaryDirectory(prefix="last-look-") as workspace:
            path = Path(workspace) / "contacts.parquet"
            with crm_engine(self._project.settings.crm_url) as crm, crm.connect() as connection:
                copy_contacts(connection, config, path, contacts)
            with engine(Limits(threads=1), Path(workspace)) as duck:
                source = open_source(duck, "contacts", path, Path(workspace))
                key = contact_identifiers(config, source).key
                found: set[tuple[str, str]] = set()
                for consent in config.consents:
                    state = state_column(consent, source)
                    rows = duck.execute(
                        f"SELECT {key} FROM {source.relation} WHERE {state} = {OPTED_IN}"
                    ).fetchall()
                    found |= {(contact, consent.list.strip()) for (contact,) in rows}
        return found
