"""What an APSIS One account has: keyspaces, channels, sections, attributes, topics, tags.

And whether what a config asks for is among it; values of profiles are in `profiles`.
"""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from vibes_pipelines.apsis.calls import path
from vibes_pipelines.apsis.errors import ApsisAnswerError, ApsisSetupError

if TYPE_CHECKING:
    from vibes_pipelines.apsis.api import ApsisApi

EMAIL_CHANNEL = "com.apsis1.channels.email"
SMS_CHANNEL = "com.apsis1.channels.sms"
"""An assumption: no page prints it; `Definitions.check` compares it with the account's channels."""

CRM_ID_KEYSPACE = "com.apsis1.keyspaces.crm-id"
EMAIL_KEYSPACE = "com.apsis1.keyspaces.email"
MOBILE_KEYSPACE = "com.apsis1.keyspaces.mobile"

EMAIL = "com.apsis1.attributes.email"
MOBILE = "com.apsis1.attributes.mobile"
CRM_ID = "com.apsis1.attributes.crmid"


@dataclass(frozen=True, slots=True)
class Place:
    """Where profiles are written: one section, through one keyspace."""

    section: str
    keyspace: str = CRM_ID_KEYSPACE


@dataclass(frozen=True, slots=True)
class Definition:
    """A section, channel, topic or tag."""

    discriminator: str
    name: str


@dataclass(frozen=True, slots=True)
class Keyspace:
    """A kind of unique identifier, and whether consents can be set through it."""

    discriminator: str
    name: str
    manage_subscriptions: bool


@dataclass(frozen=True, slots=True)
class Attribute:
    """An attribute; `version_id` is its version in force, None when all are deprecated."""

    discriminator: str
    name: str
    version_id: str | None


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a config asks for. `consents` are (topic, channel) pairs."""

    attributes: Iterable[str] = ()
    consents: Iterable[tuple[str, str]] = ()
    tags: Iterable[str] = ()


@dataclass(frozen=True)
class Definitions:
    """One account as seen from one place."""

    place: Place
    keyspaces: tuple[Keyspace, ...]
    channels: tuple[Definition, ...]
    sections: tuple[Definition, ...]
    attributes: tuple[Attribute, ...] = ()
    topics: tuple[Definition, ...] = ()
    tags: tuple[Definition, ...] = field(default=())

    @cached_property
    def version_ids(self) -> Mapping[str, str]:
        """The version in force of every attribute that has one."""
        return {a.discriminator: a.version_id for a in self.attributes if a.version_id}

    @cached_property
    def discriminators(self) -> Mapping[str, str]:
        """The attribute of every version in force."""
        return {version: name for name, version in self.version_ids.items()}

    def version_id(self, discriminator: str) -> str:
        """The version of an attribute in force.

        Raises:
            ApsisSetupError: no such attribute, only deprecated versions of it, or no such place.
        """
        if discriminator not in self.version_ids:
            self.require(Wanted([discriminator]))
        return self.version_ids[discriminator]

    def check(self, wanted: Wanted) -> list[str]:
        """What the account lacks of the wanted, each with its cure; empty when all is there."""
        consents = list(wanted.consents)
        findings = [
            *_missing("keyspace", [self.place.keyspace], self.keyspaces),
            *_missing("section", [self.place.section], self.sections),
        ]
        if not findings:
            findings = [
                *self._permission_findings(has_consents=bool(consents)),
                *self._attribute_findings(wanted.attributes),
                *_missing("topic", [topic for topic, _ in consents], self.topics),
                *_missing("channel", [channel for _, channel in consents], self.channels),
                *_missing("tag", wanted.tags, self.tags),
            ]
        return findings

    def require(self, wanted: Wanted) -> None:
        """Nothing when all the wanted is there.

        Raises:
            ApsisSetupError: what is not, all of it.
        """
        findings = self.check(wanted)
        if findings:
            raise ApsisSetupError("; ".join(findings))

    def _permission_findings(self, *, has_consents: bool) -> list[str]:
        here = {keyspace.discriminator: keyspace for keyspace in self.keyspaces}
        if not has_consents or here[self.place.keyspace].manage_subscriptions:
            return []
        return [
            f"keyspace {self.place.keyspace} lacks manage_subscriptions, so no consent can be set "
            "through it; have it granted in APSIS One, or remove the consent mappings"
        ]

    def _attribute_findings(self, wanted: Iterable[str]) -> list[str]:
        names = list(dict.fromkeys(wanted))
        known = {attribute.discriminator for attribute in self.attributes}
        dead = [
            f"attribute {name} has only deprecated versions; map another attribute"
            for name in names
            if name in known and name not in self.version_ids
        ]
        return [*_missing("attribute", names, self.attributes), *dead]


def _missing(
    kind: str, wanted: Iterable[str], there: Iterable[Definition | Keyspace | Attribute]
) -> list[str]:
    """A finding for each wanted discriminator that is not there, with what may be meant."""
    known = {entry.discriminator: entry.name for entry in there}
    findings = []
    for name in dict.fromkeys(wanted):
        if name in known:
            continue
        by_name = [known_one for known_one, title in known.items() if title == name]
        near = by_name or difflib.get_close_matches(name, known, n=3, cutoff=0.6)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(known)}"
        findings.append(f"the account has no {kind} {name!r}; {hint if known else 'it has none'}")
    return findings


async def read_definitions(api: "ApsisApi", place: Place) -> Definitions:
    """Reads the account, and the section's own definitions when the section is there.

    Raises:
        ApsisAnswerError: a list without `items`.
    """
    sections = await _plain(api, path("audience", "sections"))
    found = Definitions(
        place,
        tuple(map(_keyspace, await _items(api, path("audience", "keyspaces")))),
        await _plain(api, path("audience", "channels")),
        sections,
    )
    if place.section not in {section.discriminator for section in sections}:
        return found
    below = ("audience", "sections", place.section)
    return Definitions(
        place,
        found.keyspaces,
        found.channels,
        sections,
        tuple(map(_attribute, await _items(api, path(*below, "attributes")))),
        await _plain(api, path("v2", *below, "topics")),
        await _plain(api, path(*below, "tags")),
    )


async def _plain(api: "ApsisApi", where: str) -> tuple[Definition, ...]:
    return tuple(
        Definition(item["discriminator"], str(item.get("name", "")))
        for item in await _items(api, where)
    )


async def _items(api: "ApsisApi", where: str) -> list[dict[str, Any]]:
    answer = await api.get(where)
    items = answer.get("items") if isinstance(answer, dict) else None
    if not isinstance(items, list):
        raise ApsisAnswerError(f"APSIS One API: {where} answers no list of items")
    for item in items:
        if not isinstance(item, dict) or not isinstance(item.get("discriminator"), str):
            raise ApsisAnswerError(f"APSIS One API: {where} has an item without discriminator")
    return items


def _keyspace(item: dict[str, Any]) -> Keyspace:
    may = item.get("manage_subscriptions") is True
    return Keyspace(item["discriminator"], str(item.get("name", "")), may)


def _attribute(item: dict[str, Any]) -> Attribute:
    versions = [v for v in item.get("versions") or () if isinstance(v, dict) and v.get("id")]
    in_force = [v for v in versions if v.get("deprecated_at") is None]
    version_id = str(in_force[-1]["id"]) if in_force else None
    return Attribute(item["discriminator"], str(item.get("name", "")), version_id)
