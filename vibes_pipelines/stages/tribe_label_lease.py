"""The lease of a Tribe application's labels: who takes labels off does so alone.

The Vibes write-back and the sync of APSIS One are processes with ledgers of their own. Where a list
of labels is written whole, one of them would put back what the other took off.
"""

import hashlib
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from vibes_pipelines.crm.database import CrmError
from vibes_pipelines.settings import TribeSettings
from vibes_pipelines.stages.project import Project
from vibes_pipelines.store.kept_lease import kept_lease
from vibes_pipelines.store.leases import LaneBusy, Leases

WAIT_S = 600.0
"""How long another process is waited for; its opt-outs are few, and each is three calls."""

LOOK_S = 0.2


@contextmanager
def label_lease(project: Project, wait_s: float = WAIT_S) -> Iterator[None]:
    """Holds the lease while the block runs; waits for whoever holds it.

    Raises:
        CrmError: it was not given back in time; nothing was written.
    """
    # The inbox is where every destination looks; each has a ledger of its own beside it.
    with Leases(project.settings.inbox_url) as leases, ExitStack() as held:
        _take(held, leases, lease_name(project.settings.tribe), wait_s)
        yield


def lease_name(settings: TribeSettings) -> str:
    """One name for each application and organization; it shows neither."""
    parts = (settings.api_url.rstrip("/"), settings.client_id, settings.organization_id or "")
    return f"tribe_labels/{hashlib.sha256('|'.join(parts).encode()).hexdigest()[:16]}"


def _take(held: ExitStack, leases: Leases, name: str, wait_s: float) -> None:
    ends_at = time.monotonic() + wait_s
    while True:
        try:
            held.enter_context(kept_lease(leases, name))
        except LaneBusy as busy:
            if time.monotonic() >= ends_at:
                msg = (
                    "Tribe: another process takes labels off, and did not end in time; nothing "
                    "was written. Run it again after its end, or stop it"
                )
                raise CrmError(msg) from busy
            time.sleep(LOOK_S)
        else:
            return
