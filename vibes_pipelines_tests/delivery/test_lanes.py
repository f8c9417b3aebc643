"""Opt-outs wait behind nothing, and no two processes send the same operation."""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from vibes_pipelines.delivery import lane_lease
from vibes_pipelines.delivery.api_push import PushResult, push
from vibes_pipelines.delivery.lane_lease import LEASE
from vibes_pipelines.store.leases import LaneBusy, LeaseLost
from vibes_pipelines.store.ledger import Ledger
from vibes_pipelines.store.records import Lane
from vibes_pipelines_tests.support.deliveries import (
    DIFF_SET,
    TYPES,
    FakeAnswer,
    FakePlatform,
    Killed,
    change,
    opt_out,
    planned,
    update,
)


class SlowPlatform(FakePlatform):
    """Answers after a while, so that several pushes are under way at once."""

    async def upsert(self, external_person_id: str, body: dict[str, Any]) -> FakeAnswer:
        await asyncio.sleep(0.02)
        return await super().upsert(external_person_id, body)

    async def unsubscribe(self, list_id: str, **person: str | None) -> FakeAnswer:
        await asyncio.sleep(0.02)
        return await super().unsubscribe(list_id, **person)


@pytest.fixture
def ready(ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    monkeypatch.setattr(lane_lease, "LOOK_S", 0.05)
    monkeypatch.setattr(lane_lease, "PAUSE_S", 0.01)
    persons = [update(f"C{n}", change("first_name", "Ada")) for n in range(900)]
    subscriptions = [opt_out(f"C{n}") for n in range(200)]
    planned(ledger, tmp_path / "out", persons=persons, subscriptions=subscriptions)
    return ledger


def pushing(ledger: Ledger, platform: FakePlatform, lane: Lane) -> Any:
    operations = ledger.open_operations(DIFF_SET, lane, "api")
    return push(operations, platform, ledger, TYPES, dry_run=False)


def test_persons_stand_still_while_opt_outs_leave(ready: Ledger) -> None:
    platform = SlowPlatform()

    async def both() -> list[PushResult]:
        persons = asyncio.create_task(pushing(ready, platform, "persons"))
        await asyncio.sleep(0.1)
        opt_outs = asyncio.create_task(pushing(ready, platform, "opt_outs"))
        return await asyncio.gather(persons, opt_outs)

    persons, opt_outs = asyncio.run(both())
    assert (persons.accepted, opt_outs.accepted) == (900, 200)
    kinds = [call for call, _, _ in platform.calls]
    first = kinds.index("unsubscribe")
    assert 0 < first < 850  # the persons were under way
    assert set(kinds[first : first + 200]) == {"unsubscribe"}


def test_two_pushes_of_a_lane_send_nothing_twice(ready: Ledger) -> None:
    platform = SlowPlatform()

    async def both() -> list[Any]:
        pushes = [pushing(ready, platform, "persons") for _ in range(2)]
        return await asyncio.gather(*pushes, return_exceptions=True)

    ended = asyncio.run(both())
    assert sorted(type(end).__name__ for end in ended) == ["LaneBusy", "PushResult"]
    assert set(platform.effects.values()) == {1}
    assert platform.repeats.total() == 0
    assert isinstance(next(end for end in ended if isinstance(end, Exception)), LaneBusy)


def test_a_push_that_lost_its_lease_stops(ready: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane_lease, "RENEW_S", 0.05)
    platform = SlowPlatform()

    async def taken_over() -> None:
        persons = asyncio.create_task(pushing(ready, platform, "persons"))
        await asyncio.sleep(0.1)
        with ready._writer.begin() as connection:
            connection.execute(sa.text("UPDATE leases SET holder = 'elsewhere 1 x'"))
        await persons

    with pytest.raises(LeaseLost, match="run the delivery again"):
        asyncio.run(taken_over())
    assert 0 < len(platform.calls) < 900


def test_a_push_that_stood_still_for_too_long_sends_nothing_more(
    ready: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane_lease, "LEASE", timedelta(seconds=0))
    platform = FakePlatform()
    with pytest.raises(LeaseLost):
        asyncio.run(pushing(ready, platform, "persons"))
    assert platform.calls == []
    counts = ready.status_counts(DIFF_SET)
    # What was marked is not taken back: another process may be sending it by now.
    assert counts["persons", "api", "sent"] == 500
    assert counts["persons", "api", "planned"] == 400
    assert timedelta(seconds=30) < LEASE


def test_a_lease_is_given_back_also_after_a_failure(ready: Ledger) -> None:
    platform = FakePlatform(calls_until_killed=3)
    with pytest.raises(Killed):
        asyncio.run(pushing(ready, platform, "persons"))
    assert ready.live_leases(["persons/api"]) == set()


@pytest.mark.postgresql
def test_a_ledger_whose_connections_are_cut_is_opened_again(
    postgresql_url: str, tmp_path: Path
) -> None:
    """Every connection dies in the middle of a push; it goes on, or goes on when run again."""
    admin = sa.create_engine(postgresql_url)

    class Cutting(FakePlatform):
        async def upsert(self, external_person_id: str, body: dict[str, Any]) -> FakeAnswer:
            if len(self.calls) in {50, 400}:
                with admin.begin() as connection:
                    connection.execute(
                        sa.text(
                            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                        )
                    )
            return await super().upsert(external_person_id, body)

    with Ledger(postgresql_url) as ledger:
        rows = [update(f"C{n}", change("first_name", "Ada")) for n in range(900)]
        planned(ledger, tmp_path / "out", persons=rows)
        platform = Cutting()
        for _ in range(3):
            try:
                asyncio.run(pushing(ledger, platform, "persons"))
            except sa.exc.DBAPIError:
                continue
        counts = ledger.status_counts(DIFF_SET)
    admin.dispose()
    assert counts == {("persons", "api", "accepted"): 900}
    assert set(platform.effects.values()) == {1}
