"""The platform in the small world of `two_sides`: its people, and the faces that it shows.

Each effect is judged by the witness.
"""

import csv
import re
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vibes_pipelines.delivery.file_import import NOT_SUBSCRIBED
from vibes_pipelines_tests.support.callbacks import REMOVED
from vibes_pipelines_tests.support.deliveries import (
    FakeAnswer,
    FakeCampaigns,
    FakePlatform,
    FakeServer,
)

if TYPE_CHECKING:
    from vibes_pipelines_tests.support.two_sides_world import World


_EXTERNAL, _FIRST = "external_person_id", "first_name"
_WHO = frozenset({_EXTERNAL, "person_key"})


class Violation(AssertionError):  # noqa: N818 - the name says what it is
    """A law is broken; the message says by what."""


@dataclass
class Person:
    """The stays of one person on the list, and the words that came from the person alone.

    `is_named`: the platform has its external id, and not the number alone.
    """

    stays: list[list[datetime | None]] = field(default_factory=list)
    joined: list[datetime] = field(default_factory=list)
    is_named: bool = True
    first: str | None = None

    @property
    def last_in(self) -> datetime | None:
        return max((one[0] for one in self.stays if one[0]), default=None)

    @property
    def last_out(self) -> datetime | None:
        return max((one[1] for one in self.stays if one[1]), default=None)

    @property
    def is_active(self) -> bool:
        return bool(self.stays) and self.stays[-1][1] is None


def key_of(key: str) -> str:
    """The `person_key` of a contact's person."""
    return f"key-{key.lower()}"


def contact_of(person_key: str) -> str:
    """The contact of a person, by its `person_key`."""
    return person_key.removeprefix("key-").upper()


def number_of(key: str) -> str:
    """The MDN of a contact and of its person."""
    return f"+1312555{key[1:]}"


class PlatformOfTheWorld(FakePlatform):
    """The Person API of the world; `knows_joins`: its caller has heard of every join so far."""

    def __init__(self, world: "World", *, knows_joins: bool = False) -> None:
        super().__init__()
        self._world = world
        self._knows_joins = knows_joins

    async def unsubscribe(
        self,
        list_id: str,
        *,
        person_key: str | None = None,
        external_person_id: str | None = None,
    ) -> FakeAnswer:
        world = self._world
        key = external_person_id if person_key is None else contact_of(person_key)
        if key not in world.persons:
            raise Violation(f"an opt-out of nobody: {person_key or external_person_id}")
        if person_key is None and not world.persons[key].is_named:
            return FakeAnswer()  # 404: nobody has this external id, and so nobody is subscribed
        world.effect()
        if world.refusals:
            world.refusals -= 1
            return FakeAnswer(None, "unknown", "Timeout")
        world.pass_time(1)
        if self._knows_joins and not world.on_the_way and world.is_known(key):
            said, (_, changed) = world.persons[key].last_in, world.crm_of(key)
            if world.persons[key].is_active and said and changed and said > changed:
                raise Violation(f"{key}: a newer opt-in of the person was ended in real time")
        world.end(key)
        world.effect()
        return FakeAnswer()

    async def update(self, person_key: str, body: dict[str, Any]) -> FakeAnswer:
        return self._write("update", person_key, body)

    def _write(self, call: str, person: str, body: dict[str, Any]) -> FakeAnswer:
        """A person is added, updated or named; nothing else may stand in such a body."""
        fields = body.get("custom_fields", {})
        if body.keys() - {*_WHO, "mobile_phone", "custom_fields"} or fields.keys() - {_FIRST}:
            raise Violation(f"{call} of {person}: more than who it is, and its first name")
        self._world.effect()
        self._world.pass_time(1)
        self._world.write_person(contact_of(person), fields.get(_FIRST))
        self._world.effect()
        return FakeAnswer()


class CampaignsOfTheWorld(FakeCampaigns):
    """The acquisition campaigns of the world; whether somebody confirms is the person's to say."""

    def __init__(self, world: "World") -> None:
        super().__init__()
        self._world = world

    async def invite(self, campaign_id: str, *, mdn: str | None = None, **named: Any) -> FakeAnswer:
        world, key = self._world, "C" + (mdn or "")[8:]
        state, changed = world.crm_of(key)
        told = [at for kind, at, whose in world.arrived if kind == REMOVED and whose == key]
        known = max([*told, *filter(None, [world.known_at_plan.get(key)])], default=None)
        if state != "yes" or changed is None:
            raise Violation(f"{key}: invited, and the CRM says {state}")
        if known is not None and changed <= known:
            raise Violation(f"{key}: invited, and a newer opt-out was known")
        world.effect()
        return await super().invite(campaign_id, mdn=mdn, **named)


class FilesOfTheWorld(FakeServer):
    """The file server; what lies there is imported when the platform gets to it."""

    def __init__(self, world: "World") -> None:
        super().__init__()
        self._world = world

    def upload(self, local: Path, remote_dir: str, name: str) -> None:
        self._world.effect()
        super().upload(local, remote_dir, name)
        self._world.effect()

    def process(self, errors: dict[int, tuple[str, str]] | None = None) -> None:
        waiting, self.files["/in"] = self.files["/in"], {}
        for name, text in sorted(waiting.items()):
            if name.endswith(".persons"):
                rows, told = self._write(name, text), {}
            else:
                rows = re.findall(r"key-(c[0-9]{4})", text)
                refused = (NOT_SUBSCRIBED, "not subscribed")
                told = {n: refused for n, key in enumerate(rows, 1) if not self._end(key.upper())}
            self.files["/in"] = {name: "\n".join(["header", *rows])}
            super().process(told | (errors or {}))

    def _write(self, name: str, text: str) -> list[str]:
        """Adds or updates the persons of a file, by external id or else by number."""
        rows = list(csv.DictReader(text.splitlines()))
        for row in rows:
            if row.keys() - {*_WHO, "mdn", _FIRST}:
                raise Violation(f"{name}: more than who somebody is, and the first name")
            if row.get("mdn") not in {None, number_of(row[_EXTERNAL])}:
                raise Violation(f"{name}: a person by the number of another")
            self._world.write_person(row[_EXTERNAL], row.get(_FIRST))
        return [row[_EXTERNAL] for row in rows]

    def _end(self, key: str) -> bool:
        """Ends the subscription of one row, and its callback is on the way; False: there is none.

        An opt-out of the CRM may be older than what the person said since the file left: nobody can
        tell that any more, and an opt-out wins.
        """
        was_active = self._world.persons[key].is_active
        self._world.end(key)
        return was_active
