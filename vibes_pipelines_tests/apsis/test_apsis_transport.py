"""Transport of APSIS One: tokens, statuses, retries, limits, sizes, encodings; over real HTTP."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from pydantic import SecretStr

from vibes_pipelines.apsis.calls import Limits, path
from vibes_pipelines.apsis.client import ApsisClient
from vibes_pipelines.apsis.clock import SystemClock
from vibes_pipelines.apsis.definitions import EMAIL_KEYSPACE
from vibes_pipelines.apsis.errors import (
    ApsisConflict,
    ApsisError,
    ApsisForbidden,
    ApsisLocked,
    ApsisLoginError,
    ApsisNotFound,
    ApsisRefused,
    ApsisTooLarge,
    ApsisUnavailable,
)
from vibes_pipelines.apsis.kept import KeptAccount
from vibes_pipelines.apsis.pace import Pace
from vibes_pipelines.apsis.profiles import ProfileKey
from vibes_pipelines.apsis.statuses import STATUSES, Verdict, meaning_of
from vibes_pipelines.sandbox.apsis_access import ApsisLimits
from vibes_pipelines.sandbox.apsis_clock import RunningClock
from vibes_pipelines.sandbox.apsis_service import ApsisSandbox
from vibes_pipelines.sandbox.apsis_switches import ApsisSwitches
from vibes_pipelines.settings import ApsisSettings, Settings, SettingsError
from vibes_pipelines_tests.apsis.apsis_parts import (
    EMAIL_CHANNEL,
    FIRST_NAME,
    NEWS,
    PLACE,
    SPEED,
    fault,
    requests,
    settings_of,
    stand_in,
    talk,
)

DOCUMENTED = {200, 201, 202, 204, 207, 400, 401, 403, 404, 408, 409, 410, 413, 429, 500, 501, 503}
ERRORS: dict[int, type[ApsisError]] = {
    207: ApsisRefused,
    400: ApsisRefused,
    401: ApsisLoginError,
    403: ApsisForbidden,
    404: ApsisNotFound,
    409: ApsisConflict,
    410: ApsisLocked,
    413: ApsisTooLarge,
    408: ApsisUnavailable,
    429: ApsisUnavailable,
    500: ApsisUnavailable,
    501: ApsisUnavailable,
    503: ApsisUnavailable,
    502: ApsisUnavailable,
    418: ApsisRefused,
}
RETRIED = {408, 429, 500, 501, 502, 503}


def name(client: ApsisClient, key: str = "C-1", value: str = "Ada") -> Any:
    return client.upsert(key, {FIRST_NAME: value})


def test_every_documented_status_has_a_verdict_and_every_refusal_a_cure() -> None:
    assert set(STATUSES) == DOCUMENTED
    assert all(m.cure for m in STATUSES.values() if m.verdict is not Verdict.OK)
    assert meaning_of(502).verdict is Verdict.RETRY_LATER
    assert meaning_of(418).verdict is Verdict.GIVE_UP


@pytest.mark.parametrize("status", sorted(ERRORS))
def test_a_status_is_raised_as_its_type_and_only_the_transient_are_tried_again(
    status: int,
) -> None:
    with stand_in() as box:
        box.control.set_faults(
            {
                "faults": [
                    {
                        "match": {"path_regex": "profiles/.*/attributes", "method": "PATCH"},
                        "action": "status",
                        "status": status,
                    }
                ]
            }
        )
        with pytest.raises(ERRORS[status]) as refused:
            talk(box, name)
        tries = requests(box, "PATCH")[status]
    assert type(refused.value) is ERRORS[status]
    assert tries == {401: 2, 403: 2}.get(status, 5 if status in RETRIED else 1)
    cure = meaning_of(status).cure
    assert status in RETRIED or cure in str(refused.value)


@pytest.mark.parametrize("action", ["reset", "partial"])
@pytest.mark.parametrize("times", [1, 4])
def test_a_broken_connection_is_survived_and_nothing_is_done_twice(action: str, times: int) -> None:
    with stand_in() as box:
        more = {} if action == "partial" else {"when": "after"}
        fault(box, "profiles/C-1/sections/.*/attributes", action, times=times, **more)
        talk(box, name)
        effects = box.account.audit.effects("attributes")
        created = box.account.audit.effects("profile_created")
    assert (effects, created) == (1, 1)


def test_a_storm_of_429_and_503_ends_and_every_write_has_happened_once() -> None:
    with stand_in() as box:
        storm = [
            {"action": "status", "status": 429, "chance": 0.3, "times": 60},
            {"action": "status", "status": 503, "chance": 0.2, "times": 40},
        ]
        box.control.set_faults({"faults": storm})
        limits = Limits(max_attempts=12)

        async def push(client: ApsisClient) -> None:
            await asyncio.gather(*(name(client, f"C-{i}") for i in range(100)))

        talk(box, push, limits=limits)
        assert box.account.audit.effects("attributes") == 100
        assert box.account.audit.effects("profile_created") == 100


def test_an_api_that_is_not_there_did_nothing() -> None:
    with stand_in() as box:
        settings = replace(settings_of(box), url="http://127.0.0.1:9")
        with pytest.raises(ApsisUnavailable, match="check APSIS_API_URL") as unavailable:
            talk(box, name, settings=settings)
    assert unavailable.value.did_nothing


def test_a_wrong_api_key_names_the_settings_and_never_the_secret() -> None:
    with stand_in() as box:
        wrong = replace(settings_of(box), client_secret=SecretStr("wr0ng-s3cret"))
        with pytest.raises(ApsisLoginError, match="APSIS_CLIENT_ID") as refused:
            talk(box, name, settings=wrong)
        assert "wr0ng-s3cret" not in repr(refused.value) + repr(wrong)


@pytest.mark.parametrize("status", [401, 403])
def test_a_revoked_token_is_renewed_once_whatever_its_refusal(status: Any) -> None:
    with stand_in(switches=ApsisSwitches(expired_token=status)) as box:

        async def twice(client: ApsisClient) -> None:
            await name(client)
            box.tokens.revoke()
            await asyncio.gather(*(name(client, f"C-{i}") for i in range(10)))

        talk(box, twice)
        assert box.tokens.issued == 2
        assert len(box.account.profiles()) == 10


class SetOnClock(SystemClock):
    """The machine's clock, and as many seconds more as a test says."""

    lead_s = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.lead_s


