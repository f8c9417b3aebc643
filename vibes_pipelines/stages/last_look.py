"""The last look before anything leaves: what callbacks told, what the CRM says, what went before.

A diff set may wait for days. Who opted out meanwhile, on either side, is not asked; and a field of
which real time has sent a newer value is not set back to the older one.
"""

from collections.abc import Collection, Mapping, Sequence
from contextlib import closing

from vibes_pipelines.delivery.consent_watch import CONSENT_KINDS, InboxWatch
from vibes_pipelines.reconcile.consent import OPTED_IN
from vibes_pipelines.stages.consents_now import consents_in
from vibes_pipelines.stages.erased_opt_outs import opted_out_before
from vibes_pipelines.stages.kept_out import named_erased
from vibes_pipelines.stages.project import Project
from vibes_pipelines.store.inbox import Inbox
from vibes_pipelines.store.realtime import RealtimeBook
from vibes_pipelines.store.records import PERSON_KINDS, Operation
from vibes_pipelines.store.sent_changes import SentChanges
from vibes_pipelines.sync_config.realtime import OPT_OUT_WORDS

SENT_SINCE = "real time sent this person what the CRM said later; the next day compares it anew"
INVITED_TODAY = "another diff set of the day has asked this person for this list already"
NOT_OPTED_IN = "the CRM does not say any more that the person opted in"


class LastLook:
    """Looks into the callback inbox, then into the CRM."""

    def __init__(self, project: Project, inbox: Inbox) -> None:
        self._project = project
        section = project.config.callbacks
        words = section.opt_out_words if section else OPT_OUT_WORDS
        self._inbox = InboxWatch(inbox, project.config.company_key, words)

    def withdrawn(self, operations: Sequence[Operation]) -> Mapping[str, str]:
        """Operations that must not leave any more: operation id → why.

        Raises:
            CrmError: the CRM cannot be read; nobody is invited then.
        """
        settings = self._project.settings
        consents = [one for one in operations if one.kind in CONSENT_KINDS]
        told = {
            **self._overtaken(operations),
            **self._invited_before(consents),
            **opted_out_before(settings, consents),
            **self._inbox.withdrawn(operations),
            **named_erased(settings, operations),
        }
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

    def _overtaken(self, operations: Sequence[Operation]) -> Mapping[str, str]:
        persons = [operation for operation in operations if operation.kind in PERSON_KINDS]
        if not persons:
            return {}
        contacts = {o.external_person_id for o in persons if o.external_person_id}
        newer: dict[str | None, list[Operation]] = {}
        with closing(RealtimeBook(self._project.settings.ledger_url)) as book:
            for one in book.sent_in_real_time(contacts, min(o.as_of for o in persons)):
                newer.setdefault(one.external_person_id, []).append(one)
        return {
            operation.operation_id: SENT_SINCE
            for operation in persons
            if any(
                _overtakes(one, operation) for one in newer.get(operation.external_person_id, ())
            )
        }

    def _invited_before(self, consents: Sequence[Operation]) -> Mapping[str, str]:
        """Invitations whose person was asked by another diff set of the day, landed otherwise.

        A diff set does not know what its own day sent: made anew, it is to be the same.
        """
        contacts = {o.external_person_id for o in consents if o.external_person_id}
        if not contacts:
            return {}
        asked: dict[tuple[str, str | None, str | None], set[str]] = {}
        with closing(SentChanges(self._project.settings.ledger_url)) as book:
            for day in {one.day for one in consents}:
                for contact, listed, diff_set in book.invitations(day, contacts):
                    asked.setdefault((day, contact, listed), set()).add(diff_set)
        return {
            one.operation_id: INVITED_TODAY
            for one in consents
            if asked.get((one.day, one.external_person_id, one.subscription_list_id), set())
            - {one.diff_set}
        }

    def _opted_in(self, contacts: Collection[str]) -> set[tuple[str, str]]:
        """(contact, list) of these contacts, by the rules of the reconcile."""
        said = consents_in(self._project, contacts, OPTED_IN)
        return {(cell.contact, cell.list) for cell in said}


def _overtakes(sent: Operation, operation: Operation) -> bool:
    """Whether what was sent to the same person is newer, and about a field of the operation."""
    is_later = sent.as_of > operation.as_of
    return is_later and any(operation.touches(change.field) for change in sent.changes)
