"""SyncConfig, the one typed reading of `sync.yaml`: its sections in files of their own."""

from vibes_pipelines.sync_config.config import (
    SELECT_TYPES,
    Consent,
    FieldType,
    MappedField,
    SyncConfig,
    SyncConfigError,
    load_sync_config,
)
from vibes_pipelines.sync_config.feeds import EXTRACT_FEEDS, Feed
from vibes_pipelines.sync_config.guards import Cap, Guards

__all__ = [
    "EXTRACT_FEEDS",
    "SELECT_TYPES",
    "Cap",
    "Consent",
    "Feed",
    "FieldType",
    "Guards",
    "MappedField",
    "SyncConfig",
    "SyncConfigError",
    "load_sync_config",
]
