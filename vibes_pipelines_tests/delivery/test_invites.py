"""An invitation is a text to a phone: it leaves once, and not to somebody who opted out since."""

import asyncio
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from vibes_pipelines.callbacks.intake import posted, read_arrival
from vibes_pipelines.delivery.api_push import PushError, PushResult, push
from vibes_pipelines.delivery.consent_watch import OPTED_OUT_SINCE, InboxWatch
from vibes_pipelines.delivery.release import may_deliver, register_diff_set
from vibes_pipelines.store.inbox import Arrival, Finished, Inbox
from vibes_pipelines.store.ledger import Ledger
from vibes_pipelines.store.records import Lane
from vibes_pipelines.vibes.callbacks import SUBSCRIPTION_ADDED, SUBSCRIPTION_REMOVED, UNMATCHED
from vibes_pipelines_tests.support.deliveries import (
    DAY,
    DIFF_SET,
    INVITING,
    NEXT_DAY,
    SNAPSHOTS,
    TYPES,
    FakeCampaigns,
    FakePlatform,
    FakeSummary,
    Killed,
    change,
    invite,
    noon,
    planned,
    update,
)

OPTED_IN_AT = datetime(2026, 1, 2, 8, tzinfo=UTC)
NUMBER = "+13125550001"


@pytest.fixture
def inbox(ledger: Ledger, tmp_path: Path) -> Iterator[Inbox]:
    with Inbox(f"sqlite:///{tmp_path / 'ledger.db'}") as opened:
        yield opened


@pytest.fixture
def ready(ledger: Ledger, tmp_path: Path) -> Ledger:
    rows = [invite(f"C{n}", OPTED_IN_AT) for n in (1, 2, 3)]
    persons = [update("C1", change("first_name", "Ada"))]
    planned(ledger, tmp_path / "out", config=INVITING, subscriptions=rows, persons=persons)
    return ledger


def run(ledger: Ledger, inbox: Inbox, campaigns: FakeCampaigns) -> PushResult:
    operations = ledger.open_operations(DIFF_SET, "invites", "api")
    watch = InboxWatch(inbox, INVITING.company_key)
    return asyncio.run(
        push(
            operations,
            FakePlatform(),
            ledger,
            TYPES,
            campaigns=campaigns,
            consent=watch,
            dry_run=False,
        )
    )


def callback(inbox: Inbox, at: datetime, **values: str) -> None:
    content = f"{at} {values}"
    arrival = Arrival(
        source_address="127.0.0.1",
        path="/",
        body=content.encode(),
        body_bytes=len(content),
        content_hash=content,
        event_at=at,
        **{"event_type": SUBSCRIPTION_REMOVED, "subscription_list_id": "1234", **values},  # type: ignore[arg-type]
    )
    inbox.store([arrival])


def text(inbox: Inbox, message: str, **values: str) -> None:
    """A text that matched no campaign, as its callback tells it."""
    body = json.dumps({"message": message}).encode()
    named = {"external_person_id": "C1"} | values
    arrival = Arrival(
        source_address="127.0.0.1",
        path="/",
        body=body,
        body_bytes=len(body),
        content_hash=message,
        event_type=UNMATCHED,
        event_at=OPTED_IN_AT + timedelta(seconds=1),
        **named,  # type: ignore[arg-type]
    )
    inbox.store([arrival])


def statuses(ledger: Ledger) -> dict[str, int]:
    counts = ledger.status_counts(DIFF_SET)
    return {status: rows for (lane, _, status), rows in counts.items() if lane == "invites"}


