"""An explanation as lines for a terminal: the newest day whole, older days by what happened."""

from collections.abc import Iterable, Iterator, Sequence

from vibes_pipelines.report.explain_facts import (
    CallbackFact,
    Cell,
    ChangeFact,
    ConsentFact,
    DayFacts,
    DecisionFact,
    DiffSetFact,
    Doubt,
    Explanation,
    FieldFact,
    LandedRow,
    OperationFact,
    SubscriptionRow,
    Who,
)
from vibes_pipelines.report.explain_texts import STATUSES, shown, verdict_text

_HASH = 12


def render(explanation: Explanation) -> str:
    """The lines that `explain` prints."""
    lines = [*_who(explanation.who)]
    is_narrow = explanation.field is not None
    for position, days in enumerate(_alike(explanation.days)):
        lines += ["", *_day(days, is_whole=position == 0 or is_narrow)]
    if explanation.callbacks:
        lines += ["", "callbacks", *_callbacks(explanation.callbacks)]
    if explanation.decisions:
        lines += ["", "decisions", *_decisions(explanation.decisions)]
    if explanation.older_days:
        lines += ["", f"{explanation.older_days} older days: ask for one with --day"]
    return "\n".join(lines)


def _who(who: Who) -> Iterator[str]:
    yield who.external_person_id or who.asked
    if who.found_as != "external_person_id":
        yield _line("asked for", f"{who.found_as} {who.asked}")
    if who.person_keys:
        yield _line("person_key", ", ".join(who.person_keys))
    if who.mdns:
        yield _line("mdn", ", ".join(who.mdns))


def _alike(days: Sequence[DayFacts]) -> Iterator[list[DayFacts]]:
    """Days in a row that differ in nothing told of them; the first stands alone."""
    group: list[DayFacts] = []
    for position, facts in enumerate(days):
        if group and (position == 1 or _is_eventful(facts) or facts.end != group[-1].end):
            yield group
            group = []
        group.append(facts)
        if _is_eventful(facts):
            yield group
            group = []
    if group:
        yield group


def _is_eventful(facts: DayFacts) -> bool:
    """Whether something was planned, sent or in doubt that day."""
    return bool(
        facts.operations
        or facts.unsent
        or any(field.changes for field in facts.fields)
        or any(consent.changes for consent in facts.consents)
        or any(not doubt.is_this_person for doubt in facts.doubts)
    )


def _day(days: Sequence[DayFacts], *, is_whole: bool) -> Iterator[str]:
    facts, oldest = days[0], days[-1]
    span = facts.day if facts is oldest else f"{facts.day} back to {oldest.day}"
    how = "" if facts.end.how == "recorded" else f" [{facts.end.how}]"
    yield f"{span}  {facts.end.status}: {facts.end.why}{how}"
    is_whole = is_whole and facts is oldest
    if is_whole or _is_eventful(facts):
        yield from _landed((*facts.contacts, *facts.persons))
    yield from _sides(facts, is_whole=is_whole)
    yield from dict.fromkeys(_doubts(facts.doubts, is_whole=is_whole))
    if is_whole or _is_eventful(facts):
        for diff_set in facts.diff_sets:
            yield _diff_set(diff_set, names_guards=_is_eventful(facts))
    for operation in facts.operations:
        yield from _operation(operation, facts.day)
    for unsent in facts.unsent:
        what = ", ".join(unsent.fields) or f"list {unsent.subscription_list_id}"
        yield _line("not sent", f"{unsent.kind} of {what}: {unsent.why}")


def _sides(facts: DayFacts, *, is_whole: bool) -> Iterator[str]:
    """Fields and consents; of a day told in short, those with a change or a fault."""
    for field in facts.fields:
        if is_whole or field.changes or any(cell.fault for cell in field.crm):
            yield from _field(field)
    for consent in facts.consents:
        if is_whole or consent.changes:
            yield from _consent(consent)


def _doubts(doubts: Sequence[Doubt], *, is_whole: bool) -> Iterator[str]:
    """The end of the day tells the person's own kinds already."""
    for doubt in doubts:
        if is_whole or not doubt.is_this_person:
            whose = "" if doubt.is_this_person else ", another of the group"
            known = (doubt.external_person_id, doubt.person_key, doubt.mdn)
            named = ", ".join(one for one in known if one)
            told = f"{doubt.kind} ({doubt.source}{whose}): {doubt.detail}; {named}"
            yield _line("quarantine", told)


def _landed(rows: Sequence[LandedRow]) -> Iterator[str]:
    for row in rows:
        place = row.place
        yield _line(
            "landed",
            f"{place.feed} row {place.row:,} of {place.source}, as of {place.as_of}, "
            f"snapshot {place.content_hash[:_HASH]}, found by {row.found_by}",
        )


def _field(field: FieldFact) -> Iterator[str]:
    told = [f"CRM {_cells(field.crm)}", f"platform {_cells(field.platform)}"]
    if field.authority != "identifier":
        told.append(f"authority {field.authority}")
    if not field.changes and not any(cell.fault for cell in field.crm):
        told.append(field.why)
    yield _line(field.field, " · ".join(told))
    for change in field.changes:
        yield _line("", _change(change))


