"""The consents of one day: the CRM's cell, the platform's rows, the opt-out planned, and why.

The rules are those of the reconcile: opt-outs go both ways, an opt-in is at most asked about, and
absence changes nothing.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

from vibes_pipelines.crm.cells import latest_possible
from vibes_pipelines.report.explain_day import DayInputs
from vibes_pipelines.report.explain_diff_sets import SUBSCRIPTION_CHANGES, consent_changes
from vibes_pipelines.report.explain_facts import ConsentFact, SubscriptionRow
from vibes_pipelines.report.explain_landed import ConsentCell, Stay
from vibes_pipelines.report.explain_texts import instant_text
from vibes_pipelines.sync_config import Consent, SyncConfig


def consent_facts(config: SyncConfig, inputs: DayInputs) -> Iterator[ConsentFact]:
    """Every mapped consent, in the order of sync.yaml."""
    for consent in config.consents:
        yield _consent(consent, inputs)


def _consent(consent: Consent, inputs: DayInputs) -> ConsentFact:
    listed = consent.list.strip()
    cell = inputs.contact.consents.get(listed) if inputs.contact else None
    key = inputs.person.person_key if inputs.person else None
    stays = [one for one in inputs.stays if one.list == listed and one.person_key == key]
    last_in = max(
        (one.opt_in for one in stays if one.opt_in and _has_come(one.opt_in, inputs)), default=None
    )
    last_out = max((one.opt_out for one in stays if one.opt_out), default=None)
    platform = _platform_state(stays, last_in, last_out)
    made = tuple(consent_changes(inputs.stored.get(SUBSCRIPTION_CHANGES, ()), listed))
    why = (
        "; ".join(one.means for one in made)
        or _not_compared(inputs, cell, platform)
        or _at_rest(inputs, cell, platform, last_in, last_out)
    )
    return ConsentFact(
        list=listed,
        crm_column=consent.from_,
        crm=cell.state if cell else None,  # type: ignore[arg-type]
        crm_raw=cell.raw if cell else None,
        crm_changed_at=instant_text(cell.changed_at) if cell else None,
        platform=platform,  # type: ignore[arg-type]
        last_opt_in=instant_text(last_in),
        last_opt_out=instant_text(last_out),
        rows=tuple(_row(one) for one in stays),
        changes=made,
        why=why,
    )


def _has_come(opt_in: datetime, inputs: DayInputs) -> bool:
    """Of the platform, too, an opt-in of more than a day after the as-of is no evidence."""
    as_of = inputs.summary.as_of if inputs.summary else None
    return as_of is None or opt_in.replace(tzinfo=UTC) <= as_of + timedelta(days=1)


def _platform_state(
    stays: Sequence[Stay], last_in: datetime | None, last_out: datetime | None
) -> str:
    """In: a row exists, and never opted out or the last opt-in is later than the last opt-out.

    Of an opt-out known to the day no opt-in of that day is later.
    """
    if not stays:
        return "unknown"
    if last_out is None:
        return "in"
    is_active = last_in is not None and last_in > last_out and last_in >= latest_possible(last_out)
    return "in" if is_active else "out"


def _not_compared(inputs: DayInputs, cell: ConsentCell | None, platform: str) -> str | None:
    """Why there is nothing to compare; None when there is."""
    if inputs.summary is None:
        return "the day has no diff set"
    if cell is None:
        return "no contact that day, so that no side has anything to learn"
    if platform == "unknown":
        return "never subscribed at the platform: nothing to end, and opt-ins are not carried"
    return None


def _at_rest(
    inputs: DayInputs,
    cell: ConsentCell | None,
    platform: str,
    last_in: datetime | None,
    last_out: datetime | None,
) -> str:
    """Why nothing is written to either side."""
    state, changed_at = (cell.state, cell.changed_at) if cell else (None, None)
    if state == platform:
        return "both sides agree"
    if (state, platform) == ("out", "in") and _is_later(last_in, changed_at):
        return "the platform's opt-in is newer than the CRM's opt-out, which gives way"
    if (state, platform) == ("in", "out") and _is_later(changed_at, last_out):
        return "the CRM's opt-in is newer than the platform's opt-out; opt-ins are not carried"
    if _in_doubt(inputs):
        return "in quarantine: who the contact is at the platform is in doubt"
    if platform == "in":
        return "the CRM says nothing, which changes nothing; opt-ins are not carried"
    return "not recorded"


def _is_later(one: datetime | None, other: datetime | None) -> bool:
    return one is not None and other is not None and one > latest_possible(other)


def _in_doubt(inputs: DayInputs) -> bool:
    return any(one.is_this_person and one.source == "contact" for one in inputs.doubts)


def _row(stay: Stay) -> SubscriptionRow:
    opted_in, opted_out = instant_text(stay.opt_in), instant_text(stay.opt_out)
    return SubscriptionRow(stay.place, stay.person_key, opted_in, opted_out, stay.opt_out_reason)
