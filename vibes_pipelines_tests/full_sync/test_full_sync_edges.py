"""A full sync, a message, an overview that is cut, turned away or only tried: nothing is lost."""

import shutil
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from vibes_pipelines.apsis.client import ApsisClient
from vibes_pipelines.apsis.errors import ApsisUnavailable
from vibes_pipelines.sandbox.apsis_records import CRM_KEYSPACE, SECTION
from vibes_pipelines.stages import tribe_messages
from vibes_pipelines.stages.apsis_contacts import UNNAMEABLE
from vibes_pipelines.stages.apsis_last_look import NEWER, NewerWatch
from vibes_pipelines.stages.apsis_overviews import carry_overview
from vibes_pipelines.stages.full_sync import full_sync
from vibes_pipelines.stages.tribe_messages import UNHEARD, Applied, apply_messages
from vibes_pipelines.store.ledger import Ledger
from vibes_pipelines.store.realtime import RealtimeBook
from vibes_pipelines.store.records import Kind, Lane, Operation
from vibes_pipelines_tests.apsis.apsis_parts import fault
from vibes_pipelines_tests.full_sync.sync_parts import (
    FIRST_NAME,
    MEMBER,
    NEWS_LABEL,
    Agreed,
    World,
    deliver_message,
    world_at,
)


def drained(world: World, *persons: str) -> Applied:
    """Messages about these persons, and what became of them and of any that waited."""
    deliver_message(world, *persons)
    with world.open() as sync:
        return apply_messages(sync)


@pytest.mark.slow
def test_a_dry_run_leaves_the_messages_waiting(agreed: Agreed) -> None:
    world, ada = agreed.world, agreed.people["Ada"]
    world.edit(ada, FirstName="Adah")
    deliver_message(world, ada)
    before = world.writes()
    with world.open() as sync:
        ended = full_sync(sync, dry_run=True)
    assert (ended.state, ended.messages, world.writes()) == ("held", None, before)
    assert "wanted: create 0, update 1, " in ended.sentence
    assert drained(world).messages == 1
    assert (world.profile(ada) or {})[FIRST_NAME] == "Adah"


