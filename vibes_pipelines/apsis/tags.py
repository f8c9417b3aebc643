"""Tags of profiles, by merge patch.

An assumption: the documentation says merge patch and shows no body. A tag is set with true and
taken off with null; tags are read from an object with one member for each, or from a list.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vibes_pipelines.apsis.calls import Call
from vibes_pipelines.apsis.definitions import Place
from vibes_pipelines.apsis.errors import ApsisAnswerError, ApsisNotFound
from vibes_pipelines.apsis.profiles import profile_path

if TYPE_CHECKING:
    from vibes_pipelines.apsis.api import ApsisApi


async def read(api: "ApsisApi", place: Place, key: str) -> frozenset[str]:
    """The discriminators of a profile's tags; none for a missing profile."""
    try:
        answer = await api.get(_path(place, key), profile=(place.keyspace, key))
    except ApsisNotFound:
        return frozenset()
    if isinstance(answer, dict) and isinstance(answer.get("items"), list):
        return frozenset(map(_discriminator, answer["items"]))
    if isinstance(answer, dict):
        return frozenset(tag for tag, state in answer.items() if state not in (None, False))
    raise ApsisAnswerError("APSIS One API: the tags of a profile are neither object nor list")


async def write(api: "ApsisApi", place: Place, key: str, tags: Mapping[str, bool]) -> None:
    """Sets the tags that are True and takes off those that are False, in one request."""
    body = {tag: True if is_on else None for tag, is_on in tags.items()}
    await api.call(Call("PATCH", _path(place, key), body, profile=(place.keyspace, key)))


def _path(place: Place, key: str) -> str:
    return profile_path(place, key, "sections", place.section, "tags")


def _discriminator(item: Any) -> str:
    if isinstance(item, dict) and isinstance(item.get("discriminator"), str):
        return str(item["discriminator"])
    raise ApsisAnswerError("APSIS One API: a tag of a profile without discriminator")
