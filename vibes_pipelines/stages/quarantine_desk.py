"""The quarantine desk: the cases of the newest day, and what a person decides about them.

A decision is an input of the next reconcile: it counts from the first day after the newest one that
was reconciled, so that no past day changes by it. What it does is in `reconcile.decisions`. Values
are masked unless they are asked for in clear.
"""

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from vibes_pipelines.data_files import parquet
from vibes_pipelines.reconcile.cases import CASES
from vibes_pipelines.reconcile.decisions import COLUMNS, CONTACT_RECORD
from vibes_pipelines.reconcile.errors import unreadable
from vibes_pipelines.reconcile.findings import DECIDABLE, KINDS
from vibes_pipelines.stages.masking import hash_key, keyed_hash, mask
from vibes_pipelines.stages.project import Project
from vibes_pipelines.store.decisions import Action, Decision, Decisions
from vibes_pipelines.store.erasures import Erasure, Erasures

DECISIONS = "decisions.parquet"
"""The decisions that a day's reconcile was made with, in the folder of its diff set."""

PERSONS = "share/persons"
_SHOWN_DIGITS = 12
_LEAST_DIGITS = 6
_ABOUT_IDENTITY: frozenset[Action] = frozenset({"link", "new-person"})
_SCHEMA = pa.schema([(name, pa.string()) for name in COLUMNS])


class DeskError(ValueError):
    """A case that is not there, or a decision that cannot be taken; the message says the cure."""


@dataclass(frozen=True)
class Case:
    """One case as of `day`. `decision` is what stands about it, `rows` how many rows it has.

    The state is open, ignored, lapsed (a decision stands and does not hold), decided (it counts
    from the next run on) or resolved (its decision holds: nothing is in quarantine any more).
    """

    case_id: str
    day: str
    kind: str
    source: str
    state: str
    detail: str
    record: str | None
    external_person_id: str | None
    person_key: str | None
    mdn: str | None
    others: tuple[str, ...]
    evidence: str | None
    own: str | None
    rows: int = 1
    decision: Decision | None = None

    def as_json(self, key: bytes | None) -> dict[str, Any]:
        """The case for machines; with a key, personal values masked by it."""
        case = self if key is None else self._masked(key)
        document = asdict(case)
        for name in ("record", "own"):
            del document[name]
        if case.decision is not None:
            document["decision"] = _told(case.decision)
        return document

    def line(self, key: bytes | None) -> str:
        """One line for a person."""
        case = self if key is None else self._masked(key)
        who = case.external_person_id or case.person_key or case.mdn or "-"
        return f"{self.case_id}  {self.state:8} {self.kind:22} {self.source:8} {who}: {self.detail}"

    def _masked(self, key: bytes) -> "Case":
        decision = self.decision
        if decision is not None and decision.target is not None:
            decision = replace(decision, target=mask(decision.target, key))
        others = tuple(mask(one, key) for one in self.others)
        return replace(
            self,
            external_person_id=mask(self.external_person_id, key) or None,
            person_key=mask(self.person_key, key) or None,
            mdn=mask(self.mdn, key) or None,
            others=others,
            evidence=mask(self.evidence, key) or None,
            decision=decision,
        )


def _told(decision: Decision) -> dict[str, str | None]:
    return {
        "action": decision.action,
        "person_key": decision.target,
        "reason": decision.reason,
        "decided_by": decision.decided_by,
        "decided_at": decision.decided_at.isoformat() if decision.decided_at else None,
        "after_day": decision.after_day,
    }


def decisions_file(project: Project, day: str, folder: Path) -> Path | None:
    """Writes what counts on `day` into `folder` as the reconcile reads it; None when nothing does.

    Rows of people who were erased do not depend on the day: the pseudonyms stand in every day.
    """
    with closing(Decisions(project.settings.ledger_url)) as book:
        standing = book.standing(day)
    rows = [
        {
            "action": one.action,
            "kind": one.kind,
            "source": one.source,
            "record": one.record,
            "target": one.target,
            "evidence": one.evidence,
            "since": one.after_day,
            "reason": one.reason,
        }
        for one in standing.values()
    ]
    pseudonyms = sorted({name for one in _erasures(project) for name in one.pseudonyms})
    rows += [{"action": "erased", "target": pseudonym} for pseudonym in pseudonyms]
    if not rows:
        return None
    path = folder / DECISIONS
    pq.write_table(pa.Table.from_pylist(rows, _SCHEMA), path)
    return path


