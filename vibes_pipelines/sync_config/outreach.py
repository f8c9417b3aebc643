"""What `sync.yaml` says of reaching people at their own wish: the web sign-up, and events.

Everything else of that file is in `sync_config`.
"""

from typing import Annotated, Literal, Self

from pydantic import AliasChoices, Field, model_validator

from vibes_pipelines.sync_config.conditions import Region, Section, Text, Whole
from vibes_pipelines.sync_config.spellings import OptionKey, OptionSpelling

FormType = Literal["string", "number", "date", "postal_code", "single_select"]


class FormField(Section):
    """One field of the sign-up form carried to one custom field; no other field is taken."""

    from_: Text = Field(validation_alias=AliasChoices("from", "from_"), serialization_alias="from")
    to: Text
    type: FormType = "string"
    options: dict[OptionSpelling, OptionKey] | None = None
    required: bool = False

    @model_validator(mode="after")
    def _options_fit_the_type(self) -> Self:
        if (self.options is not None) != (self.type == "single_select"):
            msg = "options belong to single_select, and single_select needs them"
            raise ValueError(msg)
        return self


class Signup(Section):
    """The web sign-up: the acquisition campaign that invites, and what its form may hold.

    `list` is the campaign's list: with it a lost answer is looked for among the subscribers too.
    """

    campaign: Text
    list: Text | None = None
    mdn: Text = "mdn"
    default_region: Region = "US"
    fields: tuple[FormField, ...] = ()
    max_per_mdn_per_day: Annotated[Whole, Field(ge=1, le=100)] = 3
    max_per_address_per_hour: Annotated[Whole, Field(ge=1, le=100_000)] = 20

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        names = [self.mdn, *(field.from_ for field in self.fields)]
        targets = [field.to for field in self.fields]
        for what, values in (("from", names), ("to", targets)):
            repeated = sorted({value for value in values if values.count(value) > 1})
            if repeated:
                msg = f"each {what} may stand once; repeated: {', '.join(repeated)}"
                raise ValueError(msg)
        return self


class Events(Section):
    """The CRM's table (or query) with one row for each event to be sent to the platform.

    `id` is unique and never used again; `contact` and `mdn` say who is meant, at least one of them.
    `data` and `debug` are the columns carried along. With `occurred_at` an event older than
    `max_age_h` is not sent: a message about it would come too late. More than `max_per_run` new
    events are sent only when that is raised.
    """

    table: Text
    query: Text | None = None
    id: Text = "id"
    type: Text = "event_type"
    contact: Text | None = None
    mdn: Text | None = None
    data: tuple[Text, ...] = ()
    debug: tuple[Text, ...] = ()
    occurred_at: Text | None = None
    max_age_h: Annotated[Whole, Field(ge=1, le=24 * 30)] = 24
    max_per_run: Annotated[Whole, Field(ge=1)] = 5_000

    @model_validator(mode="after")
    def _names_a_person(self) -> Self:
        if self.contact is None and self.mdn is None:
            msg = "name the person: contact, mdn or both are the columns that say who is meant"
            raise ValueError(msg)
        reserved = {"external_person_id", "mdn", "person_key", "person_id", "vibes_device_id"}
        taken = sorted(reserved & set(self.data))
        if taken:
            msg = f"data may not hold {', '.join(taken)}: that names a person at the platform"
            raise ValueError(msg)
        return self

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column that is read, each once."""
        named = (self.id, self.type, self.contact, self.mdn, self.occurred_at)
        return tuple(dict.fromkeys([*filter(None, named), *self.data, *self.debug]))
