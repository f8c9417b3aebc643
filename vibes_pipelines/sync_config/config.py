"""SyncConfig: the one typed reading of `sync.yaml`, what a customer edits.

Only the meaning of that file belongs here: which columns, fields, consents, conditions, guards and
feeds. Where things are (hosts, folders, secrets) is in `settings`.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    AfterValidator,
    AliasChoices,
    Field,
    ValidationError,
    model_validator,
)

from vibes_pipelines.blanks import trimmed
from vibes_pipelines.sync_config.apsis import Destinations
from vibes_pipelines.sync_config.conditions import (
    Condition,
    PlacedError,
    Region,
    Section,
    Text,
    Whole,
)
from vibes_pipelines.sync_config.feeds import (
    EXTRACT_FEEDS,
    IDENTIFIERS,
    OF_THE_BASE,
    SHARE_FEEDS,
    Feed,
    refuse_what_is_not_read,
)
from vibes_pipelines.sync_config.guards import Guards
from vibes_pipelines.sync_config.outreach import Events, Signup
from vibes_pipelines.sync_config.places import YamlPlaces
from vibes_pipelines.sync_config.privacy import Retention
from vibes_pipelines.sync_config.realtime import Callbacks, Changes
from vibes_pipelines.sync_config.spellings import ConsentSpellings, OptionKey, OptionSpelling
from vibes_pipelines.sync_config.tribe import TribeSource

FieldType = Literal["string", "number", "date", "single_select", "multi_select", "postal_code"]
Authority = Literal["crm", "platform", "fill", "newest"]

SELECT_TYPES: frozenset[str] = frozenset({"single_select", "multi_select"})


class SyncConfigError(ValueError):
    """`sync.yaml` cannot be used; the message names file, line, field and what is allowed."""


class MdnSource(Section):
    """The contact column that holds the mobile number, and the region its national forms mean."""

    column: Text
    default_region: Region


class Contacts(Section):
    """Where contacts come from and how they are identified.

    `source: sql` reads `table`, or `query` when given, through the CRM's SQLAlchemy URL. Opt-outs
    are written back into `table`. `when_unmatched` is about contacts that stop meeting the
    conditions. `changes` tells how changes are seen between two daily runs; left out, they are not.
    `source: tribe` reads the persons of Tribe CRM instead, and `tribe` tells of its labels.
    """

    key: Text
    person_key: Text | None = None
    mdn: MdnSource | None = None
    conditions: tuple[Condition, ...] = ()
    when_unmatched: Literal["keep", "clear", "opt_out"] = "keep"
    source: Literal["sql", "tribe"] = "sql"
    table: Text = "contacts"
    query: Text | None = None
    changes: Changes | None = None
    tribe: TribeSource | None = None

    @model_validator(mode="after")
    def _fits_its_source(self) -> Self:
        wrong = ("tribe",) if self.source == "sql" else ("query", "changes")
        for name in wrong:
            if getattr(self, name) is not None:
                msg = f"{name} does not belong to source: {self.source}; leave it out"
                raise ValueError(msg)
        return self


class MappedField(Section):
    """One contact column carried to one custom field.

    `changed_at` is the contact column that tells when the value last changed; only `authority:
    newest` reads it.
    """

    from_: Text = Field(validation_alias=AliasChoices("from", "from_"), serialization_alias="from")
    to: Text
    type: FieldType
    options: dict[OptionSpelling, OptionKey] | None = None
    separator: Annotated[str, Field(min_length=1, max_length=1)] = ";"
    authority: Authority = "crm"
    changed_at: Text | None = None
    when_null: Literal["keep", "clear"] = "keep"

    @model_validator(mode="after")
    def _fits_its_type(self) -> Self:
        if self.options is not None and self.type not in SELECT_TYPES:
            msg = f"options belong to single_select and multi_select only, not to {self.type}"
            raise ValueError(msg)
        known: dict[str | None, str | None] = {}
        for spelling, key in (self.options or {}).items():
            if known.setdefault(trimmed(spelling), trimmed(key)) != trimmed(key):
                msg = (
                    f"options name two keys for {trimmed(spelling)!r}, as cells are read; leave one"
                )
                raise ValueError(msg)
        if self.type == "multi_select" and any("|" in key for key in (self.options or {}).values()):
            msg = "a key of options holds '|', which stands between the keys of a set"
            raise ValueError(msg)
        if self.to.lower() in IDENTIFIERS:  # columns are found in any case
            msg = f"{self.to!r} is an identifier, not a custom field; see `contacts`"
            raise ValueError(msg)
        if self.to.lower() in OF_THE_BASE:
            msg = f"{self.to!r} is a column of the base's own; leave this custom field out"
            raise ValueError(msg)
        if self.authority == "newest" and self.changed_at is None:
            msg = "authority newest needs changed_at, the contact column with the time of change"
            raise ValueError(msg)
        if self.authority != "newest" and self.changed_at is not None:
            msg = f"changed_at belongs to authority newest only, not to {self.authority}"
            raise ValueError(msg)
        return self

    @property
    def contact_columns(self) -> tuple[str, ...]:
        """The contact columns that are read for this field."""
        return (self.from_,) if self.changed_at is None else (self.from_, self.changed_at)

    @property
    def is_written_back(self) -> bool:
        """Whether the platform's value may be carried to the CRM."""
        return self.authority in {"platform", "newest"}

    @property
    def meaning_hash(self) -> str:
        """What a value of this field means: a base agreed under another meaning is none."""
        meaning = {"from_", "to", "type", "options", "separator"}
        return _hash(self.model_dump(mode="json", include=meaning))