@pytest.mark.parametrize("stated", ["present", "absent"])
def test_a_token_is_renewed_before_its_own_expiry(stated: Any) -> None:
    switches = ApsisSwitches(stated_lifetime=stated)
    with stand_in(switches=switches, token_ttl_s=120, clock=RunningClock()) as box:
        clock = SetOnClock()

        async def later() -> None:
            async with ApsisClient(settings_of(box), PLACE, clock=clock) as client:
                await name(client)
                clock.lead_s = 80
                box.clock.advance(timedelta(seconds=80))
                await name(client, value="Bea")

        asyncio.run(later())
        assert box.tokens.issued == 2
        assert 401 not in requests(box, "PATCH")


def test_clients_of_one_api_key_can_share_a_token() -> None:
    with stand_in() as box:
        kept = KeptAccount(clock=SystemClock(SPEED))

        async def one_after_the_other() -> None:
            for i in range(4):
                async with ApsisClient(settings_of(box), PLACE, kept=kept) as client:
                    await name(client, f"C-{i}")

        asyncio.run(one_after_the_other())
        assert box.tokens.issued == 1
        box.tokens.revoke()
        asyncio.run(one_after_the_other())
        assert box.tokens.issued == 2
    assert kept.token.value not in repr(kept.token)


def test_missing_permissions_do_not_use_up_the_tokens_of_a_minute() -> None:
    with stand_in() as box:
        fault(box, "profiles/.*/attributes", status=403)

        async def push(client: ApsisClient) -> list[Any]:
            calls = (name(client, f"C-{i}") for i in range(20))
            return await asyncio.gather(*calls, return_exceptions=True)

        answers = talk(box, push)
        assert all(isinstance(answer, ApsisForbidden) for answer in answers)
        assert box.tokens.issued <= 2


def test_a_body_over_100_kb_is_refused_before_it_is_sent() -> None:
    with stand_in() as box:
        with pytest.raises(ApsisTooLarge, match="not sent"):
            talk(box, lambda client: name(client, value="a" * 100_001))
        assert requests(box, "PATCH") == {}


@pytest.mark.parametrize("key", ["ada+crm@example.com", "a/b", "50%", "Å ö", "?x#y", "..%2f"])
def test_every_profile_key_reaches_its_own_profile(key: str) -> None:
    with stand_in() as box:
        talk(box, lambda client: name(client, key))
        assert [profile.keys[PLACE.keyspace] for profile in box.account.profiles()] == [key]


@pytest.mark.parametrize("key", ["", ".", ".."])
def test_a_key_that_would_name_another_path_is_refused(key: str) -> None:
    with pytest.raises(ApsisError, match="cannot stand in a path"):
        path("audience", "keyspaces", "k", "profiles", key)


