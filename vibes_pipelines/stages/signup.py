"""The web sign-up: a form becomes an invitation by the acquisition campaign, and nothing else.

A sign-up never subscribes anybody: the person confirms by text. The wish is written down before it
is sent, and one whose answer never came is looked for before the next is sent: an invitation is a
message to a person.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any, Protocol

from vibes_pipelines.callbacks.signup import Registrar, Result, SignupAnswer
from vibes_pipelines.reconcile.phone import to_e164
from vibes_pipelines.settings import Settings
from vibes_pipelines.store.signups import UNCONFIRMED, Claim, Signups, Window
from vibes_pipelines.sync_config import SyncConfig, SyncConfigError, load_sync_config
from vibes_pipelines.sync_config.outreach import FormField, Signup
from vibes_pipelines.vibes.api_transport import Limits, VibesApiError, VibesAuthError
from vibes_pipelines.vibes.bodies import json_value
from vibes_pipelines.vibes.campaign_api import Invitation, InvitationState
from vibes_pipelines.vibes.vibes_api import VibesApi

LONGEST_VALUE = 255
"""Characters of one form field; the platform's own limit is not documented."""

# A form waits for the answer. All attempts and look-ups together stay below `store.signups`'s
# IN_FLIGHT, and the rate leaves the platform's to the deliveries.
LIMITS = Limits(rate_per_s=10, concurrency=8, timeout_s=10, max_attempts=2)

_RESULTS: Mapping[InvitationState, Result] = {
    "invited": "confirm",
    "subscribed": "subscribed",
    "pending": "pending",
    "already_subscribed": "already_subscribed",
    "blocked": "blocked",
    "unknown": UNCONFIRMED,
}
_REFUSALS: Mapping[str | None, Result] = {
    "HTTP 400": "invalid_number",
    "countrynotsupported": "invalid_number",
    "CarrierNotProvisioned": "no_mobile_number",
    "EXTERNALPERSONIDMISMATCH": "number_in_conflict",
}

log = logging.getLogger("vibes_pipelines.callbacks")


class Inviter(Protocol):
    """The part of the platform that a sign-up may reach; it has no way to subscribe anybody."""

    async def invite(
        self,
        campaign_id: str,
        *,
        mdn: str | None = None,
        custom_fields: Mapping[str, Any] | None = None,
        list_id: str | None = None,
    ) -> Invitation:
        """Adds a participant."""
        ...

    async def standing(
        self, campaign_id: str, list_id: str | None, *, mdn: str | None = None
    ) -> Invitation | None:
        """Where a person stands with a campaign."""
        ...


@dataclass(frozen=True, slots=True)
class Wish:
    """A form that was read: a number in E.164, and the custom fields that were given."""

    mdn: str
    custom_fields: Mapping[str, Any]


@asynccontextmanager
async def open_signup() -> AsyncIterator[Registrar]:
    """The registrar of the project that the environment describes.

    Raises:
        SyncConfigError: `sync.yaml` has no section `signup`, or cannot be used.
        SettingsError: the API account is not set.
    """
    settings = Settings()
    config = load_sync_config(settings.sync_config)
    with Signups(settings.ledger_url) as store:
        async with _api(settings, config) as api:
            yield SignupRegistrar(declared_signup(config), api.campaigns, store)


def declared_signup(config: SyncConfig) -> Signup:
    """The section `signup`.

    Raises:
        SyncConfigError: there is none.
    """
    if config.signup is None:
        msg = "sync.yaml has no section `signup`; docs/signup.md shows one"
        raise SyncConfigError(msg)
    return config.signup