class Consent(ConsentSpellings):
    """One contact column = one subscription list and channel.

    A cell that is blank is unknown and changes nothing. With `invites` an opt-in is carried to
    Vibes, as an invitation by the acquisition campaign `campaign`, which the person has to confirm.
    """

    from_: Text = Field(validation_alias=AliasChoices("from", "from_"), serialization_alias="from")
    list: Annotated[Text, AfterValidator(str.strip), Field(min_length=1)]
    campaign: Text | None = None
    channel: Literal["sms"] = "sms"
    changed_at: Text | None = None
    invites: bool = False

    @model_validator(mode="after")
    def _invites_with_evidence(self) -> Self:
        missing = [name for name in ("campaign", "changed_at") if getattr(self, name) is None]
        if self.invites and missing:
            msg = (
                f"invites: true needs {' and '.join(missing)}: the acquisition campaign that asks"
                " the person, and the contact column that tells when the opt-in was given"
            )
            raise ValueError(msg)
        return self


class Policies(Section):
    """What to do where the two sides leave room. Hours and days are whole ones.

    `invite_again_after_d`: an invitation that nobody answered is repeated after so many days; left
    out, never. `max_age_h` counts back from the end of the day, and extracts show its beginning.
    `erasure`: how a person is erased at the platform.
    """

    mdn_change: Literal["quarantine", "replace"] = "quarantine"
    mdn_recycled: Literal["carrier", "carrier_or_person", "ignore"] = "carrier"
    invite_again_after_d: Annotated[Whole, Field(ge=1, le=3650)] | None = None
    visibility_lag_h: Annotated[Whole, Field(ge=0, le=24 * 14)] = 36
    max_age_h: Annotated[Whole, Field(ge=24, le=24 * 14)] = 48
    erasure: Literal["api", "file", "both", "none"] = "api"
    retention: Retention = Retention()


