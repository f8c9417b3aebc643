"""Changes of the CRM to the platform: what leaves at once, what is left, what a cut leaves."""

from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import dagster as dg
import pytest
import sqlalchemy as sa

from vibes_pipelines.crm.database import CrmError
from vibes_pipelines.orchestration.build import build_defs
from vibes_pipelines.orchestration.sensors import crm_change_sensor
from vibes_pipelines.sandbox.population import build_world
from vibes_pipelines.stages import changes, slices
from vibes_pipelines.stages.carried import Carried
from vibes_pipelines.stages.changes import (
    FROM_THE_FUTURE,
    TOO_ENTANGLED,
    carry_changes,
    changes_waiting,
)
from vibes_pipelines.stages.inbox import drain
from vibes_pipelines.stages.project import Project
from vibes_pipelines.stages.reconciling import read_summary
from vibes_pipelines.stages.slices import Slice, reconcile_slice
from vibes_pipelines.store.inbox import Inbox
from vibes_pipelines.store.models import callbacks
from vibes_pipelines.store.realtime import RealtimeBook
from vibes_pipelines_tests.support.loop import agreed_keys
from vibes_pipelines_tests.support.realtime import (
    CHANGES,
    LIST,
    RealTime,
    running_real_time,
    tick,
)

WORLD = build_world(180, seed=11)
SPLIT = agreed_keys(WORLD)[-1]
"""A contact in doubt: it has no number, and another contact has that of its person."""
[_split] = [row for row in WORLD.contacts if row["contact_id"] == SPLIT]
WORLD.contacts.append({**_split, "contact_id": "C970000"})
_split["mobile"] = None
NOBODYS = iter(WORLD.kinds["platform_only"])
"""Persons known by number alone, whom no contact of the landed day points to."""
MANY = (
    "opt_outs: {max_rows: 5000,  max_share: 0.05}",
    "opt_outs: {max_rows: 5000, max_share: null}",
)
OUTBOX = "  changes: {by: outbox, table: contact_outbox, id: number, key: contact, max_batch: 5}\n"


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealTime]:
    with running_real_time(tmp_path_factory.mktemp("real"), WORLD, MANY) as running:
        yield running


@pytest.fixture(scope="module")
def keys(real: RealTime) -> Iterator[str]:
    """Contacts whose subscription both sides agree on, each given to one test."""
    platform = real.loop.sandbox.platform
    found = []
    for key in agreed_keys(WORLD):
        person = platform.find(external_person_id=key)
        is_in = str(real.contact(key, "sms_opt_in")[0]).lower() in {"true", "1", "y", "yes"}
        if person and is_in and platform.subscriptions_of(person.person_key):
            found.append(key)
    return iter(found)


def carry(real: RealTime) -> Carried:
    return carry_changes(real.project, dry_run=False)


@contextmanager
def configured(real: RealTime, folder: Path, *edits: tuple[str, str]) -> Iterator[RealTime]:
    """The same two sides under a sync.yaml that differs."""
    text = real.project.settings.sync_config.read_text(encoding="utf-8")
    for old, new in edits:
        assert old in text, old
        text = text.replace(old, new)
    path = folder / "other.yaml"
    path.write_text(text, encoding="utf-8")
    with real.loop.changed(VIBES_SYNC_CONFIG=path) as loop:
        yield RealTime(loop, real.served, real.now)


def opt_out(real: RealTime, key: str, at: str = "2026-05-31 12:00:00") -> None:
    real.edit(key, sms_opt_in="false", sms_opt_in_at=at)


def is_subscribed(real: RealTime, key: str) -> bool:
    person_key = real.person(key).person_key
    return bool(real.loop.sandbox.platform.subscriptions_of(person_key))


def test_nothing_leaves_under_a_mapping_that_nobody_approved(
    real: RealTime, keys: Iterator[str], tmp_path: Path
) -> None:
    key = next(keys)
    with configured(real, tmp_path, ("to: zip_code", "to: zip_code, when_null: clear")) as other:
        other.edit(key, first_name="Held")
        real.now = other.now
        assert carry(other).why[0].startswith("the mapping changed since the last delivery")
    assert real.person(key).custom["first_name"] != "Held"
    assert carry(real).accepted == 1  # it was not lost


