"""The states of an operation, and which may follow which: one table, checked at every write.

`held` and `approved` are how a planned operation stands through its diff set; `confirmed` and
`escalated` are verdicts of a certificate. The others are the status that the ledger keeps.
"""

from collections.abc import Mapping
from typing import Literal, get_args

from vibes_pipelines.store.records import LedgerError, Status

State = Literal[
    "planned",
    "held",
    "approved",
    "sent",
    "accepted",
    "rejected",
    "unknown",
    "superseded",
    "confirmed",
    "escalated",
]

TRANSITIONS: Mapping[State, Mapping[State, str]] = {
    "planned": {
        "held": "a guard, a first run or a changed mapping holds its lane",
        "sent": "its lane is free and it is about to leave",
        "superseded": "a newer diff set takes its place, or something newer became known",
    },
    "held": {
        "approved": "a person released the diff set",
        "superseded": "a newer diff set carries its change on",
    },
    "approved": {
        "sent": "it is about to leave",
        "superseded": "a newer diff set takes its place, or something newer became known",
    },
    "sent": {
        "planned": "it certainly did not leave: the delivery stopped before its turn",
        "sent": "the process was cut before the answer was written; it is taken up again",
        "accepted": "the platform took it",
        "rejected": "the platform refused it",
        "unknown": "no answer came; it may have happened",
        "superseded": "consent was withdrawn before it was taken up again",
        "confirmed": "the answer was never written, and the effect is seen",
        "escalated": "the answer was never written, and no effect is seen after the visibility lag",
    },
    "unknown": {
        "sent": "it is taken up again; a kind that is not idempotent is read back first",
        "superseded": "consent was withdrawn, or a later change overtook it",
        "confirmed": "its effect is seen",
        "escalated": "no effect is seen after the visibility lag",
    },
    "accepted": {
        "confirmed": "its effect is seen",
        "superseded": "a later change overtook it",
        "escalated": "no effect is seen after the visibility lag",
    },
    "rejected": {
        "confirmed": "the value is there all the same",
    },
    "superseded": {},
    "confirmed": {},
    "escalated": {},
}
"""From each state to each that may follow, and what makes it so."""

# Such an operation is superseded by the verdict of a certificate only: it has left.
_BY_VERDICT = frozenset({("accepted", "superseded")})

# How a held or approved operation stands in the ledger.
_STATUS_OF: Mapping[State, Status] = {"held": "planned", "approved": "planned"}


class IllegalTransition(LedgerError):  # noqa: N818 - the name says what is wrong
    """An operation is not in a state that may become the one asked for; nothing was written."""


def sources_of(status: Status) -> tuple[Status, ...]:
    """The statuses that may become this one; those that have it already may keep it."""
    found = {
        _STATUS_OF.get(state, state)
        for state, targets in TRANSITIONS.items()
        if status in targets and (state, status) not in _BY_VERDICT
    }
    return tuple(one for one in get_args(Status) if one in found or one == status)
