"""Which change of `destinations.apsis` needs a full sync, and which does not.

Rule: APSIS One's help on the Tribe integration. Fields and consents need one, for what is there
would not show them otherwise; conditions only say who is carried from now on, and overviews are
never touched by a full sync.
"""

import hashlib
import json
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass

from vibes_pipelines.stages.apsis_sync import ApsisSync
from vibes_pipelines.store.full_syncs import FullSync, FullSyncs
from vibes_pipelines.sync_config import SyncConfig
from vibes_pipelines.sync_config.apsis import Apsis

NEEDED: Mapping[str, str] = {
    "fields": "the field mapping changed: run a full sync, or profiles keep what they have",
    "consents": "the consent mapping changed: run a full sync, or consents stay as they are",
    "place": "another section or keyspace: run a full sync, nothing is there yet",
}
NOT_NEEDED: Mapping[str, str] = {
    "conditions": "the sync conditions changed: no full sync is needed; profiles that no longer "
    "match stay, contacts that newly match come with their next change or the daily sync",
    "overviews": "the overviews changed: no full sync is needed; import them by hand, or wait "
    "for the next morning",
}
FIRST = "no full sync has finished yet: run the first one"
COMPARED = ("fields", "consents", "place", "conditions")
"""What a full sync compares by: with another one, the rest of it is not what sync.yaml says."""


@dataclass(frozen=True)
class Need:
    """Whether a full sync is needed, and everything that changed since the last one."""

    is_needed: bool
    reasons: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """One line for a check or a terminal."""
        return "; ".join(self.reasons) or "nothing changed since the last full sync"


def config_marks(config: SyncConfig, section: Apsis) -> dict[str, str]:
    """A hash of each part of the config that is told apart."""
    parts = section.model_dump(mode="json", by_alias=True)
    conditions = [one.model_dump(mode="json", by_alias=True) for one in config.contacts.conditions]
    return {
        "fields": _hash([parts["email"], parts["fields"]]),
        "consents": _hash(parts["consents"]),
        "place": _hash([parts["section"], parts["keyspace"]]),
        "conditions": _hash(conditions),
        "overviews": _hash(parts["overviews"]),
    }


def changed_since_begun(sync: ApsisSync, full_sync: FullSync) -> list[str]:
    """What sync.yaml says otherwise than when a full sync began; nothing where it noted nothing."""
    begun = full_sync.progress.get("config")
    if begun is None:
        return []
    now = config_marks(sync.project.config, sync.section)
    changed = [name for name in COMPARED if begun.get(name) != now[name]]
    made = sync.project.ledger.diff_set(full_sync.progress.get("diff_set") or "")
    if made and made.mapping_hash != sync.project.config.mapping_hash and not changed:
        return ["contacts"]
    return changed


def full_sync_need(sync: ApsisSync) -> Need:
    """What sync.yaml as it is now needs."""
    with closing(FullSyncs(sync.project.settings.ledger_url, sync.now)) as book:
        finished = book.newest_finished()
    before = finished.progress.get("config") if finished else None
    if before is None:
        return Need(is_needed=True, reasons=(FIRST,))
    now = config_marks(sync.project.config, sync.section)
    changed = [name for name, mark in now.items() if before.get(name) != mark]
    texts = {**NEEDED, **NOT_NEEDED}
    return Need(any(name in NEEDED for name in changed), tuple(texts[name] for name in changed))


def _hash(document: object) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:16]