def test_a_dry_run_says_what_would_leave_and_leaves_it(real: RealTime, keys: Iterator[str]) -> None:
    key = next(keys)
    real.edit(key, first_name="Dry")
    would = carry_changes(real.project)
    assert (would.persons, would.accepted) == (1, 0)
    assert would.sentence.startswith("dry run: contacts ")
    assert real.person(key).custom["first_name"] != "Dry"
    assert carry(real).accepted == 1
    assert real.person(key).custom["first_name"] == "Dry"
    assert changes_waiting(real.project) is None


@pytest.mark.slow
def test_a_value_that_comes_back_is_sent_again(real: RealTime, keys: Iterator[str]) -> None:
    key = next(keys)
    [(was,)] = [real.contact(key, "first_name")]
    for name in ("Back", was, "Back", was):
        real.edit(key, first_name=name)
        carry(real)
        assert real.person(key).custom["first_name"] == name.strip()


def test_a_contact_in_doubt_by_what_only_others_share_waits_for_the_daily_job(
    real: RealTime,
) -> None:
    before = real.person(SPLIT).custom["first_name"]
    real.edit(SPLIT, first_name="Doubt")
    assert carry(real).persons == 0
    assert real.person(SPLIT).custom["first_name"] == before


def test_of_a_group_that_is_too_large_only_the_opt_outs_leave(
    real: RealTime, keys: Iterator[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = next(keys), next(keys)
    monkeypatch.setattr(slices, "_MOST_OTHERS", 1)
    monkeypatch.setattr(slices, "_OWN_PERSONS", 0)
    real.edit(one, first_name="Hub")
    opt_out(real, other)
    carried = carry(real)
    assert (carried.opt_outs, carried.persons, carried.left_to_daily) == (1, 0, 1)
    assert f"{TOO_ENTANGLED}: the daily job carries them" in carried.why
    assert real.person(one).custom["first_name"] != "Hub"
    assert not is_subscribed(real, other)


@pytest.mark.slow
def test_a_person_adopted_today_is_that_contacts_from_then_on(real: RealTime) -> None:
    person_key = next(NOBODYS)
    person = real.loop.sandbox.platform.find(person_key=person_key)
    assert person is not None
    was = person.custom["first_name"]
    real.enter("C970001", mobile=person.mdn)
    for name in ("Zed", was, "Zed"):  # not yet in the share, and sent all the same
        real.edit("C970001", first_name=name)
        assert carry(real).accepted == 1
        person = real.person("C970001")
        assert (person.person_key, person.custom["first_name"]) == (person_key, name)
    real.enter("C970002", mobile=person.mdn, first_name="Thief")
    assert carry(real).persons == 0
    assert real.person("C970001").custom["first_name"] == "Zed"


def test_a_look_that_was_cut_after_its_send_is_made_good_without_a_second_effect(
    real: RealTime, keys: Iterator[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = next(keys), next(keys)
    real.edit(one, first_name="Cut")
    opt_out(real, other)
    with monkeypatch.context() as cut:
        cut.setattr(RealtimeBook, "record", interrupt)
        with pytest.raises(KeyboardInterrupt):
            carry(real)
    assert changes_waiting(real.project) is not None
    carry(real)
    assert real.person(one).custom["first_name"] == "Cut"
    assert not is_subscribed(real, other)
    with closing(RealtimeBook(real.project.settings.ledger_url)) as book:
        assert book.unfinished() == []
    assert changes_waiting(real.project) is None
    ended = real.loop.sandbox.platform.subscriptions_of(
        real.person(other).person_key, active_only=False
    )
    assert len([stay for stay in ended if stay.opt_out_reason == "api_opt_out"]) == 1


def cut_after_its_intent(real: RealTime) -> None:
    """A look that dies when its first operation is written down and nothing has left."""
    with pytest.MonkeyPatch.context() as cut:
        cut.setattr(RealtimeBook, "mark_sent", interrupt)
        with pytest.raises(KeyboardInterrupt):
            carry(real)


@pytest.mark.slow
def test_a_cut_opt_out_is_looked_at_again_before_it_leaves(
    real: RealTime, keys: Iterator[str]
) -> None:
    key = next(keys)
    person_key, sandbox = real.person(key).person_key, real.loop.sandbox
    opt_out(real, key, at="2025-12-24 12:00:00")
    cut_after_its_intent(real)
    with real.hearing("subscription_removed"):
        sandbox.text("stop", {"person_key": person_key}, LIST)
    with real.hearing("subscription_added"):
        sandbox.platform.subscribe(person_key, LIST, sandbox.now())
    carry(real)
    assert is_subscribed(real, key)
    assert changes_waiting(real.project) is None


def test_a_cut_opt_out_of_somebody_whom_the_crm_forgot_leaves_all_the_same(
    real: RealTime, keys: Iterator[str]
) -> None:
    key = next(keys)
    opt_out(real, key)
    cut_after_its_intent(real)
    real.crm("DELETE FROM contacts WHERE contact_id = ?", key)
    carry(real)
    assert not is_subscribed(real, key)
    assert changes_waiting(real.project) is None


def test_a_change_from_the_future_does_not_hide_those_of_the_present(
    real: RealTime, keys: Iterator[str]
) -> None:
    one, other = next(keys), next(keys)
    real.edit(one, first_name="Future")
    real.crm("UPDATE contacts SET updated_at = '2999-01-01' WHERE contact_id = ?", one)
    carried = carry(real)
    assert (carried.accepted, carried.why) == (1, (FROM_THE_FUTURE,))
    assert carry(real).contacts == 0  # seen, and not acted on for ever
    real.edit(other, first_name="Now")
    assert carry(real).accepted == 1
    assert real.person(other).custom["first_name"] == "Now"


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


@contextmanager
def compared(real: RealTime) -> Iterator[list[set[str]]]:
    """Whom a look compares with their persons, slice by slice."""
    asked: list[set[str]] = []

    def noted(project: Project, contacts: Collection[str], name: str) -> Slice:
        asked.append(set(contacts))
        return reconcile_slice(project, contacts, name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(changes, "reconcile_slice", noted)
        yield asked


@pytest.mark.slow
def test_who_opts_out_by_not_matching_does_so_after_those_who_said_so(
    real: RealTime, keys: Iterator[str], tmp_path: Path
) -> None:
    many = [next(keys) for _ in range(6)]
    with configured(real, tmp_path, ("when_unmatched: keep", "when_unmatched: opt_out")) as other:
        other.loop.reconcile()  # a mapping that differs needs its own approval
        other.loop.approve(read_summary(other.project, other.loop.today))
        other.loop.deliver()
        for key in many[:-1]:
            other.edit(key, customer_type="B")
        opt_out(other, many[-1])
        with compared(other) as asked:
            carried = carry(other)
        real.now = other.now
    assert [many[-1] in contacts for contacts in asked] == [True, False]
    assert carried.opt_outs == len(many)


def test_of_a_large_batch_only_the_opt_outs_leave_at_once(
    real: RealTime, keys: Iterator[str]
) -> None:
    many = [next(keys) for _ in range(6)]
    for key in many[:-1]:
        real.edit(key, last_name="Bulk")
    opt_out(real, many[-1])
    with compared(real) as asked:
        carried = carry(real)
    assert asked == [{many[-1]}]  # and nobody before
    assert (carried.accepted, carried.left_to_daily) == (1, 5)
    assert "the daily job carries them" in carried.sentence
    assert not is_subscribed(real, many[-1])
    assert {real.person(key).custom["last_name"] for key in many} & {"Bulk"} == set()
    # The next small change is small again, and takes nothing of the batch with it.
    real.edit(many[0], first_name="Small")
    assert carry(real).left_to_daily == 0
    assert real.person(many[0]).custom["first_name"] == "Small"
    assert real.person(many[1]).custom["last_name"] != "Bulk"


def test_a_cap_on_persons_holds_no_opt_out(
    real: RealTime, keys: Iterator[str], tmp_path: Path
) -> None:
    one, other = next(keys), next(keys)
    cap = ("updates:  {max_rows: 50000, max_share: 0.20}", "updates:  {max_rows: 0}")
    with configured(real, tmp_path, cap) as capped:
        capped.edit(one, first_name="Capped")
        opt_out(capped, other)
        real.now = capped.now
        carried = carry(capped)
    assert carried.left_to_daily == 1
    assert any("guards.updates" in why for why in carried.why)
    assert real.person(one).custom["first_name"] != "Capped"
    assert not is_subscribed(real, other)


def test_an_opt_out_gives_way_to_a_newer_opt_in_that_only_a_callback_told_of(
    real: RealTime, keys: Iterator[str]
) -> None:
    key = next(keys)
    person_key, sandbox = real.person(key).person_key, real.loop.sandbox
    with real.hearing("subscription_removed"):
        sandbox.text("stop", {"person_key": person_key}, LIST)
    subscribe(real, person_key)
    opt_out(real, key, at="2025-12-24 12:00:00")  # older than what the person said by text
    assert carry(real).opt_outs == 0
    assert is_subscribed(real, key)


def subscribe(real: RealTime, person_key: str) -> None:
    """The person joins at the platform, and its callback arrives."""
    with real.hearing("subscription_added"):
        real.loop.sandbox.platform.subscribe(person_key, LIST, real.loop.sandbox.now())


def was_told_with(real: RealTime, **named: str | None) -> None:
    """The newest callback named its person otherwise than it did, as bodies of old do."""
    newest = real.rows("subscription_added")[-1]
    named = {"person_key": newest["person_key"], **named}
    with Inbox(real.project.settings.ledger_url) as inbox, inbox._writer.begin() as connection:
        table = callbacks.c
        connection.execute(sa.update(callbacks).where(table.id == newest["id"]).values(**named))


@pytest.mark.parametrize("named", [{}, {"person_key": None}], ids=["by-key", "by-external-id"])
def test_somebody_who_joined_today_and_is_in_no_share_opts_out_in_the_crm(
    real: RealTime, named: dict[str, str | None]
) -> None:
    key = f"C96000{len(named)}"
    real.enter(key, mobile=f"+1312555021{len(named)}", first_name="Cleo")
    assert carry(real).accepted == 1
    subscribe(real, real.person(key).person_key)
    was_told_with(real, **named)
    opt_out(real, key, at="2026-06-01 12:00:00")
    carried = carry(real)
    assert (carried.opt_outs, carried.persons, carried.accepted) == (1, 0, 1)
    assert not is_subscribed(real, key)
    assert carry(real).opt_outs == 0


@pytest.mark.parametrize(
    "named",
    [{"person_key": None}, {"external_person_id": None}],
    ids=["by-external-id", "by-key"],
)
def test_a_landed_person_joined_today_by_whatever_name_and_opts_out_in_the_crm(
    real: RealTime, named: dict[str, str | None]
) -> None:
    platform = real.loop.sandbox.platform
    people = ((key, platform.find(external_person_id=key)) for key in agreed_keys(WORLD))
    key = next(
        key
        for key, one in people
        if one and one.mdn and not platform.subscriptions_of(one.person_key, active_only=False)
    )
    subscribe(real, real.person(key).person_key)
    was_told_with(real, **named)
    opt_out(real, key, at="2026-06-01 12:00:00")
    assert carry(real).opt_outs == 1
    assert not is_subscribed(real, key)


def test_what_the_platform_refused_is_not_sent_again_unchanged(real: RealTime) -> None:
    mdn = "+13125550399"
    real.loop.sandbox.act("numbers/deactivate", {"mdn": mdn})
    real.enter("C950001", mobile=mdn, first_name="Nocarrier")
    assert carry(real).rejected == 1
    real.edit("C950001", sms_opt_in=None)
    again = carry(real)
    assert (again.persons, again.rejected) == (0, 0)
    real.edit("C950001", first_name="Other")
    assert carry(real).persons == 1


def test_a_person_who_is_forbidden_to_us_holds_up_no_other(
    real: RealTime, keys: Iterator[str]
) -> None:
    one, other, edited = next(keys), next(keys), next(keys)
    for key in (one, other):
        opt_out(real, key)
    real.edit(edited, first_name="Free")
    whose = {"path_regex": real.person(one).person_key}
    real.loop.sandbox.set_faults([{"match": whose, "action": "status", "status": 403}])
    carried = carry(real)
    real.loop.sandbox.set_faults(None)
    assert (carried.accepted, carried.rejected) == (2, 1)
    assert not is_subscribed(real, other)
    assert real.person(edited).custom["first_name"] == "Free"
    assert changes_waiting(real.project) is None


def test_an_outbox_is_emptied_by_what_was_carried(
    real: RealTime, keys: Iterator[str], tmp_path: Path
) -> None:
    key = next(keys)
    real.crm("CREATE TABLE contact_outbox (number INTEGER PRIMARY KEY, contact TEXT)")
    with configured(real, tmp_path, (CHANGES, OUTBOX)) as outbox:
        carry(outbox)
        assert changes_waiting(outbox.project) is None
        outbox.crm("UPDATE contacts SET first_name = 'Boxed' WHERE contact_id = ?", key)
        outbox.crm("INSERT INTO contact_outbox (contact) VALUES (?), (?), ('C999999')", key, key)
        assert changes_waiting(outbox.project) is not None
        assert carry(outbox).accepted == 1
        assert outbox.crm("SELECT * FROM contact_outbox") == []
        assert changes_waiting(outbox.project) is None
        outbox.crm("INSERT INTO contact_outbox (contact) VALUES ('C999999'), (NULL)")
        assert carry(outbox) == Carried(dry_run=False, contacts=1)  # of nobody that is left
        assert outbox.crm("SELECT * FROM contact_outbox") == []
    assert real.person(key).custom["first_name"] == "Boxed"


def test_a_column_that_is_not_there_is_named_with_its_entry(real: RealTime, tmp_path: Path) -> None:
    with (
        configured(real, tmp_path, ("column: updated_at", "column: moved_at")) as other,
        pytest.raises(
            CrmError, match=r"contacts\.changes\.column: contacts has no column 'moved_at'"
        ),
    ):
        carry(other)


def test_a_crm_that_is_away_is_no_failure_of_the_sensor(real: RealTime, tmp_path: Path) -> None:
    away = f"sqlite:///{tmp_path / 'nowhere' / 'crm.db'}"
    with real.loop.changed(CRM_URL=away), dg.DagsterInstance.ephemeral() as instance:
        skipped = tick(crm_change_sensor, instance, build_defs()).skip_message
    assert skipped.startswith("CRM sqlite:///")
    assert "correct CRM_URL" in skipped


@pytest.mark.slow
def test_more_writes_to_the_crm_than_a_guard_lets_pass_are_left_to_the_daily_job(
    real: RealTime, keys: Iterator[str], tmp_path: Path
) -> None:
    key, sandbox = next(keys), real.loop.sandbox
    by_platform = (
        "to: last_name,  type: string}",
        "to: last_name,  type: string, authority: platform}",
    )
    cap = ("updates:  {max_rows: 50000, max_share: 0.20}", "updates:  {max_rows: 0}")
    with configured(real, tmp_path, by_platform, cap) as other:
        other.loop.reconcile()  # a mapping that differs needs its own approval
        other.loop.approve(read_summary(other.project, other.loop.today))
        other.loop.deliver()
        was = real.contact(key, "last_name")
        with real.hearing("person_updated"):
            sandbox.platform.edit(
                real.person(key).person_key, {"last_name": "Swept"}, sandbox.now()
            )
        drain(other.project, dry_run=False)
        assert real.rows("person_updated")[-1]["reason"] == "left_to_daily"
        assert real.contact(key, "last_name") == was
