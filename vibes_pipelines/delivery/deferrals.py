"""Opt-outs and write-backs that must not be sent again today, and why.

Person changes need no rule of this kind: the reconcile subtracts what is pending or blocked. An
opt-out or a write-back it plans anew each day until the other side shows it, so the rule stands
here. An opt-out is never given up: it is sent once a day until it is effective.
"""

from collections.abc import Collection, Iterable
from datetime import datetime, timedelta
from typing import Self

from vibes_pipelines.store.ledger import Ledger
from vibes_pipelines.store.records import DiffSet, Operation
from vibes_pipelines.store.without_effect import MAX_DAYS, Ineffective

DEFERRABLE_KINDS = ("opt_out", "crm_opt_out", "crm_update")

NOT_YET_VISIBLE = "accepted earlier, not yet visible"
EXHAUSTED = f"sent on {MAX_DAYS} days without effect; a person must look at it"

_Intent = tuple[str, str | None, str | None, str | None, tuple[tuple[str, str | None], ...]]


class Deferrals:
    """What earlier attempts say about sending the same intent again."""

    def __init__(
        self,
        attempts: Iterable[Operation],
        without_effect: Collection[Ineffective],
        as_of: datetime,
        lag: timedelta,
    ) -> None:
        self._visible_soon = {
            _intent(attempt) for attempt in attempts if _is_soon_visible(attempt, as_of, lag)
        }
        self._without_effect = without_effect

    @classmethod
    def of(cls, ledger: Ledger, record: DiffSet, lag: timedelta) -> Self:
        """What the ledger knew when the diff set was planned."""
        as_known = (record.day, record.config_hash)
        return cls(
            ledger.earlier_attempts(DEFERRABLE_KINDS, *as_known),
            ledger.without_effect(("crm_update",), *as_known),
            record.as_of,
            lag,
        )

    def why_deferred(self, operation: Operation) -> str | None:
        """Why the operation is not sent today; None when it is."""
        if _intent(operation) in self._visible_soon:
            return NOT_YET_VISIBLE
        if operation.kind == "crm_update" and self._is_exhausted(operation):
            return EXHAUSTED
        return None

    def _is_exhausted(self, operation: Operation) -> bool:
        """Whether it has nothing new; a refusal of one value may be the fault of another."""
        return bool(operation.changes) and all(
            Ineffective(operation.external_person_id, c.field, c.before, c.after)
            in self._without_effect
            for c in operation.changes
        )


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
