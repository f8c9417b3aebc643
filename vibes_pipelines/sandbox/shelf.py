"""Keyed records that know which of them have changed, so that the journal can save just those."""

from typing import TypeVar

K = TypeVar("K", bound=str | int)
V = TypeVar("V")


class Shelf(dict[K, V]):
    """A dictionary whose records are replaced, never changed in place.

    `dirty` has the keys that were set or deleted since the journal last took them.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.dirty: set[K] = set()

    def __setitem__(self, key: K, value: V) -> None:
        super().__setitem__(key, value)
        self.dirty.add(key)

    def __delitem__(self, key: K) -> None:
        super().__delitem__(key)
        self.dirty.add(key)

    def restore(self, key: K, value: V) -> None:
        """Put a saved record back, which is not a change."""
        super().__setitem__(key, value)
