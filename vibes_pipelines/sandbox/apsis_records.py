"""What the APSIS One stand-in holds: definitions, profiles, consents; and how it refuses."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal

ConsentType = Literal["opt-in", "opt-out", "pending-opt-in", "confirmed-opt-in"]
ValueType = Literal["text", "integer", "decimal", "boolean", "country", "email", "mobile", "date"]
Value = str | int | float | bool
KeyPair = tuple[str, str]
"""Keyspace and profile key."""

ConsentKey = tuple[str, str, str]
"""Section, topic and channel."""

EMAIL_CHANNEL: Final = "com.apsis1.channels.email"
SMS_CHANNEL: Final = "com.apsis1.channels.sms"
EMAIL_KEYSPACE: Final = "com.apsis1.keyspaces.email"
MOBILE_KEYSPACE: Final = "com.apsis1.keyspaces.mobile"
CRM_KEYSPACE: Final = "com.apsis1.keyspaces.crm-id"
SECTION: Final = "usercreated.sections.main-k3v9x2m7qa"


class ProblemError(Exception):
    """A refusal as its problem+json body says it."""

    def __init__(self, status: int, title: str, detail: str = "") -> None:
        super().__init__(title)
        self.status = status
        self.title = title
        self.detail = detail

    def as_body(self) -> dict[str, Any]:
        """The body (RFC 7807)."""
        return {
            "type": "about:blank",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
        }


@dataclass(frozen=True)
class Keyspace:
    """A kind of key. `attribute` follows its keys; `denied` attributes and tags it cannot write."""

    discriminator: str
    name: str
    attribute: str | None = None
    manage_subscriptions: bool = True
    is_writable: bool = True
    denied: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Attribute:
    """An attribute with its version in force and, perhaps, a deprecated one."""

    discriminator: str
    name: str
    type: ValueType
    version_id: str
    deprecated_version_id: str | None = None


@dataclass(frozen=True)
class Named:
    """A section, channel, topic or tag."""

    discriminator: str
    name: str


_DEFAULTS: Final[tuple[tuple[str, str, ValueType], ...]] = (
    ("com.apsis1.attributes.firstname", "First name", "text"),
    ("com.apsis1.attributes.lastname", "Last name", "text"),
    ("com.apsis1.attributes.email", "Email", "email"),
    ("com.apsis1.attributes.mobile", "Mobile", "mobile"),
    ("com.apsis1.attributes.birthdate", "Birth date", "date"),
    ("com.apsis1.attributes.crmid", "CRM-ID", "text"),
    ("usercreated.attributes.tier-p4n8", "Tier", "text"),
    ("usercreated.attributes.score-w2j5", "Score", "integer"),
    ("usercreated.attributes.balance-r7c1", "Balance", "decimal"),
    ("usercreated.attributes.vip-h6t3", "VIP", "boolean"),
    ("usercreated.attributes.country-z9d2", "Country", "country"),
)


def _attributes() -> tuple[Attribute, ...]:
    """The default attributes and some of the customer's; the tier has an older version."""
    return tuple(
        Attribute(name, title, kind, str(700_000 + i), "699999" if title == "Tier" else None)
        for i, (name, title, kind) in enumerate(_DEFAULTS)
    )


@dataclass(frozen=True)
class Catalogue:
    """What is set up in an account; attributes, topics and tags are those of every section."""

    keyspaces: tuple[Keyspace, ...] = (
        Keyspace(EMAIL_KEYSPACE, "Email", "com.apsis1.attributes.email"),
        Keyspace(MOBILE_KEYSPACE, "Mobile", "com.apsis1.attributes.mobile"),
        Keyspace(CRM_KEYSPACE, "CRM ID", "com.apsis1.attributes.crmid"),
        Keyspace(
            "com.apsis1.keyspaces.export", "Export", manage_subscriptions=False, is_writable=False
        ),
        Keyspace(
            "usercreated.keyspaces.shop-b5y8",
            "Web shop",
            manage_subscriptions=False,
            denied=frozenset({"usercreated.attributes.tier-p4n8", "usercreated.tags.member-d4s6"}),
        ),
    )
    channels: tuple[Named, ...] = (Named(EMAIL_CHANNEL, "Email"), Named(SMS_CHANNEL, "SMS"))
    sections: tuple[Named, ...] = (
        Named(SECTION, "Main"),
        Named("usercreated.sections.other-f8g1c5n2ue", "Other"),
    )
    attributes: tuple[Attribute, ...] = field(default_factory=_attributes)
    topics: tuple[Named, ...] = (
        Named("usercreated.topics.newsletter-m2k7", "Newsletter"),
        Named("usercreated.topics.offers-x5p3", "Offers"),
    )
    tags: tuple[Named, ...] = (
        Named("usercreated.tags.member-d4s6", "Member"),
        Named("usercreated.tags.lead-q8v1", "Lead"),
    )

    def keyspace(self, discriminator: str) -> Keyspace:
        """A keyspace; raises ProblemError."""
        for keyspace in self.keyspaces:
            if keyspace.discriminator == discriminator:
                return keyspace
        raise ProblemError(404, "Not Found", "there is no such keyspace")

    def section(self, discriminator: str) -> str:
        """A section's own discriminator; raises ProblemError."""
        if discriminator not in {section.discriminator for section in self.sections}:
            raise ProblemError(404, "Not Found", "there is no such section")
        return discriminator

    def by_version(self, version_id: str, status: int = 404) -> Attribute:
        """The attribute of a version in force; raises ProblemError."""
        for attribute in self.attributes:
            if attribute.version_id == version_id:
                return attribute
            if attribute.deprecated_version_id == version_id:
                raise ProblemError(400, "Bad Request", "this version is deprecated")
        raise ProblemError(status, "Not Found", "there is no such attribute version")

    def by_name(self, discriminator: str) -> Attribute:
        """An attribute; raises ProblemError."""
        for attribute in self.attributes:
            if attribute.discriminator == discriminator:
                return attribute
        raise ProblemError(404, "Not Found", "there is no such attribute")


@dataclass(frozen=True)
class ConsentState:
    """A consent as it stands."""

    type: ConsentType
    reason: str
    source: str
    at: datetime


@dataclass
class Profile:
    """One person as the account knows it; `uid` is for the audit, no call shows it."""

    uid: str
    keys: dict[str, str] = field(default_factory=dict)
    attributes: dict[str, dict[str, Value]] = field(default_factory=dict)
    tags: dict[str, set[str]] = field(default_factory=dict)
    consents: dict[ConsentKey, ConsentState] = field(default_factory=dict)

    def values(self, section: str) -> dict[str, Value]:
        """The attribute values in a section, by discriminator; changes are kept."""
        return self.attributes.setdefault(section, {})


def as_items(definitions: tuple[Named, ...]) -> dict[str, Any]:
    """A list of plain definitions as calls answer it."""
    return {"items": [{"discriminator": d.discriminator, "name": d.name} for d in definitions]}


def text_of(body: Mapping[str, Any], name: str) -> str:
    """A required text of a body; raises ProblemError."""
    value = body.get(name)
    if not isinstance(value, str) or not value.strip():
        raise ProblemError(400, "Bad Request", f"{name} is a required text")
    return value
