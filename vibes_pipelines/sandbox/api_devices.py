"""The calls about push devices: below a person of the company, and below an app."""

from typing import Any

from vibes_pipelines.sandbox.api_bodies import require_external_id, show_person
from vibes_pipelines.sandbox.api_calls import Answer, Call, Handler, PersonFinder, Route
from vibes_pipelines.sandbox.platform_refusals import InvalidBodyError, NotFoundError
from vibes_pipelines.sandbox.push_devices import PushDevice, device_url

_NAMES = frozenset({"external_person_id", "person_key"})


def of_person(find: PersonFinder) -> Handler:
    """A handler that shows the newest device of the person found; 404 when there is none."""

    def handle(call: Call) -> Answer:
        devices = call.account.devices.of(find(call).person_key)
        if not devices:
            raise NotFoundError("the device cannot be found")
        return _show(call, devices[0])

    return handle


def _one(call: Call) -> Answer:
    return _show(call, call.account.devices.get(call.path[0], call.owner))


def _assign(call: Call) -> Answer:
    device = call.account.devices.get(call.path[0], call.owner)
    body = call.body()
    faults = [f"unknown field: {key}" for key in body if key not in _NAMES]
    faults += [
        f"{key} takes a string"
        for key in body
        if key in _NAMES and not (isinstance(body[key], str) and body[key])
    ]
    if not _NAMES & body.keys():
        faults.append("external_person_id or person_key is required")
    if faults:
        raise InvalidBodyError(*faults)
    if "external_person_id" in body:
        require_external_id(body["external_person_id"])
    person = call.account.devices.assign(
        device,
        person_key=body.get("person_key"),
        external_person_id=body.get("external_person_id"),
    )
    return Answer(200, show_person(call.platform, person, call.version))


def _show(call: Call, device: PushDevice) -> Answer:
    wrapped = call.switches.push_device_body == "wrapped"
    shown: dict[str, Any] = {
        "vibes_device_id": device.vibes_device_id,
        "os" if wrapped else "OS": device.os,
        "os_version": "17.0",
        "sdk_version": "4.0.0",
        "app_version": "1.0.0",
        "push_token": device.push_token,
        "hardware_make": "sandbox",
        "hardware_model": "sandbox",
        "advertising_id": "",
        "locale": "en_US",
        "location": {"latitude": 0.0, "longitude": 0.0},
        "timezone": "US/Central",
        "url": device_url(device),
    }
    return Answer(200, {"device": shown} if wrapped else shown)


APP_ROUTES: tuple[Route, ...] = (
    Route("/devices/*", {"GET": _one}),
    Route("/devices/*/assign", {"POST": _assign}),
)
"""The calls below an app, from the operations that Vibes publishes."""