class SignupRegistrar:
    """Takes forms in, for one campaign."""

    def __init__(self, signup: Signup, inviter: Inviter, store: Signups) -> None:
        self._signup = signup
        self._inviter = inviter
        self._store = store
        self._per_mdn = Window(signup.max_per_mdn_per_day, timedelta(days=1))
        self._per_address = Window(signup.max_per_address_per_hour, timedelta(hours=1))

    async def sign_up(self, form: Mapping[str, object], address: str) -> SignupAnswer:
        """Invites a person, at most once for one wish."""
        wish = read_form(self._signup, form)
        if isinstance(wish, SignupAnswer):
            return wish
        claim = await asyncio.to_thread(self._claim, wish, address)
        if claim.is_under_way:
            return SignupAnswer(UNCONFIRMED)
        if claim.number is None:
            return SignupAnswer("too_many", claim.retry_after_s)
        return await self._send(wish, claim.number, look_first=claim.look_first)

    def _claim(self, wish: Wish, address: str) -> Claim:
        campaign = self._signup.campaign
        return self._store.claim(wish.mdn, campaign, address[:64], self._per_mdn, self._per_address)

    async def _send(self, wish: Wish, number: int, *, look_first: bool) -> SignupAnswer:
        try:
            invitation = await self._invite(wish, look_first=look_first)
        except VibesAuthError as refused:
            log.error("a sign-up was not sent: %s", refused)  # noqa: TRY400 - said whole
            ended: Result = UNCONFIRMED if look_first else "unavailable"
            await self._finish(number, ended, refused.error_class)
            return SignupAnswer("unavailable")
        except VibesApiError:
            # Only looking can fail like this; what was in doubt stays so.
            await self._finish(number, UNCONFIRMED, "Unreadable")
            return SignupAnswer("unavailable")
        result = result_of(invitation)
        if result == "refused":
            log.error("the platform refused a sign-up: %s", invitation.error_class)
        await self._finish(number, result, invitation.error_class)
        return SignupAnswer(result)

    async def _invite(self, wish: Wish, *, look_first: bool) -> Invitation:
        signup = self._signup
        if look_first:
            found = await self._inviter.standing(signup.campaign, signup.list, mdn=wish.mdn)
            if found is not None:
                return found
        return await self._inviter.invite(
            signup.campaign,
            mdn=wish.mdn,
            custom_fields=wish.custom_fields,
            list_id=signup.list,
        )

    async def _finish(self, number: int, result: Result, error_class: str | None) -> None:
        """A result that cannot be written leaves the sign-up open: the next one looks first."""
        try:
            await asyncio.to_thread(self._store.finish, number, result, error_class)
        except Exception as failed:  # noqa: BLE001 - the message has left; the answer must not be lost
            log.error("the result of a sign-up was not kept: %s", type(failed).__name__)  # noqa: TRY400 - the error may hold the number


def result_of(invitation: Invitation) -> Result:
    """What a form is told of an invitation."""
    if invitation.state == "refused":
        return _REFUSALS.get(invitation.error_class, "refused")
    return _RESULTS[invitation.state]


def read_form(signup: Signup, form: Mapping[str, object]) -> Wish | SignupAnswer:
    """The wish of a form, or the answer to a form that cannot be one.

    A field that was not declared is refused, not left out: it may be a slip of the form. A blank
    one is as if it were not there; nothing is ever cleared.
    """
    declared = {field.from_: field for field in signup.fields}
    unknown = sorted(set(form) - set(declared) - {signup.mdn})
    if unknown:
        return SignupAnswer("invalid_form", place="a field that is not declared")
    number = form.get(signup.mdn)
    mdn = to_e164(number, signup.default_region) if isinstance(number, str) else None
    if mdn is None or len(str(number)) > LONGEST_VALUE:
        return SignupAnswer("invalid_number", place=signup.mdn)
    custom: dict[str, Any] = {}
    for name, field in declared.items():
        try:
            value = form_value(field, form.get(name))
        except ValueError:
            return SignupAnswer("invalid_form", place=name)
        if value is not None:
            custom[field.to] = json_value(value, field.type)
        elif field.required:
            return SignupAnswer("invalid_form", place=name)
    return Wish(mdn, custom)


def form_value(field: FormField, given: object) -> str | None:
    """Canonical text of one field; None when it is absent or blank.

    Raises:
        ValueError: it is not of the field's type.
    """
    if given is None:
        return None
    is_plain = isinstance(given, str | int | float) and not isinstance(given, bool)
    text = str(given).strip() if is_plain else "\0"
    if not text:
        return None
    if len(text) > LONGEST_VALUE or not text.isprintable():
        raise ValueError(field.from_)
    match field.type:
        case "date":
            return date.fromisoformat(text).isoformat()
        case "number":
            return _number(text)
        case "single_select":
            return _option(field, text)
    return text


def _number(text: str) -> str:
    try:
        number = Decimal(text)
    except InvalidOperation:
        raise ValueError(text) from None
    if not number.is_finite() or abs(number.adjusted()) > LONGEST_VALUE:
        raise ValueError(text)
    return f"{number:f}"


def _option(field: FormField, text: str) -> str:
    options = field.options or {}
    if text not in options:
        raise ValueError(text)
    return options[text]


def _api(settings: Settings, config: SyncConfig) -> VibesApi:
    account = settings.api
    password = account.password.get_secret_value()
    return VibesApi(account.url, config.company_key, account.user, password, LIMITS)
