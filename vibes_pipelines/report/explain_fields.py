"""The fields of one day: both cells, the change, and why there is one or none."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta

from vibes_pipelines.report.explain_day import DayInputs
from vibes_pipelines.report.explain_diff_sets import (
    CRM_CHANGES,
    PERSON_CHANGES,
    crm_changes,
    person_changes,
)
from vibes_pipelines.report.explain_facts import Cell, ChangeFact, End, FieldFact
from vibes_pipelines.report.explain_landed import ContactRow
from vibes_pipelines.report.explain_texts import instant_text, shown
from vibes_pipelines.sync_config import MappedField, SyncConfig

_AGREE = "both sides agree"
IDENTIFIERS = ("external_person_id", "mdn")

_ENDS = {
    "quarantined": "in quarantine: nothing of the contact is compared",
    "filtered": "the contact does not meet the conditions, and is left as it is",
    "persons-only": "no contact points to this person",
    "absent": "on neither side that day",
    "not reconciled": "the day has no diff set",
    "unknown": "not recorded",
}


def field_facts(config: SyncConfig, inputs: DayInputs, end: End) -> Iterator[FieldFact]:
    """The identifiers and every mapped field, in the order of sync.yaml."""
    changes = [
        *person_changes(inputs.stored.get(PERSON_CHANGES, ())),
        *crm_changes(inputs.stored.get(CRM_CHANGES, ())),
    ]
    lag = timedelta(hours=config.policies.visibility_lag_h)
    for name in IDENTIFIERS:
        made = tuple(one for one in changes if one.field == name)
        yield _identifier(config, inputs, name, made, end, lag)
    for mapped in config.fields:
        made = tuple(one for one in changes if one.field == mapped.to)
        yield _field(mapped, inputs, made, end, lag)


def _identifier(
    config: SyncConfig,
    inputs: DayInputs,
    name: str,
    made: tuple[ChangeFact, ...],
    end: End,
    lag: timedelta,
) -> FieldFact:
    contacts, persons = inputs.contacts, [found.row for found in inputs.persons]
    if name == "mdn":
        column = config.contacts.mdn.column if config.contacts.mdn else None
        crm = [Cell(row.place.row, row.mdn_text, row.mdn, _mdn_fault(row)) for row in contacts]
        platform = [Cell(row.place.row, row.mdn, row.mdn) for row in persons]
    else:
        column = config.contacts.key
        crm = [Cell(row.place.row, row.key, row.key) for row in contacts]
        platform = [
            Cell(row.place.row, row.external_person_id, row.external_person_id) for row in persons
        ]
    why = "; ".join(one.means for one in made) or _fault(crm) or _ENDS.get(end.status)
    return FieldFact(
        field=name,
        crm_column=column,
        authority="identifier",
        when_null=None,
        crm=tuple(crm),
        platform=tuple(platform),
        changes=made,
        why=why or _identifier_at_rest(name, inputs, crm, platform, lag),
    )


def _identifier_at_rest(
    name: str, inputs: DayInputs, crm: Sequence[Cell], platform: Sequence[Cell], lag: timedelta
) -> str:
    wanted, held = crm[0].value if crm else None, platform[0].value if platform else None
    if wanted == held:
        return _AGREE
    if wanted is None:
        return "the contact has none, and an identifier is never cleared"
    earlier = _sent_earlier(name, wanted, inputs, lag)
    if earlier is None and name == "mdn" and inputs.is_decided:
        return "a decision at the quarantine desk says who this is, and its number is not looked at"
    return earlier or "not recorded"


def _mdn_fault(row: ContactRow) -> str | None:
    is_bad = row.mdn_text is not None and row.mdn is None
    return "is no valid mobile number" if is_bad else None


def _fault(crm: Sequence[Cell]) -> str | None:
    """The quarantine's evidence in this very cell."""
    return next((f"{shown(cell.raw)} {cell.fault}" for cell in crm if cell.fault), None)


def _field(
    mapped: MappedField,
    inputs: DayInputs,
    made: tuple[ChangeFact, ...],
    end: End,
    lag: timedelta,
) -> FieldFact:
    crm = tuple(_cells(row.cells.get(mapped.to) for row in inputs.contacts))
    platform = tuple(_cells(found.row.cells.get(mapped.to) for found in inputs.persons))
    why = "; ".join(one.means for one in made) or _fault(crm) or _ENDS.get(end.status)
    return FieldFact(
        field=mapped.to,
        crm_column=mapped.from_,
        authority=mapped.authority,
        when_null=mapped.when_null,
        crm=crm,
        platform=platform,
        changes=made,
        why=why or _at_rest(mapped, inputs, crm, platform, lag),
    )


def _cells(cells: Iterable[Cell | None]) -> Iterator[Cell]:
    return (cell for cell in cells if cell is not None)


def _at_rest(
    mapped: MappedField,
    inputs: DayInputs,
    crm: tuple[Cell, ...],
    platform: tuple[Cell, ...],
    lag: timedelta,
) -> str:
    """Why a field of a contact in no doubt has no change."""
    if not crm:
        return f"not recorded; the contacts of that day have no column {mapped.from_}"
    wanted, held = crm[0].value, platform[0].value if platform else None
    if wanted is None and not platform:
        return "the contact's cell is blank, and the platform has no such person: nothing to set"
    if wanted == held:
        return _AGREE
    earlier = _sent_earlier(mapped.to, wanted, inputs, lag)
    if earlier is not None:
        return earlier
    if wanted is None and mapped.when_null == "keep":
        return "the contact's cell is blank, and when_null keep leaves the platform's value"
    return _by_authority(mapped)


def _sent_earlier(field: str, wanted: str | None, inputs: DayInputs, lag: timedelta) -> str | None:
    under_way = inputs.waiting(lag).get((field, wanted))
    if under_way:
        return f"sent as of {instant_text(under_way['accepted_at'])}, and need not be visible yet"
    refused = inputs.refused().get((field, wanted))
    if refused:
        how = "accepted and not kept" if refused.get("was_accepted") else "refused earlier"
        return f"{how} with {refused['error_class']}, and unchanged since"
    return None


def _by_authority(mapped: MappedField) -> str:
    if mapped.authority == "fill":
        return "authority fill: the platform has a value, which stays"
    if mapped.authority == "platform":
        return "authority platform: the platform's value counts"
    return "not recorded"
