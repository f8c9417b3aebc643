"""Reading a whole entity set by pages, several in flight, and missing nobody.

The set changes while it is read, and a record deleted in an earlier page would move one that is
still to come out of sight. So pages overlap by one record: a page that does not begin with a record
that was seen is read again further back.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from vibes_pipelines.tribe.api import TribeApi
from vibes_pipelines.tribe.errors import TribeAnswerError, TribeMovedError
from vibes_pipelines.tribe.labels import label_ids
from vibes_pipelines.tribe.odata import PAGE_ROWS, ROOT, page_query

STEP = PAGE_ROWS - 1
"""A page begins with the last record of the page before."""

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Paging:
    """How a set is read: pages in flight, and how often a page is looked for further back."""

    in_flight: int = 16
    max_steps_back: int = 8


@dataclass(frozen=True, slots=True)
class _Page:
    """One answer. `is_followed`: Tribe says itself that it goes on (`@odata.nextLink`)."""

    skip: int
    rows: Rows
    is_followed: bool
    count: int | None


async def read_pages(
    api: TribeApi,
    entity_set: str,
    select: Sequence[str],
    where: str | None,
    paging: Paging,
    *,
    has_labels: bool = True,
) -> AsyncIterator[Rows]:
    """Every record once, page by page; ends where Tribe counts no more, and nothing more comes.

    Raises:
        TribeMovedError: the set changed faster than it could be read, or fewer came than counted.
        TribeAnswerError: an answer without records, or records without ID or Labels.
    """
    reader = _Reader(api, entity_set, select, where, has_labels=has_labels)
    walk = _Walk(reader, paging)
    try:
        async for page in walk.pages():
            yield page
    finally:
        await walk.stop()


@dataclass(frozen=True)
class _Reader:
    """Fetches single pages of one set."""

    api: TribeApi
    entity_set: str
    select: Sequence[str]
    where: str | None
    has_labels: bool

    async def page(self, skip: int, *, has_count: bool = False) -> _Page:
        query = page_query(
            self.select,
            self.where,
            "ID",
            (skip, PAGE_ROWS),
            has_labels=self.has_labels,
            has_count=has_count,
        )
        return await self._read(f"{ROOT}/{self.entity_set}?{query}", skip)

    async def _read(self, path: str, skip: int) -> _Page:
        reply = await self.api.get(path)
        body = reply.document() if reply.is_found else {}
        rows = body.get("value")
        if not isinstance(rows, list):
            msg = f"Tribe {reply.path}: no list of records came; check TRIBE_API_URL"
            raise TribeAnswerError(msg)
        for row in rows:
            if not isinstance(row, dict) or not isinstance(row.get("ID"), str):
                msg = f"Tribe {reply.path}: a record without ID; nothing was made of it"
                raise TribeAnswerError(msg)
            if self.has_labels:
                label_ids(row, reply.path)
        link, count = body.get("@odata.nextLink"), body.get("@odata.count")
        return _Page(skip, rows, bool(link), count if isinstance(count, int) else None)


class _Walk:
    """One reading of the set, from its first record to its last."""

    def __init__(self, reader: _Reader, paging: Paging) -> None:
        self._reader = reader
        self._paging = paging
        self._seen: set[str] = set()
        self._ahead: deque[tuple[int, asyncio.Task[_Page]]] = deque()
        self._expected: int | None = None
        self._probed_at: int | None = None
        self._seen_again = 0

    async def pages(self) -> AsyncIterator[Rows]:
        page = await self._reader.page(0, has_count=True)
        self._expected = page.count
        steps_back = 0
        while True:
            if page.skip and page.rows and page.rows[0]["ID"] not in self._seen:
                steps_back += 1
                page = await self._further_back(page.skip, steps_back)
                continue
            steps_back = 0
            if fresh := self._fresh(page.rows):
                yield fresh
            if len(page.rows) >= PAGE_ROWS:
                page = await self._next(page.skip + STEP)
            elif page.rows or not page.skip:
                rest = await self._behind(page, has_news=bool(fresh))
                if rest is None:
                    return
                page = rest
            else:  # everything behind the last page is gone: it begins beyond the end
                steps_back += 1
                page = await self._further_back(page.skip, steps_back)

    async def stop(self) -> None:
        """Lets go of the pages in flight."""
        tasks = [task for _, task in self._ahead]
        self._ahead.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _fresh(self, rows: Rows) -> Rows:
        fresh = [row for row in rows if row["ID"] not in self._seen]
        self._seen.update(row["ID"] for row in fresh)
        return fresh

    async def _next(self, skip: int) -> _Page:
        if self._ahead and self._ahead[0][0] != skip:
            await self.stop()
        begin = self._ahead[-1][0] + STEP if self._ahead else skip
        while len(self._ahead) < self._paging.in_flight:
            if self._expected is not None and begin >= max(self._expected, skip + 1):
                break  # perhaps not needed; read when its turn comes
            self._ahead.append((begin, asyncio.ensure_future(self._reader.page(begin))))
            begin += STEP
        return await self._ahead.popleft()[1]

    async def _behind(self, page: _Page, *, has_news: bool) -> _Page | None:
        """What comes behind a short page; None at the end of the set.

        Short does not mean last: Tribe may send fewer than it was asked for. So its link to a next
        page, or the count that came with the page, decides; a page without either is looked behind.
        Where Tribe neither counts nor links, a short page is the last. The link itself is not
        taken: what it leads to does not overlap. Where Tribe does not count, a link goes on even
        behind persons who were all seen: others may have come in front of them meanwhile.
        """
        end = page.skip + len(page.rows)
        is_counted = self._expected is None or (page.count is not None and end >= page.count)
        is_link_alone = page.is_followed and self._expected is None
        if is_counted and not (is_link_alone or (page.is_followed and has_news)):
            return None
        self._seen_again = 0 if has_news else self._seen_again + 1
        if is_link_alone and self._seen_again > self._paging.max_steps_back:
            raise TribeMovedError(self._never_at_rest())
        is_nothing_behind = page.skip == self._probed_at and not has_news and not is_link_alone
        if not page.rows or is_nothing_behind:
            msg = (
                f"Tribe {ROOT}/{self._reader.entity_set}: {page.count} records were counted, and "
                f"only {len(self._seen)} came; run it again. If it stays so, give the "
                "application the right to read all of them"
            )
            raise TribeMovedError(msg)
        await self.stop()
        self._probed_at = end - 1
        return await self._counted(end - 1)

    async def _counted(self, skip: int) -> _Page:
        """A page with the newest count; None where Tribe does not count."""
        page = await self._reader.page(skip, has_count=self._expected is not None)
        return page if page.count is not None else replace(page, count=self._expected)

    async def _further_back(self, skip: int, steps_back: int) -> _Page:
        if steps_back > self._paging.max_steps_back:
            raise TribeMovedError(self._never_at_rest())
        await self.stop()
        begin = max(0, skip - PAGE_ROWS * 2 ** (steps_back - 1))
        return await self._counted(begin)

    def _never_at_rest(self) -> str:
        return (
            f"Tribe {ROOT}/{self._reader.entity_set}: so many records came and went during "
            "the reading that no complete list came about; run it again at a quieter hour"
        )