class TestOnce:
    def test_each_person_gets_one_text(self, ready: Ledger, inbox: Inbox) -> None:
        campaigns = FakeCampaigns()
        assert run(ready, inbox, campaigns).accepted == 3
        assert set(campaigns.texts.values()) == {1}
        assert run(ready, inbox, campaigns) == PushResult()
        assert campaigns.asked == []

    def test_one_whose_answer_was_lost_is_read_back_and_not_sent_again(
        self, ready: Ledger, inbox: Inbox
    ) -> None:
        campaigns = FakeCampaigns(lose_answer_of={NUMBER})
        assert run(ready, inbox, campaigns).unknown == 1
        assert run(ready, inbox, campaigns).accepted == 1
        assert campaigns.asked == [NUMBER]
        assert campaigns.texts[NUMBER] == 1

    def test_one_that_never_arrived_is_read_back_and_sent_again(
        self, ready: Ledger, inbox: Inbox
    ) -> None:
        campaigns = FakeCampaigns(lose_request_of={NUMBER})
        assert run(ready, inbox, campaigns).unknown == 1
        campaigns.lose_request_of.clear()
        assert run(ready, inbox, campaigns).accepted == 1
        assert (campaigns.asked, campaigns.texts[NUMBER]) == ([NUMBER], 1)

    def test_while_it_cannot_be_read_back_nothing_is_sent(
        self, ready: Ledger, inbox: Inbox
    ) -> None:
        campaigns = FakeCampaigns(lose_answer_of={NUMBER})
        run(ready, inbox, campaigns)
        campaigns.unreadable = True
        assert run(ready, inbox, campaigns).error_classes == {"Unreadable": 1}
        assert campaigns.texts[NUMBER] == 1
        assert statuses(ready) == {"accepted": 2, "unknown": 1}

    @pytest.mark.parametrize("texts", [0, 1, 2])
    def test_killed_at_any_text_each_person_still_gets_one(
        self, ready: Ledger, inbox: Inbox, texts: int
    ) -> None:
        campaigns = FakeCampaigns()

        def die(_: str) -> None:
            if campaigns.texts.total() == texts:
                raise Killed

        campaigns.before_text = die
        with pytest.raises(Killed):
            run(ready, inbox, campaigns)
        campaigns.before_text = lambda _: None
        run(ready, inbox, campaigns)
        assert set(campaigns.texts.values()) == {1}
        assert len(campaigns.texts) == 3
        assert statuses(ready) == {"accepted": 3}