def list_cases(project: Project, kind: str | None = None) -> list[Case]:
    """The cases of the newest day, and those that a standing decision resolved.

    Raises:
        DeskError: there is no such kind, no day is reconciled yet, or its cases cannot be read.
    """
    if kind is not None and kind not in KINDS:
        raise DeskError(f"no kind {kind!r}; there are {', '.join(sorted(KINDS))}")
    day, folder = _newest(project)
    with closing(Decisions(project.settings.ledger_url)) as book:
        standing = book.standing()
    cases = _read(project, day, folder / CASES, standing)
    resolved = [_resolved(day, one) for case, one in standing.items() if case not in cases]
    found = [*cases.values(), *resolved]
    return [case for case in found if kind is None or case.kind == kind]


def find_case(project: Project, case_id: str) -> Case:
    """One case by its id, or by the first six or more characters of it.

    Raises:
        DeskError: no case, or several, begin so.
    """
    found = [
        case
        for case in list_cases(project)
        if case.case_id == case_id
        or (len(case_id) >= _LEAST_DIGITS and case.case_id.startswith(case_id))
    ]
    if len(found) != 1:
        many = f"{len(found)} cases begin" if found else "no case of the newest day begins"
        msg = f"{many} with {case_id!r}; see `vibes-pipelines quarantine list`"
        raise DeskError(msg)
    return found[0]


def resolve(
    project: Project,
    case_id: str,
    action: Action,
    reason: str,
    decided_by: str,
    person_key: str | None = None,
) -> Decision:
    """Records a decision about a case; it counts from the next day on.

    Raises:
        DeskError: the case is not there, or its evidence does not allow this decision.
    """
    case = find_case(project, case_id)
    _require_reason(reason)
    if case.kind == "erased":
        msg = f"{case.case_id}: an erased person is let in again by `quarantine undo` only"
        raise DeskError(msg)
    if case.state == "resolved" or case.record is None:
        cure = "undo it first" if case.record else "it has no identifier; correct it at its source"
        raise DeskError(f"{case.case_id}: nothing to decide about: {cure}")
    if (person_key is not None) != (action == "link"):
        raise DeskError("a link, and nothing else, names a person; give it with --person-key")
    if action in _ABOUT_IDENTITY:
        _require_identity(project, case, action, person_key)
    target = person_key.strip().lower() if person_key else None
    decision = Decision(
        case_id=case.case_id,
        kind=case.kind,
        source=case.source,
        action=action,
        record=case.record,
        target=target,
        evidence=case.own if action in _ABOUT_IDENTITY else case.evidence,
        reason=reason.strip(),
        decided_by=decided_by,
        after_day=case.day,
    )
    with closing(Decisions(project.settings.ledger_url)) as book:
        book.add(decision)
    return decision


def undo(project: Project, case_id: str, reason: str, decided_by: str) -> None:
    """Takes a decision back; the case is open again from the next day on.

    Undoing an `erased` case lets the person in again with its next landing.

    Raises:
        DeskError: nothing was decided about the case.
    """
    case = find_case(project, case_id)
    _require_reason(reason)
    if case.kind == "erased":
        _undo_erasure(project, case, reason.strip(), decided_by)
        return
    if case.decision is None:
        raise DeskError(f"{case.case_id}: nothing was decided, so that nothing can be undone")
    undone = replace(
        case.decision,
        action="undo",
        reason=reason.strip(),
        decided_by=decided_by,
        after_day=case.day,
        decided_at=None,
    )
    with closing(Decisions(project.settings.ledger_url)) as book:
        book.add(undone)


def _undo_erasure(project: Project, case: Case, reason: str, decided_by: str) -> None:
    named = {case.external_person_id, case.person_key}
    standing = [
        one
        for one in _erasures(project)
        if one.undone_at is None and named.intersection(one.pseudonyms)
    ]
    if not standing:
        raise DeskError(f"{case.case_id}: the erasure was undone already")
    with closing(Erasures(project.settings.inbox_url)) as book:
        for one in standing:
            book.undo(one.erasure_id, reason, decided_by)


def _erasures(project: Project) -> list[Erasure]:
    with closing(Erasures(project.settings.inbox_url)) as book:
        return book.all()


def _newest(project: Project) -> tuple[str, Path]:
    folders = sorted(project.diff_set_folder("").glob(f"????-??-??/{CASES}"))
    if not folders:
        raise DeskError("no day is reconciled yet; run the daily job first")
    return folders[-1].parent.name, folders[-1].parent


