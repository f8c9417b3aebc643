"""Opt-outs both ways while another job is busy: they leave alone, once, and undo nothing."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from vibes_pipelines.callbacks.intake import posted, read_arrival
from vibes_pipelines.crm.database import CrmError
from vibes_pipelines.crm.write_back import CrmTable, WriteBack
from vibes_pipelines.delivery.consent_watch import OPTED_OUT_SINCE
from vibes_pipelines.orchestration.opt_out_sensor import opt_out_sensor
from vibes_pipelines.sandbox.population import build_world
from vibes_pipelines.stages import api_rate, bases, delivering, opt_out_lane
from vibes_pipelines.stages.api_rate import LEASE
from vibes_pipelines.stages.changes import CURSOR, carry_changes, changes_waiting
from vibes_pipelines.stages.inbox import Drained, drain, drain_opt_outs
from vibes_pipelines.stages.last_look import LastLook
from vibes_pipelines.stages.opt_out_lane import (
    carry_crm_opt_outs,
    carry_opt_outs,
    opt_outs_waiting,
)
from vibes_pipelines.stages.opt_outs import opt_out_clock
from vibes_pipelines.stages.project import Project
from vibes_pipelines.store.inbox import Inbox
from vibes_pipelines.store.kept_lease import kept_lease
from vibes_pipelines.store.leases import LaneBusy, Leases
from vibes_pipelines.store.realtime import RealtimeBook
from vibes_pipelines.store.records import Operation
from vibes_pipelines.vibes.rate_limit import RateLimiter
from vibes_pipelines_tests.stages.test_callback_inbox import (
    IN,
    LATER,
    OUT,
    Desk,
    added,
    desk,  # noqa: F401  (a fixture)
    removed,
)
from vibes_pipelines_tests.stages.test_crm_changes import interrupt, is_subscribed, opt_out
from vibes_pipelines_tests.stages.test_last_look import DAILY
from vibes_pipelines_tests.support.callbacks import as_bytes
from vibes_pipelines_tests.support.loop import agreed_keys
from vibes_pipelines_tests.support.realtime import LIST, RealTime, run_asked_for, running_real_time
from vibes_pipelines_tests.support.run_records import run_of

WORLD = build_world(120, seed=11)
MANY_OPT_OUTS = ("max_rows: 5000,  max_share: 0.05", "max_rows: 5000,  max_share: 0.50")
UPDATED = {"callback_type": "person_updated", "event_id": "U1", "event_date": LATER}


class TestToTheCrm:
    def test_opt_outs_alone_are_drained(self, desk: Desk) -> None:  # noqa: F811
        desk.receive(
            {**UPDATED, "person": {"external_person_id": "C2"}},
            added("A2", external_person_id="C2"),
            removed("R1"),
        )
        assert drain_opt_outs(desk.project, dry_run=False).applied == 1
        assert desk.contacts()["C1"] == OUT
        assert desk.ends() == [("stored", None), ("stored", None), ("applied", "opted_out")]

    def test_an_opt_in_that_waits_in_the_inbox_is_known_to_them(self, desk: Desk) -> None:  # noqa: F811
        desk.receive(removed("R1"), added("A1", at=LATER))
        drain_opt_outs(desk.project, dry_run=False)
        assert desk.contacts()["C1"] == IN
        assert desk.ends() == [("ignored", "superseded"), ("stored", None)]

    def test_a_whole_drain_that_is_at_the_same_one_has_one_effect_with_them(
        self,
        desk: Desk,  # noqa: F811
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        desk.receive(removed("R1"), removed("R2", at=LATER))
        write = CrmTable.apply_opt_outs

        def meanwhile(table: CrmTable, rows: list[object]) -> list[WriteBack]:
            monkeypatch.setattr(CrmTable, "apply_opt_outs", write)
            assert drain_opt_outs(desk.project, dry_run=False).applied == 2
            return write(table, rows)  # type: ignore[arg-type]

        monkeypatch.setattr(CrmTable, "apply_opt_outs", meanwhile)
        drain(desk.project, dry_run=False)
        assert desk.contacts()["C1"] == OUT
        assert desk.ends() == [("applied", "opted_out")] * 2

    def test_what_cannot_be_carried_is_parked_as_by_a_drain(self, desk: Desk) -> None:  # noqa: F811
        desk.receive(removed("R1", external_person_id="C99"))
        drain_opt_outs(desk.project, dry_run=False)
        assert desk.ends() == [("parked", "unknown_person")]

    def test_an_invitation_that_was_to_leave_stays(self, desk: Desk) -> None:  # noqa: F811
        """The last look of a push sees an opt-out that was carried while the push ran."""
        desk.receive(removed("R1"))
        drain_opt_outs(desk.project, dry_run=False)
        asked: Operation = replace(
            DAILY, kind="invite", lane="invites", subscription_list_id=LIST, changes=()
        )
        with closing(Inbox(desk.ledger_url)) as inbox:
            told = LastLook(desk.project, inbox).withdrawn([asked])
        assert told == {DAILY.operation_id: OPTED_OUT_SINCE}


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody delivers beside these: the lane does not wait until they know of it."""
    monkeypatch.setattr(api_rate, "ANNOUNCED_S", 0.0)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealTime]:
    with running_real_time(tmp_path_factory.mktemp("beside"), WORLD, MANY_OPT_OUTS) as running:
        yield running


