"""Reads an HTML page as a test needs it: its text, headings, tables, links, and what it loads."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from html.parser import HTMLParser

_VOID = frozenset({"meta", "link", "br", "img", "wbr", "hr", "input"})


@dataclass
class Table:
    """A table as a reader of screens meets it."""

    caption: str = ""
    columns: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)
    scopes: set[str | None] = field(default_factory=set)

    def column(self, name: str) -> list[str]:
        """The cells below one heading."""
        return [row[self.columns.index(name)] for row in self.rows]


class ReadPage(HTMLParser):
    """The page, parsed; `unclosed` names elements that are closed in no order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.language: str | None = None
        self.headings: list[int] = []
        self.tables: list[Table] = []
        self.links: list[str] = []
        self.loads: list[str] = []
        self.ids: list[str] = []
        self.elements: list[str] = []
        self.unclosed: list[str] = []
        self.by_anchor: dict[str, list[str]] = {}
        self._open: list[tuple[str, str | None]] = []
        self._texts: list[str] = []
        self.feed(html)
        self.unclosed += [name for name, _ in self._open]

    @property
    def text(self) -> str:
        """Everything that is shown, with single spaces."""
        return " ".join(" ".join(self._texts).split())

    def section(self, anchor: str) -> str:
        """What one section shows."""
        return " ".join(" ".join(self.by_anchor[anchor]).split())

    def table(self, caption: str) -> Table:
        """The table whose caption begins so."""
        return next(one for one in self.tables if one.caption.startswith(caption))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.elements.append(tag)
        if tag == "html":
            self.language = found.get("lang")
        if tag == "a":
            self.links.append(found.get("href") or "")
        self.loads += [value or "" for name, value in attrs if name in {"src", "srcset", "data"}]
        if tag == "link":
            self.loads.append(found.get("href") or "")
        if "id" in found:
            self.ids.append(found["id"] or "")
        if tag in {"h1", "h2", "h3", "h4"}:
            self.headings.append(int(tag[1]))
        self._table(tag, found)
        if tag not in _VOID:
            self._open.append((tag, found.get("id") if tag == "section" else None))

    def _table(self, tag: str, found: dict[str, str | None]) -> None:
        if tag == "table":
            self.tables.append(Table())
        elif tag == "tr" and self._is_inside("tbody"):
            self.tables[-1].rows.append([])
        elif tag == "th":
            self.tables[-1].scopes.add(found.get("scope"))
        if tag in {"th", "td"}:
            cells = self.tables[-1].rows[-1] if self._is_inside("tbody") else None
            (self.tables[-1].columns if cells is None else cells).append("")

    def handle_endtag(self, tag: str) -> None:
        if self._open and self._open[-1][0] == tag:
            self._open.pop()
        else:
            self.unclosed.append(tag)

    def handle_data(self, data: str) -> None:
        if self._is_inside("style"):
            return
        self._texts.append(data)
        for anchor in self._anchors():
            self.by_anchor.setdefault(anchor, []).append(data)
        if self._is_inside("caption"):
            self.tables[-1].caption += data
        elif self._is_inside("th") or self._is_inside("td"):
            table = self.tables[-1]
            cells = table.rows[-1] if self._is_inside("tbody") else table.columns
            cells[-1] = (cells[-1] + data).strip()

    def _is_inside(self, tag: str) -> bool:
        return any(name == tag for name, _ in self._open)

    def _anchors(self) -> Iterable[str]:
        return (anchor for _, anchor in self._open if anchor)