def _read(
    project: Project, day: str, path: Path, standing: Mapping[str, Decision]
) -> dict[str, Case]:
    key = hash_key(project.settings.home)
    cases: dict[str, Case] = {}
    try:
        rows = pq.read_table(path).to_pylist()
    except pa.ArrowInvalid as half:
        raise DeskError(unreadable(path)) from half
    for row in rows:
        case_id = _case_id(key, row)
        known = cases.get(case_id)
        if known is not None:
            cases[case_id] = replace(known, rows=known.rows + 1)
            continue
        decision = standing.get(case_id)
        state = row.pop("state")
        if decision is not None and decision.after_day >= day:
            state = "decided"
        others = tuple(row.pop("others") or ())
        cases[case_id] = Case(case_id, day, state=state, others=others, decision=decision, **row)
    return cases


def _case_id(key: bytes, row: Mapping[str, Any]) -> str:
    """Of the kind and the record's identifier, so that it is the same on every day."""
    text = "\x1f".join([row["kind"], row["source"], row["record"] or f"of {row['evidence']}"])
    return keyed_hash(text, key)[:_SHOWN_DIGITS]


def _resolved(day: str, decision: Decision) -> Case:
    is_contact = (decision.record or "").startswith(CONTACT_RECORD)
    external = (decision.record or "").removeprefix(CONTACT_RECORD) if is_contact else None
    state = "decided" if decision.after_day >= day else "resolved"
    return Case(
        case_id=decision.case_id,
        day=day,
        kind=decision.kind,
        source=decision.source,
        state=state,
        detail=f"{decision.action} of {decision.after_day}: {decision.reason}",
        record=decision.record,
        external_person_id=external,
        person_key=decision.target,
        mdn=None,
        others=(),
        evidence=None,
        own=None,
        decision=decision,
    )


def _require_reason(reason: str) -> None:
    if not reason.strip():
        raise DeskError("a decision needs a reason; say why with --reason")


def _require_identity(project: Project, case: Case, action: Action, person_key: str | None) -> None:
    """A decision about who somebody is needs a contact with a key, and no other decision."""
    contact = (case.record or "").removeprefix(CONTACT_RECORD)
    if case.source != "contact" or contact == case.record or case.kind not in DECIDABLE:
        msg = f"{case.case_id}: {action} is for a contact that has a key, in one of these kinds: "
        raise DeskError(f"{msg}{', '.join(DECIDABLE)}; correct this one at its source, or ignore")
    with closing(Decisions(project.settings.ledger_url)) as book:
        others = [one for one in book.standing().values() if one.case_id != case.case_id]
    for one in others:
        if one.action in _ABOUT_IDENTITY and one.record == case.record:
            msg = f"{case.case_id}: case {one.case_id} already says who this contact is"
            raise DeskError(f"{msg}; undo that first")
        if person_key is not None and one.target == person_key.strip().lower():
            msg = f"{case.case_id}: case {one.case_id} links another contact to this person"
            raise DeskError(f"{msg}; two contacts are never one person")
    if action == "link" and person_key is not None:
        _require_person(project, case, contact, person_key.strip().lower())
    elif case.others:
        msg = f"{case.case_id}: an identifier of the contact is at the platform"
        raise DeskError(f"{msg}; link it to that person, or correct the identifier")


def _require_person(project: Project, case: Case, contact: str, person_key: str) -> None:
    """The person is there once and is nobody else's; whether that stays so, each run looks."""
    snapshot = project.snapshots.find(PERSONS, case.day)
    if snapshot is None:
        raise DeskError(f"{PERSONS} of {case.day} is gone; reconcile a newer day first")
    found = _persons(snapshot.data, contact, person_key)
    targets = [row for row in found if (row[0] or "").lower() == person_key]
    if len(targets) != 1:
        there = "several persons have" if targets else "no person has"
        msg = f"{case.case_id}: {there} this person_key in {PERSONS} of {case.day}"
        raise DeskError(f"{msg}; see `quarantine show --reveal`")
    if targets[0][1] not in {None, "", contact}:
        msg = f"{case.case_id}: that person has another external_person_id"
        raise DeskError(f"{msg}; a link takes nobody's person away")
    if len(found) > 1:
        msg = f"{case.case_id}: another person has the contact's key as external_person_id"
        raise DeskError(f"{msg}; link it to that one, or correct it at the platform")


def _persons(data: Path, contact: str, person_key: str) -> Sequence[tuple[str | None, str | None]]:
    with duckdb.connect() as engine:
        found: list[tuple[str | None, str | None]] = engine.execute(
            f"SELECT person_key, external_person_id FROM {parquet(data)}"  # noqa: S608 - our own path
            " WHERE lower(person_key) = ? OR external_person_id = ?",
            [person_key, contact],
        ).fetchall()
    return found
