"""What a look at the changes of the CRM came to, in counts; several looks can be added up."""

from collections import Counter
from dataclasses import dataclass, field

_COUNTS = (
    "contacts",
    "opt_outs",
    "persons",
    "accepted",
    "rejected",
    "unknown",
    "left_to_daily",
)


@dataclass(frozen=True)
class Carried:
    """What became of the changed contacts, in counts; a dry run says what would be sent.

    `left_to_daily` are operations that a guard held, and contacts of a batch that was too large;
    the daily job looks at both. `why` says what kept anything from leaving.
    """

    dry_run: bool
    contacts: int = 0
    opt_outs: int = 0
    persons: int = 0
    accepted: int = 0
    rejected: int = 0
    unknown: int = 0
    left_to_daily: int = 0
    why: tuple[str, ...] = ()
    error_classes: dict[str, int] = field(default_factory=dict)

    def __add__(self, other: "Carried") -> "Carried":
        """Both looks together."""
        counts = {name: getattr(self, name) + getattr(other, name) for name in _COUNTS}
        classes = Counter(self.error_classes) + Counter(other.error_classes)
        return Carried(
            self.dry_run,
            **counts,
            why=tuple(dict.fromkeys((*self.why, *other.why))),
            error_classes=dict(sorted(classes.items())),
        )

    @property
    def sentence(self) -> str:
        """One line for the log."""
        counts = ", ".join(f"{name} {getattr(self, name)}" for name in _COUNTS[:-1])
        left = f", left to the daily job {self.left_to_daily}" if self.left_to_daily else ""
        why = f" ({'; '.join(self.why)})" if self.why else ""
        return f"{'dry run: ' if self.dry_run else ''}{counts}{left}{why}"
