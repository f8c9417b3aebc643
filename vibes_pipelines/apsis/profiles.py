"""Profiles of APSIS One: create, read, set and clear attributes, merge, switch key, delete.

Rules: the APSIS One documentation of the profile calls. Version 1 of the attribute call creates a
missing profile, version 2 does not, but it clears with null and moves keys along. Locking a
profile, which is irreversible, has no function here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vibes_pipelines.apsis.calls import Call, path
from vibes_pipelines.apsis.definitions import Definitions, Place
from vibes_pipelines.apsis.errors import (
    ApsisAnswerError,
    ApsisConflict,
    ApsisError,
    ApsisNotFound,
    ValueRefused,
)
from vibes_pipelines.apsis.values import JsonValue

if TYPE_CHECKING:
    from vibes_pipelines.apsis.api import ApsisApi


@dataclass(frozen=True, slots=True)
class ProfileKey:
    """A unique identifier: a keyspace and the key in it."""

    keyspace: str
    key: str

    def as_body(self) -> dict[str, str]:
        """As requests name it."""
        return {"keyspace_discriminator": self.keyspace, "profile_key": self.key}


@dataclass(frozen=True, slots=True)
class Profile:
    """A profile as one section sees it: values by attribute, of versions in force only."""

    key: ProfileKey
    attributes: Mapping[str, JsonValue]


@dataclass(frozen=True)
class DeletionPermission:
    """Somebody's word that profiles may be deleted for ever, consents and events included.

    Only a caller whose config has the deletion switch on can have one.
    """

    granted_by: str
    reason: str

    def __post_init__(self) -> None:
        if not self.granted_by.strip() or not self.reason.strip():
            msg = "a deletion of profiles needs the name of who allows it, and a reason"
            raise ValueError(msg)


def profile_path(place: Place, key: str, *below: str, version: str = "") -> str:
    """The path of a profile, seen through a place's keyspace, and of what lies below."""
    before = (version,) if version else ()
    return path(*before, "audience", "keyspaces", place.keyspace, "profiles", key, *below)


async def create(api: "ApsisApi", place: Place, key: str) -> bool:
    """Creates a profile; False when it is there already."""
    where = path("audience", "keyspaces", place.keyspace, "sections", place.section, "profiles")
    call = Call("POST", where, {"profile_key": key}, profile=(place.keyspace, key))
    try:
        await api.call(call)
    except ApsisConflict:
        return False
    return True


async def read(api: "ApsisApi", place: Place, key: str, known: Definitions) -> Profile | None:
    """A profile; None when there is none."""
    where = profile_path(place, key, "sections", place.section, "attributes")
    try:
        answer = await api.get(where, profile=(place.keyspace, key))
    except ApsisNotFound:
        return None
    if not isinstance(answer, dict):
        raise ApsisAnswerError("APSIS One API: the attributes of a profile are no object")
    values = {_discriminator(name, known): value for name, value in answer.items()}
    found = {name: value for name, value in values.items() if name and value is not None}
    return Profile(ProfileKey(place.keyspace, key), found)


def _discriminator(name: str, known: Definitions) -> str | None:
    """The attribute of a key of the answer: a version id, or its discriminator."""
    return known.discriminators.get(name) or (name if name in known.version_ids else None)


async def upsert(
    api: "ApsisApi", place: Place, key: str, values: Mapping[str, JsonValue], known: Definitions
) -> None:
    """Sets attributes, by discriminator, and creates the profile if it is missing (version 1).

    Raises:
        ApsisSetupError: an attribute is not among the definitions.
        ValueRefused: a null; only `patch` clears.
    """
    for name, value in values.items():
        if value is None:
            raise ValueRefused("any", f"{name} is null", "clear it with a patch of the profile")
    body: dict[str, Any] = {known.version_id(name): value for name, value in values.items()}
    where = profile_path(place, key, "sections", place.section, "attributes")
    await api.call(Call("PATCH", where, body, profile=(place.keyspace, key)))


async def patch(
    api: "ApsisApi",
    place: Place,
    key: str,
    values: Mapping[str, JsonValue | None],
    known: Definitions,
) -> None:
    """Sets attributes and clears those that are None; keys mapped to them move along (version 2).

    Raises:
        ApsisNotFound: there is no such profile; it is not created.
        ApsisConflict: the new value of a key belongs to another profile.
    """
    for name in values:
        known.version_id(name)
    where = profile_path(place, key, "sections", place.section, "attributes", version="v2")
    await api.call(Call("PATCH", where, dict(values), profile=(place.keyspace, key)))


async def merge(api: "ApsisApi", first: ProfileKey, second: ProfileKey) -> None:
    """Makes two profiles one; a missing one is created on the way.

    Not sent again when its effect is unknown, because nothing says what a second merge answers.

    Raises:
        ApsisConflict: the two cannot be merged.
        ApsisLocked: one of them is locked.
    """
    body = {"profiles": [first.as_body(), second.as_body()]}
    call = Call(
        "PUT",
        path("audience", "profiles", "merges"),
        body,
        profile=(first.keyspace, first.key),
        repeatable=False,
    )
    await api.call(call)


async def delete(
    api: "ApsisApi", place: Place, key: str, permission: DeletionPermission | None
) -> bool:
    """Deletes a profile for ever, in the whole account; False when there is none.

    A repeated attempt that finds nothing counts as the deletion that the first one was.

    Raises:
        ApsisError: nobody permits it.
    """
    if permission is None:
        msg = "APSIS One profiles are deleted only with a permission; switch deletion on for it"
        raise ApsisError(msg)
    call = Call("DELETE", profile_path(place, key), profile=(place.keyspace, key))
    try:
        await api.call(call)
    except ApsisNotFound as missing:
        return missing.is_repeat
    return True
