"""Checks of Tribe CRM, where contacts come from there: application, fields, labels."""

from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, TypeVar

from vibes_pipelines.stages.doctor.bench import Bench
from vibes_pipelines.stages.doctor.findings import Check, Finding, fail, ok, warn
from vibes_pipelines.stages.interrupts import run_until_interrupted
from vibes_pipelines.stages.tribe_contacts import fields_of
from vibes_pipelines.stages.tribe_labels import labels_of
from vibes_pipelines.tribe.errors import TribeFieldError
from vibes_pipelines.tribe.labels import label_id_of

if TYPE_CHECKING:
    from vibes_pipelines.tribe.client import TribeClient

Answer = TypeVar("Answer")


def _application(bench: Bench) -> Iterator[Finding]:
    if bench.config.contacts.source != "tribe":
        return
    labels = ask_tribe(bench, lambda client: client.labels())
    yield ok(f"{bench.settings.tribe.api_url} answers, with {len(labels)} labels")


def _fields(bench: Bench) -> Iterator[Finding]:
    if bench.config.contacts.source != "tribe":
        return
    metadata = ask_tribe(bench, lambda client: client.metadata())
    named = fields_of(bench.config)
    is_well = True
    for name, entry in named.items():
        try:
            metadata.require({name: entry})
        except TribeFieldError as missing:
            is_well = False
            yield fail(str(missing), f"correct {entry} in sync.yaml")
    if is_well:
        yield ok(f"Tribe's persons have all {len(named)} mapped fields")


def _labels(bench: Bench) -> Iterator[Finding]:
    if bench.config.contacts.source != "tribe" or not labels_of(bench.config):
        return
    existing = ask_tribe(bench, lambda client: client.labels())
    inactive = {label.name for label in existing if label.is_inactive}
    for name in labels_of(bench.config):
        try:
            label_id_of(existing, name)
        except TribeFieldError as missing:
            told, _, cure = str(missing).rpartition("; ")
            yield fail(told, cure)
            continue
        if name in inactive:
            yield warn(
                f"the label {name!r} is switched off in Tribe",
                "nobody can get it any more; switch it on there, or map another",
            )
        else:
            yield ok(f"Tribe has the label {name!r}")


def ask_tribe(bench: Bench, question: "Callable[[TribeClient], Awaitable[Answer]]") -> Answer:
    """The answer of the Tribe CRM application; raises TribeError."""
    from vibes_pipelines.tribe.client import TribeClient  # noqa: PLC0415 - the HTTP client is slow

    async def ask() -> Answer:
        async with TribeClient(bench.settings.tribe) as client:
            return await question(client)

    return run_until_interrupted(ask())


_WELL = ("files/sync.yaml", "tribe/application")

CHECKS = (
    Check(
        "tribe/application",
        "Tribe CRM gives a token and answers (only with `contacts.source: tribe`)",
        _application,
        ("files/sync.yaml",),
    ),
    Check("tribe/fields", "every field that sync.yaml names is there", _fields, _WELL),
    Check("tribe/labels", "every label that sync.yaml names is there and in use", _labels, _WELL),
)
