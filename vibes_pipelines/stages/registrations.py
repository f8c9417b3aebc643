"""Registrations: what sync.yaml wants to hear against what the platform has registered.

A registration to another address than ours is foreign: it is shown and never touched.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal

from vibes_pipelines.stages.api import vibes_api
from vibes_pipelines.stages.interrupts import run_until_interrupted
from vibes_pipelines.stages.project import Project
from vibes_pipelines.sync_config import SyncConfig
from vibes_pipelines.sync_config.realtime import TARGET_EVENTS
from vibes_pipelines.vibes.callback_api import CallbackSpec, Registration
from vibes_pipelines.vibes.callbacks import SUBSCRIPTION_REMOVED, read_instant

Action = Literal["present", "register", "surplus", "cancel", "foreign"]
Outcome = Literal["accepted", "rejected", "unknown"]

MARKS: dict[Action, str] = {
    "present": "=",
    "register": "+",
    "surplus": "?",
    "cancel": "-",
    "foreign": "~",
}


class NoCallbacksError(ValueError):
    """sync.yaml does not say what to listen to."""


@dataclass(frozen=True)
class Step:
    """One registration, and what is to be done about it.

    `surplus` is one of ours that sync.yaml does not name, or has twice: kept unless pruned.
    `outcome` and `message` tell what the platform answered once it was applied.
    """

    action: Action
    callback_type: str
    target: dict[str, str]
    url: str
    callback_id: str | None = None
    outcome: Outcome | None = None
    message: str | None = None

    @property
    def line(self) -> str:
        """One line for a person."""
        named = ", ".join(f"{name} {value}" for name, value in self.target.items())
        told = f"  {self.outcome}" if self.outcome else ""
        why = f": {self.message}" if self.message else ""
        where = f" -> {self.url}" if self.action == "foreign" else ""
        place = f" ({named})" if named else ""
        return f"{MARKS[self.action]} {self.action:8} {self.callback_type}{place}{where}{told}{why}"

    def as_json(self) -> dict[str, Any]:
        """The step for machines."""
        return asdict(self)


def wanted(config: SyncConfig) -> list[CallbackSpec]:
    """Every registration that sync.yaml asks for.

    Raises:
        NoCallbacksError: there is no section `callbacks`.
        InvalidCallback: an address that the platform would refuse.
    """
    section = config.callbacks
    if section is None:
        msg = "sync.yaml: callbacks: is missing; give the url of the receiver (docs/callbacks.md)"
        raise NoCallbacksError(msg)
    lists = [consent.list for consent in config.consents]
    targets = {name: getattr(section, name) for name in TARGET_EVENTS}
    targets["lists"] = lists if section.lists is None else section.lists
    specs = [
        CallbackSpec(event, section.url, {called: value.strip()})
        for name, (called, events) in TARGET_EVENTS.items()
        for value in dict.fromkeys(targets[name])
        for event in events
    ]
    return [*specs, *(CallbackSpec(event, section.url) for event in dict.fromkeys(section.events))]


def plan_registrations(project: Project, *, prune: bool = False) -> list[Step]:
    """What `apply_registrations` would do; asks the platform and changes nothing."""
    specs = wanted(project.config)
    return difference(
        project.config, specs, run_until_interrupted(_registered(project)), prune=prune
    )


def apply_registrations(project: Project, *, prune: bool = False) -> list[Step]:
    """Registers what is missing and, with `prune`, cancels what of ours is surplus."""
    specs = wanted(project.config)
    return run_until_interrupted(_apply(project, specs, prune=prune))


def difference(
    config: SyncConfig,
    specs: Sequence[CallbackSpec],
    registered: Sequence[Registration],
    *,
    prune: bool,
) -> list[Step]:
    """Each wanted and each present registration once, and what is to be done about it."""
    left = [one for one in registered if not _is_over(one)]
    steps = []
    for spec in specs:
        found = next((one for one in left if spec.matches(one)), None)
        if found is None:
            steps.append(Step("register", spec.callback_type, dict(spec.target), spec.url))
        else:
            left.remove(found)
            steps.append(_step("present", found))
    url = config.callbacks.url if config.callbacks else None
    surplus: Action = "cancel" if prune else "surplus"
    return [*steps, *(_step(surplus if one.url == url else "foreign", one) for one in left)]


async def _registered(project: Project) -> list[Registration]:
    async with vibes_api(project) as api:
        return await api.callbacks.registrations()


async def _apply(project: Project, specs: Sequence[CallbackSpec], *, prune: bool) -> list[Step]:
    async with vibes_api(project) as api:
        registered = await api.callbacks.registrations()
        done = []
        for step in difference(project.config, specs, registered, prune=prune):
            if step.action == "register":
                spec = CallbackSpec(step.callback_type, step.url, step.target)
                answer = await api.callbacks.register(spec)
            elif step.action == "cancel":
                answer = await api.callbacks.cancel(step.callback_id or "")
            else:
                done.append(step)
                continue
            done.append(replace(step, outcome=answer.outcome, message=answer.message))
        return done


def unregistered_lists(steps: Sequence[Step]) -> Iterator[str]:
    """The lists whose opt-outs nobody is told of yet."""
    for step in steps:
        if step.action == "register" and step.callback_type == SUBSCRIPTION_REMOVED:
            yield step.target["list_id"]


def unnamed_lists(config: SyncConfig, steps: Sequence[Step]) -> Iterator[str]:
    """Lists of `consents` that `callbacks.lists` leaves out, and whose opt-outs nobody is told."""
    told = {
        step.target.get("list_id")
        for step in steps
        if step.callback_type == SUBSCRIPTION_REMOVED and step.action not in {"foreign", "cancel"}
    }
    for name in dict.fromkeys(consent.list.strip() for consent in config.consents):
        if name not in told:
            yield name


def _step(action: Action, one: Registration) -> Step:
    return Step(action, one.callback_type, dict(one.target), one.url, one.callback_id)


def _is_over(one: Registration) -> bool:
    """Whether it sends nothing any more: its end date, exclusive, has passed."""
    ends = read_instant(one.end_date) if one.end_date else None
    return ends is not None and ends <= datetime.now(UTC)
