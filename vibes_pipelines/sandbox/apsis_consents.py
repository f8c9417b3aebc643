"""Consents of the APSIS One stand-in: transitions by the API, and acts of the recipient."""

from typing import Any, Final, get_args

from vibes_pipelines.sandbox.apsis_account import ApsisAccount
from vibes_pipelines.sandbox.apsis_records import (
    ConsentKey,
    ConsentState,
    ConsentType,
    Keyspace,
    ProblemError,
    Profile,
    text_of,
)

_SETTABLE: Final = {"opt-in": "opt-in", "opt-out": "opt-out"}
_BODY_KEYS: Final = {
    "topic_discriminator",
    "channel_discriminator",
    "type",
    "reason",
    "source",
}


def post_consent(
    account: ApsisAccount, keyspace: Keyspace, key: str, section: str, body: dict[str, Any]
) -> int:
    """Set a consent by the API and return the status of the answer; raises ProblemError."""
    require_management(keyspace)
    if set(body) - _BODY_KEYS:
        raise ProblemError(400, "Bad Request", "unknown member of the body")
    wanted = text_of(body, "type")
    if wanted not in _SETTABLE:
        raise ProblemError(400, "Bad Request", "type takes opt-in or opt-out")
    at = consent_key(account, section, body)
    reason = text_of(body, "reason")
    profile = account.find(keyspace.discriminator, key)
    source = text_of(body, "source") if "source" in body else "One API"
    status = _transition(account, profile, at, wanted)
    if status in {201, 204}:
        consent_type: ConsentType = "opt-in" if wanted == "opt-in" else "opt-out"
        profile.consents[at] = ConsentState(consent_type, reason, source, account.clock.now())
    account.count("consent", profile, is_changed=status in {201, 204})
    if status == 409:
        raise ProblemError(409, "Conflict", "the transition is not supported")
    return status


def _transition(account: ApsisAccount, profile: Profile, at: ConsentKey, wanted: str) -> int:
    """The status of going from the present state to the wanted one."""
    state = profile.consents.get(at)
    if state is None:
        return 201
    if state.type == wanted:
        return 200 if account.switches.repeated_consent == "ok" else 409
    if wanted == "opt-out":
        return 204
    if state.type == "opt-out" and account.switches.opt_in_after_opt_out == "updated":
        return 204
    return 409  # double opt-in: neither a pending nor a confirmed one becomes a plain one


def require_management(keyspace: Keyspace) -> None:
    """Raise ProblemError unless consents may be set through a keyspace."""
    if not keyspace.manage_subscriptions:
        raise ProblemError(403, "Forbidden", "the keyspace lacks manage_subscriptions")


def consent_key(account: ApsisAccount, section: str, body: dict[str, Any]) -> ConsentKey:
    """Section, topic and channel that a body names; raises ProblemError."""
    topic = text_of(body, "topic_discriminator")
    channel = text_of(body, "channel_discriminator")
    if topic not in {known.discriminator for known in account.catalogue.topics}:
        raise ProblemError(404, "Not Found", "there is no such topic")
    if channel not in {known.discriminator for known in account.catalogue.channels}:
        raise ProblemError(404, "Not Found", "there is no such channel")
    return section, topic, channel


def show_consents(
    account: ApsisAccount, profile: Profile, section: str, types: list[str]
) -> dict[str, Any]:
    """A profile's consents of these types in a section; raises ProblemError."""
    known = get_args(ConsentType)
    if set(types) - set(known):
        raise ProblemError(400, "Bad Request", f"consent_types takes {', '.join(known)}")
    wanted = set(types) or {"opt-in"}  # the narrowest reading: a caller has to ask for all others
    items = []
    for (of_section, topic, channel), state in sorted(profile.consents.items()):
        if of_section == section and state.type in wanted:
            item = {"topic_discriminator": topic, "channel_discriminator": channel}
            if account.switches.consent_items == "typed":
                item["type"] = state.type
            if account.switches.consent_stamps == "updated_at":
                item["updated_at"] = state.at.isoformat().replace("+00:00", "Z")
            items.append(item)
    return {"items": items}


def act_on_consent(
    account: ApsisAccount, profile: Profile, at: ConsentKey, consent_type: ConsentType
) -> bool:
    """What a recipient does (unsubscribe, sign up by form, confirm); False when nothing changes."""
    state = profile.consents.get(at)
    is_changed = state is None or state.type != consent_type
    if is_changed:
        now = account.clock.now()
        profile.consents[at] = ConsentState(consent_type, "by the recipient", "form", now)
    account.count("recipient_consent", profile, is_changed=is_changed)
    return is_changed
