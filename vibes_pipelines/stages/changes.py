"""Changes of the CRM reach the platform between two daily runs: opt-outs first, then persons.

What is to be done about a contact is decided by a slice of the reconcile; the guards and the first
approval hold here too. Whatever is left undone is the daily job's: it compares everything.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterator, Sequence, Sized
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime

from vibes_pipelines.crm.changes import Changed, CrmChanges
from vibes_pipelines.reconcile.consent import OPTED_OUT
from vibes_pipelines.reconcile.guards import Workload, check_guards
from vibes_pipelines.reconcile.guards import held_lanes as lanes_held_by
from vibes_pipelines.stages.api import person_api
from vibes_pipelines.stages.api_rate import calls_of_deliveries
from vibes_pipelines.stages.carried import Carried
from vibes_pipelines.stages.consents_now import consents_in
from vibes_pipelines.stages.erase_lock import not_while_erasing
from vibes_pipelines.stages.interrupts import run_until_interrupted
from vibes_pipelines.stages.late_joins import late_joins
from vibes_pipelines.stages.masking import hash_of
from vibes_pipelines.stages.project import Project
from vibes_pipelines.stages.slices import Slice, held, reconcile_slice
from vibes_pipelines.store.ledger_rows import chunks
from vibes_pipelines.store.realtime import RealtimeBook
from vibes_pipelines.store.records import Kind, Operation, Receipt
from vibes_pipelines.vibes.rate_limit import RateLimiter

CURSOR = "crm_changes"
SEEN = "crm_changes_seen"
"""Marks of what the last look saw, which the next one reads again and does not act on."""

OPT_OUTS: tuple[Kind, ...] = ("opt_out",)

FROM_THE_FUTURE = (
    "some contacts changed in the future by contacts.changes.column: changed again before then,"
    " they are seen by the daily job only; set the CRM's clock, and write the column in UTC"
)
TOO_MANY = "more contacts changed than contacts.changes.max_batch"
TOO_ENTANGLED = "too many contacts or persons share identifiers with some contacts"
NOT_SET = "contacts.changes of sync.yaml is not set"


def changes_waiting(project: Project) -> int | None:
    """A number for what waits to be carried, the same while the same waits; None when nothing does.

    Raises:
        CrmError: the CRM cannot be read.
    """
    if project.config.contacts.changes is None or held(project):
        return None
    with closing(RealtimeBook(project.settings.ledger_url)) as book:
        pages = [[*page.contacts, page.position, str(page.rows)] for page in _pages(project, book)]
        unfinished = [operation.operation_id for operation in book.unfinished()]
        joined = late_joins(project, book)
        if not joined.contacts:
            joined.looked_at(book)
    if not pages and not unfinished and not joined.contacts:
        return None
    waiting = [pages, unfinished, list(joined.contacts.items())]
    whole = hashlib.sha256(json.dumps(waiting).encode())
    return int(whole.hexdigest()[:12], 16)


@not_while_erasing
def carry_changes(project: Project, *, dry_run: bool = True) -> Carried:
    """Sends what changed in the CRM since the last look to the platform.

    Raises:
        CrmError: the CRM cannot be read.
        VibesAuthError: the platform refuses the login; everything is sent with the next look.
    """
    if project.config.contacts.changes is None:
        return Carried(dry_run, why=(NOT_SET,))
    if reason := held(project):
        return Carried(dry_run, why=(reason,))
    book_url = project.settings.ledger_url
    with closing(RealtimeBook(book_url)) as book, calls_of_deliveries(project) as calls:
        carrier = _Carrier(project, book, calls, dry_run=dry_run)
        carrier.take_up()
        carrier.look()
        carrier.look_at_late_joins()
        return carrier.carried()


def changed_contacts(project: Project, book: RealtimeBook) -> list[str]:
    """Contacts that changed since the last look at all changes, each once, in their order.

    Raises:
        CrmError: the CRM cannot be read.
    """
    return list(dict.fromkeys(c for page in _pages(project, book) for c in page.contacts))


def carry_opt_outs_of(
    project: Project,
    book: RealtimeBook,
    contacts: Collection[str],
    calls: RateLimiter,
    *,
    dry_run: bool,
) -> Carried:
    """Sends the opt-outs of these contacts and no more, within `calls`.

    It moves no mark: the next look at all changes finds these contacts as if nobody had looked.

    Raises:
        CrmError: the CRM cannot be read.
        VibesAuthError: the platform refuses the login.
    """
    carrier = _Carrier(project, book, calls, dry_run=dry_run, only_opt_outs=True)
    carrier.take_up()
    for page in chunks(contacts, carrier.page_rows):
        carrier.carry(page, "opt-outs alone")
    return carrier.carried()


class _Carrier:
    """One look: pages of changed contacts, each compared, written down, then sent."""

    def __init__(
        self,
        project: Project,
        book: RealtimeBook,
        calls: RateLimiter,
        *,
        dry_run: bool,
        only_opt_outs: bool = False,
    ) -> None:
        self._project = project
        self._calls = calls
        self._only_opt_outs = only_opt_outs
        self._book = book
        self._dry_run = dry_run
        self._today = datetime.now(UTC).date().isoformat()
        self._done: Counter[str] = Counter()
        self._classes: Counter[str] = Counter()
        self._why: dict[str, None] = {}
        self._contacts: set[str] = set()
        self._is_bulk = False
        self._taken_up: set[str] = set()
        self._let_pass: set[_Whose] = set()
        changes = project.config.contacts.changes
        self.page_rows = changes.max_batch if changes else 1

    def look(self) -> None:
        """Carries every page of changed contacts; more than one page is for the daily job."""
        pages = list(_pages(self._project, self._book))
        self._is_bulk = len(pages) > 1
        compared = self._carry_opted_out(pages) if self._is_bulk else frozenset()
        seen: tuple[str, ...] = ()
        for page in pages:
            self._carry_rest(page, [one for one in page.contacts if one not in compared])
            self._finish(page)
            if page.ahead:
                self._why[FROM_THE_FUTURE] = None
            seen = page.seen
        if seen and not self._dry_run:  # only once every page had its effects
            self._book.move_cursor(SEEN, json.dumps(seen))

    def look_at_late_joins(self) -> None:
        """Compares who said no before it was known here that they had joined."""
        joined = late_joins(self._project, self._book)
        for some in chunks(joined.contacts, self.page_rows):
            self.carry(some, "joined")
        if not self._dry_run:
            joined.looked_at(self._book)

    def _carry_opted_out(self, pages: Sequence[Changed]) -> frozenset[str]:
        """Of so many the opt-outs leave first, wherever among them they are; returns whose."""
        contacts = [contact for page in pages for contact in page.contacts]
        cells = consents_in(self._project, contacts, OPTED_OUT)
        opted_out = dict.fromkeys(cell.contact for cell in cells)
        for some in chunks(opted_out, self.page_rows):
            self.carry(some, "opted out")
        return frozenset(opted_out)

    def _carry_rest(self, page: Changed, contacts: Collection[str]) -> None:
        """Of too many contacts nothing leaves but opt-outs: by not matching, if that is one."""
        if self._is_bulk and self._project.config.contacts.when_unmatched != "opt_out":
            self._leave(set(contacts) - self._contacts, TOO_MANY)
            self._contacts.update(contacts)
        else:
            self.carry(contacts, page.position or "")

    def take_up(self) -> None:
        """What a cut look left is compared anew: somebody may have said otherwise meanwhile.

        The opt-out of a contact that the CRM does not have any more leaves as it is.
        """
        unfinished = self._book.unfinished(OPT_OUTS if self._only_opt_outs else None)
        if self._dry_run or not unfinished:
            return
        opt_outs = [operation for operation in unfinished if operation.kind == "opt_out"]
        persons = [operation for operation in unfinished if operation.kind != "opt_out"]
        self._book.withdraw([operation.operation_id for operation in persons])
        self._taken_up = {operation.operation_id for operation in opt_outs}
        self._let_pass = {_whose(operation) for operation in opt_outs}
        contacts = dict.fromkeys(o.external_person_id for o in unfinished if o.external_person_id)
        present = self.carry(list(contacts), "taken up")
        gone = [o for o in opt_outs if o.external_person_id not in present]
        self._send(gone)
        # Not before: until the new ones are written down these are what is known of them. No guard
        # holds those; where there is none, the comparison says that nothing is left to be done.
        self._book.withdraw(self._taken_up - {operation.operation_id for operation in gone})

    def carry(self, contacts: Collection[str], position: str) -> frozenset[str]:
        """Compares these contacts with their persons and sends what differs.

        Returns those that the CRM has.
        """
        if not contacts:
            return frozenset()
        self._contacts.update(contacts)
        found = reconcile_slice(self._project, contacts, self._name(position))
        persons = [] if self._only_opt_outs else self._new_persons(found)
        if not self._only_opt_outs:
            self._leave(found.left, TOO_ENTANGLED)
        opt_outs = self._new_opt_outs(found)
        opt_outs, persons = self._within_guards(found, opt_outs, persons)
        if self._is_bulk and persons:
            self._leave(persons, TOO_MANY)
            persons = []
        self._done.update(opt_outs=len(opt_outs), persons=len(persons))
        for operations in () if self._dry_run else (opt_outs, persons):
            today = [replace(o, day=self._today, route_reason="in real time") for o in operations]
            self._book.plan(today)
            self._send(today)
        return found.present

    def _finish(self, page: Changed) -> None:
        """Records that a page had its effects; a look that is cut before begins with it again."""
        if self._dry_run:
            return
        changes = self._project.config.contacts.changes
        if page.rows and changes is not None:
            crm_url = self._project.settings.crm_url
            hashed = hash_of(self._project.settings)
            CrmChanges(crm_url, self._project.config, changes, hashed).take_off(page.rows)
        elif page.position is not None:
            self._book.move_cursor(CURSOR, page.position)

    def carried(self) -> Carried:
        """What it came to."""
        return Carried(
            self._dry_run,
            contacts=len(self._contacts),
            **self._done,
            why=tuple(self._why),
            error_classes=dict(sorted(self._classes.items())),
        )

    def _name(self, position: str) -> str:
        """Tells this slice from every other: a value may come back that was sent before."""
        text = f"{position} {self._book.size()}"
        return f"realtime {hashlib.sha256(text.encode()).hexdigest()[:40]}"

    def _new_opt_outs(self, found: Slice) -> list[Operation]:
        """Those that were not sent since the share was made, on the same evidence.

        What was sent before a join arrived here may not have ended it; again it changes nothing.
        """
        contacts = [operation.external_person_id or "" for operation in found.opt_outs]
        sent = {
            _same_opt_out(one.operation)
            for one in self._book.sent(contacts, found.share_as_of)
            if one.operation.kind == "opt_out"
            # What the daily job got no answer to may not have arrived; again it changes nothing.
            and (one.in_real_time or one.operation.status == "accepted")
            and one.operation.operation_id not in self._taken_up
            and not one.at < found.joined_by.get(_whose(one.operation), one.at)
        }
        return [o for o in found.opt_outs if _same_opt_out(o) not in sent]

    def _new_persons(self, found: Slice) -> list[Operation]:
        """Without those that the platform refused the last time, with the same values."""
        newest = self._book.newest([o.external_person_id or "" for o in found.persons])
        return [
            o for o in found.persons if not _was_refused(newest.get(o.external_person_id or ""), o)
        ]

    def _within_guards(
        self, found: Slice, opt_outs: list[Operation], persons: list[Operation]
    ) -> tuple[list[Operation], list[Operation]]:
        """What the guards let pass today, what was sent before included.

        An opt-out that they let pass before passes again, and counts once.
        """
        before = self._book.counts(self._today)
        let_pass = self._let_pass | self._book.opt_outs(self._today)
        again = [o for o in opt_outs if _whose(o) in let_pass]
        new = [o for o in opt_outs if _whose(o) not in let_pass]
        adds = sum(operation.kind == "add" for operation in persons)
        clears = sum(any(c.action == "clear" for c in o.changes) for o in persons)
        work = Workload(
            contacts=found.contacts_landed,
            persons=found.persons_landed,
            adds=before.get("add", 0) + adds,
            updates=before.get("update", 0) + len(persons) - adds,
            clears=self._book.clears(self._today) + clears,
            crm_updates=0,
            crm_clears=0,
            opt_outs_to_platform=before.get("opt_out", 0) + len(new),
            opt_outs_to_crm=0,
        )
        guards = self._project.config.guards
        breaches = check_guards(guards, work, None, relative=True)
        lanes = lanes_held_by(breaches)
        for breach in breaches:
            self._why[breach.message] = None
        if "opt_outs" in lanes:
            self._leave(new, "guards.opt_outs")
            opt_outs = again
        if "persons" in lanes:
            self._leave(persons, "guards")
            persons = []
        return opt_outs, persons

    def _leave(self, what: Sized, why: str) -> None:
        if len(what):
            self._done["left_to_daily"] += len(what)
            self._why[f"{why}: the daily job carries them"] = None

    def _send(self, operations: Sequence[Operation]) -> None:
        """Sends what is not answered yet: the intent is on disk before, the receipt after."""
        if not operations:
            return
        self._book.mark_sent([operation.operation_id for operation in operations])
        sending = _send_all(self._project, operations, self._calls)
        receipts, fault = run_until_interrupted(sending)
        self._book.record(receipts)
        if fault is not None:
            raise fault
        self._done.update(taken.status for taken in receipts)
        self._classes.update(taken.error_class for taken in receipts if taken.error_class)


async def _send_all(
    project: Project, operations: Sequence[Operation], calls: RateLimiter
) -> tuple[list[Receipt], Exception | None]:
    # The HTTP client is slow to import; a process that asks nobody does without it.
    from vibes_pipelines.delivery.sends import Sender  # noqa: PLC0415
    from vibes_pipelines.delivery.together import send_together  # noqa: PLC0415

    types = {mapped.to: mapped.type for mapped in project.config.fields}
    async with person_api(project, calls) as api:
        return await send_together(Sender(api, types), operations)


def _pages(project: Project, book: RealtimeBook) -> Iterator[Changed]:
    changes = project.config.contacts.changes
    if changes is None:
        return iter(())
    crm = CrmChanges(project.settings.crm_url, project.config, changes, hash_of(project.settings))
    return crm.since(book.cursor(CURSOR), json.loads(book.cursor(SEEN) or "[]"))


_Whose = tuple[str | None, str | None]


def _whose(operation: Operation) -> _Whose:
    return operation.external_person_id, operation.subscription_list_id


def _same_opt_out(operation: Operation) -> tuple[object, ...]:
    evidence = tuple(change.after for change in operation.changes)
    return operation.external_person_id, operation.subscription_list_id, evidence


def _was_refused(last: Operation | None, operation: Operation) -> bool:
    if last is None or last.status != "rejected" or last.retry_later:
        return False
    return _values(last) == _values(operation)


def _values(operation: Operation) -> set[tuple[str, str | None]]:
    return {(change.field, change.after) for change in operation.changes}
