"""The whole loop for tests: a sandbox in this process, and the stages that the assets call."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
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
    environment: Mapping[str, str]

    @property
    def today(self) -> str:
        return self.sandbox.today.isoformat()

    def land_share(self, feed: str, day: str | None = None) -> None:
        landing.land_share(self.project, day or self.today, feed, ShareResource().connector())

    def land(self) -> None:
        for feed in landing.LANDED_SHARE_FEEDS:
            self.land_share(feed)
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
            delivering.deliver_invites,
        ):
            stage(self.project, self.today, SEND)

    @contextmanager
    def changed(self, **environment: object) -> Iterator["Loop"]:
        """The same sandbox, seen from an environment that differs in some variables."""
        changed = {**self.environment, **{name: str(v) for name, v in environment.items()}}
        with open_project(Settings(changed)) as project, process_environment(changed):
            yield Loop(self.sandbox, project, changed)

    def edit_contacts(self, assignment: str, keys: Sequence[str]) -> None:
        """A CRM user's `UPDATE contacts SET ...` of the contacts with these keys."""
        marks = ", ".join("?" for _ in keys)
        with self.sandbox.crm.edit() as editor:
            editor.connection.execute(
                f"UPDATE contacts SET {assignment} WHERE contact_id IN ({marks})", tuple(keys)
            )

    def day(self, *, approve: bool = False) -> DayAccount:
        """One whole day with effects."""
        summary = self.reconcile()
        if approve:
            self.approve(summary)
        self.deliver()
        return account_of(self.project, self.today)


@contextmanager
def running_loop(
    home: Path,
    world: World,
    sync_config: Path = EXAMPLE,
    *,
    lag_h: float = 0,
    resume: bool = False,
) -> Iterator[Loop]:
    """A loop over `world`, or the one that `home` holds; everything on loopback, below `home`."""
    with ExitStack() as running:
        sandbox = Sandbox(home / "sandbox", world, lag_h=lag_h)
        sandbox.start(resume=resume)
        running.callback(sandbox.stop)
        environment = {
            **sandbox.environment(),
            "VIBES_HOME": str(home / "data"),
            "VIBES_LEDGER_URL": "",  # in the data folder
            "VIBES_SYNC_CONFIG": str(sync_config),
        }
        with open_project(Settings(environment)) as project, process_environment(environment):
            yield Loop(sandbox, project, environment)


@contextmanager
def process_environment(environment: Mapping[str, str]) -> Iterator[None]:
    """The share's resource reads the process's environment, as Dagster's steps do."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        yield


def edited_sync_config(folder: Path, *edits: tuple[str, str]) -> Path:
    """A copy of the example in which pieces of text are replaced; each must be there."""
    text = EXAMPLE.read_text(encoding="utf-8")
    for old, new in edits:
        assert old in text, old
        text = text.replace(old, new)
    path = folder / "sync.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def agreed_keys(world: World) -> list[str]:
    """Keys of the contacts on which both sides agree, in the order of the CRM."""
    special = {key.removesuffix("-2") for keys in world.kinds.values() for key in keys}
    keys = [str(row["contact_id"]) for row in world.contacts]
    return [key for key in keys if key.removesuffix("-2") not in special]
