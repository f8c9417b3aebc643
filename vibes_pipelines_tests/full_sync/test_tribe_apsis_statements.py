"""Every statement of the vendor's page on the Tribe integration, each as a test of its own.

The page is APSIS One's help: "Tribe: Sync Contacts and Profile Data". Both sides are stand-ins over
real HTTP; syncs are the plain functions that the Dagster assets call. Statements that take several
full syncs each are marked slow.
"""

import pyarrow.parquet as pq
import pytest

from vibes_pipelines.apsis.errors import ApsisSetupError
from vibes_pipelines.sandbox.apsis_records import SMS_CHANNEL
from vibes_pipelines.stages.apsis_overviews import carry_overview
from vibes_pipelines.stages.full_sync import cancel, full_sync, full_syncs
from vibes_pipelines.stages.full_sync_need import full_sync_need
from vibes_pipelines.stages.tribe_messages import apply_messages
from vibes_pipelines_tests.apsis.apsis_parts import fault
from vibes_pipelines_tests.full_sync.sync_parts import (
    COUNTRY,
    EMAIL,
    FIRST_NAME,
    MEMBER,
    NEWS,
    NEWS_SMS_LABEL,
    Agreed,
    World,
    deliver_message,
)
from vibes_pipelines_tests.full_sync.sync_parts import NEWS_LABEL as NEWSLETTER

CONDITION = {"column": "Initials", "equals": "A"}


def apply(world: World) -> None:
    """What the sensor has done."""
    with world.open() as sync:
        apply_messages(sync)


class TestSyncConditions:
    def test_only_contacts_that_meet_every_condition_are_synced(self, world: World) -> None:
        both = [CONDITION, {"column": "Title", "equals": "Dr"}]
        world.configure(conditions=both)
        ada = world.person("Ada", Initials="A", Title="Dr")
        bo = world.person("Bo", Initials="A")
        ended = world.sync()
        assert (ended.results.created, ended.results.skipped) == (1, 1)
        assert world.profile(ada) is not None
        assert world.profile(bo) is None

    @pytest.mark.slow
    def test_a_profile_whose_contact_matches_no_more_is_neither_updated_nor_deleted(
        self, world: World
    ) -> None:
        world.configure(conditions=[CONDITION])
        ada = world.person("Ada", NEWSLETTER, Initials="A")
        world.sync()
        world.edit(ada, Initials="B", FirstName="Adah")
        world.clock.next_day()
        ended = world.sync()
        assert ended.results.skipped == 1
        profile = world.profile(ada)
        assert profile is not None
        assert profile[FIRST_NAME] == "Ada"
        assert world.consent(ada) == "opt-in"

    @pytest.mark.slow
    def test_the_switch_deletes_them_only_after_an_approval_and_within_its_cap(
        self, world: World
    ) -> None:
        guards = {**world.section["guards"], "deletes": {"max_rows": 1, "max_share": None}}
        world.configure(conditions=[CONDITION], when_unmatched="delete", guards=guards)
        ada, bo = (world.person(name, Initials="A") for name in ("Ada", "Bo"))
        world.sync()
        world.sync()  # only who was seen there, in agreement, can be deleted
        world.edit(ada, Initials="B")
        world.clock.next_day()
        with world.open() as sync:
            held = full_sync(sync)
            assert held.state == "held"
            assert "gone for ever" in held.results.held["deletes"]
            assert world.profile(ada) is not None
            world.approve(sync)
            assert full_sync(sync, resume=True).results.deleted == 1
        assert world.profile(ada) is None
        assert world.profile(bo) is not None


class TestFieldMapping:
    def test_email_and_id_are_mapped_automatically(self, world: World) -> None:
        world.configure(fields=[], consents=[])
        ada = world.person("Ada")
        world.sync()
        assert world.profile(ada) == {
            EMAIL: "Ada@example.org",
            "com.apsis1.attributes.crmid": ada,
        }

    @pytest.mark.slow
    def test_mapped_fields_are_carried_and_a_blank_one_clears_nothing(self, world: World) -> None:
        world.configure(
            fields=[
                {"from": "FirstName", "to": FIRST_NAME},
                {"from": "Title", "to": COUNTRY, "type": "country"},
            ]
        )
        ada = world.person("Ada", Title="se")
        world.sync()
        world.edit(ada, Title=None, FirstName="Adah")
        world.sync()
        profile = world.profile(ada)
        assert profile is not None
        assert (profile[COUNTRY], profile[FIRST_NAME]) == ("SE", "Adah")

    def test_a_mapping_that_the_account_does_not_have_is_told_before_anything_is_written(
        self, world: World
    ) -> None:
        world.configure(fields=[{"from": "FirstName", "to": "com.apsis1.attributes.firstnam"}])
        world.person("Ada")
        with world.open() as sync:
            with pytest.raises(ApsisSetupError, match=r"attributes\.firstname"):
                full_sync(sync)
            assert full_syncs(sync)[0].state == "failed"
        assert world.apsis.account.profiles() == []


