"""Destinations: what the one reconcile and the one delivery have to know of where changes go.

Each is data: which feeds show its side, how its persons and consents are named, and what it can do.
How it is spoken to belongs to its own room.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from vibes_pipelines.sync_config import SyncConfig
from vibes_pipelines.sync_config.apsis_view import apsis_view

ConsentKey = Literal["list", "topic and channel"]
OptIn = Literal["invitation", "direct"]
"""How an opt-in gets there: the person is asked and confirms, or it is written as it is."""

Evidence = Literal["share", "api"]
"""Where the destination's side was read, as a row of a certificate names it."""


@dataclass(frozen=True)
class Feeds:
    """The landed feeds that a diff set is made from."""

    contacts: str
    persons: str
    subscriptions: tuple[str, ...]


class Destination(Protocol):
    """One place that changes go to."""

    @property
    def name(self) -> str:
        """What commands and folders call it."""

    @property
    def feeds(self) -> Feeds:
        """Where both sides are landed."""

    @property
    def identifiers(self) -> tuple[str, ...]:
        """The identifiers by which a person is found, the strongest first."""

    @property
    def consent_key(self) -> ConsentKey:
        """What a consent is about."""

    @property
    def opt_in(self) -> OptIn:
        """How an opt-in gets there."""

    @property
    def evidence(self) -> Evidence:
        """Where its side is read."""

    @property
    def takes_files(self) -> bool:
        """Whether changes may go by import file as they are planned for Vibes."""

    @property
    def can_delete(self) -> bool:
        """Whether a person can be deleted there."""

    @property
    def deletes_unmatched(self) -> bool:
        """Whether persons are to be deleted whose contact stopped meeting the conditions."""

    @property
    def ends_with(self) -> Mapping[str, tuple[str, ...]]:
        """Fields (addresses, numbers) whose change ends the consents of these lists."""

    def view(self, config: SyncConfig) -> SyncConfig:
        """The sync config as the reconcile reads it for this destination."""


@dataclass(frozen=True)
class Vibes:
    """The Vibes platform; it has no deletion, and opt-ins are confirmed by the person."""

    name: str = "vibes"
    feeds: Feeds = Feeds(
        "crm/contacts", "share/persons", ("share/subscriptions", "extract/subscriptions")
    )
    identifiers: tuple[str, ...] = ("person_id", "person_key", "external_person_id", "mdn")
    consent_key: ConsentKey = "list"
    opt_in: OptIn = "invitation"
    evidence: Evidence = "share"
    takes_files: bool = True
    can_delete: bool = False
    deletes_unmatched: bool = False
    ends_with: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def view(self, config: SyncConfig) -> SyncConfig:
        """The core of the file is its own."""
        return config


@dataclass(frozen=True)
class ApsisOne:
    """APSIS One: profiles by CRM id, consents per topic and channel, read back by API."""

    name: str = "apsis"
    feeds: Feeds = Feeds("apsis/contacts", "apsis/profiles", ("apsis/consents",))
    identifiers: tuple[str, ...] = ("external_person_id",)
    consent_key: ConsentKey = "topic and channel"
    opt_in: OptIn = "direct"
    evidence: Evidence = "api"
    takes_files: bool = False
    can_delete: bool = True
    deletes_unmatched: bool = False
    ends_with: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def view(self, config: SyncConfig) -> SyncConfig:
        """`destinations.apsis`; raises SyncConfigError without it."""
        return apsis_view(config)


VIBES = Vibes()
APSIS = ApsisOne()

DESTINATIONS: Mapping[str, Destination] = {one.name: one for one in (VIBES, APSIS)}
"""The registry: a further destination is an entry here and a room of its own."""
