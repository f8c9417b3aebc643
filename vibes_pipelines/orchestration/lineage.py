"""Column lineage: share, extract or CRM column → field of the diff set → import column.

`changes` of person_changes is a list with one entry per field; here each field has a column of its
own, `changes.FIELD`, so that one value can be followed.
"""

from collections.abc import Iterable

import dagster as dg

from vibes_pipelines.orchestration.keys import (
    API_PUSH,
    CRM_CHANGES,
    CRM_WRITE_BACK,
    FEEDS,
    INVITES,
    OPT_OUTS,
    PERSON_CHANGES,
    PERSON_IMPORT,
    QUARANTINE,
    SUBSCRIPTION_CHANGES,
)
from vibes_pipelines.orchestration.metadata import Metadata, column_lineage
from vibes_pipelines.sync_config import SyncConfig

Sources = dict[str, Iterable[tuple[dg.AssetKey, str]]]
"""Per column the columns it is made from."""

_CONTACTS, _PERSONS = FEEDS["crm/contacts"], FEEDS["share/persons"]
_SUBSCRIPTIONS, _EVENTS = FEEDS["share/subscriptions"], FEEDS["extract/subscriptions"]
_IDENTIFIERS = ("external_person_id", "person_key", "mdn")


def field_column(name: str) -> str:
    """The column of one field in person_changes."""
    return f"changes.{name}"


def diff_set_lineage(config: SyncConfig) -> dict[dg.AssetKey, Sources]:
    """What the columns of each file of the diff set are made from."""
    fields = {field.to: [(_CONTACTS, field.from_), (_PERSONS, field.to)] for field in config.fields}
    every = [source for sources in fields.values() for source in sources]
    key = [(_CONTACTS, config.contacts.key), (_PERSONS, "external_person_id")]
    mdn = [(_PERSONS, "mdn")]
    if config.contacts.mdn:
        mdn.append((_CONTACTS, config.contacts.mdn.column))
    named: Sources = {
        "external_person_id": key,
        "mdn": mdn,
        "person_key": [(_PERSONS, "person_key")],
    }
    wishes = [(_CONTACTS, consent.from_) for consent in config.consents]
    times = [(_CONTACTS, c.changed_at) for c in config.consents if c.changed_at is not None]
    facts = [
        (feed, n) for feed in (_SUBSCRIPTIONS, _EVENTS) for n in ("opt_in_date", "opt_out_date")
    ]
    lists = [(feed, "subscription_list_id") for feed in (_SUBSCRIPTIONS, _EVENTS)]
    per_field = {field_column(name): sources for name, sources in fields.items()}
    return {
        PERSON_CHANGES: {**named, "operation": key, "matched_by": [*key, *mdn],
                         "changes": every, **per_field},
        SUBSCRIPTION_CHANGES: {**named, "action": [*wishes, *facts],
                               "side": [*wishes, *facts],
                               "evidence_at": [*times, *facts],
                               "reason": [*wishes, *facts],
                               "subscription_list_id": lists},
        CRM_CHANGES: {"contact_id": key, "before": every, "after": every, "field": every},
        QUARANTINE: {**named, "kind": [*key, *mdn, *every]},
    }  # fmt: skip


def delivery_lineage(config: SyncConfig) -> dict[dg.AssetKey, Sources]:
    """What leaves, by the column of an import file, of a request or of the CRM's table."""
    to_persons: Sources = {
        "external_person_id": [(PERSON_CHANGES, "external_person_id")],
        "mdn": [(PERSON_CHANGES, "mdn")],
        **{field.to: [(PERSON_CHANGES, field_column(field.to))] for field in config.fields},
    }
    names = (*_IDENTIFIERS, "subscription_list_id")
    to_lists: Sources = {name: [(SUBSCRIPTION_CHANGES, name)] for name in names}
    to_crm: Sources = {
        config.contacts.key: [
            (SUBSCRIPTION_CHANGES, "external_person_id"),
            (CRM_CHANGES, "contact_id"),
        ],
        **{field.from_: [(CRM_CHANGES, "after")] for field in config.fields},
        **{consent.from_: [(SUBSCRIPTION_CHANGES, "action")] for consent in config.consents},
        **{
            consent.changed_at: [(SUBSCRIPTION_CHANGES, "evidence_at")]
            for consent in config.consents
            if consent.changed_at is not None
        },
    }
    return {
        PERSON_IMPORT: to_persons,
        API_PUSH: to_persons,
        OPT_OUTS: to_lists,
        INVITES: to_lists,
        CRM_WRITE_BACK: to_crm,
    }


def with_fields(schema: dg.TableSchema, config: SyncConfig) -> dg.TableSchema:
    """The schema of person_changes with a column for each field that `changes` may hold."""
    fields = [
        dg.TableColumn(field_column(f.to), f.type, f"The change of {f.to}, inside `changes`.")
        for f in config.fields
    ]
    return dg.TableSchema([*schema.columns, *fields])


def schema_of(sources: Sources) -> dg.TableSchema:
    """The columns that leave, by name."""
    return dg.TableSchema([dg.TableColumn(name) for name in sources])


def lineage_metadata(schema: dg.TableSchema, sources: Sources) -> Metadata:
    """Schema and lineage of a partition; each column says in words what it is made from.

    The open-source UI draws the lineage of assets, not of columns: there the words tell it.
    """
    columns = [
        dg.TableColumn(one.name, one.type, _told(one.description, sources.get(one.name, ())))
        for one in schema.columns
    ]
    return {
        "dagster/column_schema": dg.MetadataValue.table_schema(dg.TableSchema(columns)),
        "dagster/column_lineage": dg.MetadataValue.column_lineage(column_lineage(sources)),
    }


def _told(description: str | None, sources: Iterable[tuple[dg.AssetKey, str]]) -> str | None:
    named = dict.fromkeys(f"{key.to_user_string()}: {column}" for key, column in sources)
    made_from = f"From {', '.join(named)}." if named else ""
    return " ".join(filter(None, (description, made_from))) or None
