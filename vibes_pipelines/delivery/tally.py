"""What became of a diff set's operations, in counts: for the account of a day."""

from collections import Counter
from dataclasses import dataclass

from vibes_pipelines.store.ledger import Ledger

SENT_STATUSES = frozenset({"sent", "accepted", "rejected", "unknown"})


@dataclass(frozen=True)
class Tally:
    """Operations that left, by where they went; `rejections` by error class, of every kind."""

    persons_by_route: dict[str, int]
    opt_outs_to_platform: int
    opt_outs_to_crm: int
    rejections: dict[str, int]
    invites: int = 0


def tally(ledger: Ledger, diff_set: str) -> Tally:
    """Counts the operations of one diff set that were sent."""
    routes: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    rejections: Counter[str] = Counter()
    for counted in ledger.operation_counts(diff_set):
        if counted.status not in SENT_STATUSES:
            continue
        kinds[counted.kind] += counted.rows
        if counted.lane == "persons":
            routes[counted.route] += counted.rows
        if counted.status == "rejected":
            rejections[counted.error_class or "unnamed"] += counted.rows
    return Tally(
        persons_by_route={route: routes[route] for route in ("file", "api")},
        opt_outs_to_platform=kinds["opt_out"],
        opt_outs_to_crm=kinds["crm_opt_out"],
        invites=kinds["invite"],
        rejections=dict(sorted(rejections.items())),
    )
