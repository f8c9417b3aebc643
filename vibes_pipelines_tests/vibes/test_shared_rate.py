"""The platform's rate is shared between opt-outs beside a job and everything else, and kept to."""

import asyncio
from pathlib import Path

import pytest

from vibes_pipelines.sandbox.population import build_world
from vibes_pipelines.sandbox.service import Sandbox
from vibes_pipelines.sandbox.world import COMPANY_KEY
from vibes_pipelines.settings import ApiSettings, Settings
from vibes_pipelines.vibes.person_api import PersonApi

API = {
    "VIBES_API_URL": "http://127.0.0.1",
    "VIBES_API_USER": "u@example.com",
    "VIBES_API_PASSWORD": "x",
}


def rates(rate_per_s: int, **share: str) -> tuple[int, int]:
    """What opt-outs may take, and what all else may."""
    account = Settings({**API, "VIBES_API_RATE_PER_S": str(rate_per_s), **share}).api
    return account.opt_out_rate_per_s, account.bulk_rate_per_s


def test_two_of_a_hundred_are_kept_for_opt_outs() -> None:
    assert rates(100) == (2, 98)
    assert rates(100, VIBES_API_OPT_OUTS_PER_S="10") == (10, 90)
    assert rates(100, VIBES_API_OPT_OUTS_PER_S="0") == (1, 99)  # never none: they would not leave


@pytest.mark.parametrize("share", ["0", "2", "50", "1000"])
@pytest.mark.parametrize("rate_per_s", [2, 3, 10, 100])
def test_both_together_are_never_more_than_the_limit(rate_per_s: int, share: str) -> None:
    opt_outs, others = rates(rate_per_s, VIBES_API_OPT_OUTS_PER_S=share)
    assert opt_outs >= 1
    assert others >= opt_outs or others >= rate_per_s // 2
    assert opt_outs + others == rate_per_s


def test_one_a_second_cannot_be_shared() -> None:
    assert rates(1) == (1, 1)


def test_a_push_and_opt_outs_beside_it_are_never_told_that_they_are_too_many(
    tmp_path: Path,
) -> None:
    with Sandbox(tmp_path / "sandbox", build_world(20, seed=5), rate_per_s=20) as sandbox:
        settings = Settings({**sandbox.environment(), "VIBES_API_OPT_OUTS_PER_S": "4"})
        asyncio.run(ask_beside_each_other(settings.api))
        requests = sandbox.audit()["requests"]
    answered = {request["status"] for request in requests}  # type: ignore[attr-defined]
    assert answered == {404}


async def ask_beside_each_other(account: ApiSettings) -> None:
    """Two clients, as two processes would have them, each at its share for three seconds."""

    async def ask(rate_per_s: int) -> None:
        async with PersonApi(
            account.url,
            COMPANY_KEY,
            account.user,
            account.password.get_secret_value(),
            rate_per_s=rate_per_s,
        ) as api:
            asked = (api.get_external(f"nobody-{n}") for n in range(3 * rate_per_s))
            assert not any(await asyncio.gather(*asked))

    await asyncio.gather(ask(account.bulk_rate_per_s), ask(account.opt_out_rate_per_s))
