"""What a delivery did, and how it ends when it did not do all of it."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from vibes_pipelines.stages.progress import Step
from vibes_pipelines.vibes.error_classes import lookup


class NoAnswerError(RuntimeError):
    """Some operations got no answer. They stay open, and a repush sends exactly these again."""


class BothRoadsFailedError(RuntimeError):
    """What goes by API and what goes by file could not be delivered; both reasons are told."""


@dataclass(frozen=True)
class Delivered:
    """What a delivery did, in counts of operations; a dry run says what it would do.

    `estimated_s` is what the planner thinks that this much takes, `actual_s` what it took: of a
    push by API, and of an import until its last report was there. 0: nothing was to be sent.
    """

    diff_set: str
    dry_run: bool
    counts: Mapping[str, int]
    why: str
    error_classes: Mapping[str, int] = field(default_factory=dict)
    estimated_s: float = 0.0
    actual_s: float = 0.0
    progress: tuple[Step, ...] = ()

    @property
    def rejections(self) -> list[tuple[str, int, str]]:
        """Error class, rows, and what an operator should do."""
        return [(name, rows, lookup(name).advice) for name, rows in self.error_classes.items()]

    @property
    def sentence(self) -> str:
        """One line for the log."""
        counts = ", ".join(f"{name} {rows}" for name, rows in self.counts.items())
        return f"{'dry run: ' if self.dry_run else ''}{counts or 'nothing to do'} ({self.why})"


def both(by_api: Delivered, by_file: Delivered, why: str) -> Delivered:
    """One lane over both roads, one after the other."""
    return Delivered(
        by_api.diff_set,
        dry_run=False,
        counts=dict(sum(map(Counter, (by_api.counts, by_file.counts)), Counter[str]())),
        why=why,
        error_classes=dict(
            sum(map(Counter, (by_api.error_classes, by_file.error_classes)), Counter[str]())
        ),
        estimated_s=by_api.estimated_s + by_file.estimated_s,
        actual_s=by_api.actual_s + by_file.actual_s,
        progress=by_api.progress,
    )


def answered(delivered: Delivered) -> Delivered:
    """Raises NoAnswerError when some got no answer."""
    unknown = delivered.counts.get("unknown", 0)
    if unknown:
        planned, classes = delivered.counts["planned"], ", ".join(delivered.error_classes)
        msg = f"{unknown} of {planned} got no answer ({classes}); run the job repush"
        raise NoAnswerError(msg)
    return delivered
