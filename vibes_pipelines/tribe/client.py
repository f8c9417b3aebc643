"""TribeClient: everything that is read from Tribe CRM or written to it, as plain calls."""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Self

from vibes_pipelines.settings import TribeSettings
from vibes_pipelines.tribe.api import Patience, TribeApi
from vibes_pipelines.tribe.clock import Clock, MachineClock
from vibes_pipelines.tribe.errors import TribeAnswerError, TribeLabelError, TribeRefusedError
from vibes_pipelines.tribe.labels import Label, label_ids, read_label
from vibes_pipelines.tribe.metadata import Metadata, read_metadata
from vibes_pipelines.tribe.odata import (
    MOST_TERMS,
    PERSONS,
    ROOT,
    changed_since,
    entity,
    is_guid,
    is_one_of,
    page_query,
)
from vibes_pipelines.tribe.persons import Paging, read_pages

Person = dict[str, Any]
"""A person as Tribe sends it: field → value, always with `ID` and `Labels` (`ID` and `Name`)."""


class TribeClient:
    """One application's view of one Tribe environment; use it as an async context manager.

    All clients of a process share the limit of calls of their application.
    """

    def __init__(
        self,
        settings: TribeSettings,
        clock: Clock | None = None,
        *,
        patience: Patience | None = None,
        paging: Paging | None = None,
    ) -> None:
        self._settings = settings
        self._api = TribeApi(settings, clock or MachineClock(), patience or Patience())
        self._paging = paging or Paging()

    async def __aenter__(self) -> Self:
        await self._api.__aenter__()
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self._api.__aexit__(*raised)

    def persons(
        self, since: datetime | None = None, select: Sequence[str] = ()
    ) -> AsyncIterator[list[Person]]:
        """Every person once, in pages of at most 100; `since`: those created or changed since then.

        `select`: the fields to read, `Address/City` those of what a person refers to; none given,
        all of the person's own. A person that was there all the while is never left out.

        Raises:
            TribeError: one of its kinds; what was yielded before is no complete list then.
        """
        where = changed_since(since) if since is not None else None
        return read_pages(self._api, PERSONS, select, where, self._paging)

    async def person(self, person_id: str, select: Sequence[str] = ()) -> Person | None:
        """One person as it is now; None when Tribe has it no more."""
        path = f"{ROOT}/{entity(PERSONS, person_id)}?{page_query(select)}"
        reply = await self._api.get(path)
        return reply.document() if reply.is_found else None

    async def find(
        self, key: str, values: Collection[str], select: Sequence[str] = ()
    ) -> list[Person]:
        """Every person whose field `key` (`ID`, or one that holds text) has one of these values."""
        found: list[Person] = []
        wanted = sorted(value for value in values if key != "ID" or is_guid(value))
        for begin in range(0, len(wanted), MOST_TERMS):
            where = is_one_of(key, wanted[begin : begin + MOST_TERMS])
            async for page in read_pages(self._api, PERSONS, select, where, self._paging):
                found += page
        return found

    async def labels(self) -> list[Label]:
        """Every label of the environment."""
        pages = read_pages(
            self._api, "Label", ("Name", "IsInactive"), None, self._paging, has_labels=False
        )
        return [read_label(row, "Label") async for page in pages for row in page]

    async def metadata(self) -> Metadata:
        """The fields and their types of every entity."""
        reply = await self._api.get(f"{ROOT}/$metadata")
        if not reply.is_found:
            msg = f"Tribe {reply.path}: not found; check TRIBE_API_URL"
            raise TribeAnswerError(msg)
        return read_metadata(reply.content)

    async def update(self, person_id: str, values: Mapping[str, Any]) -> bool:
        """Writes some fields of a person; False when Tribe has no such person."""
        path = f"{ROOT}/{entity(PERSONS, person_id)}"
        return (await self._api.request("PUT", path, dict(values))).is_found

    async def remove_label(self, person_id: str, label_id: str) -> bool:
        """Takes a label off a person, who keeps all others; False when there is no such person.

        A person without it is left alone. Each attempt reads the labels anew.

        Raises:
            TribeLabelError: read back, the labels are not what they should be.
        """
        return await self._api.again(lambda: self._remove_once(person_id, label_id))

    async def _remove_once(self, person_id: str, label_id: str) -> bool:
        held = await self._labels_of(person_id)
        if held is None or label_id not in held:
            return held is not None
        if self._settings.label_write == "replace":
            kept = [one for one in held if one != label_id]
            await self._put_labels(person_id, kept)
            return await self._is_removed(person_id, label_id, kept)
        await self._detach(person_id, label_id)
        return await self._is_removed(person_id, label_id)

    async def _labels_of(self, person_id: str) -> tuple[str, ...] | None:
        person = await self.person(person_id, ("ID",))
        return None if person is None else label_ids(person, PERSONS)

    async def _put_labels(self, person_id: str, wanted: Sequence[str]) -> None:
        path = f"{ROOT}/{entity(PERSONS, person_id)}"
        labels = [{"ID": label} for label in wanted]
        await self._api.request("PUT", path, {"Labels": labels}, once=True)

    async def _detach(self, person_id: str, label_id: str) -> None:
        path = f"{ROOT}/{entity(PERSONS, person_id)}/{entity('Labels', label_id)}/$ref"
        try:
            await self._api.request("DELETE", path, once=True)
        except TribeRefusedError as refused:
            msg = f"{refused}; where it takes no DELETE of a label, set TRIBE_LABEL_WRITE=replace"
            raise TribeLabelError(msg) from refused

    async def _is_removed(
        self, person_id: str, label_id: str, written: Collection[str] = ()
    ) -> bool:
        """Reads back; what users did to labels that were not written meanwhile is theirs."""
        held = await self._labels_of(person_id)
        if held is None:
            return False
        other = "one" if self._settings.label_write == "replace" else "replace"
        if label_id in held:
            msg = (
                f"Tribe {PERSONS}: a label that was taken off is there. Tribe takes labels off "
                f"otherwise: set TRIBE_LABEL_WRITE={other}; or a user put it back on: run it again"
            )
            raise TribeLabelError(msg)
        if not set(written) <= set(held):
            msg = (
                f"Tribe {PERSONS}: of a list of labels that was written, some are not there. "
                "Perhaps a user took them off meanwhile: run it again; or Tribe takes labels off "
                f"otherwise: set TRIBE_LABEL_WRITE={other}"
            )
            raise TribeLabelError(msg)
        return True
