"""What the receiver counts, and how Prometheus reads it (text format 0.0.4). Counts only."""

from collections.abc import Iterator, Mapping, MutableSequence
from dataclasses import astuple, dataclass, fields

from vibes_pipelines.store.inbox import Reception, Status

STATUSES: tuple[Status, ...] = ("stored", "applied", "ignored", "parked", "dropped")

_HELP = {
    "received": "Callbacks that came from an allowed source.",
    "stored": "Callbacks stored for the first time, conflicts among them.",
    "duplicates": "Callbacks that were stored before.",
    "conflicts": "Callbacks with the event id of another one; stored, and parked.",
    "failed": "Callbacks answered with 503: they could not be read whole or stored.",
    "refused": "Requests answered with 403: their source is not allowed.",
}


@dataclass
class Tally:
    """Counts since the start of the receiver."""

    received: int = 0
    stored: int = 0
    duplicates: int = 0
    conflicts: int = 0
    failed: int = 0
    refused: int = 0

    def count(self, reception: Reception) -> None:
        """Counts one callback that is on disk."""
        if reception == "duplicate":
            self.duplicates += 1
            return
        self.stored += 1
        self.conflicts += reception == "conflict"


_WIDTH = len(fields(Tally))


@dataclass(frozen=True)
class Board:
    """The counts of several processes in memory they share; each writes its own row only."""

    cells: MutableSequence[int]
    row: int

    @staticmethod
    def size(processes: int) -> int:
        """How many cells so many processes need."""
        return processes * _WIDTH

    def own(self) -> Tally:
        """What this row holds: the counts of the process whose place this one takes."""
        return self._tally(self.row)

    def publish(self, tally: Tally) -> None:
        """Writes the counts of this process."""
        begin = self.row * _WIDTH
        self.cells[begin : begin + _WIDTH] = astuple(tally)

    def total(self) -> Tally:
        """The counts of all processes together."""
        rows = (astuple(self._tally(row)) for row in range(len(self.cells) // _WIDTH))
        return Tally(*map(sum, zip(*rows, strict=True)))

    def _tally(self, row: int) -> Tally:
        return Tally(*self.cells[row * _WIDTH : (row + 1) * _WIDTH])


def exposition(tally: Tally, backlog: Mapping[Status, int] | None) -> str:
    """The counts as Prometheus reads them; without `backlog` the database did not answer."""
    return "".join(f"{line}\n" for line in _lines(tally, backlog))


def _lines(tally: Tally, backlog: Mapping[Status, int] | None) -> Iterator[str]:
    for counted in fields(tally):
        name = f"vibes_callbacks_{counted.name}_total"
        yield from _head(name, "counter", _HELP[counted.name])
        yield f"{name} {getattr(tally, counted.name)}"
    up = "vibes_callbacks_database_up"
    yield from _head(up, "gauge", "1 when the inbox could be counted just now.")
    yield f"{up} {int(backlog is not None)}"
    if backlog is None:
        return
    name = "vibes_callbacks_inbox"
    yield from _head(name, "gauge", "Callbacks in the inbox; `stored` ones wait to be acted on.")
    for status in STATUSES:
        yield f'{name}{{status="{status}"}} {backlog.get(status, 0)}'


def _head(name: str, kind: str, meaning: str) -> Iterator[str]:
    yield f"# HELP {name} {meaning}"
    yield f"# TYPE {name} {kind}"
