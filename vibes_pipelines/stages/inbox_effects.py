"""Callbacks that are of no subscription: persons to the CRM by field authority, texts to the desk.

Which fields are written is decided by a slice of the reconcile, never here. What is only to be
noted is left to `inbox_facts`.
"""

from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from hashlib import sha256

from vibes_pipelines.crm.write_back import CHANGED_MEANWHILE, LOCKED_IN_CRM
from vibes_pipelines.delivery.ports import CrmFieldChange
from vibes_pipelines.reconcile.guards import Workload, check_guards
from vibes_pipelines.stages.crm_side import crm_writer
from vibes_pipelines.stages.inbox_facts import RECORDED_ONLY
from vibes_pipelines.stages.inbox_opt_outs import ECHO, ECHO_WITHIN
from vibes_pipelines.stages.project import Project
from vibes_pipelines.stages.slices import PERSON_EVENTS, Slice, held, reconcile_slice
from vibes_pipelines.store.inbox import Finished, Inbox, StoredCallback
from vibes_pipelines.store.realtime import RealtimeBook, Sent
from vibes_pipelines.store.records import Operation
from vibes_pipelines.sync_config.realtime import OPT_OUT_WORDS
from vibes_pipelines.vibes.bodies import person_body, shows
from vibes_pipelines.vibes.callback_facts import asks_to_stop, person_state
from vibes_pipelines.vibes.callbacks import UNMATCHED, CallbackError, body_document

FIELDS_WRITTEN = "fields_written"
NOTHING_TO_WRITE = "nothing_to_write"
OVERTAKEN = "overtaken"
LEFT_TO_DAILY = "left_to_daily"
REFUSED_BY_CRM = "value_does_not_fit"
ASKS_TO_STOP = "a text that matched no campaign asks to stop: look, and end what is to be ended"


def settle_others(
    project: Project, inbox: Inbox, page: Sequence[StoredCallback], *, dry_run: bool
) -> list[Finished]:
    """Acts on callbacks of persons and of unmatched texts; the others are recorded only.

    Raises:
        CrmError: the CRM does not answer, or is not as sync.yaml maps it.
    """
    wanted = [c.id for c in page if c.event_type in {*PERSON_EVENTS, UNMATCHED}]
    bodies = inbox.bodies(wanted)
    ended: list[Finished] = []
    persons: list[StoredCallback] = []
    for callback in page:
        if callback.event_type in PERSON_EVENTS and callback.external_person_id:
            persons.append(callback)
        elif callback.event_type == UNMATCHED and _asks_to_stop(project, bodies[callback.id]):
            ended.append(Finished(callback.id, "parked", ASKS_TO_STOP))
        else:
            ended.append(Finished(callback.id, "ignored", RECORDED_ONLY))
    return ended + _settle_persons(project, inbox, persons, bodies, dry_run=dry_run)


def _asks_to_stop(project: Project, body: bytes) -> bool:
    section = project.config.callbacks
    return asks_to_stop(body, section.opt_out_words if section else OPT_OUT_WORDS)


def _settle_persons(
    project: Project,
    inbox: Inbox,
    persons: Sequence[StoredCallback],
    bodies: Mapping[int, bytes],
    *,
    dry_run: bool,
) -> list[Finished]:
    ended, newest = _newest_of_each(persons, bodies)
    if not newest:
        return ended
    if held(project):
        return ended + [Finished(c.id, "ignored", LEFT_TO_DAILY) for c in newest.values()]
    position = ",".join(str(callback.id) for callback in newest.values())
    found = reconcile_slice(project, list(newest), sha256(position.encode()).hexdigest())
    writes = {operation.external_person_id or "": operation for operation in found.crm}
    if _exceeds_guards(project, inbox, found):
        ends = dict.fromkeys(writes, ("ignored", LEFT_TO_DAILY))
    elif dry_run:
        ends = dict.fromkeys(writes, ("applied", FIELDS_WRITTEN))
    else:
        ends = _write(project, writes)
    ends |= dict.fromkeys(found.left, ("ignored", LEFT_TO_DAILY))
    sent = _sent(project, newest)
    for contact, callback in newest.items():
        is_echo = _is_echo(project, callback, bodies[callback.id], sent)
        plain = ("ignored", ECHO if is_echo else NOTHING_TO_WRITE)
        status, reason = ends.get(contact, plain)
        ended.append(Finished(callback.id, status, reason))  # type: ignore[arg-type]
    return ended


def _newest_of_each(
    persons: Sequence[StoredCallback], bodies: Mapping[int, bytes]
) -> tuple[list[Finished], dict[str, StoredCallback]]:
    """The newest callback of each contact: a body has the person's whole state."""
    ended: list[Finished] = []
    newest: dict[str, StoredCallback] = {}
    for callback in persons:
        try:
            person_state(bodies[callback.id])
        except CallbackError as malformed:
            ended.append(Finished(callback.id, "parked", str(malformed)))
            continue
        overtaken = newest.get(callback.external_person_id or "")
        if overtaken:
            ended.append(Finished(overtaken.id, "ignored", OVERTAKEN))
        newest[callback.external_person_id or ""] = callback
    return ended, newest


def _write(project: Project, writes: Mapping[str, Operation]) -> dict[str, tuple[str, str]]:
    rows = [
        CrmFieldChange(contact, change.field, change.after, change.before)
        for contact, operation in writes.items()
        for change in operation.changes
    ]
    answers = crm_writer(project).apply_fields(rows) if rows else []
    ends = dict.fromkeys(writes, ("applied", FIELDS_WRITTEN))
    for row, answer in zip(rows, answers, strict=True):
        if answer.error_class in {CHANGED_MEANWHILE, LOCKED_IN_CRM}:
            ends[row.contact_id] = ("ignored", LEFT_TO_DAILY)
        elif answer.outcome == "rejected":
            ends[row.contact_id] = ("parked", REFUSED_BY_CRM)
    return ends


def _exceeds_guards(project: Project, inbox: Inbox, found: Slice) -> bool:
    """Whether today's writes to the CRM, these included, are more than the guards let pass."""
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    clears = sum(any(c.action == "clear" for c in one.changes) for one in found.crm)
    work = Workload(
        contacts=found.contacts_landed,
        persons=found.persons_landed,
        adds=0,
        updates=0,
        clears=0,
        crm_updates=len(found.crm) + inbox.finished_since(FIELDS_WRITTEN, midnight),
        crm_clears=clears,
        opt_outs_to_platform=0,
        opt_outs_to_crm=0,
    )
    return bool(check_guards(project.config.guards, work, None, relative=True))


def _sent(project: Project, newest: Mapping[str, StoredCallback]) -> dict[str, list[Sent]]:
    since = min(callback.received_at for callback in newest.values()) - ECHO_WITHIN
    by_contact: dict[str, list[Sent]] = {}
    with closing(RealtimeBook(project.settings.ledger_url)) as book:
        for one in book.sent(list(newest), since):
            by_contact.setdefault(one.operation.external_person_id or "", []).append(one)
    return by_contact


def _is_echo(
    project: Project,
    callback: StoredCallback,
    body: bytes,
    sent: Mapping[str, Sequence[Sent]],
) -> bool:
    """Whether we wrote what the callback tells: the same values, not long before."""
    types = {mapped.to: mapped.type for mapped in project.config.fields}
    person = body_document(body)["person"]
    return any(
        one.at <= callback.received_at <= one.at + ECHO_WITHIN
        and shows(
            person,
            person_body((c.as_json() for c in one.operation.changes), types),
        )
        for one in sent.get(callback.external_person_id or "", ())
        if one.operation.kind != "opt_out"
    )
