"""Push devices: phones with the customer's app, and the persons they belong to.

Devices arise in the app alone; the API reads them and assigns them to persons (Vibes documentation,
Associate Person to Device).
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal
from uuid import NAMESPACE_URL, uuid5

from vibes_pipelines.sandbox.api_bodies import person_url
from vibes_pipelines.sandbox.platform import Person, PersonPatch, Platform
from vibes_pipelines.sandbox.platform_records import Notice
from vibes_pipelines.sandbox.platform_refusals import (
    NotFoundError,
    PersonNotFoundError,
    UnprocessableError,
)
from vibes_pipelines.sandbox.shelf import Shelf

Os = Literal["ANDROID", "IOS"]


@dataclass(frozen=True, slots=True)
class PushDevice:
    """A phone with the app, registered at its first opening."""

    vibes_device_id: str
    app_id: str
    person_key: str
    os: Os
    push_token: str
    at: datetime


class PushDevices:
    """The devices of one company's apps; used under the platform's lock."""

    def __init__(self, platform: Platform, apps: Iterable[str]) -> None:
        self.apps = frozenset(apps)
        self.devices: Shelf[str, PushDevice] = Shelf("push_devices")
        self._platform = platform

    def shelves(self) -> tuple[Shelf[Any, Any], ...]:
        """What the journal saves."""
        return (self.devices,)

    def get(self, vibes_device_id: str, app_id: str | None = None) -> PushDevice:
        """A device, of one app or of any; raises NotFoundError."""
        device = self.devices.get(vibes_device_id)
        if device is None or app_id not in {None, device.app_id}:
            raise NotFoundError("the device cannot be found")
        return device

    def of(self, person_key: str) -> list[PushDevice]:
        """A person's devices, the newest first."""
        own = [device for device in self.devices.values() if device.person_key == person_key]
        return sorted(own, key=lambda device: device.at, reverse=True)

    def open_app(self, app_id: str, os: Os) -> PushDevice:
        """Somebody opens the app for the first time: a device and a person without identifiers."""
        if app_id not in self.apps:
            raise NotFoundError("the app cannot be found")
        person = self._platform.appear()
        name = str(uuid5(NAMESPACE_URL, f"device/{app_id}/{person.person_key}"))
        token = f"token-{person.person_id}"
        device = PushDevice(name, app_id, person.person_key, os, token, self._platform.clock())
        self.devices[name] = device
        self._tell("device_added", device, person)
        return device

    def assign(
        self, device: PushDevice, *, person_key: str | None, external_person_id: str | None
    ) -> Person:
        """Give a device to a person; the person key wins when both are given.

        An external person id that nobody has is given to the device's present person. Raises
        PersonNotFoundError for an unknown person key, and UnprocessableError when the present
        person has another external id already (an assumption).
        """
        present = self._platform.persons[device.person_key]
        if person_key is not None:
            person = self._platform.find(person_key=person_key)
            if person is None:
                raise PersonNotFoundError("the person cannot be found")
        else:
            person = self._platform.find(external_person_id=external_person_id)
        if person is None and present.external_person_id is not None:
            raise UnprocessableError("the device's person has another external_person_id")
        if person is None:
            patch = PersonPatch(external_person_id)
            return self._platform.update(present.person_key, patch).person
        if person is present:
            self._platform.audit.repeat("api_assign", person.person_key)
            return person
        moved = replace(device, person_key=person.person_key)
        self.devices[device.vibes_device_id] = moved
        self._platform.audit.effect("api_assign", person.person_key)
        self._tell("device_removed", device, present)
        self._tell("device_added", moved, person)
        return person

    def _tell(self, kind: str, device: PushDevice, person: Person) -> None:
        payload = {
            "person": {
                "person_id": person.person_id,
                "external_id": person.external_person_id,
                "url": person_url(self._platform, person.person_id),
            },
            "push_device": {
                "app_id": device.app_id,
                "vibes_device_id": device.vibes_device_id,
                "push_token": device.push_token,
                "device_os": device.os,
                "url": device_url(device),
            },
        }
        config = {"app_id": device.app_id}
        at = self._platform.clock()
        self._platform.on_notice(Notice(kind, at, config, lambda _: payload))


def device_url(device: PushDevice) -> str:
    """The address of a device."""
    return f"/mobile_apps/{device.app_id}/devices/{device.vibes_device_id}"
