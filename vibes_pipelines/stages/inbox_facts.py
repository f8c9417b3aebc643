"""Facts of callbacks: devices, wallet items, participations, events and subscriptions for the CRM.

They are noted in the CRM's table of facts when sync.yaml names one; consent is no fact, and is
carried elsewhere.
"""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from vibes_pipelines.crm.facts import ContactFact, FactTable, Noted
from vibes_pipelines.stages.inbox_opt_outs import (
    CRM_REFUSES,
    LIST_NOT_MAPPED,
    OPT_IN_NOT_CARRIED,
)
from vibes_pipelines.stages.inbox_persons import contacts_by_share
from vibes_pipelines.stages.project import Project
from vibes_pipelines.store.inbox import Finished, Inbox, StoredCallback
from vibes_pipelines.sync_config.realtime import Callbacks
from vibes_pipelines.vibes.callback_facts import Fact, fact_of
from vibes_pipelines.vibes.callbacks import CallbackError

RECORDED_ONLY = "recorded only"
NOTED = "noted"
NO_CONTACT = "no_contact"
OLDER = "older_fact"
LOCKED = "locked"

log = logging.getLogger("vibes_pipelines.callbacks")

_OF_NO_CONSENT = frozenset({RECORDED_ONLY, LIST_NOT_MAPPED})
_NOTHING_ELSE = _OF_NO_CONSENT | {OPT_IN_NOT_CARRIED}
_ENDS: Mapping[Noted, str] = {
    "noted": NOTED,
    "older": OLDER,
    "unknown_contact": NO_CONTACT,
    "refused": CRM_REFUSES,
    "locked": LOCKED,
}


def note_facts(
    project: Project,
    inbox: Inbox,
    page: Sequence[StoredCallback],
    ended: Sequence[Finished],
    *,
    dry_run: bool,
) -> list[Finished]:
    """Notes the facts of a page; returns its ends, changed where a fact is all there was to do.

    Nothing is said of one whose fact another session has locked: it waits for the next drain.

    Raises:
        CrmError: there is no such table, or it has not the columns of a fact.
    """
    section = project.config.callbacks
    if section is None or section.facts_table is None:
        return list(ended)
    parked = {finished.id for finished in ended if finished.status == "parked"}
    read, unreadable = _read(inbox, [c for c in page if c.id not in parked], section)
    facts = _of_contacts(project, read)
    ends: dict[int, str] = {callback.id: NO_CONTACT for callback, _ in read}
    if dry_run:
        ends |= dict.fromkeys(facts, NOTED)
    elif facts:
        table = FactTable(project.settings.crm_url, project.config, section.facts_table)
        answers = table.note(list(facts.values()))
        ends |= {n: _ENDS[answer] for n, answer in zip(facts, answers, strict=True)}
        refused = Counter(answers)["refused"]
        if refused:
            log.warning("%d facts do not fit into %s, or it refuses them", refused, table.table)
    waits = {number for number, reason in ends.items() if reason == LOCKED}
    return [_end(finished, ends, unreadable) for finished in ended if finished.id not in waits]


def _end(finished: Finished, ends: Mapping[int, str], unreadable: Mapping[int, str]) -> Finished:
    """What became of a callback; an effect of another kind keeps its own reason."""
    if finished.id in unreadable:
        return Finished(finished.id, "parked", unreadable[finished.id])
    reason = ends.get(finished.id)
    if reason == NOTED and finished.reason in _NOTHING_ELSE:
        return replace(finished, status="applied", reason=NOTED)
    if reason == CRM_REFUSES and finished.reason in _OF_NO_CONSENT:
        return replace(finished, status="parked", reason=CRM_REFUSES)
    if reason is not None and finished.reason == RECORDED_ONLY:
        return replace(finished, reason=reason)
    return finished


def _read(
    inbox: Inbox, page: Sequence[StoredCallback], section: Callbacks
) -> tuple[list[tuple[StoredCallback, Fact]], dict[int, str]]:
    bodies = inbox.bodies([callback.id for callback in page])
    read: list[tuple[StoredCallback, Fact]] = []
    unreadable: dict[int, str] = {}
    for callback in page:
        try:
            fact = fact_of(
                callback.event_type or "", bodies[callback.id], section.wallet_contact_token
            )
        except CallbackError as malformed:
            unreadable[callback.id] = str(malformed)
        else:
            if fact is not None:
                read.append((callback, fact))
    return read, unreadable


def _of_contacts(
    project: Project, read: Sequence[tuple[StoredCallback, Fact]]
) -> dict[int, ContactFact]:
    """Callback id → its fact, where the contact is known."""
    nameless = [c for c, fact in read if not (c.external_person_id or fact.contact)]
    by_share = contacts_by_share(project, nameless)
    facts = {}
    for callback, fact in read:
        contact = callback.external_person_id or fact.contact or by_share.get(callback.id)
        if contact:
            facts[callback.id] = ContactFact(
                contact, fact.kind, fact.subject, fact.state, callback.order_at
            )
    return facts
