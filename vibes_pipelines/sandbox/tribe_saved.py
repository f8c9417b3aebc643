"""The state of a stand-in of Tribe as JSON: records, labels by identifier, registered webhooks."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from vibes_pipelines.sandbox.tribe_webhooks import Webhook

if TYPE_CHECKING:
    from vibes_pipelines.sandbox.tribe_sandbox import TribeSandbox

_OF = "@"
"""Stands for a record of another set, which is one and the same wherever it is named."""


class SavedTribe:
    """The whole environment of one stand-in. Limits and tokens are not of it."""

    def __init__(self, tribe: "TribeSandbox") -> None:
        self._tribe = tribe

    def saved(self) -> dict[str, Any]:
        """Everything, as plain JSON values."""
        world = self._tribe.world
        with world.lock:
            owners = {one["ID"]: name for name, rows in world.sets.items() for one in rows.values()}
            return {
                "sets": {
                    name: [_named(record, owners) for record in rows.values()]
                    for name, rows in world.sets.items()
                },
                "random": world.random.getstate(),
                "webhooks": [asdict(one) for one in self._tribe.webhooks.registered.values()],
            }

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Takes the place of the records that are there."""
        world = self._tribe.world
        sets = {
            name: {record["ID"]: dict(record) for record in records}
            for name, records in saved["sets"].items()
        }
        for rows in sets.values():
            for record in rows.values():
                record |= {key: _meant(value, sets) for key, value in record.items()}
        version, numbers, rest = saved["random"]
        with world.lock:
            world.replace(sets)
            world.random.setstate((version, tuple(numbers), rest))
            hooks = [Webhook(**one) for one in saved["webhooks"]]
            self._tribe.webhooks.registered = {one.id: one for one in hooks}


def _named(record: Mapping[str, Any], owners: Mapping[str, str]) -> dict[str, Any]:
    """A record in which others of the world are named instead of written out."""

    def plain(value: Any) -> Any:
        if isinstance(value, list):
            return [plain(one) for one in value]
        if isinstance(value, dict) and value.get("ID") in owners:
            return {_OF: [owners[value["ID"]], value["ID"]]}
        return value

    return {key: plain(value) for key, value in record.items()}


def _meant(value: Any, sets: Mapping[str, Mapping[str, Any]]) -> Any:
    if isinstance(value, list):
        return [_meant(one, sets) for one in value]
    if isinstance(value, dict) and _OF in value:
        name, identifier = value[_OF]
        return sets[name][identifier]
    return value
