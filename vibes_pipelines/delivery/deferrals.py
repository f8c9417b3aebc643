"""Opt-outs and write-backs that must not be sent again today, and why.

Person changes need no rule of this kind: the reconcile subtracts what is pending or blocked. An
opt-out it plans anew each day until the other side shows it, so the rule stands here.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta

from vibes_pipelines.store.records import Operation

DEFERRABLE_KINDS = ("opt_out", "crm_opt_out", "crm_update")

MAX_DAYS = 3
"""On how many days the same write-back of fields is sent before a person must look at it.

An opt-out is never given up: it is sent once a day until it is effective.
"""

NOT_YET_VISIBLE = "accepted earlier, not yet visible"
EXHAUSTED = f"sent on {MAX_DAYS} days without effect; a person must look at it"

_Intent = tuple[str, str | None, str | None, str | None, tuple[tuple[str, str | None], ...]]


class Deferrals:
    """What earlier attempts say about sending the same intent again."""

    def __init__(self, attempts: Iterable[Operation], as_of: datetime, lag: timedelta) -> None:
        self._visible_soon: set[_Intent] = set()
        self._days: dict[_Intent, set[str]] = {}
        for attempt in attempts:
            intent = _intent(attempt)
            if _is_soon_visible(attempt, as_of, lag):
                self._visible_soon.add(intent)
            if attempt.kind == "crm_update" and _had_no_effect(attempt):
                self._days.setdefault(intent, set()).add(attempt.day)

    def why_deferred(self, operation: Operation) -> str | None:
        """Why the operation is not sent today; None when it is."""
        intent = _intent(operation)
        if intent in self._visible_soon:
            return NOT_YET_VISIBLE
        if len(self._days.get(intent, ())) >= MAX_DAYS:
            return EXHAUSTED
        return None


def _intent(operation: Operation) -> _Intent:
    values = tuple(sorted((change.field, change.after) for change in operation.changes))
    person = operation.external_person_id or operation.person_key
    return (operation.kind, person, operation.subscription_list_id, operation.person_key, values)


def _is_soon_visible(attempt: Operation, as_of: datetime, lag: timedelta) -> bool:
    """The CRM shows a write on the next day, the platform only after its lag."""
    if attempt.status != "accepted":
        return False
    is_of_today = attempt.as_of >= as_of
    return is_of_today or (attempt.kind == "opt_out" and attempt.as_of + lag > as_of)


def _had_no_effect(attempt: Operation) -> bool:
    refused = attempt.status == "rejected" and not attempt.retry_later
    return refused or attempt.outcome == "unexplained"
