"""What reasons, statuses and evidence mean, in words. Only sentences belong here."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import overload

from vibes_pipelines.sync_config.conditions import Condition

REASONS: Mapping[str, str] = {
    "new_contact": "the platform has no such person yet",
    "crm_changed": "only the CRM changed since both sides agreed",
    "platform_changed": "only the platform changed since both sides agreed",
    "both_changed": "both sides changed since they agreed, and the authority decides",
    "no_base": "the sides differ, and without a base the authority decides",
    "mapping_changed": "the sides differ, and the field was mapped otherwise when they agreed",
    "rules_changed": "the sides differ, and values were read by other rules when they agreed",
    "no_time": "authority newest, and the time of a change is unknown, so the CRM's value stands",
    "unmatched": "the contact stopped meeting the conditions, and when_unmatched says so",
    "clear": "the contact's cell is blank, and when_null is clear",
    "fill": "the platform had no value, and authority fill sets it only then",
    "adopt": "the person was found by another identifier and takes the contact's key",
    "mdn_added": "the person had no number and takes the contact's",
    "mdn_replaced": "the contact has another number, and mdn_change is replace",
    "crm_opted_in": "opted in in the CRM; at Vibes the campaign asks, only the person subscribes",
    "crm_opted_out": "opted out in the CRM, and still subscribed at the platform",
    "platform_opted_out": "opted out at the platform, and not yet so in the CRM",
}

STATUSES: Mapping[str, str] = {
    "planned": "planned, not sent",
    "sent": "sent, no answer yet",
    "unknown": "sent, and no answer came: what still differs is sent again, an invitation only"
    " after a look whether it arrived",
    "accepted": "accepted",
    "rejected": "rejected",
    "superseded": "withdrawn before it left, for something newer became known",
}

_EVIDENCE: Mapping[str, str] = {
    "share": "by the share",
    "extract": "by the extract",
    "crm": "by the CRM",
    "later_operation": "by a later operation on the same field",
    "no_longer_mapped": "for sync.yaml no longer maps it",
    "person_changed": "by the platform, it seems: the old value is back in a person that changed",
    "contact_gone": "by the CRM, which does not have the contact any more",
    "person_gone": "by the platform, which does not show the person any more",
    "diff_set": "never sent, for a newer diff set took its place",
    "receipt": "by its receipt",
    "api": "by the platform's answer",
    "callback": "by a callback that came before it left",
    "none": "without an answer",
}

_OUTCOMES: Mapping[str, str] = {
    "pending": "accepted or under way, and need not be visible yet",
    "unexplained": "it should be visible and is not; somebody must look",
}


def means(reason: str) -> str:
    """A reason of the diff set in words; an unknown one stands as it is."""
    return REASONS.get(reason, reason)


def verdict_text(outcome: str, evidence: str) -> str:
    """A verdict of the convergence certificate in words."""
    if outcome in _OUTCOMES:
        return f"{outcome}: {_OUTCOMES[outcome]}"
    return f"{outcome} {_EVIDENCE.get(evidence, evidence)}"


def condition_text(condition: Condition, found: str | None) -> str:
    """A condition that is not met, and what stands in its column."""
    operand = getattr(condition, condition.operator)
    operator = condition.operator.removesuffix("_")
    if isinstance(operand, tuple):
        wanted = f"{operator} {', '.join(operand)}"
    else:
        wanted = operator if operand is True else f"{operator} {operand}"
    return f"{condition.column}: {wanted} does not hold, it is {shown(found)}"


def shown(value: str | None) -> str:
    """A value in a sentence: quoted, or the word blank."""
    return "blank" if value is None else repr(value)


@overload
def instant_text(instant: datetime) -> str: ...
@overload
def instant_text(instant: None) -> None: ...
@overload
def instant_text(instant: datetime | None) -> str | None: ...
def instant_text(instant: datetime | None) -> str | None:
    """An instant as ISO text in UTC, ending in Z; one without a zone is UTC already."""
    if instant is None:
        return None
    aware = instant if instant.tzinfo else instant.replace(tzinfo=UTC)
    return aware.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
