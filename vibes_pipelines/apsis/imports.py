"""Bulk imports of APSIS One: ask for one, upload its file, wait for its end. Files: `import_files`.

Rules: the APSIS One documentation, profile imports (version 2), and the vendor's client: a file of
at most 50 MB, three imports at a time, ten requests a minute; an upload URL that has expired asks
for a new import, and an import that lasts longer than a day has failed.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

import aiohttp
from yarl import URL

from vibes_pipelines.apsis.api import ApsisApi
from vibes_pipelines.apsis.calls import Call, path
from vibes_pipelines.apsis.consents import SettableType
from vibes_pipelines.apsis.definitions import Place
from vibes_pipelines.apsis.errors import (
    ApsisAnswerError,
    ApsisError,
    ApsisRefused,
    ApsisUnavailable,
    ImportFailed,
)
from vibes_pipelines.apsis.line import ask, judge

ImportStatus = Literal["waiting_for_file", "queued", "in_progress", "completed", "error"]
_STATUSES: Final[Mapping[str, ImportStatus]] = {name: name for name in get_args(ImportStatus)}
_REQUESTS: Final = 3
"""How many imports are asked for at most until one takes its file."""


@dataclass(frozen=True, slots=True)
class ConsentColumn:
    """A column of 1s: whoever has one gets this consent, for the address in another column."""

    column: str
    address_column: str
    topic: str
    channel: str


@dataclass(frozen=True, slots=True)
class ImportMapping:
    """What the columns of a file mean. `attributes` are (column, version id) pairs.

    `clear_existing`: a blank cell erases the stored value. One file holds consents of one type;
    `resubscribe` would opt in also whoever has opted out, and is off.
    """

    key_column: str
    attributes: tuple[tuple[str, str], ...] = ()
    consents: tuple[ConsentColumn, ...] = ()
    consent_type: SettableType = "opt-in"
    clear_existing: bool = False
    update_existing: bool = True
    resubscribe: bool = False

    def as_body(self, keyspace: str) -> dict[str, Any]:
        """The request of an import."""
        body: dict[str, Any] = {
            "keyspace_mapping": {
                "keyspace_discriminator": keyspace,
                "field_selector": self.key_column,
            },
            "options": {
                "update_existing_profiles": self.update_existing,
                "clear_existing_attributes": self.clear_existing,
            },
            "attribute_mappings": [
                {"field_selector": column, "attribute_version_id": version}
                for column, version in self.attributes
            ],
        }
        if self.consents:
            body["consent_mappings"] = self._consent_mappings()
        return body

    def _consent_mappings(self) -> list[dict[str, Any]]:
        """One mapping for each address column."""
        addresses = dict.fromkeys(consent.address_column for consent in self.consents)
        return [
            {
                "address_field_selector": address,
                "consents": [
                    {
                        "resubscribe_if_opted_out": self.resubscribe,
                        "field_selector": consent.column,
                        "channel_discriminator": consent.channel,
                        "topic_discriminator": consent.topic,
                        "type": self.consent_type,
                    }
                    for consent in self.consents
                    if consent.address_column == address
                ],
            }
            for address in addresses
        ]


@dataclass(frozen=True, slots=True)
class ImportTicket:
    """An import that waits for its file."""

    import_id: str
    upload_url: str
    upload_fields: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ImportResult:
    """Where an import stands. `counts` holds whatever numbers the account tells, by its names."""

    import_id: str
    status: ImportStatus
    counts: Mapping[str, int]

    @property
    def is_over(self) -> bool:
        """Whether nothing more will happen."""
        return self.status in {"completed", "error"}


class Imports:
    """The imports of one place; at most three of them at a time."""

    def __init__(self, api: ApsisApi, place: Place) -> None:
        self._api = api
        self._place = place
        self._slots = asyncio.Semaphore(api.limits.imports_at_once)

    async def run(
        self,
        file: Path,
        mapping: ImportMapping,
        on_request: Callable[[str], None] | None = None,
    ) -> ImportResult:
        """Brings one file in and waits until it is done.

        Args:
            file: CSV in UTF-8 with a header.
            mapping: what its columns mean.
            on_request: told every import's id before its file leaves, so that whoever comes after
                a crash can ask for its `status` instead of sending the file again.

        Raises:
            ImportFailed: too large, ended in error, or never ended.
        """
        size = file.stat().st_size
        if size > self._api.limits.import_bytes:
            limit_mb = self._api.limits.import_bytes // 1_000_000
            raise ImportFailed(None, f"{file.name} has more than {limit_mb} MB; split it")
        async with self._slots:
            for _ in range(_REQUESTS):
                ticket = await self.request(mapping)
                if on_request:
                    on_request(ticket.import_id)
                if await self.upload(ticket, file):
                    return await self.wait(ticket.import_id)
        raise ImportFailed(ticket.import_id, f"no upload URL took {file.name}; try again later")

    async def request(self, mapping: ImportMapping) -> ImportTicket:
        """Asks for an import, and waits for its turn while the account has three under way.

        A request whose answer was lost is sent again: an import without a file does nothing, and
        its upload URL expires.
        """
        where = path("v2", "audience", "sections", self._place.section, "imports")
        call = Call("POST", where, mapping.as_body(self._place.keyspace))
        clock = self._api.clock
        end_s = clock.monotonic() + self._api.limits.import_patience_s
        while True:
            try:
                return _ticket((await self._api.call(call, self._api.kept.imports)).json())
            except ApsisUnavailable as busy:
                if busy.status != 429 or clock.monotonic() > end_s:
                    raise
            await clock.sleep(self._api.limits.poll_s)

    async def upload(self, ticket: ImportTicket, file: Path) -> bool:
        """Uploads a file; False when the URL takes none, mostly because it has expired.

        Whether it has is left to the answer: two clocks may differ.
        """
        self._refuse_plain_upload(ticket)
        for _ in range(self._api.limits.max_attempts):
            try:
                await self._send_file(ticket, file)
            except ApsisRefused:
                return await self._has_left_waiting(ticket)
            except ApsisUnavailable as unavailable:
                if not unavailable.did_nothing and await self._has_left_waiting(ticket):
                    return True
                await self._api.clock.sleep(self._api.limits.backoff_s)
            else:
                return True
        return False

    async def status(self, import_id: str) -> ImportResult:
        """Where an import stands."""
        where = path("audience", "sections", self._place.section, "imports", import_id)
        answer = await self._api.get(where)
        result = answer.get("result") if isinstance(answer, dict) else None
        status = _STATUSES.get(str(result.get("status"))) if isinstance(result, dict) else None
        if not isinstance(result, dict) or status is None:
            raise ApsisAnswerError(f"APSIS One API: import {import_id} has no known result.status")
        counts = {
            name: value
            for name, value in result.items()
            if isinstance(value, int) and not isinstance(value, bool)
        }
        return ImportResult(import_id, status, counts)

    async def wait(self, import_id: str) -> ImportResult:
        """Waits for the end of an import that has its file.

        Raises:
            ImportFailed: it ended in error, or lasts longer than a day.
        """
        clock = self._api.clock
        end_s = clock.monotonic() + self._api.limits.import_patience_s
        while clock.monotonic() <= end_s:
            result = await self.status(import_id)
            if result.status == "error":
                cure = "see the import history of APSIS One for its reason, then send it again"
                raise ImportFailed(import_id, f"ended in error; {cure}")
            if result.is_over:
                return result
            await clock.sleep(self._api.limits.poll_s)
        raise ImportFailed(import_id, "not over after a day; taken as failed, send it again")

    async def _has_left_waiting(self, ticket: ImportTicket) -> bool:
        """Whether the import has its file, whatever the upload was answered."""
        return (await self.status(ticket.import_id)).status != "waiting_for_file"

    async def _send_file(self, ticket: ImportTicket, file: Path) -> None:
        """One upload: every field of the ticket, then the file; no token goes along."""
        form = aiohttp.FormData()
        for name, value in ticket.upload_fields.items():
            form.add_field(name, value)
        with file.open("rb") as content:
            form.add_field("file", content, filename=file.name, content_type="text/csv")
            answered = await ask(
                self._api.session,
                "POST",
                URL(ticket.upload_url, encoded=True),
                data=form,
                timeout=aiohttp.ClientTimeout(total=self._api.limits.upload_timeout_s),
            )
        judge(answered)

    def _refuse_plain_upload(self, ticket: ImportTicket) -> None:
        """Persons' data leaves encrypted, unless the API itself is a plain stand-in."""
        needed = URL(self._api.url).scheme
        if URL(ticket.upload_url).scheme not in {"https", needed}:
            raise ApsisError("APSIS One API: an upload URL without https; nothing was sent")


def _ticket(answer: Any) -> ImportTicket:
    found = answer if isinstance(answer, dict) else {}
    import_id, url = found.get("import_id"), found.get("file_upload_url")
    fields = found.get("file_upload_body")
    if not (import_id and url and isinstance(fields, dict)):
        msg = "APSIS One API: an import without import_id, file_upload_url or file_upload_body"
        raise ApsisAnswerError(msg)
    texts = {str(name): str(value) for name, value in fields.items()}
    return ImportTicket(str(import_id), str(url), texts)
