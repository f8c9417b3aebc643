"""Text messages that persons send: the stop word and the keyword of a subscription list.

Whether a stop word ends one subscription or all of them the Vibes documentation does not say; here
it is the one of the list, and it answers what the list's campaigns have asked. A keyword subscribes
at once, without a question in return, and lifts what an earlier "No" barred.
"""

from collections.abc import Mapping
from typing import Literal

from vibes_pipelines.sandbox.account import Account
from vibes_pipelines.sandbox.platform import Person, Platform

TextWord = Literal["stop", "join"]

IDENTIFIERS = ("person_key", "external_person_id", "mdn")


class TextError(ValueError):
    """Nobody can have sent this text; the message says why."""


def find_phone_owner(platform: Platform, identifier: Mapping[str, object]) -> Person:
    """The person with a phone whom one identifier names; raises TextError."""
    named = {name: str(identifier[name]) for name in IDENTIFIERS if name in identifier}
    person = platform.find(**named)
    if person is None or person.mdn is None:
        raise TextError("no person with a phone has this identifier")
    return person


def text(account: Account, word: TextWord, identifier: Mapping[str, str], list_id: str) -> bool:
    """Let a person, given by one identifier, send the word; False when it changes nothing.

    Raises TextError.
    """
    platform = account.platform
    if list_id not in platform.lists:
        raise TextError(f"there is no list {list_id!r}; known: {', '.join(platform.lists)}")
    with platform.lock:
        person = find_phone_owner(platform, identifier)
        if word == "stop":
            has_answered = account.acquisition.stop(list_id, person)
            has_ended = platform.opt_out(person.person_key, list_id, platform.clock())
            return has_answered or has_ended
        account.acquisition.lift(list_id, person.mdn or "")
        stays = platform.subscriptions_of(person.person_key)
        if any(entry.list_id == list_id for entry in stays):
            return False
        platform.subscribe(person.person_key, list_id, platform.clock())
        return True