class TestConsent:
    """Law: opt-out wins, and the inbox is looked at right before anything leaves."""

    @pytest.mark.parametrize(
        "named",
        [{"external_person_id": "C1"}, {"person_key": "key-c1"}, {"mdn": NUMBER}],
    )
    def test_whoever_opted_out_since_is_not_asked(
        self, ready: Ledger, inbox: Inbox, named: dict[str, str]
    ) -> None:
        callback(inbox, OPTED_IN_AT + timedelta(seconds=1), **named)
        campaigns = FakeCampaigns()
        result = run(ready, inbox, campaigns)
        assert (result.accepted, result.withdrawn) == (2, 1)
        assert campaigns.texts[NUMBER] == 0
        assert statuses(ready) == {"accepted": 2, "superseded": 1}
        (withdrawn,) = ready.failures(DIFF_SET)
        assert withdrawn.message == OPTED_OUT_SINCE

    @pytest.mark.parametrize(
        "odd",
        [
            {"subscription_list": {"id": "1234"}, "person": {"id": 1.5, "external_id": "\x00"}},
            {"subscription_list": {"id": ["1234"]}, "person": {"external_id": "C1"}},
        ],
    )
    def test_whoever_opted_out_in_a_callback_that_is_parked_is_not_asked(
        self, ready: Ledger, inbox: Inbox, odd: dict[str, dict[str, object]]
    ) -> None:
        told = odd | {"person": odd["person"] | {"mdn": NUMBER}}
        body = {"callback_type": SUBSCRIPTION_REMOVED, "subscription": told}
        inbox.store([read_arrival(posted("127.0.0.1", "/", json.dumps(body).encode()))])
        assert inbox.backlog() == {"parked": 1}
        assert run(ready, inbox, FakeCampaigns()).accepted == 2

    def test_an_opt_out_of_no_list_that_somebody_dropped_withdraws_nothing(
        self, ready: Ledger, inbox: Inbox
    ) -> None:
        body = {"callback_type": SUBSCRIPTION_REMOVED, "subscription": {"person": {"mdn": NUMBER}}}
        inbox.store([read_arrival(posted("127.0.0.1", "/", json.dumps(body).encode()))])
        inbox.drop([parked.id for parked in inbox.parked()], "of a list that is gone")
        assert run(ready, inbox, FakeCampaigns()).accepted == 3

    @pytest.mark.parametrize(("message", "asked"), [("Please STOP!", 2), ("where is my parcel", 3)])
    def test_whoever_asks_to_stop_in_a_text_is_not_asked(
        self, ready: Ledger, inbox: Inbox, message: str, asked: int
    ) -> None:
        text(inbox, message)
        assert run(ready, inbox, FakeCampaigns()).accepted == asked

    def test_a_text_that_somebody_looked_at_and_dropped_withdraws_nothing(
        self, ready: Ledger, inbox: Inbox
    ) -> None:
        text(inbox, "stop by on Friday")
        page = next(inbox.waiting())
        inbox.finish([Finished(page[0].id, "parked", "asks to stop")])
        assert inbox.drop([page[0].id], "a visit") == [page[0].id]
        assert run(ready, inbox, FakeCampaigns()).accepted == 3

    def test_a_text_to_another_company_or_that_cannot_be_read_withdraws_nothing(
        self, ready: Ledger, inbox: Inbox
    ) -> None:
        text(inbox, "stop", company_key="Other1")
        callback(inbox, OPTED_IN_AT + timedelta(1), external_person_id="C1", event_type=UNMATCHED)
        assert run(ready, inbox, FakeCampaigns()).accepted == 3

    @pytest.mark.parametrize(
        "harmless",
        [
            {"external_person_id": "C9"},
            {"external_person_id": "C1", "subscription_list_id": "99"},
            {"external_person_id": "C1", "event_type": SUBSCRIPTION_ADDED},
            {"external_person_id": "C1", "company_key": "Other1"},
        ],
    )
    def test_another_person_list_company_or_an_opt_in_withdraws_nothing(
        self, ready: Ledger, inbox: Inbox, harmless: dict[str, str]
    ) -> None:
        callback(inbox, OPTED_IN_AT + timedelta(seconds=1), **harmless)
        assert run(ready, inbox, FakeCampaigns()).accepted == 3

    def test_an_opt_out_older_than_the_opt_in_was_known_when_it_was_decided(
        self, ready: Ledger, inbox: Inbox
    ) -> None:
        callback(inbox, OPTED_IN_AT - timedelta(seconds=1), external_person_id="C1")
        assert run(ready, inbox, FakeCampaigns()).accepted == 3

    def test_a_change_of_the_profile_is_sent_all_the_same(
        self, ready: Ledger, inbox: Inbox
    ) -> None:
        callback(inbox, OPTED_IN_AT + timedelta(seconds=1), external_person_id="C1")
        operations = ready.open_operations(DIFF_SET, "persons", "api")
        watch = InboxWatch(inbox, INVITING.company_key)
        sent = push(operations, FakePlatform(), ready, TYPES, consent=watch, dry_run=False)
        result = asyncio.run(sent)
        assert (result.accepted, result.withdrawn) == (1, 0)

    def test_an_opt_out_that_comes_while_others_leave_is_seen(
        self, ledger: Ledger, inbox: Inbox, tmp_path: Path
    ) -> None:
        rows = [invite(f"C{n}", OPTED_IN_AT) for n in range(60)]
        planned(ledger, tmp_path / "out", config=INVITING, subscriptions=rows)
        last = list(ledger.open_operations(DIFF_SET, "invites", "api"))[-1]
        campaigns = FakeCampaigns()

        def opt_out(_: str) -> None:
            at = OPTED_IN_AT + timedelta(hours=1)
            callback(inbox, at, external_person_id=last.external_person_id or "")
            campaigns.before_text = lambda _: None

        campaigns.before_text = opt_out
        assert run(ledger, inbox, campaigns).withdrawn == 1
        assert campaigns.texts[last.mdn or ""] == 0

    def test_without_a_look_at_the_inbox_nobody_is_asked(self, ready: Ledger) -> None:
        operations = ready.open_operations(DIFF_SET, "invites", "api")
        sent = push(
            operations, FakePlatform(), ready, TYPES, campaigns=FakeCampaigns(), dry_run=False
        )
        with pytest.raises(PushError, match="callback inbox"):
            asyncio.run(sent)
        assert statuses(ready) == {"planned": 3}


