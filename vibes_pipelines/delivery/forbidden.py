"""Whether 403 is about one record, or about the right to send anything of its kind.

The documentation knows a 403 of single broadcasts alone. An assumption: one about a person says
nothing of the next person; a right that is missing altogether refuses all of them.
"""

from vibes_pipelines.store.records import Operation

PERSONS_IN_A_ROW = 10
"""So many different persons refused, with nothing accepted between, is a missing right.

Were it one person in ten at random, it would happen once in ten thousand million; and where the
right is missing, no more than these and those in flight are asked for in vain.
"""


class Forbidden:
    """The operations that were answered with 403 since one was accepted."""

    def __init__(self) -> None:
        self._held: list[tuple[Operation, str]] = []
        self._persons: set[str] = set()

    def hold(self, operation: Operation, message: str) -> None:
        """Keeps a refused operation until it is known what the refusal was about."""
        self._held.append((operation, message))
        named = operation.person_key or operation.external_person_id or operation.mdn
        self._persons.add(named or operation.operation_id)

    @property
    def is_everything(self) -> bool:
        """True when the right is missing altogether: what is held had no chance."""
        return len(self._persons) >= PERSONS_IN_A_ROW

    def let_go(self) -> list[tuple[Operation, str]]:
        """What is held, with the refusals; nothing is held any more."""
        held, self._held = self._held, []
        self._persons.clear()
        return held