@pytest.fixture(scope="module")
def keys(real: RealTime) -> Iterator[str]:
    """Contacts who are subscribed on both sides, each given to one test."""
    return iter(
        [
            key
            for key in agreed_keys(WORLD)
            if str(real.contact(key, "sms_opt_in")[0]).lower() in {"true", "1", "y", "yes"}
            and real.loop.sandbox.platform.find(external_person_id=key)
            and is_subscribed(real, key)
        ]
    )


def arrive(real: RealTime, body: dict[str, Any]) -> None:
    with closing(Inbox(real.project.settings.ledger_url)) as inbox:
        inbox.store([read_arrival(posted("127.0.0.1", "/callbacks", as_bytes(body)))])


def carry(real: RealTime) -> int:
    carried, _ = carry_crm_opt_outs(real.project, RateLimiter(100), dry_run=False)
    assert carried.persons == carried.left_to_daily == 0
    return carried.opt_outs


def sent_opt_outs(real: RealTime, key: str) -> list[Operation]:
    with closing(RealtimeBook(real.project.settings.ledger_url)) as book:
        since = real.loop.sandbox.now().replace(year=2000)
        sent = [one.operation for one in book.sent([key], since) if one.in_real_time]
        return [operation for operation in sent if operation.kind == "opt_out"]


def cursor(real: RealTime) -> str | None:
    with closing(RealtimeBook(real.project.settings.ledger_url)) as book:
        return book.cursor(CURSOR)


