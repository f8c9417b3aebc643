"""What imports leave behind that is no person: one-off audiences and incentive codes."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from vibes_pipelines.sandbox.shelf import Shelf


@dataclass(frozen=True, slots=True)
class RecipientList:
    """The one-off audience of a `.recipient_list` file: person keys, in the file's order."""

    name: str
    person_keys: tuple[str, ...]


class ImportRecords:
    """Audiences by file name, and codes by the pool they belong to."""

    def __init__(self, incentive_pools: Iterable[str]) -> None:
        self.incentive_pools = frozenset(incentive_pools)
        self.recipient_lists: Shelf[str, RecipientList] = Shelf("recipient_lists")
        self.incentive_codes: Shelf[str, str] = Shelf("incentive_codes")

    def shelves(self) -> tuple[Shelf[Any, Any], ...]:
        """What the journal saves."""
        return self.recipient_lists, self.incentive_codes
