"""The last look before a write: what an ApsisSender does not send, whatever the comparison said."""

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from vibes_pipelines.apsis import consents as consents_module
from vibes_pipelines.apsis.calls import Call, Reply
from vibes_pipelines.apsis.consents import Consent, ConsentOutcome, ConsentType
from vibes_pipelines.apsis.definitions import Place
from vibes_pipelines.apsis.errors import (
    ApsisAnswerError,
    ApsisError,
    ApsisForbidden,
    ApsisNotFound,
    ApsisUnavailable,
)
from vibes_pipelines.apsis.profiles import DeletionPermission
from vibes_pipelines.delivery.apsis_sends import (
    NO_PROFILE,
    OPTED_OUT_IN_DOUBT,
    UNREAD_OPT_OUT,
    ApsisSender,
    ProfileAnswer,
)
from vibes_pipelines.delivery.intents import EVIDENCE
from vibes_pipelines.store.records import Change, Kind, Operation

AT = datetime(2026, 1, 1, tzinfo=UTC)
LIST = "news|mail"
NO_ANSWERS = [
    ApsisUnavailable("HTTP 503", 503),
    ApsisAnswerError("no list of items"),
    ApsisForbidden(403, "", "", ""),
]


def out(changed_at: datetime | None = None, kind: ConsentType = "opt-out") -> Consent:
    return Consent("news", "mail", kind, changed_at)


@dataclass
class FakeAccount:
    """One profile: its consents (None: there is no profile), and what was written."""

    there: tuple[Consent, ...] | None = ()
    away: ApsisError | None = None
    written: list[str] = field(default_factory=list)

    async def consents(self, key: str) -> tuple[Consent, ...] | None:
        if self.away:
            raise self.away
        return self.there

    async def consent(self, *_: Any, **__: Any) -> ConsentOutcome:
        self.written.append("consent")
        return ConsentOutcome.CREATED

    async def upsert(self, key: str, attributes: Mapping[str, Any]) -> None:
        self.written.append(f"upsert {sorted(attributes)}")

    async def patch(self, key: str, attributes: Mapping[str, Any]) -> None:
        if self.there is None:
            raise ApsisNotFound(404, "", "", "")
        self.written.append(f"patch {sorted(attributes)}")

    async def delete(self, key: str, permission: DeletionPermission | None) -> bool:
        self.written.append("delete")
        return True


@dataclass(frozen=True)
class FakeCompared:
    is_taken_up: bool = False
    known: Collection[str] = ()

    def knew_opt_outs(self, key: str, lists: Collection[str]) -> bool:
        return set(lists) <= set(self.known)


def operation(
    kind: Kind,
    reason: str = "crm_opted_in",
    attempts: int = 0,
    values: Mapping[str, str] | None = None,
) -> Operation:
    changes = [Change(name, "set", None, value, "crm") for name, value in (values or {}).items()]
    evidence = Change(EVIDENCE, "set", None, AT.isoformat(), reason)
    is_consent = kind in {"opt_in", "opt_out"}
    return Operation(
        *("o1", "d1", "2026-01-01", AT, "invites", "api", "", kind, "p1", None, None),
        LIST if is_consent else None,
        (evidence,) if is_consent else tuple(changes),
        attempts=attempts,
    )


def carried(
    api: FakeAccount, one: Operation, compared: FakeCompared | None = None
) -> str | ProfileAnswer:
    """Why it was withdrawn, or the answer to what was sent."""
    permission = DeletionPermission("a test", "none")
    types: Any = {"name": "text", "address": "email", "number": "mobile"}
    sender = ApsisSender(api, types, permission, compared)

    async def go() -> str | ProfileAnswer:
        return await sender.overtaken(one) or await sender.send(one)

    return asyncio.run(go())


