"""What a page of the documentation tells its reader to type, and where it shows what came of it.

A page's commands are its indented blocks. `<!-- output -->` below a block stands for what its last
command prints, `<!-- output: FILE -->` for what a file holds by then. Only reading is here.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

PLACE = re.compile(r"^<!-- output(?:: (?P<file>\S+))? -->$", re.MULTILINE)
_INDENT = "    "
_FENCE = "```"


@dataclass(frozen=True)
class Block:
    """Commands that are typed together, as they stand on the page."""

    text: str


@dataclass(frozen=True)
class Place:
    """Where the page shows something: what a command printed, or a file."""

    file: str | None = None

    @property
    def language(self) -> str:
        """How it is coloured."""
        return "yaml" if self.file else "text"


def parts(page: str) -> Iterator[Block | Place]:
    """The blocks and places of a page, in its order; what stands in a fence is neither."""
    for is_block, lines in groupby(_outside_fences(page), key=lambda line: line[:4] == _INDENT):
        if is_block:
            yield Block("\n".join(line.removeprefix(_INDENT) for line in lines))
            continue
        for line in lines:
            place = PLACE.match(line)
            if place:
                yield Place(place["file"])


def shown_parts(page: str) -> Iterator[Block | Place]:
    """The places of a page, and of its blocks only those whose output is shown next."""
    found = list(parts(page))
    for part, following in zip(found, [*found[1:], None], strict=True):
        if isinstance(part, Place) or isinstance(following, Place):
            yield part


def with_outputs(page: str, outputs: list[str]) -> str:
    """The page with an output at each of its places, in their order."""
    left = iter(outputs)

    def shown(match: re.Match[str]) -> str:
        return f"{_FENCE}{Place(match['file']).language}\n{next(left)}\n{_FENCE}"

    return PLACE.sub(shown, page)


def _outside_fences(page: str) -> Iterator[str]:
    is_inside = False
    for line in page.splitlines():
        if line.startswith(_FENCE):
            is_inside = not is_inside
            yield ""
        else:
            yield "" if is_inside else line
