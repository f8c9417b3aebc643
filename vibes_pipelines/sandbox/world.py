"""What a sandbox starts from: the platform's records and the CRM's rows.

A world is plain data. `population` builds one; `service` loads it into the platform and the CRM.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from vibes_pipelines.sandbox.catalogue import DEFAULT_CATALOGUE, Catalogue
from vibes_pipelines.sandbox.platform import CustomField, Person, Subscription, SubscriptionList

COMPANY_KEY = "A1b2C3"

OFFERS = SubscriptionList(id="1234", name="Offers")

CUSTOM_FIELDS: tuple[CustomField, ...] = (
    CustomField("first_name", "string"),
    CustomField("last_name", "string"),
    CustomField("birthdate", "date"),
    CustomField("score", "number"),
    CustomField("tier", "single_select", ("gold", "silver", "bronze")),
    CustomField("interests", "multi_select", ("golf", "tennis", "running", "cooking", "music")),
    CustomField("zip_code", "postal_code"),
)

CONTACTS_SCHEMA: tuple[tuple[str, str], ...] = (
    ("contact_id", "TEXT"),
    ("mobile", "TEXT"),
    ("first_name", "TEXT"),
    ("last_name", "TEXT"),
    ("birth_date", "TEXT"),
    ("score", "REAL"),
    ("tier", "TEXT"),
    ("interests", "TEXT"),
    ("zip", "TEXT"),
    ("customer_type", "TEXT"),
    ("sms_opt_in", "TEXT"),
    ("sms_opt_in_at", "TIMESTAMP"),
    ("updated_at", "TIMESTAMP"),
)
"""Columns of the CRM's table of contacts: name and SQL type. No key: real CRMs hold duplicates."""

ContactRow = dict[str, str | float | None]
"""One row of the CRM's table of contacts, by column name."""


@dataclass(frozen=True)
class World:
    """Both sides' state at the beginning.

    `kinds` says why special records exist: external ids (person keys where there is none) by kind,
    e.g. `{"duplicate_contact": ("C100017", ...)}`; whoever is not named agrees on both sides.
    `catalogue` has the campaigns, apps, codes and pools that the company has set up.
    """

    custom_fields: tuple[CustomField, ...]
    lists: tuple[SubscriptionList, ...]
    persons: list[Person]
    subscriptions: list[Subscription]
    contacts: list[ContactRow]
    contacts_schema: tuple[tuple[str, str], ...]
    kinds: Mapping[str, tuple[str, ...]]
    catalogue: Catalogue = DEFAULT_CATALOGUE
