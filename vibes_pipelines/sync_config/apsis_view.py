"""`destinations.apsis` as a SyncConfig, so that the one reconcile works for APSIS One too.

Contacts are the core's; persons are the profiles, whose external id is the contact's key; a list is
a topic and a channel. Only the translation belongs here.
"""

from vibes_pipelines.sync_config.apsis import Apsis, ProfileConsent, ProfileField
from vibes_pipelines.sync_config.config import (
    Consent,
    Contacts,
    MappedField,
    Policies,
    SyncConfig,
    SyncConfigError,
)

_BOOLEANS = {
    **dict.fromkeys(("true", "True", "TRUE", "1", "yes", "Yes"), "true"),
    **dict.fromkeys(("false", "False", "FALSE", "0", "no", "No"), "false"),
}
_ENGINE_TYPES = {"integer": "number", "decimal": "number", "date": "date"}

GIVEN = "@given"
"""Ends the name of a column as the CRM gives it, where its values are rewritten for APSIS One."""

SEEN_AT = "@changed"
"""Ends the name of the column that tells when a consent cell changed."""


def apsis_section(config: SyncConfig) -> Apsis:
    """The section of APSIS One.

    Raises:
        SyncConfigError: there is none.
    """
    if config.destinations.apsis is None:
        msg = "destinations.apsis of sync.yaml is not set; docs/tribe-apsis.md shows an example"
        raise SyncConfigError(msg)
    return config.destinations.apsis


def apsis_view(config: SyncConfig) -> SyncConfig:
    """The sync config of APSIS One.

    Raises:
        SyncConfigError: `destinations.apsis` is not set.
    """
    section = apsis_section(config)
    core = config.contacts
    # Nobody is found by a number: an e-mail address or number may belong to several profiles.
    identity = {"person_key": None, "mdn": None, "changes": None, "when_unmatched": "keep"}
    mapped = {field.from_ for field in section.all_fields}
    conditions = [
        # What a value becomes at APSIS One decides nothing about whom it is carried for.
        one.model_copy(update={"column": one.column + GIVEN}) if one.column in mapped else one
        for one in (*core.conditions, *section.conditions)
    ]
    contacts = core.model_copy(update={**identity, "conditions": tuple(conditions)})
    return SyncConfig(
        version=1,
        company_key="apsis",
        contacts=Contacts.model_validate(contacts.model_dump(by_alias=True)),
        fields=tuple(_field(field) for field in section.all_fields),
        consents=tuple(_consent(consent) for consent in section.consents),
        guards=section.guards.as_guards(),
        # What was written is read back before the next comparison, so that nothing is waited for.
        policies=Policies(
            visibility_lag_h=0,
            max_age_h=config.policies.max_age_h,
            retention=config.policies.retention,
        ),
    )


def landing_view(view: SyncConfig) -> SyncConfig:
    """The view without the columns that are only made after landing."""
    consents = tuple(one.model_copy(update={"changed_at": None}) for one in view.consents)
    conditions = tuple(
        one.model_copy(update={"column": one.column.removesuffix(GIVEN)})
        for one in view.contacts.conditions
    )
    contacts = view.contacts.model_copy(update={"conditions": conditions})
    return view.model_copy(update={"consents": consents, "contacts": contacts})


def _field(field: ProfileField) -> MappedField:
    if field.type == "boolean":
        return MappedField(
            from_=field.from_,
            to=field.to,
            type="single_select",
            options=_BOOLEANS,
            when_null=field.when_null,
        )
    return MappedField.model_validate(
        {
            "from": field.from_,
            "to": field.to,
            "type": _ENGINE_TYPES.get(field.type, "string"),
            "when_null": field.when_null,
        }
    )


def _consent(consent: ProfileConsent) -> Consent:
    return Consent(
        from_=consent.from_,
        list=consent.list,
        changed_at=f"{consent.from_}{SEEN_AT}",
        opted_in=consent.opted_in,
        opted_out=consent.opted_out,
    )
