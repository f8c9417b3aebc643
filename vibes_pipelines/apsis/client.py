"""`ApsisClient`: one section of an APSIS One account, seen through one keyspace.

A thin face: what each call means, and its errors, are in the modules it forwards to. No call locks
a profile.
"""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self

from vibes_pipelines.apsis import consents, profiles, tags
from vibes_pipelines.apsis.api import ApsisApi
from vibes_pipelines.apsis.calls import Limits
from vibes_pipelines.apsis.clock import Clock
from vibes_pipelines.apsis.consents import Consent, ConsentOutcome, SettableType
from vibes_pipelines.apsis.definitions import Definitions, Place, read_definitions
from vibes_pipelines.apsis.imports import ImportMapping, ImportResult, Imports
from vibes_pipelines.apsis.kept import KeptAccount
from vibes_pipelines.apsis.profiles import DeletionPermission, Profile, ProfileKey
from vibes_pipelines.apsis.values import JsonValue
from vibes_pipelines.settings import ApsisSettings


class ApsisClient:
    """An open client; use it as an async context manager, in one event loop.

    Attribute values are those of `values.json_value`, attributes are named by discriminator.
    `kept` is for whoever opens several clients of one API key; it has clock and limits of its own.
    """

    def __init__(
        self,
        settings: ApsisSettings,
        place: Place,
        *,
        clock: Clock | None = None,
        limits: Limits | None = None,
        kept: KeptAccount | None = None,
    ) -> None:
        self.place = place
        self._api = ApsisApi(settings, kept or KeptAccount(limits, clock))
        self._definitions: Definitions | None = None

    async def __aenter__(self) -> Self:
        await self._api.__aenter__()
        self._definitions_lock = asyncio.Lock()
        self.imports = Imports(self._api, self.place)
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self._api.__aexit__(*raised)

    async def definitions(self, *, refresh: bool = False) -> Definitions:
        """What the account has; read once, or anew."""
        async with self._definitions_lock:
            if self._definitions is None or refresh:
                self._definitions = await read_definitions(self._api, self.place)
            return self._definitions

    async def profile(self, key: str) -> Profile | None:
        """A profile's attributes; None when there is no such profile."""
        return await profiles.read(self._api, self.place, key, await self.definitions())

    async def create(self, key: str) -> bool:
        """Creates a profile; False when it is there already."""
        return await profiles.create(self._api, self.place, key)

    async def upsert(self, key: str, attributes: Mapping[str, JsonValue]) -> None:
        """Sets attributes and creates a missing profile; clears nothing, moves no key."""
        known = await self.definitions()
        await profiles.upsert(self._api, self.place, key, attributes, known)

    async def patch(self, key: str, attributes: Mapping[str, JsonValue | None]) -> None:
        """Sets attributes of an existing profile and clears those that are None."""
        known = await self.definitions()
        await profiles.patch(self._api, self.place, key, attributes, known)

    async def consents(self, key: str) -> tuple[Consent, ...] | None:
        """All consents of a profile in the section; None when there is no such profile."""
        return await consents.read(self._api, self.place, key)

    async def consent(
        self,
        key: str,
        topic: str,
        channel: str,
        consent_type: SettableType,
        reason: str,
        source: str | None = None,
    ) -> ConsentOutcome:
        """Sets one consent."""
        return await consents.set_consent(
            self._api,
            self.place,
            key,
            topic=topic,
            channel=channel,
            consent_type=consent_type,
            reason=reason,
            source=source,
        )

    async def tags(self, key: str) -> frozenset[str]:
        """A profile's tags."""
        return await tags.read(self._api, self.place, key)

    async def tag(self, key: str, *names: str) -> None:
        """Sets tags of a profile."""
        await tags.write(self._api, self.place, key, dict.fromkeys(names, True))

    async def untag(self, key: str, *names: str) -> None:
        """Takes tags off a profile."""
        await tags.write(self._api, self.place, key, dict.fromkeys(names, False))

    async def merge(self, first: ProfileKey, second: ProfileKey) -> None:
        """Makes two profiles one."""
        await profiles.merge(self._api, first, second)

    async def delete(self, key: str, permission: DeletionPermission | None) -> bool:
        """Deletes a profile for ever; False when there is none. Without a permission: refused."""
        return await profiles.delete(self._api, self.place, key, permission)

    async def import_profiles(
        self,
        file: Path,
        mapping: ImportMapping,
        on_request: Callable[[str], None] | None = None,
    ) -> ImportResult:
        """Brings a file in and waits for its end; `imports` has the steps one by one."""
        return await self.imports.run(file, mapping, on_request)
