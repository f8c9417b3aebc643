"""Which CRM columns sync.yaml names, and under which of its entries."""

from collections.abc import Iterator

from vibes_pipelines.sync_config import SyncConfig


def mapped_columns(config: SyncConfig) -> dict[str, str]:
    """Every column the reconcile reads, once, with the first sync.yaml entry that names it."""
    entries: dict[str, str] = {}
    for column, entry in _named(config):
        entries.setdefault(column, entry)
    return entries


def _named(config: SyncConfig) -> Iterator[tuple[str, str]]:
    contacts = config.contacts
    yield contacts.key, "contacts.key"
    if contacts.person_key:
        yield contacts.person_key, "contacts.person_key"
    if contacts.mdn:
        yield contacts.mdn.column, "contacts.mdn.column"
    for index, condition in enumerate(contacts.conditions):
        yield condition.column, f"contacts.conditions[{index}].column"
    for index, field in enumerate(config.fields):
        yield field.from_, f"fields[{index}].from"
        if field.changed_at:
            yield field.changed_at, f"fields[{index}].changed_at"
    for index, consent in enumerate(config.consents):
        yield consent.from_, f"consents[{index}].from"
        if consent.changed_at:
            yield consent.changed_at, f"consents[{index}].changed_at"
