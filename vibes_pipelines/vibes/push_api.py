"""The Push Device API: which devices a person has, and which person a device.

Rules: the Vibes documentation, Push Devices. Devices come into being in the app, never here. Both
documented forms of a device are read: wrapped in `device` or not, `OS` or `os`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from vibes_pipelines.vibes.api_calls import (
    Answer,
    Calls,
    Record,
    all_records,
    one_record,
    segment,
    text_of,
)
from vibes_pipelines.vibes.api_transport import app_lane


@dataclass(frozen=True, slots=True)
class Device:
    """One push device; `record` has everything that the platform says of it."""

    vibes_device_id: str
    os: str | None
    push_token: str | None
    app_version: str | None
    locale: str | None
    timezone: str | None
    record: Mapping[str, Any]

    @classmethod
    def read(cls, record: Record) -> Self:
        """A device in either documented form."""
        inner = record.get("device")
        flat = inner if isinstance(inner, dict) else record
        return cls(
            vibes_device_id=text_of(flat, "vibes_device_id") or "",
            os=text_of(flat, "os", "OS"),
            push_token=text_of(flat, "push_token"),
            app_version=text_of(flat, "app_version"),
            locale=text_of(flat, "locale"),
            timezone=text_of(flat, "timezone"),
            record=flat,
        )


class PushApi:
    """Push devices, over open calls. Calls about one app have that app's rate."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def devices(
        self, *, person_key: str | None = None, external_person_id: str | None = None
    ) -> list[Device] | None:
        """A person's devices; None when the person is not there."""
        person = self._calls.person(person_key, external_person_id)
        found = await self._calls.read(f"{person}/push_devices")
        return None if found is None else [Device.read(record) for record in all_records(found)]

    async def device(self, app_id: str, vibes_device_id: str) -> Device | None:
        """One device of an app."""
        path = _device(app_id, vibes_device_id)
        record = one_record(await self._calls.read(path, lane=app_lane(app_id)))
        return None if record is None else Device.read(record)

    async def assign(
        self,
        app_id: str,
        vibes_device_id: str,
        *,
        person_key: str | None = None,
        external_person_id: str | None = None,
    ) -> Answer:
        """Links a device with a person, to whom it moves if it had another.

        An unknown `external_person_id` is not refused: it becomes the id of the device's person.

        Raises:
            ValueError: not exactly one identifier is given; the platform would ignore one of two.
        """
        if (person_key is None) == (external_person_id is None):
            msg = "name the person by exactly one of person_key and external_person_id"
            raise ValueError(msg)
        key = "external_person_id" if person_key is None else "person_key"
        body = {key: external_person_id if person_key is None else person_key}
        path = f"{_device(app_id, vibes_device_id)}/assign"
        return await self._calls.write("POST", path, body, lane=app_lane(app_id))


def _device(app_id: str, vibes_device_id: str) -> str:
    return f"/mobile_apps/{segment(app_id)}/devices/{segment(vibes_device_id)}"
