"""Events leave once: the intent first, then the call, and no id a second time with effect."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiohttp import web

from vibes_pipelines.delivery.events import EventsSent, receipt_of, send_open_events
from vibes_pipelines.store import kept_lease
from vibes_pipelines.store.events import EventReceipt, Events, PlannedEvent
from vibes_pipelines.store.leases import LaneBusy, LeaseLost
from vibes_pipelines.vibes.api_calls import Answer
from vibes_pipelines.vibes.api_transport import VibesAuthError
from vibes_pipelines.vibes.event_api import Event
from vibes_pipelines.vibes.vibes_api import VibesApi
from vibes_pipelines_tests.vibes.answering import COMPANY, FakePlatform, ask_vibes, refusal

NOW = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger.db'}"
    return str(request.getfixturevalue("postgresql_url"))


@pytest.fixture
def lite(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'lite.db'}"


def planned(*ids: str, **more: object) -> list[PlannedEvent]:
    data = {"external_person_id": "C1"}
    return [PlannedEvent(i, "table", "order_shipped", data, **more) for i in ids]  # type: ignore[arg-type]


def send(store: Events, platform: FakePlatform) -> EventsSent:
    async def talk(api: VibesApi) -> EventsSent:
        return await send_open_events(store, api.events)

    return ask_vibes(platform, talk, max_attempts=2)


def statuses(store: Events) -> dict[str, int]:
    return dict(store.status_counts())


ACCEPTED = web.json_response({"event_id": "x"}, status=202)


def test_an_event_whose_person_was_erased_ends_and_stops_no_other(lite: str) -> None:
    with Events(lite) as store:
        store.plan([*planned("a"), PlannedEvent("b", "table", "order_shipped", {})])
        assert send(store, FakePlatform([ACCEPTED])).accepted == 1
        assert statuses(store) == {"accepted": 1, "rejected": 1}


def test_what_was_accepted_never_leaves_again(url: str) -> None:
    with Events(url) as store:
        store.plan(planned("a", "b"))
        first = FakePlatform([ACCEPTED])
        assert send(store, first) == EventsSent(accepted=2)
        assert first.calls == [("POST", f"{COMPANY}/events")] * 2
        assert {seen.body["event_id"] for seen in first.requests} == {"a", "b"}
        store.plan(planned("a", "b", "c"))  # told again, with one more
        again = FakePlatform([ACCEPTED])
        assert send(store, again) == EventsSent(accepted=1)
        assert [seen.body["event_id"] for seen in again.requests] == ["c"]
        assert statuses(store) == {"accepted": 3}


def test_two_processes_never_send_at_once(url: str) -> None:
    with Events(url) as store, Events(url) as other:
        store.plan(planned("a"))
        lease = other.take_lease("events", timedelta(minutes=1))
        platform = FakePlatform([ACCEPTED])
        with pytest.raises(LaneBusy, match="another process"):
            send(store, platform)
        assert platform.requests == []
        other.give_lease_back(lease)
        assert send(store, platform).accepted == 1


def test_a_page_may_take_longer_than_the_lease(lite: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_lease, "LENGTH", timedelta(seconds=0.3))
    monkeypatch.setattr(kept_lease, "RENEW_S", 0.02)
    sent: list[str] = []

    class Slow:
        async def send(self, event: Event) -> Answer:
            sent.append(event.event_id)
            await asyncio.sleep(0.6)
            return Answer(202, "accepted")

    async def late(store: Events) -> None:
        await asyncio.sleep(0.45)
        with pytest.raises(LaneBusy):
            await send_open_events(store, Slow())

    async def both(store: Events, other: Events) -> None:
        await asyncio.gather(send_open_events(store, Slow()), late(other))

    with Events(lite) as store, Events(lite) as other:
        store.plan(planned("a"))
        asyncio.run(both(store, other))
    assert sent == ["a"]


def test_nothing_leaves_once_the_lease_could_not_be_kept(
    lite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_lease, "LENGTH", timedelta(0))
    platform = FakePlatform([ACCEPTED])
    with Events(lite) as store:
        store.plan(planned("a"))
        with pytest.raises(LeaseLost):
            send(store, platform)
        assert (platform.requests, statuses(store)) == ([], {"planned": 1})


def test_what_ended_meanwhile_is_not_marked_as_sent_again(url: str) -> None:
    with Events(url) as store:
        store.plan(planned("a", "b"))
        store.mark_sent(["a"])
        store.record([EventReceipt("a", "accepted")])
        assert store.mark_sent(["a", "b"]) == {"b"}
        assert statuses(store) == {"accepted": 1, "sent": 1}


def test_the_whole_event_leaves(lite: str) -> None:
    with Events(lite) as store:
        store.plan([PlannedEvent("a", "t", "x", {"mdn": "+13125550142", "n": [1]}, {"why": "t"})])
        platform = FakePlatform([ACCEPTED])
        send(store, platform)
    assert platform.requests[0].body == {
        "event_id": "a",
        "event_type": "x",
        "event_data": {"mdn": "+13125550142", "n": [1]},
        "debug_data": {"why": "t"},
    }


def test_the_intent_is_on_disk_before_the_first_byte_leaves(lite: str) -> None:
    @dataclass
    class Watching:
        store: Events
        seen: list[dict[str, int]] = field(default_factory=list)

        async def send(self, event: Event) -> Answer:
            self.seen.append(statuses(self.store))
            return Answer(202, "accepted")

    with Events(lite) as store:
        store.plan(planned("a", "b"))
        watching = Watching(store)
        asyncio.run(send_open_events(store, watching))
    assert watching.seen == [{"sent": 2}] * 2


def test_a_kill_in_the_middle_sends_the_same_ids_again(url: str) -> None:
    class Killed(BaseException):
        pass

    class Dying:
        async def send(self, event: Event) -> Answer:
            if event.event_id == "b":
                raise Killed
            return Answer(202, "accepted")

    with Events(url) as store:
        store.plan(planned("a", "b", "c"))
        with pytest.raises(Killed):
            asyncio.run(send_open_events(store, Dying()))
    with Events(url) as store:
        platform = FakePlatform([ACCEPTED])
        send(store, platform)
        assert "b" in {seen.body["event_id"] for seen in platform.requests}
        assert statuses(store) == {"accepted": 3}


def test_a_refused_login_stops_and_leaves_everything_planned(lite: str) -> None:
    ids = [f"{n:03}" for n in range(100)]
    with Events(lite) as store:
        store.plan(planned(*ids))
        platform = FakePlatform([refusal(401)])
        with pytest.raises(VibesAuthError):
            send(store, platform)
        assert len(platform.requests) <= 32
        assert statuses(store) == {"planned": 100}
        assert all(event.attempts == 0 for page in store.open_events() for event in page)


@pytest.mark.parametrize("lost", ["reset", "hang", web.Response(status=503)])
def test_no_answer_leaves_it_open_for_the_next_run(lite: str, lost: web.Response | str) -> None:
    with Events(lite) as store:
        store.plan(planned("a"))
        assert send(store, FakePlatform([lost])).unknown == 1
        assert statuses(store) == {"unknown": 1}
        assert send(store, FakePlatform([ACCEPTED])) == EventsSent(accepted=1)


def test_a_refusal_is_final_with_its_class(lite: str) -> None:
    with Events(lite) as store:
        store.plan(planned("a"))
        sent = send(store, FakePlatform([refusal(422, "no")]))
        assert (sent.rejected, sent.error_classes) == (1, {"HTTP 422": 1})
        nothing = FakePlatform([ACCEPTED])
        assert send(store, nothing) == EventsSent()
        assert nothing.calls == []


@pytest.mark.parametrize("status", [400, 409, 422])
def test_a_repeated_id_that_is_refused_is_unclear_and_left_alone(lite: str, status: int) -> None:
    with Events(lite) as store:
        store.plan(planned("a"))
        send(store, FakePlatform(["reset"]))
        assert send(store, FakePlatform([refusal(status, "seen before")])).unclear == 1
        assert statuses(store) == {"unclear": 1}
        assert list(store.open_events()) == []


@pytest.mark.parametrize(
    ("attempts", "answer", "status"),
    [
        (0, Answer(202, "accepted"), "accepted"),
        (1, Answer(202, "accepted"), "accepted"),
        (0, Answer(422, "rejected", "HTTP 422"), "rejected"),
        (0, Answer(422, "unknown", "HTTP 422"), "unclear"),
        (0, Answer(503, "unknown", "HTTP 503"), "unknown"),
        (0, Answer(404, "rejected", "HTTP 404"), "unknown"),  # the address may be wrong
        (1, Answer(413, "rejected", "HTTP 413"), "rejected"),
    ],
)
def test_where_an_answer_leaves_an_event(attempts: int, answer: Answer, status: str) -> None:
    [event] = planned("a", attempts=attempts)
    assert receipt_of(event, answer).status == status


def test_what_came_too_late_is_not_sent(lite: str) -> None:
    clock = [NOW]
    with Events(lite, lambda: clock[0]) as store:
        store.plan(planned("a", "b", "c", send_until=NOW + timedelta(hours=1)))
        store.plan(planned("d"))
        store.mark_sent(["b"])
        clock[0] += timedelta(hours=2)
        assert store.expire() == 2
        assert statuses(store) == {"expired": 2, "unclear": 1, "planned": 1}
        assert [[event.event_id for event in page] for page in store.open_events()] == [["d"]]


def test_what_breaks_a_rule_is_kept_and_never_sent(lite: str) -> None:
    with Events(lite) as store:
        store.plan(planned("a", refused="too large"))
        assert list(store.open_events()) == []
        found = store.find("a")
        assert found is not None
        assert (found.status, found.message) == ("rejected", "too large")


def test_many_pages_are_sent_each_once(lite: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vibes_pipelines.store.events.PAGE_ROWS", 7)
    sent: list[str] = []

    class Counting:
        async def send(self, event: Event) -> Answer:
            sent.append(event.event_id)
            return Answer(503, "unknown", "HTTP 503")  # stays open, and is not tried again here

    ids: Sequence[str] = [f"{n:03}" for n in range(50)]
    with Events(lite) as store:
        store.plan(planned(*ids))
        asyncio.run(send_open_events(store, Counting()))
    assert sorted(sent) == ids
