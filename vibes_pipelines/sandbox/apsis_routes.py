"""The calls that the APSIS One stand-in knows: one handler each, found by method and path.

A call that is not in `_ROUTES` is refused. Handlers are plain functions; transport, tokens, limits
and faults are `apsis_api`'s business.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from vibes_pipelines.sandbox.api_calls import Answer
from vibes_pipelines.sandbox.apsis_account import ApsisAccount
from vibes_pipelines.sandbox.apsis_consents import post_consent, require_management, show_consents
from vibes_pipelines.sandbox.apsis_imports import Imports
from vibes_pipelines.sandbox.apsis_records import (
    KeyPair,
    Keyspace,
    ProblemError,
    as_items,
    text_of,
)


@dataclass(frozen=True)
class ApsisCall:
    """One admitted request; `path` has the decoded variable segments, `body` the JSON object."""

    account: ApsisAccount
    imports: Imports
    path: tuple[str, ...]
    query: Mapping[str, list[str]]
    body: dict[str, Any]
    base_url: str

    @property
    def keyspace(self) -> Keyspace:
        """The keyspace that the path names first; raises ProblemError."""
        return self.account.catalogue.keyspace(self.path[0])

    @property
    def section(self) -> str:
        """The section that the path names last; raises ProblemError."""
        return self.account.catalogue.section(self.path[-1])


ApsisHandler = Callable[[ApsisCall], Answer]


@dataclass(frozen=True)
class ApsisRoute:
    """A path with its handlers; `*` stands for a variable segment."""

    template: str
    handlers: Mapping[str, ApsisHandler]

    @property
    def is_about_profile(self) -> bool:
        """Whether the first two variable segments are keyspace and profile key."""
        return "/profiles/*" in self.template


def find_apsis_route(segments: tuple[str, ...]) -> tuple[ApsisRoute, tuple[str, ...]] | None:
    """The route of a path with its variable segments."""
    for route in _ROUTES:
        pattern = route.template.strip("/").split("/")
        if len(pattern) != len(segments):
            continue
        pairs = list(zip(pattern, segments, strict=True))
        if all(got and wanted in {"*", got} for wanted, got in pairs):
            return route, tuple(got for wanted, got in pairs if wanted == "*")
    return None


def _keyspaces(call: ApsisCall) -> Answer:
    items = [
        {
            "discriminator": keyspace.discriminator,
            "name": keyspace.name,
            "manage_subscriptions": keyspace.manage_subscriptions,
        }
        for keyspace in call.account.catalogue.keyspaces
    ]
    return Answer(200, {"items": items})


def _channels(call: ApsisCall) -> Answer:
    return Answer(200, as_items(call.account.catalogue.channels))


def _sections(call: ApsisCall) -> Answer:
    return Answer(200, as_items(call.account.catalogue.sections))


def _attributes(call: ApsisCall) -> Answer:
    _ = call.section
    items = []
    for attribute in call.account.catalogue.attributes:
        versions: list[dict[str, Any]] = [{"id": attribute.version_id, "deprecated_at": None}]
        if attribute.deprecated_version_id:
            old = attribute.deprecated_version_id
            versions.append({"id": old, "deprecated_at": "2024-05-06T07:08:09Z"})
        items.append(
            {
                "discriminator": attribute.discriminator,
                "name": attribute.name,
                "versions": versions,
            }
        )
    return Answer(200, {"items": items})


def _topics(call: ApsisCall) -> Answer:
    _ = call.section
    shown = as_items(call.account.catalogue.topics)
    for item in shown["items"]:
        item["folder_discriminator"] = "usercreated.folders.general-t1e5"
    return Answer(200, shown)


def _tags(call: ApsisCall) -> Answer:
    _ = call.section
    return Answer(200, as_items(call.account.catalogue.tags))


def _create(call: ApsisCall) -> Answer:
    keyspace, section = call.keyspace, call.section
    call.account.permit(keyspace)
    key = text_of(call.body, "profile_key")
    if call.account.peek(keyspace.discriminator, key) is not None:
        raise ProblemError(409, "Conflict", "the profile exists")
    call.account.create(keyspace, key, section)
    return Answer(201)


def _patch_v1(call: ApsisCall) -> Answer:
    call.account.patch_v1(call.keyspace, call.path[1], call.section, call.body)
    return Answer(204)


def _patch_v2(call: ApsisCall) -> Answer:
    call.account.patch_v2(call.keyspace, call.path[1], call.section, call.body)
    return Answer(204)


def _read_attributes(call: ApsisCall) -> Answer:
    profile = call.account.find(call.keyspace.discriminator, call.path[1])
    values = profile.values(call.section)
    if call.account.switches.attribute_names == "discriminators":
        return Answer(200, dict(values))
    by_name = call.account.catalogue.by_name
    return Answer(200, {by_name(name).version_id: value for name, value in values.items()})


def _clear_attribute(call: ApsisCall) -> Answer:
    keyspace = call.keyspace
    section = call.account.catalogue.section(call.path[2])
    attribute = call.account.catalogue.by_version(call.path[3])
    call.account.permit(keyspace, attribute.discriminator)
    profile = call.account.find(keyspace.discriminator, call.path[1])
    call.account.set_values(profile, section, {attribute.discriminator: None}, "attributes")
    return Answer(204)


def _patch_tags(call: ApsisCall) -> Answer:
    keyspace, section = call.keyspace, call.section
    known = {tag.discriminator for tag in call.account.catalogue.tags}
    if set(call.body) - known or any(v is not True and v is not None for v in call.body.values()):
        raise ProblemError(400, "Bad Request", "a patch of tags takes known tags, true or null")
    call.account.permit(keyspace, *call.body)
    profile = call.account.find(keyspace.discriminator, call.path[1])
    before = profile.tags.get(section, set())
    gone = {tag for tag, value in call.body.items() if value is None}
    after = (before | set(call.body)) - gone
    profile.tags[section] = after
    call.account.count("tags", profile, is_changed=after != before)
    return Answer(204)


def _read_tags(call: ApsisCall) -> Answer:
    profile = call.account.find(call.keyspace.discriminator, call.path[1])
    tags = sorted(profile.tags.get(call.section, set()))
    if call.account.switches.tags_body == "items":
        return Answer(200, {"items": [{"discriminator": tag} for tag in tags]})
    return Answer(200, dict.fromkeys(tags, True))


def _merge(call: ApsisCall) -> Answer:
    named = call.body.get("profiles")
    if not isinstance(named, list) or len(named) != 2:
        raise ProblemError(400, "Bad Request", "profiles takes two")
    first, second = (_pair(entry) for entry in named)
    section = call.account.catalogue.sections[0].discriminator
    call.account.merge(first, second, section)
    return Answer(204)


def _switch_key(call: ApsisCall) -> Answer:
    _ = call.keyspace, call.section
    old, new = _pair(call.body.get("from")), _pair(call.body.get("to"))
    if old != (call.path[0], call.path[1]):
        raise ProblemError(400, "Bad Request", "from is not the profile of the path")
    call.account.switch_key(old, new)
    return Answer(204)


def _delete(call: ApsisCall) -> Answer:
    call.account.delete(call.keyspace.discriminator, call.path[1])
    return Answer(204)


def _lock(call: ApsisCall) -> Answer:
    call.account.lock_profile(call.keyspace.discriminator, call.path[1])
    return Answer(204)


def _post_consent(call: ApsisCall) -> Answer:
    status = post_consent(call.account, call.keyspace, call.path[1], call.section, call.body)
    return Answer(status)


def _read_consents(call: ApsisCall) -> Answer:
    require_management(call.keyspace)
    profile = call.account.find(call.keyspace.discriminator, call.path[1])
    types = call.query.get("consent_types", [])
    return Answer(200, show_consents(call.account, profile, call.section, types))


def _request_import(call: ApsisCall) -> Answer:
    return Answer(200, call.imports.request(call.section, call.body, call.base_url))


def _show_import(call: ApsisCall) -> Answer:
    section = call.account.catalogue.section(call.path[0])
    return Answer(200, call.imports.show(section, call.path[1]))


def _pair(named: object) -> KeyPair:
    if not isinstance(named, dict):
        raise ProblemError(400, "Bad Request", "a profile is an object")
    return text_of(named, "keyspace_discriminator"), text_of(named, "profile_key")


IMPORTS = "/v2/audience/sections/*/imports"
_PROFILE = "/audience/keyspaces/*/profiles/*"
_IN_SECTION = f"{_PROFILE}/sections/*"

_ROUTES: tuple[ApsisRoute, ...] = (
    ApsisRoute("/audience/keyspaces", {"GET": _keyspaces}),
    ApsisRoute("/audience/channels", {"GET": _channels}),
    ApsisRoute("/audience/sections", {"GET": _sections}),
    ApsisRoute("/audience/sections/*/attributes", {"GET": _attributes}),
    ApsisRoute("/audience/sections/*/tags", {"GET": _tags}),
    ApsisRoute("/v2/audience/sections/*/topics", {"GET": _topics}),
    ApsisRoute("/audience/keyspaces/*/sections/*/profiles", {"POST": _create}),
    ApsisRoute(f"{_IN_SECTION}/attributes", {"PATCH": _patch_v1, "GET": _read_attributes}),
    ApsisRoute(f"/v2{_IN_SECTION}/attributes", {"PATCH": _patch_v2}),
    ApsisRoute(f"{_IN_SECTION}/attributes/*", {"DELETE": _clear_attribute}),
    ApsisRoute(f"{_IN_SECTION}/tags", {"PATCH": _patch_tags, "GET": _read_tags}),
    ApsisRoute("/audience/profiles/merges", {"PUT": _merge}),
    ApsisRoute(_IN_SECTION, {"PUT": _switch_key}),
    ApsisRoute(_PROFILE, {"DELETE": _delete}),
    ApsisRoute(f"{_PROFILE}/locks", {"PUT": _lock}),
    ApsisRoute(f"/v2{_IN_SECTION}/consents", {"POST": _post_consent, "GET": _read_consents}),
    ApsisRoute(IMPORTS, {"POST": _request_import}),
    ApsisRoute("/audience/sections/*/imports/*", {"GET": _show_import}),
)
"""Every call that the stand-in knows, from the documentation and the vendor's published clients."""
