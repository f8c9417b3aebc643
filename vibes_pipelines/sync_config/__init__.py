"""SyncConfig, the one typed reading of `sync.yaml`: its sections in files of their own."""

from vibes_pipelines.sync_config.config import (
    EXTRACT_FEEDS,
    SELECT_TYPES,
    Cap,
    Consent,
    Feed,
    FieldType,
    Guards,
    MappedField,
    SyncConfig,
    SyncConfigError,
    load_sync_config,
)

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
