"""What a page of a day is made of: sections of notes, facts, tables and plots, without any HTML.

What stands in them is decided in the modules `day_*`; how it looks, in the templates.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Cell = str | int | float | None
Tone = Literal["good", "warn", "bad", "info"]

WORD_OF_TONE: dict[Tone, str] = {"good": "OK", "warn": "Look", "bad": "Act", "info": "Note"}
"""The word that stands beside the colour, so that no meaning is in the colour alone."""


@dataclass(frozen=True)
class Note:
    """A sentence with a tone; `code` is a command to type, shown below it."""

    tone: Tone
    text: str
    code: str | None = None

    @property
    def word(self) -> str:
        """The tone in a word."""
        return WORD_OF_TONE[self.tone]


@dataclass(frozen=True)
class Table:
    """Rows below headings; the first cell names its row. `folded`: shown when asked for."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    empty: str = "None."
    folded: bool = False


@dataclass(frozen=True)
class Facts:
    """Names and values."""

    items: tuple[tuple[str, Cell], ...]


@dataclass(frozen=True)
class Plot:
    """A drawing as inline SVG made of numbers and our own words only, its title and unit."""

    svg: str
    name: str
    unit: str


@dataclass(frozen=True)
class Plots:
    """Drawings beside each other."""

    plots: tuple[Plot, ...]


Block = Note | Table | Facts | Plots


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading; `anchor` is stable, links lead to it."""

    anchor: str
    title: str
    intro: str
    blocks: tuple[Block, ...]


def table(
    caption: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[Cell]],
    *,
    empty: str = "None.",
    folded: bool = False,
) -> Table:
    """A table from any rows."""
    return Table(caption, tuple(columns), tuple(tuple(row) for row in rows), empty, folded)


def counted(number: int, one: str, many: str | None = None) -> str:
    """A number with its noun: `1 row`, `2 rows`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def difference(number: int) -> str:
    """A difference with its sign; nothing has none."""
    return f"{number:+,}" if number else "0"
