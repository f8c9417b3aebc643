"""The Callback API: callbacks registered, shown, altered, cancelled and tested.

Statuses are those of the published API description; where it is silent, refusals are 422 (an
assumption).
"""

from vibes_pipelines.sandbox.api_calls import Answer, Call, Route
from vibes_pipelines.sandbox.callbacks_bodies import show_callback_id, show_registration
from vibes_pipelines.sandbox.callbacks_http import check_live
from vibes_pipelines.sandbox.callbacks_records import Registration, Wish
from vibes_pipelines.sandbox.callbacks_requests import read_wish
from vibes_pipelines.sandbox.callbacks_samples import read_test
from vibes_pipelines.sandbox.platform_refusals import CallbackNotFoundError


def _register(call: Call) -> Answer:
    return _show(call, call.callbacks.register(_wish(call), call.version), 201)


def _all(call: Call) -> Answer:
    shown = [
        show_registration(call.platform.company_key, entry, call.switches)
        for entry in call.callbacks.registrations
    ]
    return Answer(200, shown)


def _one(call: Call) -> Answer:
    return _show(call, _named(call))


def _alter(call: Call) -> Answer:
    registration = _named(call)
    return _show(call, call.callbacks.alter(registration.number, _wish(call), call.version))


def _cancel(call: Call) -> Answer:
    return _show(call, call.callbacks.cancel(_named(call).number))


def _test(call: Call) -> Answer:
    test = read_test(call.platform, call.body(), call.platform.clock())
    event_id = call.callbacks.test(test.kind, test.config, test.payload)
    message = f"A test callback of type {test.kind} was queued"
    return Answer(201, {"message": message, "event_id": event_id})


def _wish(call: Call) -> Wish:
    """What a body asks for, its URL tried out: the documentation wants live ones."""
    wish = read_wish(call.body(), call.switches)
    if call.switches.callback_url_check == "live":
        check_live(wish.destination.url)
    return wish


def _named(call: Call) -> Registration:
    """The registration that the path names."""
    for registration in call.callbacks.registrations:
        if str(show_callback_id(registration.number, call.switches)) == call.path[0]:
            return registration
    raise CallbackNotFoundError("the callback cannot be found")


def _show(call: Call, registration: Registration, status: int = 200) -> Answer:
    entity = show_registration(call.platform.company_key, registration, call.switches)
    return Answer(status, entity)


CALLBACK_ROUTES: tuple[Route, ...] = (
    Route("/config/callbacks", {"POST": _register, "GET": _all}),
    Route("/config/callbacks/*", {"GET": _one, "PUT": _alter, "DELETE": _cancel}),
    Route("/config/callback_events/test", {"POST": _test}),
)
"""The calls of the Callback API, from the operations that Vibes publishes."""
