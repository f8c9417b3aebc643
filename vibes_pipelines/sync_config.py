"""SyncConfig: the one typed reading of `sync.yaml`, what a customer edits.

Only the meaning of that file belongs here: which columns, fields, consents, conditions, guards and
feeds. Where things are (hosts, folders, secrets) is in `settings`.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from vibes_pipelines.yaml_places import YamlPlaces

FieldType = Literal["string", "number", "date", "single_select", "multi_select", "postal_code"]
Authority = Literal["crm", "platform", "fill", "newest"]

SELECT_TYPES: frozenset[str] = frozenset({"single_select", "multi_select"})
IDENTIFIERS: tuple[str, ...] = ("person_id", "person_key", "external_person_id", "mdn")


class SyncConfigError(ValueError):
    """`sync.yaml` cannot be used; the message names file, line, field and what is allowed."""


def _as_text(value: object) -> object:
    """Lets numbers stand unquoted where text is meant, e.g. `list: 1234`."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _as_condition_text(value: object) -> object:
    """Writes YAML scalars the way a CRM column shows them as text."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else value


Text = Annotated[str, BeforeValidator(_as_text), Field(min_length=1)]
ConditionText = Annotated[str, BeforeValidator(_as_condition_text)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_by_name=True)


class MdnSource(_Section):
    """The contact column that holds the mobile number, and the region its national forms mean."""

    column: Text
    default_region: Annotated[str, Field(pattern=r"^[A-Z]{2}$")]


class Condition(_Section):
    """One test on a contact column; exactly one operator."""

    column: Text
    equals: ConditionText | None = None
    not_equals: ConditionText | None = None
    in_: tuple[ConditionText, ...] | None = Field(
        None, validation_alias=AliasChoices("in", "in_"), serialization_alias="in"
    )
    is_null: Literal[True] | None = None
    not_null: Literal[True] | None = None

    @model_validator(mode="after")
    def _one_operator(self) -> Self:
        given = [name for name in _OPERATORS if getattr(self, name) is not None]
        if len(given) != 1:
            msg = (
                "exactly one operator is needed; allowed: equals, not_equals, in, is_null, not_null"
            )
            raise ValueError(msg)
        return self

    @property
    def operator(self) -> str:
        """The name of the one operator given."""
        return next(name for name in _OPERATORS if getattr(self, name) is not None)


_OPERATORS = ("equals", "not_equals", "in_", "is_null", "not_null")


class Contacts(_Section):
    """Where contacts come from and how they are identified.

    `source: sql` reads `table`, or `query` when given, through the CRM's SQLAlchemy URL. Opt-outs
    are written back into `table`. `when_unmatched` is about contacts that stop meeting the
    conditions.
    """

    key: Text
    person_key: Text | None = None
    mdn: MdnSource | None = None
    conditions: tuple[Condition, ...] = ()
    when_unmatched: Literal["keep", "clear", "opt_out"] = "keep"
    source: Literal["sql"] = "sql"
    table: Text = "contacts"
    query: Text | None = None


class MappedField(_Section):
    """One contact column carried to one custom field.

    `changed_at` is the contact column that tells when the value last changed; only `authority:
    newest` reads it.
    """

    from_: Text = Field(validation_alias=AliasChoices("from", "from_"), serialization_alias="from")
    to: Text
    type: FieldType
    options: dict[ConditionText, ConditionText] | None = None
    separator: Annotated[str, Field(min_length=1, max_length=1)] = ";"
    authority: Authority = "crm"
    changed_at: Text | None = None
    when_null: Literal["keep", "clear"] = "keep"

    @model_validator(mode="after")
    def _fits_its_type(self) -> Self:
        if self.options is not None and self.type not in SELECT_TYPES:
            msg = f"options belong to single_select and multi_select only, not to {self.type}"
            raise ValueError(msg)
        if self.to in IDENTIFIERS:
            msg = f"{self.to!r} is an identifier, not a custom field; see `contacts`"
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
    def meaning_hash(self) -> str:
        """What a value of this field means: a base agreed under another meaning is none."""
        meaning = {"from_", "to", "type", "options", "separator"}
        return _hash(self.model_dump(mode="json", include=meaning))


class Consent(_Section):
    """One contact column = one subscription list and channel.

    `opted_in` and `opted_out` are the accepted spellings, compared in lower case; anything blank is
    unknown and changes nothing.
    """

    from_: Text = Field(validation_alias=AliasChoices("from", "from_"), serialization_alias="from")
    list: Text
    campaign: Text | None = None
    channel: Literal["sms"] = "sms"
    changed_at: Text | None = None
    opted_in: tuple[ConditionText, ...] = ("true", "1", "y", "yes")
    opted_out: tuple[ConditionText, ...] = ("false", "0", "n", "no")

    @model_validator(mode="after")
    def _spellings_do_not_meet(self) -> Self:
        both = {v.lower() for v in self.opted_in} & {v.lower() for v in self.opted_out}
        if both:
            msg = f"opted_in and opted_out both hold {sorted(both)}"
            raise ValueError(msg)
        return self


class Cap(_Section):
    """The most that one operation may change in a day: in rows, and as a share of its side."""

    max_rows: Annotated[int, Field(ge=0)] | None = None
    max_share: Annotated[float, Field(ge=0, le=1)] | None = None


class Guards(_Section):
    """Change caps per operation, and what is judged against the last accepted day.

    `min_input_share`: of the rows, the keys and the filled cells of each column. Of contacts, the
    most that may differ in one column (`max_rewritten_share`), and that may newly be in quarantine
    (`max_quarantine_rise`); null does not judge it.
    """

    updates: Cap = Cap(max_rows=50_000, max_share=0.20)
    adds: Cap = Cap(max_rows=50_000, max_share=0.20)
    clears: Cap = Cap(max_rows=1_000, max_share=0.01)
    opt_outs: Cap = Cap(max_rows=5_000, max_share=0.05)
    min_input_share: Annotated[float, Field(ge=0, le=1)] = 0.80
    max_rewritten_share: Annotated[float, Field(ge=0, le=1)] | None = 0.05
    max_quarantine_rise: Annotated[float, Field(ge=0, le=1)] | None = 0.05


class Feed(_Section):
    """What one logical feed is called on this account.

    Share feeds have an `object` (DATABASE.SCHEMA.TABLE) and `columns` (logical name → column);
    extract feeds have a file name `pattern` with `{company_key}` and `{date}`.
    """

    object: Text | None = None
    columns: dict[str, str] = {}
    pattern: Text | None = None


class Policies(_Section):
    """What to do where the two sides leave room. Hours are whole hours."""

    mdn_change: Literal["quarantine"] = "quarantine"
    visibility_lag_h: Annotated[int, Field(ge=0, le=24 * 14)] = 36
    max_age_h: Annotated[int, Field(ge=1, le=24 * 14)] = 48


SHARE_FEEDS = ("share/persons", "share/subscriptions", "share/refreshes")
EXTRACT_FEEDS = ("extract/current_subscribers", "extract/subscriptions")


class SyncConfig(_Section):
    """The whole of `sync.yaml`, validated. See `load_sync_config`."""

    version: Literal[1]
    company_key: Annotated[Text, Field(pattern=r"^[A-Za-z0-9]+$")]
    contacts: Contacts
    fields: Annotated[tuple[MappedField, ...], Field(min_length=1)]
    consents: tuple[Consent, ...] = ()
    guards: Guards = Guards()
    feeds: dict[Literal[SHARE_FEEDS + EXTRACT_FEEDS], Feed] = {}  # type: ignore[valid-type]
    policies: Policies = Policies()

    @model_validator(mode="after")
    def _targets_are_unique(self) -> Self:
        _refuse_repeats("fields", "to", [field.to for field in self.fields])
        _refuse_repeats(
            "consents", "list and channel", [f"{c.list}/{c.channel}" for c in self.consents]
        )
        return self

    @model_validator(mode="after")
    def _opting_out_needs_a_list(self) -> Self:
        if self.contacts.when_unmatched == "opt_out" and not self.consents:
            msg = (
                "contacts.when_unmatched: opt_out needs at least one entry in consents;"
                " allowed without: keep, clear"
            )
            raise ValueError(msg)
        return self

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
        whole = {k: document[k] for k in ("company_key", "fields", "consents")}
        return _hash({"contacts": contacts, "feeds": feeds, **whole})

    @property
    def config_hash(self) -> str:
        """Everything that can change what a reconcile decides."""
        return _hash(self.model_dump(mode="json", by_alias=True))


def _refuse_repeats(section: str, what: str, values: list[str]) -> None:
    repeated = sorted({value for value in values if values.count(value) > 1})
    if repeated:
        msg = f"{section}: each {what} may be mapped once; repeated: {', '.join(repeated)}"
        raise ValueError(msg)


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
        msg = f"{path}:1: byte {other_encoding.start + 1} is not UTF-8; save it as UTF-8"
        raise SyncConfigError(msg) from other_encoding
    try:
        places = YamlPlaces.read(text)
    except yaml.YAMLError as malformed:
        mark = getattr(malformed, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        problem = getattr(malformed, "problem", None) or "not YAML"
        msg = f"{path}:{line}: {problem}; expected YAML as in sync.example.yaml"
        raise SyncConfigError(msg) from malformed
    try:
        return SyncConfig.model_validate(places.document)
    except ValidationError as invalid:
        faults = [places.describe(error) for error in invalid.errors()]
        raise SyncConfigError("\n".join(f"{path}:{fault}" for fault in faults)) from invalid