@pytest.mark.parametrize("away", NO_ANSWERS)
@pytest.mark.parametrize("kind", ["opt_in", "delete"])
def test_without_a_last_look_nobody_is_opted_in_or_deleted(kind: Kind, away: ApsisError) -> None:
    api = FakeAccount(away=away)
    answer = carried(api, operation(kind))
    assert isinstance(answer, ProfileAnswer)
    assert (answer.outcome, answer.retry_later, api.written) == ("rejected", True, [])


def test_an_opt_out_needs_no_look() -> None:
    api = FakeAccount(away=NO_ANSWERS[0])
    carried(api, operation("opt_out"))
    assert api.written == ["consent"]


@pytest.mark.parametrize(
    ("attempts", "is_taken_up", "changed_at", "is_sent"),
    [
        (0, False, None, True),
        (0, False, AT - timedelta(hours=1), True),
        (1, False, None, False),
        (0, True, None, False),
        (0, False, AT + timedelta(hours=1), False),
    ],
    ids=["at once", "the one compared", "a second attempt", "it waited", "a later opt-out"],
)
def test_an_opt_in_over_an_opt_out_is_written_only_right_after_its_comparison(
    attempts: int, is_taken_up: bool, changed_at: datetime | None, is_sent: bool
) -> None:
    api = FakeAccount(there=(out(changed_at),))
    one = operation("opt_in", "crm_opted_in_again", attempts)
    ended = carried(api, one, FakeCompared(is_taken_up))
    assert (ended == OPTED_OUT_IN_DOUBT, api.written) == (not is_sent, ["consent"] * is_sent)


def test_consents_wait_for_their_profile() -> None:
    api = FakeAccount(there=None)
    assert (carried(api, operation("opt_in")), api.written) == (NO_PROFILE, [])


def test_an_opt_out_that_nobody_has_read_is_not_deleted_with_its_profile() -> None:
    api = FakeAccount(there=(out(),))
    assert carried(api, operation("delete"), FakeCompared()) == UNREAD_OPT_OUT
    assert api.written == []
    carried(api, operation("delete"), FakeCompared(known=[LIST]))
    assert api.written == ["delete"]


@pytest.mark.parametrize("values", [{"name": "Ada"}, {"address": "a@example.org"}])
def test_an_update_brings_no_deleted_profile_back(values: dict[str, str]) -> None:
    api = FakeAccount(there=None)
    answer = carried(api, operation("update", values=values))
    assert isinstance(answer, ProfileAnswer)
    assert (answer.status, answer.retry_later, api.written) == (404, True, [])


def test_an_update_moves_no_key_and_only_an_add_creates() -> None:
    api = FakeAccount()
    carried(api, operation("update", values={"name": "Ada", "address": "a@example.org"}))
    carried(api, operation("add", values={"name": "Ada"}))
    assert api.written == ["patch ['name']", "upsert ['address']", "upsert ['name']"]


def test_one_value_without_a_form_is_named_and_the_others_are_set() -> None:
    api = FakeAccount()
    answer = carried(api, operation("add", values={"name": "Ada", "number": "070 123"}))
    assert isinstance(answer, ProfileAnswer)
    assert (answer.error_class, api.written) == ("APSIS mobile", ["upsert ['name']"])


class Unanswering:
    """An account that answers no POST, and shows an opt-out."""

    posts = 0

    async def call(self, call: Call) -> Reply:
        self.posts += 1
        raise ApsisUnavailable("no answer in time", None)

    async def get(self, *_: Any, **__: Any) -> Any:
        return {"items": [{"topic_discriminator": "news", "channel_discriminator": "mail",
                           "type": "opt-out"}]}  # fmt: skip


def test_an_opt_in_without_an_answer_is_not_repeated_over_an_opt_out() -> None:
    api: Any = Unanswering()
    consent: Any = {"topic": "news", "channel": "mail", "consent_type": "opt-in", "reason": "r"}
    with pytest.raises(ApsisUnavailable):
        asyncio.run(consents_module.set_consent(api, Place("s", "k"), "p1", **consent))
    assert api.posts == 1
