"""Law 1 through whole syncs: what no path may do to an opt-out made at APSIS One."""

import asyncio
from typing import Any

import pyarrow.parquet as pq
import pytest

from vibes_pipelines.apsis.client import ApsisClient
from vibes_pipelines.apsis.errors import ApsisUnavailable
from vibes_pipelines.sandbox.apsis_consents import act_on_consent
from vibes_pipelines.sandbox.apsis_records import (
    CRM_KEYSPACE,
    EMAIL_CHANNEL,
    EMAIL_KEYSPACE,
    SECTION,
    SMS_CHANNEL,
)
from vibes_pipelines.sandbox.apsis_switches import ApsisSwitches
from vibes_pipelines.stages.full_sync import full_sync
from vibes_pipelines.stages.tribe_messages import apply_messages
from vibes_pipelines_tests.full_sync.sync_parts import NEWS, NEWS_LABEL, World, deliver_message

LABEL = f"label:{NEWS_LABEL}"
CAPPED = {"max_rows": 0}


def test_one_label_of_two_channels_ends_both(world: World) -> None:
    both = [{"from": LABEL, "topic": NEWS, "channel": channel} for channel in ("email", "sms")]
    world.configure(consents=both)
    ada = world.person("Ada", NEWS_LABEL)
    world.sync()
    assert (world.consent(ada), world.consent(ada, SMS_CHANNEL)) == ("opt-in", "opt-in")
    world.unlabel(ada)
    assert world.sync().results.opted_out == 2
    assert (world.consent(ada), world.consent(ada, SMS_CHANNEL)) == ("opt-out", "opt-out")


@pytest.mark.slow
def test_a_deleted_profile_does_not_come_back_opted_in(world: World) -> None:
    free = world.section["guards"]
    ada, _ = world.person("Ada", NEWS_LABEL), world.person("Bo")
    world.sync()
    world.at_apsis(ada, "opt-out")
    world.configure(guards={**free, "opt_outs": CAPPED})
    with world.open() as sync:
        assert full_sync(sync).state == "held", "the label still stands"
    world.apsis.account.delete(CRM_KEYSPACE, ada)
    world.clock.next_day()
    world.edit(ada, FirstName="Adah")
    world.configure(guards=free)
    results = world.sync().results
    assert (results.created, results.labels_removed) == (1, 1), "the no outlives its profile"
    assert (world.labels(ada), world.consent(ada)) == (set(), None)
    results = world.sync().results
    assert (results.created, results.opted_in, results.labels_removed) == (0, 0, 0)
    assert world.consent(ada) is None


@pytest.mark.slow
def test_an_unsubscribe_while_a_deletion_waits_goes_back_first(world: World) -> None:
    guards = {**world.section["guards"], "deletes": {"max_rows": 5, "max_share": None}}
    condition = {"column": "LastName", "equals": "-"}
    world.configure(conditions=[condition], when_unmatched="delete", guards=guards)
    ada, _ = world.person("Ada", NEWS_LABEL), world.person("Bo", NEWS_LABEL)
    world.sync()
    world.clock.next_day()
    world.sync()
    world.edit(ada, LastName="x")
    world.clock.next_day()
    with world.open() as sync:
        assert full_sync(sync).state == "held"
        world.at_apsis(ada, "opt-out")
        world.approve(sync)
        assert full_sync(sync, resume=True).results.deleted == 0
    assert world.profile(ada) is not None
    world.clock.next_day()
    world.sync()
    assert world.profile(ada) is None
    world.edit(ada, LastName="-")
    world.clock.next_day()
    world.sync()
    assert world.profile(ada) is not None
    assert world.consent(ada) is None


def form(world: World, name: str, *acts: Any) -> None:
    """A form's own profile of the address that a person of Tribe has as well."""
    address = f"{name}@example.org"
    world.apsis.control.sign_up({"email": address})
    profile = world.apsis.account.peek(EMAIL_KEYSPACE, address)
    assert profile is not None
    for act in acts:
        act_on_consent(world.apsis.account, profile, (SECTION, NEWS, EMAIL_CHANNEL), act)


def test_a_merge_keeps_the_opt_out_of_either_whosever_consent_wins(world: World) -> None:
    world.apsis.account.switches = ApsisSwitches(merged_consents="first")
    world.configure(merge_same_email=True)
    ada = world.person("Ada", NEWS_LABEL)
    form(world, "Ada", "opt-in", "opt-out")
    assert world.sync().results.merges == {"merged": 1}
    assert world.consent(ada) == "opt-out"
    assert len(world.apsis.account.profiles()) == 1


def test_a_locked_profile_of_the_address_stays_apart_and_fails_no_full_sync(world: World) -> None:
    world.configure(merge_same_email=True)
    world.person("Ada")
    form(world, "Ada")
    world.apsis.account.lock_profile(EMAIL_KEYSPACE, "Ada@example.org")
    ended = world.sync()
    assert (ended.state, ended.results.merges) == ("finished", {"locked": 1})


def test_a_person_who_came_by_a_message_is_merged_by_the_next_full_sync(world: World) -> None:
    world.configure(merge_same_email=True)
    world.person("Zed")
    world.sync()
    form(world, "Ada")
    ada = world.person("Ada", NEWS_LABEL)
    deliver_message(world, ada)
    with world.open() as sync:
        apply_messages(sync)
    assert len(world.apsis.account.profiles()) == 3
    assert world.sync().results.merges == {"merged": 1}
    assert len(world.apsis.account.profiles()) == 2
    assert world.sync().results.merges == {}


@pytest.mark.slow
def test_a_merge_that_fails_leaves_the_others_in_the_report(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.configure(merge_same_email=True)
    for name in ("Ada", "Bo"):
        world.person(name)
        form(world, name)
    real, calls = ApsisClient.merge, []

    async def merge(client: ApsisClient, first: Any, second: Any) -> None:
        calls.append(first)
        if len(calls) == 1:
            await real(client, first, second)
            return
        await asyncio.sleep(0.2)
        raise ApsisUnavailable("HTTP 503", 503)

    with monkeypatch.context() as patch:
        patch.setattr(ApsisClient, "merge", merge)
        with pytest.raises(ApsisUnavailable):
            world.sync()
    ended = world.sync(resume=True)
    assert ended.results.merges == {"merged": 2}
    report = pq.read_table(world.home / "apsis" / "merges" / f"{ended.sync_id}.parquet")
    assert report["result"].to_pylist() == ["merged", "merged"]


@pytest.mark.slow
def test_a_locked_profile_stops_no_full_sync(world: World) -> None:
    ada, bo = world.person("Ada", NEWS_LABEL), world.person("Bo")
    world.sync()
    world.apsis.account.lock_profile(CRM_KEYSPACE, ada)
    world.edit(ada, FirstName="Adah")
    world.edit(bo, FirstName="Bodil")
    ended = world.sync()
    assert ended.results.updated == 1
    assert set(ended.results.failed) == {"APSIS 410"}
    world.clock.next_day()
    assert world.sync().results.failed == {}, "what was refused for good is not tried again"
