"""`destinations` of `sync.yaml`: what goes to APSIS One, beside what goes to Vibes.

Only the meaning of that section belongs here: attributes, consents, conditions and what to do where
the two sides leave room. How the reconcile reads it is in `apsis_view`; where APSIS One is, in
`settings`.
"""

from typing import Annotated, Literal, Self

from pydantic import AliasChoices, Field, model_validator

from vibes_pipelines.sync_config.conditions import (
    Condition,
    Region,
    Section,
    Share,
    Text,
    Whole,
)
from vibes_pipelines.sync_config.guards import Cap, Caps, Guards
from vibes_pipelines.sync_config.spellings import ConsentSpellings

CRM_ID_KEYSPACE = "com.apsis1.keyspaces.crm-id"
EMAIL_ATTRIBUTE = "com.apsis1.attributes.email"
_CHANNELS = {
    "email": "com.apsis1.channels.email",
    # An assumption: the documentation names the e-mail channel only.
    "sms": "com.apsis1.channels.sms",
}

ValueType = Literal["text", "integer", "decimal", "boolean", "country", "email", "mobile", "date"]


class ProfileField(Section):
    """One contact column carried to one attribute, named by its discriminator.

    Clearing needs an empty cell and `when_null: clear`.
    """

    from_: Text = Field(validation_alias=AliasChoices("from", "from_"), serialization_alias="from")
    to: Text
    type: ValueType = "text"
    when_null: Literal["keep", "clear"] = "keep"


class ProfileConsent(ConsentSpellings):
    """One contact column = one topic and one channel; e-mail and SMS need an entry each.

    An opt-in label of Tribe is the column `label:` and its name.
    """

    from_: Text = Field(validation_alias=AliasChoices("from", "from_"), serialization_alias="from")
    topic: Text
    channel: Text = "email"

    @property
    def channel_discriminator(self) -> str:
        """The channel as the API names it."""
        return _CHANNELS.get(self.channel, self.channel)

    @property
    def list(self) -> str:
        """Topic and channel as one name: what a subscription list is elsewhere."""
        return f"{self.topic}|{self.channel_discriminator}"


class Overview(Section):
    """A list of contacts carried to one tag: `members` is a contact column that says who is in.

    `recurring` ones are carried every morning, the others by hand only. No full sync touches them.
    """

    name: Annotated[Text, Field(pattern=r"^[A-Za-z0-9 _.-]{1,40}$")]
    members: Text
    tag: Text
    recurring: bool = False


class ProfileGuards(Caps):
    """Caps of one day, as in `guards`; `deletes` are held for an approval however few they are."""

    updates: Cap = Cap(max_rows=50_000, max_share=0.20)
    adds: Cap = Cap(max_rows=50_000, max_share=0.20)
    clears: Cap = Cap(max_rows=1_000, max_share=0.01)
    opt_outs: Cap = Cap(max_rows=5_000, max_share=0.05)
    opt_ins: Cap = Cap(max_rows=50_000, max_share=0.20)
    deletes: Cap = Cap(max_rows=100, max_share=0.01)
    min_input_share: Share = 0.80
    max_rewritten_share: Share | None = 0.05
    max_quarantine_rise: Share | None = 0.05

    def as_guards(self) -> Guards:
        """The same under the names of the core; opt-ins stand where invitations do."""
        values = {name: getattr(self, name) for name in Guards.model_fields if name != "invites"}
        return Guards(**values, invites=self.opt_ins)


class Apsis(Section):
    """The profiles of one section of an APSIS One account.

    The contact's key becomes the profile key, and `email` the e-mail attribute, without an entry in
    `fields`. Contacts are those of the core's `contacts`, narrowed by these `conditions`.

    `when_unmatched: delete` plans the deletion of profiles whose contact stopped meeting the
    conditions; each such plan waits for an approval. `when_address_changes`: consent sits on the
    profile, so that it goes with a new address or number (`keep`); `opt_out` ends those of its
    channel, and the person has to be asked again.
    `when_erased: delete` lets `erase` delete a person's profile for ever, in the whole account.
    `max_reads`: the most profiles looked at in one sync to learn of opt-outs made there.
    """

    section: Text
    keyspace: Text = CRM_ID_KEYSPACE
    email: Text | None = "EmailAddress"
    default_region: Region | None = None
    conditions: tuple[Condition, ...] = ()
    when_unmatched: Literal["keep", "delete"] = "keep"
    when_erased: Literal["keep", "delete"] = "keep"
    when_address_changes: Literal["keep", "opt_out"] = "keep"
    merge_same_email: bool = False
    fields: tuple[ProfileField, ...] = ()
    consents: tuple[ProfileConsent, ...] = ()
    overviews: tuple[Overview, ...] = ()
    guards: ProfileGuards = ProfileGuards()
    max_reads: Annotated[Whole, Field(ge=0)] = 250_000

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        targets = [field.to.lower() for field in self.all_fields]
        lists = [consent.list for consent in self.consents]
        names = [overview.name for overview in self.overviews]
        for what, values in (("to", targets), ("topic and channel", lists), ("overview", names)):
            repeated = sorted({value for value in values if values.count(value) > 1})
            if repeated:
                msg = f"each {what} may be mapped once; repeated: {', '.join(repeated)}"
                raise ValueError(msg)
        if not targets:
            msg = "give email or at least one entry in fields"
            raise ValueError(msg)
        return self

    @property
    def ends_with(self) -> dict[str, tuple[str, ...]]:
        """The address attributes, and the lists of the channel that each is the address of."""
        channels = {"email": _CHANNELS["email"], "mobile": _CHANNELS["sms"]}
        lists = {
            kind: tuple(c.list for c in self.consents if c.channel_discriminator == channel)
            for kind, channel in channels.items()
        }
        return {f.to: lists[f.type] for f in self.all_fields if lists.get(f.type)}

    @property
    def all_fields(self) -> tuple[ProfileField, ...]:
        """The mapped fields, with the e-mail address, which needs no entry."""
        if self.email is None:
            return self.fields
        address = ProfileField(from_=self.email, to=EMAIL_ATTRIBUTE, type="email")
        return (address, *self.fields)


class Destinations(Section):
    """Where contacts go besides Vibes."""

    apsis: Apsis | None = None