class SyncConfig(Section):
    """The whole of `sync.yaml`, validated. See `load_sync_config`.

    `engine` tells where persons are compared with contacts; it changes no result.
    """

    version: Literal[1]
    company_key: Annotated[Text, Field(pattern=r"^[A-Za-z0-9]+$")]
    contacts: Contacts
    fields: Annotated[tuple[MappedField, ...], Field(min_length=1)]
    consents: tuple[Consent, ...] = ()
    guards: Guards = Guards()
    feeds: dict[Literal[SHARE_FEEDS + EXTRACT_FEEDS], Feed] = Field(  # type: ignore[valid-type]
        default_factory=dict
    )
    policies: Policies = Policies()
    callbacks: Callbacks | None = None
    signup: Signup | None = None
    events: Events | None = None
    destinations: Destinations = Destinations()
    engine: Literal["duckdb", "snowflake"] = "duckdb"

    @model_validator(mode="after")
    def _targets_are_unique(self) -> Self:
        _refuse_repeats("fields", "to", [field.to.lower() for field in self.fields])
        listed = [f"{c.list.strip()}/{c.channel}" for c in self.consents]
        _refuse_repeats("consents", "list and channel", listed)
        asking = [c.campaign.strip() if c.invites and c.campaign else None for c in self.consents]
        _refuse_repeats("consents", "campaign that invites", asking)
        return self

    @model_validator(mode="after")
    def _writing_back_changes_one_thing(self) -> Self:
        """A custom field of the platform may not change who a contact is, nor its word."""
        contacts, mdn = self.contacts, self.contacts.mdn
        read = [("contacts.key", contacts.key), ("contacts.person_key", contacts.person_key)]
        read.append(("contacts.mdn", mdn.column if mdn else None))
        for index, one in enumerate(self.consents):
            read += [(f"consents[{index}]", name) for name in (one.from_, one.changed_at)]
        known = {column.lower(): place for place, column in read if column}
        for index, field in enumerate(self.fields):
            if not field.is_written_back:
                continue
            place = known.setdefault(field.from_.lower(), f"fields[{index}]")
            if place != f"fields[{index}]":
                msg = (
                    f"with authority {field.authority} values of the platform are written into"
                    f" {field.from_!r}, which {place} is about; name a column of its own, or let"
                    " authority be crm or fill"
                )
                raise PlacedError(("fields", index, "from"), msg)
        return self

    @model_validator(mode="after")
    def _opting_out_needs_a_list(self) -> Self:
        if self.contacts.when_unmatched == "opt_out" and not self.consents:
            msg = "opt_out needs at least one entry in consents; allowed without: keep, clear"
            raise PlacedError(("contacts", "when_unmatched"), msg)
        return self

    @model_validator(mode="after")
    def _feeds_are_read(self) -> Self:
        refuse_what_is_not_read(self.feeds, [field.to for field in self.fields])
        return self

    @property
    def watches_numbers(self) -> bool:
        """Whether anything depends on since when a number has been a person's."""
        return (
            self.policies.mdn_recycled == "carrier_or_person"
            or self.replaces_numbers
            or any(consent.invites for consent in self.consents)
        )

    @property
    def replaces_numbers(self) -> bool:
        """Whether a changed number of a contact is given to its person."""
        return self.policies.mdn_change == "replace"

    @property
    def mapping_hash(self) -> str:
        """Whom and what is compared: a change of it needs a preview and an approval.

        The account, identity, fields, consents, and the objects and columns that feeds are read
        from.
        """
        document = self.model_dump(mode="json", by_alias=True)
        contacts = {k: document["contacts"][k] for k in ("key", "person_key", "mdn")}
        feeds = {
            name: {k: feed[k] for k in ("object", "columns")}
            for name, feed in document["feeds"].items()
        }
        if self.contacts.source != "sql":
            contacts |= {k: document["contacts"][k] for k in ("source", "tribe")}
        whole = {k: document[k] for k in ("company_key", "fields", "consents")}
        for consent in whole["consents"]:
            if not consent["invites"]:
                del consent["invites"]  # as in mappings that were approved before it existed
        return _hash({"contacts": contacts, "feeds": feeds, **whole})

    @property
    def config_hash(self) -> str:
        """Everything that can change what a reconcile decides."""
        others = {"engine", "callbacks", "signup", "events", "destinations"}
        deciding = self.model_dump(mode="json", by_alias=True, exclude=others)
        deciding["contacts"].pop("changes")
        for of_privacy in ("erasure", "retention"):
            deciding["policies"].pop(of_privacy)
        if deciding["contacts"]["tribe"] is None:
            del deciding["contacts"]["tribe"]  # as in configs from before it existed
        return _hash(deciding)


def _refuse_repeats(section: str, what: str, values: Sequence[str | None]) -> None:
    for index, value in enumerate(values):
        if value is not None and value in values[:index]:
            msg = f"each {what} may be mapped once; repeated: {value}"
            raise PlacedError((section, index), msg)


def _hash(document: Mapping[str, Any]) -> str:
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def load_sync_config(path: Path) -> SyncConfig:
    """Reads and checks one `sync.yaml`.

    Raises:
        SyncConfigError: for a missing or malformed file; one line per fault, each with
            `file:line: field: what is wrong; what is allowed`.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as missing:
        msg = f"{path}: no such file; copy sync.example.yaml or set VIBES_SYNC_CONFIG to yours"
        raise SyncConfigError(msg) from missing
    except UnicodeDecodeError as other_encoding:
        line = other_encoding.object.count(b"\n", 0, other_encoding.start) + 1
        msg = f"{path}:{line}: not UTF-8; save the file as UTF-8"
        raise SyncConfigError(msg) from other_encoding
    except OSError as unreadable:
        msg = f"{path}: {unreadable.strerror}; give a file as sync.example.yaml"
        raise SyncConfigError(msg) from unreadable
    try:
        places = YamlPlaces.read(text)
    except yaml.YAMLError as malformed:
        mark = getattr(malformed, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        problem = getattr(malformed, "problem", None) or "not YAML"
        msg = f"{path}:{line}: {problem}; expected YAML as in sync.example.yaml"
        raise SyncConfigError(msg) from malformed
    except (ValueError, LookupError, AttributeError, TypeError, RecursionError) as malformed:
        # What a tag promises and its value is not, or an alias that holds itself.
        msg = f"{path}: not YAML ({malformed}); expected YAML as in sync.example.yaml"
        raise SyncConfigError(msg) from malformed
    try:
        return SyncConfig.model_validate(places.document)
    except ValidationError as invalid:
        faults = [places.describe(error) for error in invalid.errors()]
        raise SyncConfigError("\n".join(f"{path}:{fault}" for fault in faults)) from invalid