class TestConsentMapping:
    def test_a_label_is_consent_on_the_channel_that_it_is_mapped_to_and_no_other(
        self, world: World
    ) -> None:
        ada = world.person("Ada", NEWSLETTER)
        bo = world.person("Bo", NEWSLETTER, NEWS_SMS_LABEL)
        nobody = world.person("Cai")
        world.sync()
        assert (world.consent(ada), world.consent(ada, SMS_CHANNEL)) == ("opt-in", None)
        assert (world.consent(bo), world.consent(bo, SMS_CHANNEL)) == ("opt-in", "opt-in")
        assert world.consent(nobody) is None, "who never had the label gets no opt-out either"

    @pytest.mark.slow
    def test_both_ways_an_opt_out_goes_and_an_opt_in_comes_from_tribe_only(
        self, agreed: Agreed
    ) -> None:
        world = agreed.world
        ada, bo, cai = (agreed.people[name] for name in ("Ada", "Bo", "Flo"))
        world.unlabel(ada)
        world.at_apsis(bo, "opt-out")
        world.at_apsis(cai, "opt-in")
        ended = world.sync()
        assert (ended.results.opted_out, ended.results.labels_removed) == (1, 1)
        assert world.consent(ada) == "opt-out"
        assert world.labels(bo) == set()
        assert world.labels(cai) == {"VIP"}, "an opt-in made at APSIS One is not written to Tribe"
        assert world.consent(cai) == "opt-in", "and is not Tribe's to end"
        world.label(bo)
        assert world.sync().results.opted_in == 1, "a label of later is newer evidence"
        assert world.consent(bo) == "opt-in"

    def test_an_opt_out_made_there_wins_over_a_label_when_nobody_can_tell_which_came_first(
        self, agreed: Agreed
    ) -> None:
        world, gus = agreed.world, agreed.people["Gus"]
        world.at_apsis(gus, "opt-in")
        world.label(gus)
        world.at_apsis(gus, "opt-out")
        world.sync()
        assert world.consent(gus) == "opt-out"
        assert world.labels(gus) == set()

    @pytest.mark.slow
    def test_consent_goes_with_a_new_address_unless_it_is_to_end(self, world: World) -> None:
        ada = world.person("Ada", NEWSLETTER)
        world.sync()
        world.edit(ada, EmailAddress="ada@example.com")
        world.sync()
        assert world.consent(ada) == "opt-in"
        world.configure(when_address_changes="opt_out")
        world.edit(ada, EmailAddress="Ada@Example.com")
        world.sync()
        assert world.consent(ada) == "opt-in"
        world.edit(ada, EmailAddress="ada@example.net")
        world.sync()
        assert world.consent(ada) == "opt-out"


class TestRealTimeAndFullSync:
    def test_a_message_updates_existing_profiles_and_creates_new_ones(self, agreed: Agreed) -> None:
        world, ada = agreed.world, agreed.people["Cai"]
        world.edit(ada, FirstName="Adah")
        bo = world.person("Bo", NEWSLETTER)
        deliver_message(world, ada, bo)
        apply(world)
        assert (world.profile(ada) or {})[FIRST_NAME] == "Adah"
        assert world.consent(bo) == "opt-in"

    def test_messages_of_a_full_sync_are_applied_after_it_in_order(self, agreed: Agreed) -> None:
        world, dee = agreed.world, agreed.people["Dee"]
        seen: list[str | None] = []

        def meanwhile(line: str) -> None:
            if line.endswith(": write"):
                world.edit(dee, FirstName="Deedee")
                deliver_message(world, dee)
                apply(world)
                seen.append((world.profile(dee) or {}).get(FIRST_NAME))

        with world.open() as sync:
            ended = full_sync(sync, tell=meanwhile)
        assert seen == ["Dee"], "it waited"
        assert ended.messages is not None
        assert ended.messages.messages == 1
        assert (world.profile(dee) or {})[FIRST_NAME] == "Deedee"

    @pytest.mark.slow
    def test_new_contacts_come_with_the_daily_sync_without_any_message(self, world: World) -> None:
        world.person("Ada")
        world.sync()
        bo = world.person("Bo")
        world.clock.next_day()
        assert world.sync().results.created == 1
        assert world.profile(bo) is not None

    @pytest.mark.slow
    def test_a_second_full_sync_of_unchanged_data_writes_nothing(self, world: World) -> None:
        for name in ("Ada", "Bo", "Cai"):
            world.person(name, NEWSLETTER)
        world.sync()
        before = world.writes()
        ended = world.sync()
        assert (ended.results.unchanged, world.writes()) == (3, before)

    @pytest.mark.slow
    def test_cancel_keeps_what_was_written_and_drains_the_messages(self, world: World) -> None:
        people = [world.person(f"Ada{number}") for number in range(3)]
        world.sync()
        for person in people:
            world.edit(person, FirstName="Changed")

        def stop(line: str) -> None:
            if line.endswith(": write"):
                deliver_message(world, people[0])
                with world.open() as other:
                    assert cancel(other, "the wrong mapping") is not None

        with world.open() as sync:
            ended = full_sync(sync, tell=stop)
            assert (ended.state, ended.reason) == ("cancelled", "the wrong mapping")
            assert (world.profile(people[0]) or {})[FIRST_NAME] == "Changed", "the message is in"
            assert full_syncs(sync)[0].state == "cancelled"
            resumed = full_sync(sync, resume=True)
        assert resumed.state == "finished"
        assert [(world.profile(one) or {})[FIRST_NAME] for one in people] == ["Changed"] * 3

    def test_the_results_count_what_failed_with_its_reason(self, world: World) -> None:
        ada, bo = world.person("Ada", EmailAddress="no address"), world.person("Bo")
        fault(world.apsis, f"profiles/{bo}", status=400)
        results = world.sync().results
        assert (results.created, results.failed) == (1, {"APSIS 400": 1})
        assert (results.values_left_out, results.profiles_unread) == (1, 1)
        assert EMAIL not in (world.profile(ada) or {})


