"""Operations that leave together: what was answered is kept, whatever became of the others."""

import asyncio
from datetime import UTC, datetime

import pytest

from vibes_pipelines.delivery.forbidden import PERSONS_IN_A_ROW
from vibes_pipelines.delivery.sends import Sender
from vibes_pipelines.delivery.together import CONCURRENCY, send_together
from vibes_pipelines.store.records import Operation, Receipt
from vibes_pipelines.vibes.api_transport import VibesAuthError, VibesForbidden
from vibes_pipelines_tests.support.deliveries import FakePlatform

FORBIDDEN = VibesForbidden("Vibes API: HTTP 403 to DELETE mobiledb/persons")
KEYS = [f"key-{n:03}" for n in range(60)]
OPERATIONS = [
    Operation(
        operation_id=f"op-{key}",
        diff_set="d",
        day="2026-01-01",
        lane="opt_outs",
        kind="opt_out",
        route="api",
        route_reason="in real time",
        as_of=datetime(2026, 1, 1, tzinfo=UTC),
        external_person_id=None,
        person_key=key,
        mdn=None,
        changes=(),
        subscription_list_id="1234",
    )
    for key in KEYS
]


def sent(platform: FakePlatform) -> tuple[list[Receipt], Exception | None]:
    return asyncio.run(send_together(Sender(platform, {}), OPERATIONS))


@pytest.mark.parametrize("place", [0, 30, 59])
def test_a_forbidden_person_stops_nobody_else(place: int) -> None:
    platform = FakePlatform(answers={KEYS[place]: FORBIDDEN})
    receipts, fault = sent(platform)
    assert fault is None
    assert sum(one.status == "accepted" for one in receipts) == len(KEYS) - 1
    [refused] = [one for one in receipts if one.status != "accepted"]
    assert (refused.operation_id, refused.status) == (f"op-{KEYS[place]}", "rejected")
    assert (refused.error_class, refused.retry_later) == ("HTTP 403", True)


def test_a_missing_right_stops_all_and_answers_nothing() -> None:
    platform = FakePlatform(answers=dict.fromkeys(KEYS, FORBIDDEN))
    assert sent(platform) == ([], FORBIDDEN)
    assert len(platform.calls) <= PERSONS_IN_A_ROW + CONCURRENCY


@pytest.mark.parametrize("fault", [VibesAuthError("Vibes API: HTTP 401"), ValueError("odd")])
def test_what_was_answered_before_a_fault_is_kept(fault: Exception) -> None:
    platform = FakePlatform(answers={KEYS[40]: fault})
    receipts, said = sent(platform)
    assert said is fault
    assert [one.operation_id for one in receipts] == [f"op-{key}" for key in KEYS[:40]]
    assert len(platform.calls) == 41  # and nothing is begun after it


def test_a_forbidden_part_of_what_had_begun_leaves_it_unknown() -> None:
    refused = VibesForbidden("Vibes API: HTTP 403 to GET mobiledb/persons")
    refused.in_doubt = True
    receipts, fault = sent(FakePlatform(answers={KEYS[3]: refused}))
    assert fault is None
    assert [one.operation_id for one in receipts if one.status == "unknown"] == ["op-key-003"]
