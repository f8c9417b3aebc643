"""Which road a change takes: the import file or the API, and why.

What a file can say safely is the Vibes documentation's, Person Import. Which of the two roads is
faster is arithmetic on stated numbers. Nothing is read or sent here.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from vibes_pipelines.store.records import Change, Kind, Operation
from vibes_pipelines.sync_config import FieldType
from vibes_pipelines.vibes.import_cells import NUL
from vibes_pipelines.vibes.import_errors import ImportFileError
from vibes_pipelines.vibes.import_files import Member, Named
from vibes_pipelines.vibes.person_import import (
    CLEARED_EXTERNAL_ID,
    CannotExpress,
    check_expressible,
)

Columns = tuple[str, ...]
"""What makes a file of its own: the columns of a person file, the list of an `.opt_outs` file."""


@dataclass(frozen=True, slots=True)
class Estimates:
    """What each road costs.

    `rate_per_s` is the documented limit of the API per company. The others are assumptions, for
    the documentation is silent: seconds between two connections to the file server, seconds until
    a file is picked up, rows imported per second, seconds that every file costs beside its rows.
    """

    rate_per_s: float = 100
    gap_s: float = 300
    pickup_s: float = 300
    rows_per_s: float = 1_000
    file_cost_s: float = 0.2

    def api_s(self, rows: int) -> float:
        """Seconds that `rows` operations take by API."""
        return rows / self.rate_per_s

    def file_s(self, rows: int, files: int = 1) -> float:
        """Seconds until an import of `rows` rows in so many files is through."""
        if files == 0:
            return 0.0
        return self.gap_s + self.pickup_s + files * self.file_cost_s + rows / self.rows_per_s


@dataclass(frozen=True, slots=True)
class RoadChoice:
    """Which groups of rows go by file, and when each road ends; the rest goes by API."""

    by_file: frozenset[Columns]
    file_s: float
    api_s: float
    api_alone_s: float

    @property
    def reason(self) -> str:
        """The sentence that says why, without the group: every choice weighs all of them."""
        both = f"file ends after {self.file_s:.0f} s, api after {self.api_s:.0f} s"
        if self.by_file:
            return f"{both}; by api alone {self.api_alone_s:.0f} s"
        return f"api alone ends after {self.api_alone_s:.0f} s; no file would make that sooner"


def choose_roads(
    groups: Mapping[Columns, int], api_rows: int, estimates: Estimates, max_file_rows: int
) -> RoadChoice:
    """The roads on which the later of the two ends as early as possible; the API when equal.

    `groups`: rows per set of columns that a file can carry; each set makes files of its own.
    `api_rows`: rows that only the API can carry. The largest groups are tried by file first: none
    saves as many calls for the cost of a file.
    """
    largest_first = sorted(groups, key=lambda columns: (-groups[columns], columns))
    rows_by_file = files = 0
    rows_by_api = api_rows + sum(groups.values())
    api_alone_s = estimates.api_s(rows_by_api)
    best = RoadChoice(frozenset(), 0.0, api_alone_s, api_alone_s)
    for taken, columns in enumerate(largest_first, start=1):
        rows = groups[columns]
        rows_by_file, rows_by_api = rows_by_file + rows, rows_by_api - rows
        files += -(-rows // max_file_rows)
        file_s, api_s = estimates.file_s(rows_by_file, files), estimates.api_s(rows_by_api)
        if max(file_s, api_s) < max(best.file_s, best.api_s):
            best = RoadChoice(frozenset(largest_first[:taken]), file_s, api_s, api_alone_s)
    return best


def why_no_opt_out_by_file(operation: Operation) -> str | None:
    """Why an `.opt_outs` file cannot carry this opt-out; None when it can."""
    try:
        opt_out_member(operation)
    except ImportFileError as cannot:
        return str(cannot)
    return None


def opt_out_member(operation: Operation) -> Member:
    """Whom and which list a row of an `.opt_outs` file names, by one identifier.

    Raises:
        ImportFileError: a file cannot name them.
    """
    listed = operation.subscription_list_id or ""
    if operation.person_key is not None:
        return Member(Named("person_key", operation.person_key), listed)
    return Member(Named("external_person_id", operation.external_person_id or ""), listed)


def why_not_by_file(operation: Operation, types: Mapping[str, FieldType]) -> str | None:
    """Why an import file cannot carry this operation safely; None when it can."""
    if operation.kind == "mdn_replace":
        return "a number in place of another takes two steps"
    named = operation.external_person_id
    if named in {None, "", CLEARED_EXTERNAL_ID} or NUL in (named or ""):
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
    if change.field not in types:
        return "a field that sync.yaml maps no more"
    try:
        check_expressible(change.after, types[change.field], change.action)
    except CannotExpress as cannot:
        return str(cannot)
    return None


def file_columns(operation: Operation) -> Columns:
    """The columns of the file that carries this operation: exactly what it changes, no more."""
    return columns_of(operation.kind, operation.mdn, (change.field for change in operation.changes))


def columns_of(kind: Kind, mdn: str | None, fields: Iterable[str]) -> Columns:
    """As `file_columns`, of an operation of this kind and number that changes these fields."""
    number = ("mdn",) if kind == "add" and mdn else ()
    return ("external_person_id", *number, *sorted(fields))
