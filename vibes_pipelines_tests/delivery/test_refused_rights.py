"""A 403 is about one person until person after person gets it; what had begun is unknown."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from vibes_pipelines.delivery.api_push import CONCURRENCY, PushResult, push
from vibes_pipelines.delivery.forbidden import PERSONS_IN_A_ROW
from vibes_pipelines.store.ledger import Ledger
from vibes_pipelines.store.records import Lane
from vibes_pipelines.vibes.api_transport import VibesAuthError, VibesForbidden
from vibes_pipelines.vibes.person_api import PersonApi
from vibes_pipelines_tests.support.deliveries import (
    DIFF_SET,
    NEXT_DAY,
    TYPES,
    FakePlatform,
    change,
    opt_out,
    planned,
    update,
)
from vibes_pipelines_tests.vibes.answering import ask

FORBIDDEN = VibesForbidden("Vibes API: HTTP 403 to PUT mobiledb/persons, ask for the right")
PERSONS = [f"C{n:03d}" for n in range(150)]
OLD, NEW = "+13125550142", "+13125550143"


def run(ledger: Ledger, platform: Any, lane: Lane = "persons") -> PushResult:
    operations = ledger.open_operations(DIFF_SET, lane, "api")
    return asyncio.run(push(operations, platform, ledger, TYPES, dry_run=False))


def statuses(ledger: Ledger) -> dict[str, int]:
    return {status: rows for (_, _, status), rows in ledger.status_counts(DIFF_SET).items()}


@pytest.fixture
def ready(ledger: Ledger, tmp_path: Path) -> Ledger:
    planned(ledger, tmp_path, persons=[update(one, change("first_name", "A")) for one in PERSONS])
    return ledger


def in_order(ledger: Ledger) -> list[str]:
    """The persons, as they are sent."""
    operations = ledger.open_operations(DIFF_SET, "persons", "api")
    return [str(operation.external_person_id) for operation in operations]


class TestOneRecord:
    @pytest.mark.parametrize("place", [0, 70, 149])
    def test_is_rejected_for_later_and_everything_else_leaves(
        self, ready: Ledger, place: int
    ) -> None:
        platform = FakePlatform(answers={in_order(ready)[place]: FORBIDDEN})
        result = run(ready, platform)
        assert (result.accepted, result.rejected) == (149, 1)
        assert result.error_classes == {"HTTP 403": 1}
        (refused,) = ready.failures(DIFF_SET)
        assert (refused.status, refused.error_class) == ("rejected", "HTTP 403")
        assert "ask for the right" in str(refused.message)
        assert refused.retry_later
        assert run(ready, platform).planned == 0

    def test_many_of_them_end_nothing_while_others_are_accepted(self, ready: Ledger) -> None:
        refused = [one for n, one in enumerate(in_order(ready)) if n % PERSONS_IN_A_ROW]
        platform = FakePlatform(answers=dict.fromkeys(refused, FORBIDDEN))
        assert run(ready, platform).accepted == 150 // PERSONS_IN_A_ROW
        assert statuses(ready) == {"accepted": 15, "rejected": 135}

    def test_of_many_lists_is_one_person(self, ledger: Ledger, tmp_path: Path) -> None:
        rows = [
            opt_out("C1") | {"subscription_list_id": str(1_000 + n)}
            for n in range(2 * PERSONS_IN_A_ROW)
        ]
        planned(ledger, tmp_path, subscriptions=[*rows, opt_out("C2"), opt_out("C3")])
        platform = FakePlatform(answers={"key-c1": FORBIDDEN})
        assert run(ledger, platform, "opt_outs").accepted == 2
        assert statuses(ledger) == {"accepted": 2, "rejected": 2 * PERSONS_IN_A_ROW}


class TestTheRight:
    def test_missing_for_person_after_person_ends_the_push_and_leaves_them_planned(
        self, ready: Ledger
    ) -> None:
        platform = FakePlatform(answers=dict.fromkeys(PERSONS, FORBIDDEN))
        with pytest.raises(VibesForbidden, match="ask for the right"):
            run(ready, platform)
        assert statuses(ready) == {"planned": 150}
        assert PERSONS_IN_A_ROW <= len(platform.calls) <= PERSONS_IN_A_ROW + CONCURRENCY
        platform.answers.clear()
        assert run(ready, platform).accepted == 150

    def test_lost_in_the_middle_keeps_what_was_accepted(self, ready: Ledger) -> None:
        platform = FakePlatform(answers=dict.fromkeys(in_order(ready)[100:], FORBIDDEN))
        with pytest.raises(VibesForbidden):
            run(ready, platform)
        assert statuses(ready) == {"accepted": 100, "planned": 50}


class Numbers:
    """A person with a number; one request, counted from 1, is answered with another status."""

    def __init__(self, refused: int = 0, status: int = 401) -> None:
        self.mdn: str | None = OLD
        self.refused = {refused: status}
        self.writes: list[str | None] = []
        self.count = 0

    async def handle(self, request: web.Request) -> web.Response:
        content = await request.read()
        self.count += 1
        if self.count in self.refused:
            return web.Response(status=self.refused[self.count])
        if "mdn" in request.query:
            return web.Response(status=404)
        if request.method == "PUT":
            self.mdn = json.loads(content)["mobile_phone"]["mdn"]
            self.writes.append(self.mdn)
        phone = {"mdn": self.mdn}
        return web.json_response({"person_key": "key-c1", "mobile_phone": phone})


def replaced(ledger: Ledger, platform: Numbers, attempts: int = 1) -> PushResult:
    """The push over real HTTP."""

    async def talk(api: PersonApi) -> PushResult:
        operations = ledger.open_operations(DIFF_SET, "persons", "api")
        return await push(operations, api, ledger, TYPES, dry_run=False)

    return ask(platform, talk, max_attempts=attempts, backoff_s=0.01)


class TestANumberInPlaceOfAnother:
    """Two writes, each read back: read, owner of the new one, remove, read, set, read."""

    @pytest.fixture
    def numbered(self, ledger: Ledger, tmp_path: Path) -> Ledger:
        planned(ledger, tmp_path, persons=[update("C1", change("mdn", NEW, OLD))])
        return ledger

    @pytest.mark.parametrize("request_", [1, 2, 3])
    def test_refused_before_the_old_one_is_removed_it_was_not_sent(
        self, numbered: Ledger, request_: int
    ) -> None:
        platform = Numbers(request_)
        with pytest.raises(VibesAuthError):
            replaced(numbered, platform)
        assert (platform.mdn, statuses(numbered)) == (OLD, {"planned": 1})

    @pytest.mark.parametrize("request_", [4, 5])
    def test_refused_after_that_it_is_unknown_and_the_next_push_does_what_is_left(
        self, numbered: Ledger, request_: int
    ) -> None:
        platform = Numbers(request_)
        with pytest.raises(VibesAuthError, match="HTTP 401"):
            replaced(numbered, platform)
        assert (platform.mdn, statuses(numbered)) == (None, {"unknown": 1})
        (open_one,) = numbered.failures(DIFF_SET)
        assert open_one.error_class == "HTTP 401"
        pending = [(row["field"], row["value"]) for row in numbered.pending(NEXT_DAY).to_pylist()]
        assert pending == [("mdn", NEW)], "the next reconcile knows that it may have happened"
        assert replaced(numbered, platform).accepted == 1
        assert platform.writes == [None, NEW]
        assert statuses(numbered) == {"accepted": 1}

    def test_a_missing_right_to_the_second_write_is_unknown_too(self, numbered: Ledger) -> None:
        platform = Numbers(5, status=403)
        assert replaced(numbered, platform).unknown == 1
        assert statuses(numbered) == {"unknown": 1}

    def test_unknown_too_when_a_newer_diff_set_comes_before_it_is_taken_up(
        self, numbered: Ledger, tmp_path: Path
    ) -> None:
        """What is planned would be superseded, and nobody would know of the missing number."""
        with pytest.raises(VibesAuthError):
            replaced(numbered, Numbers(5))
        planned(numbered, tmp_path / "newer", diff_set="e" * 64, day=NEXT_DAY, persons=[])
        assert statuses(numbered) == {"unknown": 1}
        assert numbered.pending("2026-01-04").num_rows == 1


def test_a_write_refused_after_one_without_an_answer_may_have_happened(
    ledger: Ledger, tmp_path: Path
) -> None:
    """The first attempt was applied and its answer lost; the second met a refused login."""
    planned(ledger, tmp_path, persons=[update("C1", change("first_name", "Ada"))])

    class LosesTheFirst(Numbers):
        async def handle(self, request: web.Request) -> web.Response:
            self.count += 1
            return web.Response(status=500 if self.count == 1 else 401)

    with pytest.raises(VibesAuthError):
        replaced(ledger, LosesTheFirst(), attempts=2)
    assert statuses(ledger) == {"unknown": 1}
