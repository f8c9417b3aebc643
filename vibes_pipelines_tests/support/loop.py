"""The whole loop for tests: a sandbox in this process, and the stages that the assets call."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from vibes_pipelines.orchestration.resources import ShareResource
from vibes_pipelines.reconcile.summary import Summary
from vibes_pipelines.report.account import DayAccount, account_of
from vibes_pipelines.sandbox.service import Sandbox
from vibes_pipelines.sandbox.world import World
from vibes_pipelines.settings import Settings
from vibes_pipelines.stages import delivering, landing
from vibes_pipelines.stages.certifying import certify_day
from vibes_pipelines.stages.project import Project, open_project
from vibes_pipelines.stages.reconciling import reconcile_day

EXAMPLE = Path(__file__).parents[2] / "sync.example.yaml"
SEND = delivering.Options(dry_run=False)


@dataclass
class Loop:
    """A sandbox and a project that points at it; one method per stage."""

    sandbox: Sandbox
    project: Project

    @property
    def today(self) -> str:
        return self.sandbox.today.isoformat()

    def land(self) -> None:
        for feed in landing.LANDED_SHARE_FEEDS:
            landing.land_share(self.project, self.today, feed, ShareResource().connector())
        landing.land_extracts(self.project, self.today)
        landing.land_contacts(self.project, self.today)

    def reconcile(self) -> Summary:
        self.land()
        certify_day(self.project, self.today)
        return reconcile_day(self.project, self.today)

    def approve(self, summary: Summary) -> None:
        delivering.approve(self.project, summary.diff_set, "looked at in a test")

    def deliver(self) -> None:
        for stage in (
            delivering.deliver_opt_outs,
            delivering.write_back,
            delivering.import_persons,
            delivering.push_persons,
        ):
            stage(self.project, self.today, SEND)

    def day(self, *, approve: bool = False) -> DayAccount:
        """One whole day with effects."""
        summary = self.reconcile()
        if approve:
            self.approve(summary)
        self.deliver()
        return account_of(self.project, self.today)


@contextmanager
def running_loop(
    home: Path, world: World, sync_config: Path = EXAMPLE, *, lag_h: float = 0
) -> Iterator[Loop]:
    """A loop over `world`, everything on loopback and below `home`."""
    with Sandbox(home / "sandbox", world, lag_h=lag_h) as sandbox:
        environment = {
            **sandbox.environment(),
            "VIBES_HOME": str(home / "data"),
            "VIBES_LEDGER_URL": f"sqlite:///{home / 'data' / 'ledger.db'}",
            "VIBES_SYNC_CONFIG": str(sync_config),
        }
        with open_project(Settings(environment)) as project, share_environment(environment):
            yield Loop(sandbox, project)


@contextmanager
def share_environment(environment: dict[str, str]) -> Iterator[None]:
    """The share's resource reads the process's environment, as Dagster's steps do."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        yield
