"""What every part of the sandbox that serves has in common: it runs while a `with` block does."""

from abc import ABC, abstractmethod
from typing import Self


class Running(ABC):
    """Started on entering a block, stopped on leaving it."""

    @abstractmethod
    def start(self) -> None:
        """Serve."""

    @abstractmethod
    def stop(self) -> None:
        """Stop serving."""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
