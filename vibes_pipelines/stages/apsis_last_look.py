"""The last look at our own side before anything leaves for APSIS One: real time, then the CRM.

A diff set may wait for days, and a full sync writes for an hour. Who takes the consent back in the
CRM meanwhile is not opted in. What APSIS One says meanwhile is looked at by its sender.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from vibes_pipelines.reconcile.consent import OPTED_IN
from vibes_pipelines.stages.apsis_sync import ApsisSync
from vibes_pipelines.stages.consents_now import consents_in
from vibes_pipelines.stages.last_look import NOT_OPTED_IN
from vibes_pipelines.store.realtime import RealtimeBook
from vibes_pipelines.store.records import Kind, Operation

VALUES: frozenset[Kind] = frozenset({"add", "update"})

NEWER = "a newer change of this person was sent in real time"


@dataclass(frozen=True)
class LastLook:
    """Looks into what real time sent, then into the CRM."""

    sync: ApsisSync
    newer: "NewerWatch"

    def withdrawn(self, operations: Sequence[Operation]) -> Mapping[str, str]:
        """Operations that must not leave any more: operation id → why.

        Raises:
            CrmError: the CRM cannot be read; nobody is opted in then, and the operations stay open.
        """
        told = self.newer.withdrawn(operations)
        asking = [one for one in operations if one.operation_id not in told]
        return {**told, **no_longer_opted_in(self.sync, asking)}


def no_longer_opted_in(sync: ApsisSync, operations: Sequence[Operation]) -> Mapping[str, str]:
    """Opt-ins whose contact does not say so any more in the CRM: operation id → why.

    A contact that is gone, or shows nothing, says nothing either.

    Raises:
        CrmError: the CRM cannot be read.
    """
    asking = [one for one in operations if one.kind == "opt_in"]
    contacts = {one.external_person_id for one in asking if one.external_person_id}
    if not asking:
        return {}
    cells = consents_in(sync.landing_project, contacts, OPTED_IN)
    opted_in = {(cell.contact, cell.list) for cell in cells}
    return {
        one.operation_id: NOT_OPTED_IN
        for one in asking
        if (one.external_person_id, one.subscription_list_id) not in opted_in
    }


@dataclass(frozen=True)
class NewerWatch:
    """Knows which persons had something sent in real time after a diff set was made.

    Values give way to newer values. An opt-in and a deletion give way to anything: the person was
    compared anew, and wanted them no more or had them sent. Opt-outs always leave; one that is
    there already is found out right before it is written.
    """

    book: RealtimeBook

    def withdrawn(self, operations: Sequence[Operation]) -> Mapping[str, str]:
        """Operations that a newer one has taken the place of: operation id → why."""
        if not operations:
            return {}
        since = min(operation.as_of for operation in operations)
        contacts = {o.external_person_id for o in operations if o.external_person_id}
        newer: defaultdict[str | None, set[Kind]] = defaultdict(set)
        for sent in self.book.sent(contacts, since):
            if sent.in_real_time:
                newer[sent.operation.external_person_id].add(sent.operation.kind)
        return {
            one.operation_id: NEWER
            for one in operations
            if _gives_way(one.kind, newer.get(one.external_person_id, set()))
        }


def _gives_way(kind: Kind, newer: Collection[Kind]) -> bool:
    if kind == "opt_out":
        return False
    return bool(VALUES & set(newer) if kind in VALUES else newer)