class TestAfterwards:
    """Open invitations stand in the pending input: the reconcile asks nobody twice."""

    @pytest.mark.parametrize(
        ("campaigns", "is_open"),
        [
            (FakeCampaigns, True),
            (lambda: FakeCampaigns(lose_answer_of={NUMBER}), True),
            (lambda: FakeCampaigns(lose_request_of={NUMBER}), True),
        ],
    )
    def test_what_left_or_may_have_left_is_pending(
        self,
        ready: Ledger,
        inbox: Inbox,
        campaigns: Callable[[], FakeCampaigns],
        is_open: bool,
    ) -> None:
        run(ready, inbox, campaigns())
        rows = ready.pending(NEXT_DAY).to_pylist()
        mine = [row for row in rows if row["external_person_id"] == "C1"]
        asked = [(row["field"], row["value"]) for row in mine if row["field"].startswith("invite")]
        assert asked == ([("invite:1234", "777")] if is_open else [])

    def test_neither_one_not_sent_nor_one_withdrawn_is_pending(
        self, ready: Ledger, inbox: Inbox
    ) -> None:
        assert ready.pending(NEXT_DAY).num_rows == 0
        callback(inbox, OPTED_IN_AT + timedelta(seconds=1), external_person_id="C1")
        run(ready, inbox, FakeCampaigns())
        asked = {row["external_person_id"] for row in ready.pending(NEXT_DAY).to_pylist()}
        assert asked == {"C2", "C3"}
        assert ready.pending(DAY).num_rows == 0

    def test_it_stays_pending_after_its_verdict(self, ready: Ledger, inbox: Inbox) -> None:
        """How long an invitation is open is the reconcile's to say."""
        ids = [op.operation_id for op in ready.open_operations(DIFF_SET, "invites", "api")]
        run(ready, inbox, FakeCampaigns())
        ready.record_outcomes([(one, "confirmed", "api") for one in ids], NEXT_DAY)
        assert ready.pending("2026-02-01").num_rows == 3


class TestNumbers:
    def test_a_replaced_number_names_the_one_it_replaces(
        self, ledger: Ledger, tmp_path: Path
    ) -> None:
        number = change("mdn", "+13125550143", "+13125550142")
        planned(ledger, tmp_path / "out", persons=[update("C1", number)])
        platform = FakePlatform()
        operations = ledger.open_operations(DIFF_SET, "persons", "api")
        assert asyncio.run(push(operations, platform, ledger, TYPES, dry_run=False)).accepted == 1
        sent = {"mdn": "+13125550143", "old_mdn": "+13125550142"}
        assert platform.calls == [("replace_mdn", "key-c1", sent)]
        (pending,) = ledger.pending(NEXT_DAY).to_pylist()
        assert (pending["field"], pending["value"]) == ("mdn", "+13125550143")


class TestGuards:
    """A text cannot be taken back: whatever looks wrong holds the invitations."""

    @pytest.mark.parametrize("broken", ["persons", "opt_outs", "invites"])
    def test_a_breach_of_any_lane_holds_them_and_theirs_holds_nothing_else(
        self, ready: Ledger, broken: str
    ) -> None:
        ready.mark_delivered(DIFF_SET)
        breach = {"lane": broken, "message": "too many"}
        summary = FakeSummary("e" * 64, noon(NEXT_DAY), breaches=(breach,))
        register_diff_set(ready, NEXT_DAY, summary, SNAPSHOTS)
        lanes: tuple[Lane, ...] = ("opt_outs", "persons", "invites")
        held = {lane for lane in lanes if may_deliver(ready, "e" * 64, lane).status == "held"}
        assert held == {broken, "invites"}
