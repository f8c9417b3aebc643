"""What becomes known of some people right before their operations leave."""

from collections.abc import Mapping, Sequence

from vibes_pipelines.store.records import Operation


class Withdraws:
    """A last look that takes out everything of these people."""

    def __init__(self, *keys: str) -> None:
        self._keys = keys

    def withdrawn(self, operations: Sequence[Operation]) -> Mapping[str, str]:
        """Their operations."""
        return {o.operation_id: "newer" for o in operations if o.external_person_id in self._keys}
