"""Draws docs/architecture.svg: the rooms in their layers, and which rooms each of them uses.

    python -m tools.architecture

The layers are those that import-linter enforces; what a room uses is read from its imports.
"""

import html
import inspect
import textwrap
import tomllib
from importlib import import_module
from pathlib import Path

import grimp

ROOT = Path(__file__).parents[1]
PACKAGE = "vibes_pipelines"
DRAWING = ROOT / "docs" / "architecture.svg"

WIDTH, GAP, MARGIN, LINE = 1000, 12, 16, 17
CHARACTERS_PER_PIXEL = 0.15


def layers() -> list[list[str]]:
    """The rooms, from the top: each row may use those below it. The last stands alone."""
    linter = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    [contract] = [
        each
        for each in linter["tool"]["importlinter"]["contracts"]
        if each["type"] == "layers" and each["containers"] == [PACKAGE]
    ]
    rows = [[room.strip() for room in row.split("|")] for row in contract["layers"]]
    return [*rows, contract["exhaustive_ignores"]]


def uses() -> dict[str, list[str]]:
    """Per room the rooms that it imports."""
    graph = grimp.build_graph(PACKAGE)
    rooms = [room for row in layers() for room in row]
    for room in rooms:
        graph.squash_module(f"{PACKAGE}.{room}")
    return {
        room: sorted(
            imported.removeprefix(f"{PACKAGE}.")
            for imported in graph.find_modules_directly_imported_by(f"{PACKAGE}.{room}")
            if imported.removeprefix(f"{PACKAGE}.") in {*rooms} - {room}
        )
        for room in rooms
    }


def drawing() -> str:
    """The SVG; equal code gives equal text."""
    used, parts, top = uses(), [], MARGIN
    for row in layers():
        width = (WIDTH - 2 * MARGIN - GAP * (len(row) - 1)) // len(row)
        boxes = [_lines(room, used[room], width) for room in row]
        height = max(len(lines) for lines in boxes) * LINE + 2 * GAP
        for column, (room, lines) in enumerate(zip(row, boxes, strict=True)):
            parts.append(_box(room, lines, MARGIN + column * (width + GAP), top, width, height))
        top += height + GAP
    title = "The rooms of vibes_pipelines: each may use the rooms below it, and uses those it names"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top + MARGIN - GAP}"'
        f' role="img" aria-label="{title}" font-family="sans-serif" font-size="13">\n'
        f"<title>{title}</title>\n" + "\n".join(parts) + "\n</svg>\n"
    )


def _lines(room: str, used: list[str], width: int) -> list[str]:
    doc = inspect.getdoc(import_module(f"{PACKAGE}.{room}")) or ""
    said = doc.partition("\n\n")[0].replace("\n", " ")
    columns = int(width * CHARACTERS_PER_PIXEL)
    return [
        *textwrap.wrap(said, columns),
        *textwrap.wrap(f"uses {', '.join(used)}" if used else "uses no other room", columns),
    ]


def _box(room: str, lines: list[str], left: int, top: int, width: int, height: int) -> str:
    texts = [
        f'<text x="{left + 10}" y="{top + 20}" font-weight="bold" fill="#123">{room}</text>',
        *(
            f'<text x="{left + 10}" y="{top + 20 + LINE * number}" fill="#123">'
            f"{html.escape(line)}</text>"
            for number, line in enumerate(lines, start=1)
        ),
    ]
    frame = (
        f'<rect x="{left}" y="{top}" width="{width}" height="{height + 8}" rx="6"'
        ' fill="#eef3f8" stroke="#567"/>'
    )
    return "\n".join([frame, *texts])


if __name__ == "__main__":
    DRAWING.write_text(drawing(), encoding="utf-8")
