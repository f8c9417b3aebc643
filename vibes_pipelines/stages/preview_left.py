"""What is left of a diff set whose delivery began: of a plan in the ledger, only what is open."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from vibes_pipelines.delivery.plan import Plan
from vibes_pipelines.store.ledger import Ledger
from vibes_pipelines.store.records import OPEN_STATUSES


@dataclass(frozen=True)
class Left:
    """What a plan would still send.

    `operations` count by `lane/route/kind`, and `seconds` tell of the roads of which nothing went
    yet. `went` counts by status what no job sends any more, and is empty before a delivery;
    `unanswered` of the operations were sent, and nobody knows yet what became of them.
    """

    operations: Mapping[str, int]
    seconds: Mapping[str, float]
    files: int
    went: Mapping[str, int]
    unanswered: int
    is_planned: bool

    @property
    def is_through(self) -> bool:
        """Whether everything went, and nothing is left to be sent."""
        return self.is_planned and not self.operations


def what_is_left(planned: Plan, ledger: Ledger) -> Left:
    """Of a plan that is not in the ledger yet, everything."""
    if ledger.plan(planned.diff_set) is None:
        files = len(planned.batches)
        return Left(dict(planned.operations), dict(planned.seconds), files, {}, 0, is_planned=False)
    is_open: Counter[str] = Counter()
    went: Counter[str] = Counter()
    begun: set[str] = set()
    unanswered = 0
    for counted in ledger.operation_counts(planned.diff_set):
        road = f"{counted.lane}/{counted.route}"
        # What a file did without a report only the next certificates tell: no job sends it again.
        is_ended = counted.route == "file" and counted.status == "unknown"
        if counted.status in OPEN_STATUSES and not is_ended:
            is_open[f"{road}/{counted.kind}"] += counted.rows
            unanswered += counted.rows if counted.status != "planned" else 0
        else:
            went[counted.status] += counted.rows
        if counted.status != "planned":
            begun.add(road)
    return Left(
        dict(sorted(is_open.items())),
        {road: seconds for road, seconds in planned.seconds.items() if road not in begun},
        sum(batch.status == "planned" for batch in planned.batches),
        dict(sorted(went.items())),
        unanswered,
        is_planned=True,
    )