def drive(limits: Limits, speed: float) -> dict[int, int]:
    """60 writes of many profiles and 16 of one, against 30 calls and 5 of one key a second."""
    strict = ApsisLimits(calls_per_s=30, calls_per_key_per_s=5)
    with ApsisSandbox(limits=strict, clock=RunningClock(speed)) as box:

        async def push() -> None:
            clock = SystemClock(speed)
            async with ApsisClient(settings_of(box), PLACE, clock=clock, limits=limits) as client:
                many = (name(client, f"C-{i}") for i in range(60))
                same = (name(client, "C-1", f"v{i}") for i in range(16))
                await asyncio.gather(*many, *same)

        asyncio.run(push())
        return requests(box, "PATCH")


def test_the_limits_of_account_and_profile_key_are_never_run_over() -> None:
    assert drive(Limits(calls_per_s=30, calls_per_key_per_s=5), 8) == {204: 76}


def test_without_its_own_limits_the_client_would_meet_429() -> None:
    hasty = Limits(calls_per_s=10_000, calls_per_key_per_s=1_000, max_attempts=50)
    answers = drive(hasty, 1)  # so that a slow machine is too fast, too
    assert answers[429] > 10
    assert answers[204] == 76


def test_the_limits_are_the_documented_ones_by_default() -> None:
    limits = Limits()
    assert (limits.calls_per_s, limits.calls_per_key_per_s) == (100, 10)
    assert (limits.tokens_per_min, limits.imports_per_min, limits.imports_at_once) == (10, 10, 3)
    assert limits.import_bytes == 50_000_000


def test_an_unknown_effect_of_what_is_not_repeatable_is_told() -> None:
    with stand_in() as box:
        talk(box, name)
        fault(box, "merges", "reset", when="after", times=1)
        first, second = (
            ProfileKey(PLACE.keyspace, "C-1"),
            ProfileKey(EMAIL_KEYSPACE, "a@example.com"),
        )
        with pytest.raises(ApsisUnavailable) as unavailable:
            talk(box, lambda client: client.merge(first, second))
        assert not unavailable.value.did_nothing
        assert requests(box, "PUT") == {0: 1}  # sent once, its answer lost


def test_a_closed_client_says_how_to_use_it() -> None:
    with ApsisSandbox() as box:
        client = ApsisClient(settings_of(box), PLACE)

        async def use_without_opening() -> None:
            await client._api.call(None)  # type: ignore[arg-type]

        with pytest.raises(ApsisError, match="async with"):
            asyncio.run(use_without_opening())


def test_what_the_api_says_in_detail_is_kept_out_of_the_message() -> None:
    with stand_in() as box:
        with pytest.raises(ApsisNotFound) as refused:
            talk(box, lambda c: c.consent("secret-key", NEWS, EMAIL_CHANNEL, "opt-out", "test"))
        assert refused.value.detail
        assert refused.value.detail not in str(refused.value)
        assert "secret-key" not in str(refused.value)


def test_the_settings_are_named_when_they_are_missing_and_hide_the_secret() -> None:
    with pytest.raises(
        SettingsError, match=r"APSIS_API_URL is not set; example: https://api\.apsis"
    ):
        _ = Settings({}).apsis
    names = ("APSIS_API_URL", "APSIS_CLIENT_ID", "APSIS_CLIENT_SECRET")
    assert "s3cret" not in repr(Settings(dict.fromkeys(names, "s3cret")).apsis.client_secret)


def test_the_limits_outlive_the_client_and_its_event_loop() -> None:
    clock = SystemClock(SPEED)
    pace, at_s = Pace(1, 1, clock), list[float]()

    async def call() -> None:
        async with pace.turn():
            at_s.append(clock.monotonic())

    async def many() -> None:
        await asyncio.gather(*(call() for _ in range(3)))

    asyncio.run(many())
    asyncio.run(many())
    assert all(later - earlier >= 1 for earlier, later in pairwise(at_s))


def test_an_answer_that_is_no_http_is_trouble_on_the_way() -> None:
    asked = 0

    async def garble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"<html>502 bad gateway</html>\r\n\r\n")
        writer.close()

    async def run() -> None:
        server = await asyncio.start_server(garble, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        settings = ApsisSettings(f"http://127.0.0.1:{port}", "id", SecretStr("secret"))
        async with server, ApsisClient(settings, PLACE, clock=SystemClock(SPEED)) as client:
            await name(client)

    with pytest.raises(ApsisUnavailable, match="garbled"):
        asyncio.run(run())
    assert asked == Limits().max_attempts
