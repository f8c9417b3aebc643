"""Tribe and APSIS One beside the platform: started with it, and kept for its next start."""

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path

from vibes_pipelines.sandbox.all_switches import AllSwitches
from vibes_pipelines.sandbox.apsis_saved import SavedApsis
from vibes_pipelines.sandbox.apsis_service import ApsisSandbox
from vibes_pipelines.sandbox.kept_accounts import KeptAccounts
from vibes_pipelines.sandbox.tribe_sandbox import TribeSandbox
from vibes_pipelines.sandbox.tribe_saved import SavedTribe
from vibes_pipelines.sandbox.world import ContactRow


def start_beside(
    running: ExitStack,
    folder: Path,
    contacts: Iterable[ContactRow],
    now: Callable[[], datetime],
    seed: int,
    switches: AllSwitches,
    *,
    resume: bool = False,
) -> dict[str, str]:
    """Serve both until `running` is unwound; returns the environment to reach them.

    Raises:
        SandboxHomeError: what is to be resumed cannot be read.
    """
    tribe = TribeSandbox(contacts, switches.tribe, now=now, seed=seed)
    apsis = ApsisSandbox(switches.apsis)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    kept = KeptAccounts(folder, {"tribe": SavedTribe(tribe), "apsis": SavedApsis(apsis.account)})
    if resume:
        kept.restore()
    kept.start()
    running.callback(kept.stop)
    environment: dict[str, str] = {}
    for one in (tribe, apsis):
        one.start()
        running.callback(one.stop)
        environment |= one.environment()
    return environment
