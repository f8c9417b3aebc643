"""The control API of the APSIS One stand-in, under /sandbox on its port: acts, faults, audit, time.

No outside system has anything like it. It answers JSON, and errors as `{"error": "..."}`.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, get_args

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from vibes_pipelines.sandbox.apsis_access import Tokens
from vibes_pipelines.sandbox.apsis_account import ApsisAccount
from vibes_pipelines.sandbox.apsis_consents import act_on_consent, consent_key
from vibes_pipelines.sandbox.apsis_imports import Imports
from vibes_pipelines.sandbox.apsis_records import (
    CRM_KEYSPACE,
    EMAIL_KEYSPACE,
    ConsentType,
    ProblemError,
    Profile,
    text_of,
)
from vibes_pipelines.sandbox.apsis_values import read_json
from vibes_pipelines.sandbox.faults import Faults, FaultScriptError, parse_faults

_PREFIX = "/sandbox/"
_Act = Callable[[dict[str, Any]], object]


@dataclass(frozen=True)
class ApsisControl:
    """What tests and the demo can do to an account, by name below /sandbox."""

    account: ApsisAccount
    imports: Imports
    tokens: Tokens
    faults: Faults

    def consent(self, body: dict[str, Any]) -> object:
        """The recipient unsubscribes, or (`type`) signs up, or confirms."""
        consent_type = body.get("type", "opt-out")
        known: dict[str, ConsentType] = {name: name for name in get_args(ConsentType)}
        if consent_type not in known:
            raise ProblemError(400, "Bad Request", f"type takes {', '.join(known)}")
        at = consent_key(self.account, self._section(body), body)
        profile = self._profile(body)
        return {"changed": act_on_consent(self.account, profile, at, known[consent_type])}

    def sign_up(self, body: dict[str, Any]) -> object:
        """A form makes a profile keyed by e-mail, beside whatever the CRM has made."""
        address = text_of(body, "email")
        keyspace = self.account.catalogue.keyspace(EMAIL_KEYSPACE)
        is_new = self.account.peek(EMAIL_KEYSPACE, address) is None
        if is_new:
            self.account.create(keyspace, address, self._section(body))
        return {"created": is_new}

    def edit(self, body: dict[str, Any]) -> object:
        """Somebody edits attributes in APSIS One, by discriminator."""
        profile, values = self._profile(body), body.get("attributes")
        if not isinstance(values, dict):
            raise ProblemError(400, "Bad Request", "attributes is an object")
        read = {
            name: None if value is None else read_json(self.account.catalogue.by_name(name), value)
            for name, value in values.items()
        }
        changed = self.account.set_values(profile, self._section(body), read, "edited_by_hand")
        return {"changed": changed}

    def lock(self, body: dict[str, Any]) -> object:
        """Somebody locks a profile in APSIS One."""
        self._profile(body)
        self.account.lock_profile(*self._pair(body))
        return {"locked": True}

    def revoke_tokens(self, _: dict[str, Any]) -> object:
        """Every token issued so far is worth nothing."""
        self.tokens.revoke()
        return {"revoked": True}

    def advance(self, body: dict[str, Any]) -> object:
        """Time passes at once."""
        seconds = body.get("seconds")
        if not isinstance(seconds, int | float) or seconds < 0:
            raise ProblemError(400, "Bad Request", "seconds is a number of at least 0")
        self.account.clock.advance(timedelta(seconds=seconds))
        return {"now": self.account.clock.now().isoformat()}

    def set_faults(self, body: dict[str, Any]) -> object:
        """A fault script takes the place of the present one."""
        self.faults.replace(parse_faults(body.get("faults")))
        return {"faults": "set"}

    def audit(self) -> dict[str, object]:
        """Everything counted so far."""
        return {
            **self.account.audit.as_dict(),
            "profiles": len(self.account.profiles()),
            "tokens": self.tokens.issued,
            "imports_by_id": self.imports.counts(),
        }

    def show(self) -> dict[str, object]:
        """The whole account, for comparing it with what should be there."""
        return {"profiles": [_shown(profile) for profile in self.account.profiles()]}

    def _profile(self, body: Mapping[str, Any]) -> Profile:
        return self.account.find(*self._pair(body))

    def _pair(self, body: Mapping[str, Any]) -> tuple[str, str]:
        return str(body.get("keyspace", CRM_KEYSPACE)), text_of(body, "profile_key")

    def _section(self, body: Mapping[str, Any]) -> str:
        first = self.account.catalogue.sections[0].discriminator
        return self.account.catalogue.section(str(body.get("section", first)))


def _shown(profile: Profile) -> dict[str, object]:
    return {
        "keys": profile.keys,
        "attributes": profile.attributes,
        "tags": {section: sorted(tags) for section, tags in profile.tags.items()},
        "consents": [
            {"section": s, "topic": topic, "channel": channel, "type": state.type}
            for (s, topic, channel), state in sorted(profile.consents.items())
        ],
    }


def with_apsis_control(control: ApsisControl, api: ASGIApp) -> ASGIApp:
    """The account's API and, beside it, the control API, whose requests the former never sees."""
    app = _build(control)

    async def dispatch(scope: Scope, receive: Receive, send: Send) -> None:
        is_control = scope["type"] == "http" and scope["path"].startswith(_PREFIX)
        await (app if is_control else api)(scope, receive, send)

    return dispatch


def _build(control: ApsisControl) -> Starlette:
    acts: dict[str, _Act] = {
        "consent": control.consent,
        "sign-up": control.sign_up,
        "edit": control.edit,
        "lock": control.lock,
        "revoke-tokens": control.revoke_tokens,
        "advance": control.advance,
        "faults": control.set_faults,
    }

    async def act(request: Request) -> JSONResponse:
        content = await request.body()
        try:
            body = json.loads(content) if content else {}
            if not isinstance(body, dict):
                return JSONResponse({"error": "the body is a JSON object"}, status_code=400)
            with control.account.lock:
                return JSONResponse(acts[request.path_params["name"]](body))
        except KeyError:
            known = ", ".join(acts)
            return JSONResponse({"error": f"no such act; known: {known}"}, status_code=404)
        except ProblemError as problem:
            error = f"{problem.title}: {problem.detail}"
            return JSONResponse({"error": error}, status_code=problem.status)
        except (FaultScriptError, ValueError) as error:
            return JSONResponse({"error": str(error)}, status_code=400)

    async def audit(_: Request) -> JSONResponse:
        with control.account.lock:
            return JSONResponse(control.audit())

    async def profiles(_: Request) -> JSONResponse:
        with control.account.lock:
            control.imports.settle()
            return JSONResponse(control.show())

    return Starlette(
        routes=[
            Route("/sandbox/audit", audit),
            Route("/sandbox/profiles", profiles),
            Route("/sandbox/{name}", act, methods=["POST"]),
        ]
    )