class TestMerging:
    @pytest.mark.slow
    def test_profiles_with_one_address_stay_apart_unless_the_switch_merges_them(
        self, world: World
    ) -> None:
        ada, twin = world.person("Ada"), world.person("Twin", EmailAddress="Shared@example.org")
        world.person("Other", EmailAddress="shared@example.org")
        for address in ("Ada@example.org", "Shared@example.org"):
            world.apsis.control.sign_up({"email": address})
        world.sync()
        assert len(world.apsis.account.profiles()) == 5
        world.configure(merge_same_email=True)
        world.edit(ada, EmailAddress="ada@example.net")
        world.edit(twin, FirstName="Twine")
        world.apsis.control.sign_up({"email": "ada@example.net"})
        ended = world.sync()
        assert ended.results.merges == {"merged": 1}
        assert len(world.apsis.account.profiles()) == 5, "six, and two became one"
        report = pq.read_table(world.home / "apsis" / "merges" / f"{ended.sync_id}.parquet")
        assert report.to_pylist()[0]["profile"] == ada
        assert "same e-mail address" in report.to_pylist()[0]["evidence"]


class TestWhenAFullSyncIsNeeded:
    def test_the_first_time_and_after_a_changed_mapping_and_not_otherwise(
        self, world: World
    ) -> None:
        world.person("Ada", NEWSLETTER)

        def need() -> tuple[bool, str]:
            with world.open() as sync:
                found = full_sync_need(sync)
            return found.is_needed, found.sentence

        assert need()[0]
        world.sync()
        assert not need()[0]
        world.configure(conditions=[CONDITION])
        assert need() == (False, need()[1])
        assert "no full sync is needed" in need()[1]
        world.configure(overviews=[{"name": "VIP", "members": "label:VIP", "tag": MEMBER}])
        assert not need()[0]
        world.configure(fields=[])
        assert "field mapping" in need()[1]
        assert need()[0]
        world.configure(consents=[{"from": f"label:{NEWSLETTER}", "topic": NEWS}])
        assert "consent mapping" in need()[1]

    @pytest.mark.slow
    def test_messages_wait_for_the_full_sync_that_a_changed_mapping_needs(
        self, world: World
    ) -> None:
        ada = world.person("Ada")
        world.sync()
        world.configure(fields=[])
        deliver_message(world, ada)
        with world.open() as sync:
            applied = apply_messages(sync)
        assert applied.waiting == 1
        assert "mapped otherwise" in applied.sentence


class TestOverviews:
    @pytest.mark.slow
    def test_they_become_tags_by_hand_and_a_full_sync_leaves_them_alone(self, world: World) -> None:
        world.configure(overviews=[{"name": "VIP", "members": "label:VIP", "tag": MEMBER}])
        ada, bo = world.person("Ada", "VIP"), world.person("Bo")
        world.sync()
        assert world.tags(ada) == set()
        with world.open() as sync:
            assert carry_overview(sync, "VIP").tagged == 1
        assert (world.tags(ada), world.tags(bo)) == ({MEMBER}, set())
        world.unlabel(ada, "VIP")
        world.label(bo, "VIP")
        world.sync()
        assert (world.tags(ada), world.tags(bo)) == ({MEMBER}, set())
        with world.open() as sync:
            carry_overview(sync, "VIP")
        assert (world.tags(ada), world.tags(bo)) == (set(), {MEMBER})
