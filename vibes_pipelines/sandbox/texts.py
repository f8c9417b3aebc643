"""Text messages that persons send: the stop word and the keyword of a subscription list.

Whether a stop word ends one subscription or all of them the Vibes documentation does not say; here
it is the one of the list. A keyword subscribes at once, without a question in return.
"""

from collections.abc import Mapping
from typing import Literal

from vibes_pipelines.sandbox.platform import Platform

TextWord = Literal["stop", "join"]

IDENTIFIERS = ("person_key", "external_person_id", "mdn")


class TextError(ValueError):
    """Nobody can have sent this text; the message says why."""


def text(platform: Platform, word: TextWord, identifier: Mapping[str, str], list_id: str) -> bool:
    """Let a person, given by one identifier, send the word; False when it changes nothing.

    Raises TextError.
    """
    if list_id not in platform.lists:
        raise TextError(f"there is no list {list_id!r}; known: {', '.join(platform.lists)}")
    with platform.lock:
        person = platform.find(**{name: identifier.get(name) for name in IDENTIFIERS})
        if person is None or person.mdn is None:
            raise TextError("no person with a phone has this identifier")
        if word == "stop":
            return platform.opt_out(person.person_key, list_id, platform.clock())
        stays = platform.subscriptions_of(person.person_key)
        if any(entry.list_id == list_id for entry in stays):
            return False
        platform.subscribe(person.person_key, list_id, platform.clock())
        return True