def _cells(cells: Sequence[Cell]) -> str:
    return " and ".join(map(_cell, cells)) or "no row"


def _cell(cell: Cell) -> str:
    if cell.fault:
        return f"{shown(cell.raw)}, which {cell.fault}"
    if cell.raw is not None and cell.raw != cell.value:
        return f"{shown(cell.value)} (landed as {cell.raw!r})"
    return shown(cell.value)


def _change(change: ChangeFact) -> str:
    where = "at the platform" if change.side == "platform" else "in the CRM"
    return (
        f"{change.action} {where}: {shown(change.before)} → {shown(change.after)}, "
        f"{change.reason}: {change.means}"
    )


def _consent(consent: ConsentFact) -> Iterator[str]:
    since = f" since {consent.crm_changed_at}" if consent.crm_changed_at else ""
    told = [
        f"CRM {consent.crm or 'no row'}{since}",
        f"platform {consent.platform}{_last(consent)}",
    ]
    if not consent.changes:
        told.append(consent.why)
    yield _line(f"list {consent.list}", " · ".join(told))
    for change in consent.changes:
        where = "at the platform" if change.side == "platform" else "in the CRM"
        evidence = f", evidence of {change.after}" if change.after else ""
        yield _line("", f"{change.action} {where}, {change.reason}: {change.means}{evidence}")
    for row in consent.rows:
        yield _line("", _subscription(row))


def _last(consent: ConsentFact) -> str:
    known = (("opt-in", consent.last_opt_in), ("opt-out", consent.last_opt_out))
    told = [f"last {name} {instant}" for name, instant in known if instant]
    return f" ({', '.join(told)})" if told else ""


def _subscription(row: SubscriptionRow) -> str:
    place = row.place
    return (
        f"{place.feed} row {place.row:,} of {place.source}: in {row.opt_in or '-'}, "
        f"out {row.opt_out or '-'}{f' ({row.opt_out_reason})' if row.opt_out_reason else ''}"
    )


def _diff_set(diff_set: DiffSetFact, *, names_guards: bool) -> str:
    """What concerns the whole diff set; what held this person's change stands with the change."""
    told = [f"{diff_set.diff_set[:_HASH]}, {diff_set.status}{', held' if diff_set.held else ''}"]
    if not diff_set.is_written:
        told.append("not the one whose files are kept")
    if not diff_set.is_under_todays_config:
        told.append("made under another sync.yaml")
    told += diff_set.breaches if names_guards else ()
    if diff_set.approved_reason:
        told.append(f"approved {diff_set.approved_at}: {diff_set.approved_reason}")
    return _line("diff set", "; ".join(told))


def _operation(operation: OperationFact, day: str) -> Iterator[str]:
    of = "" if operation.day == day else f" of {operation.day}"
    what = ", ".join(change.field for change in operation.changes)
    about = f"list {operation.subscription_list_id}" if operation.subscription_list_id else what
    batch = f" as row {operation.row_number} of {operation.batch}" if operation.batch else ""
    yield _line(
        "operation",
        f"{operation.operation_id[:_HASH]}{of}, {operation.kind} of {about or 'the identifiers'}, "
        f"by {operation.route}{batch} ({operation.route_reason})",
    )
    for answer in _answer(operation):
        yield _line("", answer)
    for verdict in operation.verdicts:
        told = verdict_text(verdict.outcome, verdict.evidence)
        yield _line("", f"certificate of {verdict.day}: {told}")


def _answer(operation: OperationFact) -> Iterable[str]:
    sent = f", sent {operation.sent_at}" if operation.sent_at else ""
    tries = f" at attempt {operation.attempts}" if operation.attempts > 1 else ""
    known = f", known on {operation.finished_day}" if operation.finished_day else ""
    yield f"{STATUSES.get(operation.status, operation.status)}{tries}{sent}{known}"
    if operation.error_class:
        yield f"{operation.error_class}: {operation.advice}"
    if operation.message:
        yield f"the platform's words: {operation.message}"


def _callbacks(callbacks: Iterable[CallbackFact]) -> Iterator[str]:
    for one in callbacks:
        listed = f", list {one.subscription_list_id}" if one.subscription_list_id else ""
        why = f": {one.reason}" if one.reason else ""
        told = f"{one.event_type or 'unreadable'} of {one.event_at or '-'}{listed}"
        yield _line("", f"{told}, received {one.received_at}, {one.status}{why}")


def _decisions(decisions: Iterable[DecisionFact]) -> Iterator[str]:
    for one in decisions:
        whom = f" to {one.person_key}" if one.person_key and one.action == "link" else ""
        told = f"{one.action}{whom} by {one.decided_by} at {one.decided_at}, {one.kind}"
        yield _line(f"case {one.case_id}", f"{told}, from after {one.after_day}: {one.reason}")


def _line(name: str, text: str) -> str:
    return f"  {name:<19} {text}"