class TestToThePlatform:
    def test_it_leaves_alone_and_the_next_whole_look_finds_everything_else(
        self, real: RealTime, keys: Iterator[str]
    ) -> None:
        one, other = next(keys), next(keys)
        before = cursor(real)
        opt_out(real, one)
        real.edit(one, first_name="Waits")
        real.edit(other, first_name="Too")
        assert opt_outs_waiting(real.project).to_platform is not None
        assert carry(real) == 1
        assert not is_subscribed(real, one)
        assert real.person(one).custom["first_name"] != "Waits"
        assert opt_outs_waiting(real.project).to_platform is None
        assert cursor(real) == before
        whole = carry_changes(real.project, dry_run=False)
        assert (whole.contacts, whole.opt_outs, whole.persons) == (2, 0, 2)
        assert real.person(one).custom["first_name"] == "Waits"
        assert real.person(other).custom["first_name"] == "Too"
        assert len(sent_opt_outs(real, one)) == 1
        assert changes_waiting(real.project) is None

    def test_an_opt_in_is_nothing_that_waits(self, real: RealTime, keys: Iterator[str]) -> None:
        key = next(keys)
        opt_out(real, key)
        carry(real)
        real.edit(key, sms_opt_in="true", sms_opt_in_at="2026-05-31 13:00:00")
        assert opt_outs_waiting(real.project).to_platform is None
        assert carry(real) == 0
        assert not is_subscribed(real, key)
        opt_out(real, key)  # for the days of this world the time of the opt-in is still to come
        carry_changes(real.project, dry_run=False)

    @pytest.mark.slow
    def test_out_and_in_and_out_again_within_one_job_leaves_again(
        self, real: RealTime, keys: Iterator[str]
    ) -> None:
        key = next(keys)
        person_key, sandbox = real.person(key).person_key, real.loop.sandbox
        opt_out(real, key, at="2026-05-31 12:00:00")
        assert carry(real) == 1
        with real.hearing("subscription_added"):
            later = sandbox.now() + timedelta(minutes=1)
            sandbox.platform.subscribe(person_key, LIST, later)
        opt_out(real, key, at="2026-05-31 14:00:00")
        assert opt_outs_waiting(real.project).to_platform is not None
        assert carry(real) == 1
        assert not is_subscribed(real, key)
        carry_changes(real.project, dry_run=False)

    @pytest.mark.parametrize(
        "date",
        [
            "01/02/2026 10:00",
            pytest.param("2026-05-01T00:00:00z", marks=pytest.mark.slow),
            pytest.param("9999-12-31", marks=pytest.mark.slow),
        ],
    )
    def test_a_join_with_a_date_that_cannot_be_gone_by_keeps_no_opt_out(
        self, real: RealTime, keys: Iterator[str], date: str
    ) -> None:
        """Neither that of its own person nor that of anybody who is compared beside."""
        key, other = next(keys), next(keys)
        joined = added(f"J{key}", at="2026-05-01T00:00:00Z", external_person_id=key)
        joined["subscription"]["opt_in_date"] = date
        arrive(real, joined)
        opt_out(real, key)
        opt_out(real, other)
        assert carry(real) == 2
        assert not is_subscribed(real, key)
        assert not is_subscribed(real, other)
        carry_changes(real.project, dry_run=False)

    @pytest.mark.slow
    def test_a_name_that_was_cut_in_the_middle_of_a_character_holds_up_nobody(
        self, real: RealTime, keys: Iterator[str]
    ) -> None:
        key, other = next(keys), next(keys)
        person = {"external_person_id": key, "custom_fields": {"first_name": "Ada \ud83d"}}
        told = {"event_id": f"U{key}", "event_date": "2026-05-31T00:00:00Z", "person": person}
        arrive(real, UPDATED | told)
        drain(real.project, dry_run=False)
        assert real.rows("person_updated")[-1]["status"] != "stored"
        opt_out(real, key)
        opt_out(real, other)
        assert carry(real) == 2
        carry_changes(real.project, dry_run=False)

    def test_a_dry_run_marks_nothing(self, real: RealTime, keys: Iterator[str]) -> None:
        key = next(keys)
        opt_out(real, key)
        would, _ = carry_crm_opt_outs(real.project, RateLimiter(100))
        assert would.opt_outs == 1
        assert is_subscribed(real, key)
        assert opt_outs_waiting(real.project).to_platform is not None
        assert carry(real) == 1

    @pytest.mark.slow
    def test_one_that_was_cut_after_its_send_is_taken_up_by_the_next(
        self, real: RealTime, keys: Iterator[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        key = next(keys)
        opt_out(real, key)
        with monkeypatch.context() as cut:
            cut.setattr(RealtimeBook, "record", interrupt)
            with pytest.raises(KeyboardInterrupt):
                carry(real)
        assert opt_outs_waiting(real.project).to_platform is not None
        carry(real)
        assert not is_subscribed(real, key)
        with closing(RealtimeBook(real.project.settings.ledger_url)) as book:
            assert book.unfinished() == []
        assert opt_outs_waiting(real.project).to_platform is None

    def test_a_way_that_fails_does_not_hold_up_the_other(
        self, real: RealTime, keys: Iterator[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        key = next(keys)
        opt_out(real, key)

        def fail(*_: object, **__: object) -> None:
            raise CrmError("no such table of facts")

        with monkeypatch.context() as broken:
            broken.setattr(opt_out_lane, "drain_opt_outs", fail)
            with pytest.raises(CrmError, match="facts"):
                carry_opt_outs(real.project, dry_run=False)
        assert not is_subscribed(real, key)

    @pytest.mark.slow
    def test_a_page_of_many_leaves_and_then_those_of_the_inbox_come_first_again(
        self, real: RealTime, keys: Iterator[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(opt_out_lane, "PAGE_S", 1)
        page = real.project.settings.api.opt_out_rate_per_s
        chosen = [next(keys) for _ in range(page + 1)]
        for key in chosen:
            opt_out(real, key)
        drains: list[int] = []

        def counted(project: Project, *, dry_run: bool) -> Drained:
            drains.append(sum(is_subscribed(real, key) for key in chosen))
            return drain_opt_outs(project, dry_run=dry_run)

        monkeypatch.setattr(opt_out_lane, "drain_opt_outs", counted)
        carried = carry_opt_outs(real.project, dry_run=False)
        assert (carried.to_platform.contacts, carried.to_platform.accepted) == (page + 1, page + 1)
        assert drains == [page + 1, 1]
        assert opt_outs_waiting(real.project).to_platform is None

    def test_one_process_at_a_time(self, real: RealTime) -> None:
        with (
            Leases(real.project.settings.ledger_url) as leases,
            kept_lease(leases, LEASE),
            pytest.raises(LaneBusy, match=LEASE),
        ):
            carry_opt_outs(real.project, dry_run=False)


class TestBesideTheDailyJob:
    def test_both_ways_through_the_sensor_while_the_daily_job_runs(
        self, real: RealTime, keys: Iterator[str]
    ) -> None:
        texting, edited = next(keys), next(keys)
        with real.hearing("subscription_removed"):
            real.loop.sandbox.text("stop", {"person_key": real.person(texting).person_key}, LIST)
        opt_out(real, edited)
        with dg.DagsterInstance.ephemeral() as instance:
            instance.add_run(run_of("reconcile_daily", dg.DagsterRunStatus.STARTED))
            run_asked_for(opt_out_sensor, "opt_outs", instance)
            assert instance.get_runs_count() == 2
        assert str(real.contact(texting, "sms_opt_in")[0]).lower() in {"false", "0", "n", "no"}
        assert not is_subscribed(real, edited)

    @pytest.mark.slow
    def test_a_join_that_is_told_only_after_the_no_through_the_sensor(
        self, real: RealTime, keys: Iterator[str]
    ) -> None:
        key, sandbox = next(keys), real.loop.sandbox
        for at in ("2026-05-31 12:00:00", "2026-05-31 16:00:00"):
            opt_out(real, key, at)
            carry_changes(real.project, dry_run=False)
        assert not is_subscribed(real, key)
        with real.hearing("subscription_added"):  # between the two, as its date says
            joined_at = sandbox.now() + timedelta(minutes=1)
            sandbox.platform.subscribe(real.person(key).person_key, LIST, joined_at)
        with dg.DagsterInstance.ephemeral() as instance:
            instance.add_run(run_of("reconcile_daily", dg.DagsterRunStatus.STARTED))
            run_asked_for(opt_out_sensor, "opt_outs", instance)
        assert not is_subscribed(real, key)
        assert opt_outs_waiting(real.project).to_platform is None
        carry_changes(real.project, dry_run=False)
        assert len(sent_opt_outs(real, key)) == 2

    @pytest.mark.slow
    def test_the_day_that_runs_meanwhile_and_the_next_one_find_nothing_amiss(
        self, real: RealTime, keys: Iterator[str]
    ) -> None:
        """Opt-outs before and after the landing, and of both sides."""
        loop, sandbox = real.loop, real.loop.sandbox
        carry_opt_outs(real.project, dry_run=False)
        landed, later, texting = next(keys), next(keys), next(keys)
        sandbox.next_day(edits=False)
        opt_out(real, landed, at=f"{sandbox.now():%Y-%m-%d %H:%M:%S}")
        loop.land()
        opt_out(real, later, at=f"{sandbox.now():%Y-%m-%d %H:%M:%S}")
        with real.hearing("subscription_removed"):
            sandbox.text("stop", {"person_key": real.person(texting).person_key}, LIST)
        carry_opt_outs(real.project, dry_run=False)
        assert not is_subscribed(real, landed)
        assert not is_subscribed(real, later)
        summary = loop.reconcile()
        loop.deliver()
        assert summary.subscription_changes >= 1  # the share does not show it yet
        assert opt_out_clock(real.project).open == {}
        for key in (landed, later, texting):
            assert not is_subscribed(real, key)
            assert str(real.contact(key, "sms_opt_in")[0]).lower() in {"false", "0", "n", "no"}
        sandbox.next_day(edits=False)
        account = loop.day()
        assert account.unexplained == 0
        assert account.opt_outs_to_platform == account.opt_outs_to_crm == 0
        for key in (landed, later):
            ended = sandbox.platform.subscriptions_of(
                real.person(key).person_key, active_only=False
            )
            assert [stay.opt_out_reason for stay in ended].count("api_opt_out") == 1

    def test_a_base_that_another_process_makes_at_the_same_time_is_left_as_it_is(
        self, real: RealTime, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        folder = tmp_path / "bases"
        monkeypatch.setattr(type(real.project), "base_folder", lambda _, day: folder / day)
        replace = Path.replace

        def meanwhile(draft: Path, place: Path) -> Path:
            monkeypatch.setattr(Path, "replace", replace)
            assert bases.base_of(real.project, real.loop.today) is not None
            (folder / real.loop.today / "read by another").touch()
            return replace(draft, place)

        monkeypatch.setattr(Path, "replace", meanwhile)
        found = bases.base_of(real.project, real.loop.today)
        assert found is not None
        assert (found / "read by another").exists()
        assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []


def test_the_daily_lane_of_opt_outs_goes_on_beside_ours(
    real: RealTime, keys: Iterator[str]
) -> None:
    """Each has a lease of its own: neither fails because the other is at it."""
    with Leases(real.project.settings.ledger_url) as leases, kept_lease(leases, LEASE):
        delivering.deliver_opt_outs(
            real.project, real.loop.today, delivering.Options(dry_run=False)
        )
