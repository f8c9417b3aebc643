"""Which road a change takes: the import file or the API, and why.

What a file can say safely is the Vibes documentation's, Person Import. Which of the two roads is
faster is arithmetic on stated numbers. Nothing is read or sent here.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from vibes_pipelines.store.records import Change, Operation
from vibes_pipelines.sync_config import FieldType
from vibes_pipelines.vibes.person_import import CLEARED_EXTERNAL_ID, CannotExpress, cell

IDENTIFIER_FIELDS = frozenset({"external_person_id", "mdn"})


@dataclass(frozen=True, slots=True)
class Estimates:
    """What each road costs.

    `rate_per_s` is the documented limit of the API per company. The others are assumptions, for
    the documentation is silent: seconds between two connections to the file server, seconds until
    a file is picked up, rows imported per second.
    """

    rate_per_s: float = 100
    gap_s: float = 300
    pickup_s: float = 300
    rows_per_s: float = 1_000

    def api_s(self, rows: int) -> float:
        """Seconds that `rows` operations take by API."""
        return rows / self.rate_per_s

    def file_s(self, rows: int) -> float:
        """Seconds until an import of `rows` rows is through."""
        return self.gap_s + self.pickup_s + rows / self.rows_per_s


@dataclass(frozen=True, slots=True)
class RoadChoice:
    """The road of every operation that both roads can carry, and the sentence that says why."""

    by_file: bool
    reason: str


def faster_road(rows: int, estimates: Estimates) -> RoadChoice:
    """The faster road for `rows` operations that a file can carry; the API when equal."""
    api_s, file_s = estimates.api_s(rows), estimates.file_s(rows)
    name, best, other = ("file", file_s, api_s) if file_s < api_s else ("api", api_s, file_s)
    other_name = "api" if name == "file" else "file"
    reason = f"{name} is faster for {rows} rows: {best:.0f} s, {other_name} {other:.0f} s"
    return RoadChoice(by_file=name == "file", reason=reason)


def why_not_by_file(operation: Operation, types: Mapping[str, FieldType]) -> str | None:
    """Why an import file cannot carry this operation safely; None when it can."""
    if operation.external_person_id in {None, "", CLEARED_EXTERNAL_ID}:
        return "an import row needs an external_person_id that can be read as one"
    for change in operation.changes:
        reason = _why_not(change, types)
        if reason is not None:
            return reason
    return None


def _why_not(change: Change, types: Mapping[str, FieldType]) -> str | None:
    if change.field == "external_person_id":
        return "adopting a person changes its external_person_id"
    if change.field == "mdn":
        return "the number of an existing person"
    try:
        cell(change.after, types[change.field], change.action)
    except CannotExpress as cannot:
        return str(cannot)
    return None


def file_columns(operation: Operation) -> tuple[str, ...]:
    """The columns of the file that carries this operation: exactly what it changes, no more."""
    mdn = ("mdn",) if operation.kind == "add" and operation.mdn else ()
    return ("external_person_id", *mdn, *sorted(change.field for change in operation.changes))