def test_messages_wait_whose_opt_out_or_profile_is_not_to_be_had(
    agreed: Agreed, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = agreed.world
    bo, cai, eve = (agreed.people[name] for name in ("Bo", "Cai", "Eve"))
    world.unlabel(bo)
    world.edit(cai, FirstName="Caia")
    with monkeypatch.context() as patch:
        patch.setattr(ApsisClient, "consent", _turned_away)
        fault(world.apsis, f"profiles/{eve}", status=400)
        applied = drained(world, bo, cai, eve)
    assert (applied.messages, applied.waiting, applied.why) == (1, 2, (UNHEARD,))
    assert world.consent(bo) == "opt-in"
    world.apsis.control.set_faults({"faults": []})
    applied = drained(world)
    assert (applied.messages, applied.waiting) == (2, 0)
    assert world.consent(bo) == "opt-out"


def test_messages_about_a_profile_that_stays_unreadable_hold_up_no_opt_out(
    agreed: Agreed, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, dee, cai = agreed.world, agreed.people["Dee"], agreed.people["Cai"]
    monkeypatch.setattr(tribe_messages, "PAGE_ROWS", 1)
    fault(world.apsis, f"profiles/{dee}", status=400)
    assert drained(world, dee).waiting == 1
    world.unlabel(cai)
    applied = drained(world, dee, cai, dee)
    assert (applied.messages, applied.waiting, applied.why) == (1, 3, (UNHEARD,))
    assert applied.persons == 2, "each once, however many messages name it"
    assert world.consent(cai) == "opt-out"
    world.apsis.control.set_faults({"faults": []})
    assert drained(world).waiting == 0


def test_all_clients_of_a_sync_share_one_token(
    agreed: Agreed, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, people = agreed.world, [agreed.people[name] for name in ("Dee", "Flo", "Gus")]
    monkeypatch.setattr(tribe_messages, "PAGE_ROWS", 1)
    for person in people:
        world.edit(person, FirstName="Another")
    before = world.apsis.tokens.issued
    assert drained(world, *people).accepted == 3
    assert world.apsis.tokens.issued - before == 1


def test_an_overview_that_failed_is_carried_whole_the_next_time(
    agreed: Agreed, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, flo = agreed.world, agreed.people["Flo"]
    with world.open() as sync:
        with monkeypatch.context() as patch:
            patch.setattr(ApsisClient, "tag", _turned_away)
            with pytest.raises(ApsisUnavailable):
                carry_overview(sync, "VIP")
        assert carry_overview(sync, "VIP").tagged == 1
        assert world.tags(flo) == {MEMBER}
        world.unlabel(flo, "VIP")
        with monkeypatch.context() as patch:
            patch.setattr(ApsisClient, "untag", _turned_away)
            with pytest.raises(ApsisUnavailable):
                carry_overview(sync, "VIP")
        assert carry_overview(sync, "VIP").untagged == 1
        assert world.tags(flo) == set()
        assert carry_overview(sync, "VIP").untagged == 0


def test_a_locked_member_holds_up_no_overview(world: World) -> None:
    world.configure(overviews=[{"name": "VIP", "members": "label:VIP", "tag": MEMBER}])
    ada, bo = world.person("Ada", "VIP"), world.person("Bo", "VIP")
    keyspace = world.apsis.account.catalogue.keyspace(CRM_KEYSPACE)
    for person in (ada, bo):
        world.apsis.account.create(keyspace, person, SECTION)
    world.apsis.account.lock_profile(CRM_KEYSPACE, ada)
    with world.open() as sync:
        for tagged in (1, 0):
            carried = carry_overview(sync, "VIP")
            assert (carried.tagged, carried.without_profile) == (tagged, 1)
    assert world.tags(bo) == {MEMBER}


def test_whom_the_sync_conditions_leave_out_no_overview_tags(world: World) -> None:
    world.configure(
        overviews=[{"name": "VIP", "members": "label:VIP", "tag": MEMBER}],
        conditions=[{"column": "FirstName", "equals": "Ada"}],
    )
    ada, bo = world.person("Ada", "VIP"), world.person("Bo", "VIP")
    keyspace = world.apsis.account.catalogue.keyspace(CRM_KEYSPACE)
    for person in (ada, bo):
        world.apsis.account.create(keyspace, person, SECTION)
    with world.open() as sync:
        carry_overview(sync, "VIP")
        assert (world.tags(ada), world.tags(bo)) == ({MEMBER}, set())
        world.edit(ada, FirstName="Eva")
        assert carry_overview(sync, "VIP").untagged == 1
    assert world.tags(ada) == set()


def test_cut_while_it_moves_away_what_was_landed_it_is_taken_up_on_both_sides_anew(
    agreed: Agreed, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, dee = agreed.world, agreed.people["Dee"]
    world.at_apsis(dee, "opt-out")
    world.edit(dee, FirstName="Deedee")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "move", _cut_at(3, shutil.move))
        with pytest.raises(KeyboardInterrupt):
            world.sync()
    world.sync(resume=True)
    assert (world.profile(dee) or {})[FIRST_NAME] == "Deedee"
    assert world.labels(dee) == set()


def test_a_message_finds_the_contact_of_whatever_key(tmp_path: Path) -> None:
    with world_at(tmp_path / "home") as world:
        world.extra = {"contacts": {"key": "EmailAddress", "source": "tribe"}}
        ada, bo = world.person("Ada", NEWS_LABEL), world.person("Bo")
        world.sync()
        world.unlabel(ada)
        world.edit(bo, EmailAddress=None)
        applied = drained(world, ada, bo)
        assert (applied.persons, applied.accepted, applied.ignored) == (1, 1, 1)
        assert world.consent("Ada@example.org") == "opt-out"


@pytest.mark.slow
def test_a_message_finds_the_person_whatever_the_case_of_its_id(world: World) -> None:
    ada = world.person("Ada", NEWS_LABEL)
    world.sync()
    world.unlabel(ada)
    applied = drained(world, ada.upper(), ada)
    assert (applied.messages, applied.persons, applied.accepted, applied.ignored) == (2, 1, 1, 0)
    assert world.consent(ada) == "opt-out"


OTHERS = [pytest.param(key, marks=pytest.mark.slow) for key in ("..", " . ")]


@pytest.mark.parametrize("key", [".", *OTHERS])
def test_a_contact_whose_key_names_no_profile_is_left_out_and_the_others_go(
    world: World, key: str
) -> None:
    world.extra = {"contacts": {"key": "ImportId", "source": "tribe"}}
    bo, cai = (world.person(f"P{one}", NEWS_LABEL, ImportId=f"P-{one}") for one in range(2))
    world.sync()
    odd = world.person("Odd", NEWS_LABEL, ImportId=key)
    world.unlabel(bo)
    assert drained(world, odd, bo).waiting == 0
    assert world.consent("P-0") == "opt-out"
    world.unlabel(cai)
    world.clock.next_day()
    ended = world.sync()
    assert (ended.state, ended.results.values_left_out, ended.results.failed) == ("finished", 1, {})
    assert world.consent("P-1") == "opt-out"
    with world.open() as sync:
        [landed] = sync.project.snapshots.days("apsis/contacts")[-1:]
        snapshot = sync.project.snapshots.find("apsis/contacts", landed)
    assert snapshot is not None
    [reject] = pq.read_table(snapshot.rejects).to_pylist()
    assert (reject["raw"], reject["reason"]) == (key.strip(), UNNAMEABLE)
    world.configure(overviews=[{"name": "VIP", "members": "label:VIP", "tag": MEMBER}])
    world.label(odd, "VIP")
    world.label(bo, "VIP")
    with world.open() as sync:
        assert carry_overview(sync, "VIP").tagged == 1
    assert world.tags("P-0") == {MEMBER}


@pytest.mark.parametrize("side", ["Tribe", pytest.param("APSIS One", marks=pytest.mark.slow)])
def test_a_name_that_was_cut_in_the_middle_of_a_character_holds_up_nobody(
    world: World, side: str
) -> None:
    ada, bo, cai = (world.person(name, NEWS_LABEL) for name in ("Ada", "Bo", "Cai"))
    world.sync()
    cut = "Ada \ud83d"
    if side == "Tribe":
        world.edit(ada, FirstName=cut)
    else:
        world.apsis.control.edit({"profile_key": ada, "attributes": {FIRST_NAME: cut}})
        world.edit(ada, FirstName="Adah")  # so that the profile is read whole
    world.unlabel(bo)
    assert drained(world, ada, bo).waiting == 0
    assert world.consent(bo) == "opt-out"
    for name in ("Adam", "Adeline"):
        world.clock.next_day()
        world.unlabel(cai)
        if side == "APSIS One":
            world.apsis.control.edit({"profile_key": ada, "attributes": {FIRST_NAME: cut}})
            world.edit(ada, FirstName=name)
        assert not world.sync().results.failed
        assert world.consent(cai) == "opt-out"
    assert (world.profile(ada) or {})[FIRST_NAME] == ("Ada" if side == "Tribe" else "Adeline")


@pytest.mark.parametrize(
    ("newer", "withdrawn"),
    [
        ("update", {"update", "opt_in", "delete"}),
        ("opt_out", {"opt_in", "delete"}),
        ("opt_in", {"opt_in", "delete"}),
    ],
)
def test_what_left_in_real_time_takes_the_place_of_its_like_and_never_of_an_opt_out(
    tmp_path: Path, newer: Kind, withdrawn: set[Kind]
) -> None:
    url = f"sqlite:///{tmp_path}/ledger.sqlite"
    kinds: tuple[Kind, ...] = ("update", "opt_in", "opt_out", "delete")
    with Ledger(url), closing(RealtimeBook(url)) as book:
        book.plan([_operation(newer, "newer")])
        book.mark_sent(["newer"])
        watch = NewerWatch(book)
        found = watch.withdrawn([_operation(kind, kind) for kind in kinds])
        assert watch.withdrawn([_operation("update", "of another", contact="C-2")]) == {}
    assert found == dict.fromkeys(withdrawn, NEWER)


_LANES: dict[Kind, Lane] = {
    "update": "persons",
    "opt_in": "invites",
    "opt_out": "opt_outs",
    "delete": "deletes",
}


def _operation(kind: Kind, operation_id: str, contact: str = "C-1") -> Operation:
    return Operation(
        operation_id=operation_id,
        diff_set="d1",
        day="2026-01-01",
        as_of=datetime(2026, 1, 1, tzinfo=UTC),
        kind=kind,
        lane=_LANES[kind],
        route="api",
        route_reason="in real time",
        person_key=None,
        mdn=None,
        external_person_id=contact,
        subscription_list_id=None if kind in {"update", "delete"} else "topic|channel",
        changes=(),
    )


async def _turned_away(*_words: Any, **_more: Any) -> None:
    raise ApsisUnavailable("HTTP 429", 429, did_nothing=True)


def _cut_at(step: int, move: Callable[..., Any]) -> Callable[..., Any]:
    moved = [0]

    def cut(*paths: Any) -> Any:
        moved[0] += 1
        if moved[0] == step:
            raise KeyboardInterrupt
        return move(*paths)

    return cut
