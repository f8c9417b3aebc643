"""The calls that the stand-in API knows: one handler each, found by method and path.

A call that is not in `ROUTES` is refused. Handlers are plain functions from a `Call` to an
`Answer`; transport, authentication and faults are `api`'s business.
"""

from collections.abc import Callable
from typing import Any

from vibes_pipelines.sandbox.api_acquisition import ACQUISITION_ROUTES
from vibes_pipelines.sandbox.api_bodies import (
    require_external_id,
    show_list,
    show_person,
    show_subscription,
)
from vibes_pipelines.sandbox.api_callbacks import CALLBACK_ROUTES
from vibes_pipelines.sandbox.api_calls import Answer, Call, Handler, PersonFinder, Route
from vibes_pipelines.sandbox.api_devices import APP_ROUTES, of_person
from vibes_pipelines.sandbox.api_events import EVENT_ROUTES
from vibes_pipelines.sandbox.api_wallet import WALLET_ROUTES
from vibes_pipelines.sandbox.platform_records import Person, SubscriptionList, Written
from vibes_pipelines.sandbox.platform_refusals import (
    MalformedRequestError,
    NotFoundError,
    NotSubscribedError,
    PersonNotFoundError,
)

Found = tuple[Route, tuple[str, ...]] | None
"""A route with the path's variable segments."""


def find_route(segments: tuple[str, ...]) -> Found:
    """The route of a path below the company, with the variable segments; literal paths go first."""
    return _find(_ROUTES_BY_LENGTH, segments)


def find_app_route(segments: tuple[str, ...]) -> Found:
    """The route of a path below an app."""
    return _find(_APP_ROUTES_BY_LENGTH, segments)


def _find(routes: "_Index", segments: tuple[str, ...]) -> Found:
    for pattern, route in routes.get(len(segments), ()):
        if all(wanted in {"*", got} for wanted, got in zip(pattern, segments, strict=True)):
            variables = (
                got for wanted, got in zip(pattern, segments, strict=True) if wanted == "*"
            )
            return route, tuple(variables)
    return None


def _by_key(call: Call) -> Person:
    """The person that the path names by key or by legacy numeric id."""
    identifier = call.path[0]
    is_legacy = identifier.isascii() and identifier.isdecimal()
    found = (
        call.platform.find(person_id=identifier)
        if is_legacy
        else call.platform.find(person_key=identifier)
    )
    return _known(found)


def _by_external(call: Call) -> Person:
    return _known(call.platform.find(external_person_id=call.path[0]))


def _known(person: Person | None) -> Person:
    if person is None:
        raise PersonNotFoundError("the person cannot be found")
    return person


def _list(call: Call, list_id: str) -> SubscriptionList:
    if list_id not in call.platform.lists:
        raise NotFoundError("the subscription list cannot be found")
    return call.platform.lists[list_id]


def _body(call: Call, person: Person) -> dict[str, Any]:
    """The person; whether an unset identifier is `null` or absent no page says."""
    body = show_person(call.platform, person, call.version)
    if call.switches.unset_identifiers == "null":
        return body
    return {name: value for name, value in body.items() if value is not None}


def _show(call: Call, person: Person) -> Answer:
    return Answer(200, _body(call, person))


def _show_written(call: Call, written: Written) -> Answer:
    return Answer(201 if written.created else 200, _body(call, written.person))


def _add(call: Call) -> Answer:
    may_rename = call.switches.post_existing_mdn == "merge"
    return _show_written(call, call.platform.add(call.patch(), may_rename=may_rename))


def _find_by_mdn(call: Call) -> Answer:
    """A missing `mdn` is answered like a number that nobody has (published API description)."""
    mdn = call.mdn()
    person = _known(None if mdn is None else call.platform.find(mdn=mdn))
    body = _body(call, person)
    return Answer(200, [body] if call.switches.find_by_mdn_body == "array" else body)


def _get_by_key(call: Call) -> Answer:
    return _show(call, _by_key(call))


def _get_by_external(call: Call) -> Answer:
    return _show(call, _by_external(call))


def _update_by_key(call: Call) -> Answer:
    return _show_written(call, call.platform.update(call.path[0], call.patch()))


def _upsert_by_external(call: Call) -> Answer:
    require_external_id(call.path[0])
    written = call.platform.upsert(
        call.path[0],
        call.patch(),
        may_create=call.switches.put_external_unknown == "create",
        may_rename=call.switches.post_existing_mdn == "merge",
    )
    return _show_written(call, written)


def _subscriptions_of(call: Call, person: Person) -> Answer:
    active_only = call.query.get("active_only", "true")
    if active_only not in {"true", "false"}:
        raise MalformedRequestError("active_only takes true or false")
    entries = call.platform.subscriptions_of(person.person_key, active_only=active_only == "true")
    return Answer(200, [show_subscription(call.platform, person, entry) for entry in entries])


def _status_on_list(call: Call, person: Person) -> Answer:
    """An array, as the published API description types it; nobody and not subscribed look alike."""
    entries = call.platform.subscriptions_of(person.person_key)
    shown = [
        show_subscription(call.platform, person, entry)
        for entry in entries
        if entry.list_id == call.path[1]
    ]
    if not shown:
        raise NotSubscribedError("the person is not subscribed to this list")
    return Answer(200, shown)


def _unsubscribe(call: Call, person: Person) -> Answer:
    call.platform.unsubscribe(person.person_key, call.path[1])
    return Answer(call.switches.delete_status)


def _lists(call: Call) -> Answer:
    return Answer(200, [show_list(call.platform, e) for e in call.platform.lists.values()])


def _one_list(call: Call) -> Answer:
    return Answer(200, show_list(call.platform, _list(call, call.path[0])))


def _subscriber(call: Call) -> Answer:
    """A look-up of one subscriber by the identifier of the highest precedence given."""
    entry = _list(call, call.path[0])
    query = call.query
    person = _known(
        call.platform.find(
            person_id=query.get("person_id"),
            person_key=query.get("person_key"),
            external_person_id=query.get("external_person_id"),
            mdn=call.mdn(),
        )
    )
    entries = call.platform.subscriptions_of(person.person_key)
    if not any(subscription.list_id == entry.id for subscription in entries):
        raise NotSubscribedError("the person is not subscribed to this list")
    return _show(call, person)


def _of(find: PersonFinder, then: Callable[[Call, Person], Answer]) -> Handler:
    """A handler that finds the person first."""
    return lambda call: then(call, find(call))


_PERSON = "/mobiledb/persons"
_LISTS = "/mobiledb/subscription_lists"

ROUTES: tuple[Route, ...] = (
    Route(_PERSON, {"POST": _add, "GET": _find_by_mdn}),
    Route(f"{_PERSON}/external/*", {"GET": _get_by_external, "PUT": _upsert_by_external}),
    Route(f"{_PERSON}/*", {"GET": _get_by_key, "PUT": _update_by_key}),
    Route(f"{_PERSON}/external/*/push_devices", {"GET": of_person(_by_external)}),
    Route(f"{_PERSON}/*/push_devices", {"GET": of_person(_by_key)}),
    Route(f"{_PERSON}/external/*/subscriptions", {"GET": _of(_by_external, _subscriptions_of)}),
    Route(f"{_PERSON}/*/subscriptions", {"GET": _of(_by_key, _subscriptions_of)}),
    Route(
        f"{_PERSON}/external/*/subscriptions/*",
        {"GET": _of(_by_external, _status_on_list), "DELETE": _of(_by_external, _unsubscribe)},
    ),
    Route(
        f"{_PERSON}/*/subscriptions/*",
        {"GET": _of(_by_key, _status_on_list), "DELETE": _of(_by_key, _unsubscribe)},
    ),
    Route(_LISTS, {"GET": _lists}),
    Route(f"{_LISTS}/*", {"GET": _one_list}),
    Route(f"{_LISTS}/*/subscribers", {"GET": _subscriber}),
    *ACQUISITION_ROUTES,
    *EVENT_ROUTES,
    *WALLET_ROUTES,
    *CALLBACK_ROUTES,
)
"""Every call below a company that the stand-in knows, from the operations that Vibes publishes."""


_Index = dict[int, list[tuple[tuple[str, ...], Route]]]


def _index(entries: tuple[Route, ...]) -> _Index:
    routes: _Index = {}
    for route in entries:
        pattern = tuple(route.template.strip("/").split("/"))
        routes.setdefault(len(pattern), []).append((pattern, route))
    return routes


_ROUTES_BY_LENGTH = _index(ROUTES)
_APP_ROUTES_BY_LENGTH = _index(APP_ROUTES)
