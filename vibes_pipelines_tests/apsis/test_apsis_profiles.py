"""Profiles, tags, definitions of APSIS One through the client, against the stand-in."""

from typing import Any

import pytest

from vibes_pipelines.apsis.client import ApsisClient
from vibes_pipelines.apsis.definitions import EMAIL_KEYSPACE, Definitions, Place, Wanted
from vibes_pipelines.apsis.errors import (
    ApsisConflict,
    ApsisError,
    ApsisForbidden,
    ApsisLocked,
    ApsisNotFound,
    ApsisSetupError,
    ValueRefused,
)
from vibes_pipelines.apsis.profiles import DeletionPermission, ProfileKey
from vibes_pipelines.sandbox.apsis_records import SECTION, Catalogue, Named
from vibes_pipelines.sandbox.apsis_service import ApsisSandbox
from vibes_pipelines.sandbox.apsis_switches import ApsisSwitches
from vibes_pipelines_tests.apsis.apsis_parts import (
    CRM_ID,
    EMAIL,
    EMAIL_CHANNEL,
    FIRST_NAME,
    LEAD,
    MEMBER,
    NEWS,
    PLACE,
    SCORE,
    SHOP,
    SMS_CHANNEL,
    TIER,
    fault,
    stand_in,
    talk,
)

ADA = {FIRST_NAME: "Ada", EMAIL: "ada@example.com"}


def values(box: ApsisSandbox, key: str = "C-1") -> Any:
    return dict(box.account.find(PLACE.keyspace, key).values(SECTION))


def crm_and_form(box: ApsisSandbox) -> tuple[ProfileKey, ProfileKey]:
    """The same e-mail address twice: a profile of the CRM, and one made by a form."""
    talk(box, lambda client: client.upsert("C-1", ADA))
    box.control.sign_up({"email": "ada@example.com"})
    return ProfileKey(PLACE.keyspace, "C-1"), ProfileKey(EMAIL_KEYSPACE, "ada@example.com")


def test_creating_twice_is_no_error_and_tells_which_was_first() -> None:
    with stand_in() as box:

        async def twice(client: ApsisClient) -> tuple[bool, bool]:
            return await client.create("C-1"), await client.create("C-1")

        assert talk(box, twice) == (True, False)
        assert values(box) == {CRM_ID: "C-1"}


def test_version_1_creates_a_missing_profile_and_version_2_does_not() -> None:
    with stand_in() as box:
        talk(box, lambda client: client.upsert("C-1", ADA))
        assert values(box) == {CRM_ID: "C-1", **ADA}
        with pytest.raises(ApsisNotFound, match="create the profile"):
            talk(box, lambda client: client.patch("C-2", ADA))
        assert len(box.account.profiles()) == 1


def test_null_clears_in_a_patch_and_is_refused_in_an_upsert() -> None:
    with stand_in() as box:
        talk(box, lambda client: client.upsert("C-1", {**ADA, SCORE: 7}))
        talk(box, lambda client: client.patch("C-1", {FIRST_NAME: None, SCORE: 8}))
        assert values(box) == {CRM_ID: "C-1", EMAIL: "ada@example.com", SCORE: 8}
        nothing: Any = {EMAIL: None}
        with pytest.raises(ValueRefused, match="patch"):
            talk(box, lambda client: client.upsert("C-1", nothing))


@pytest.mark.parametrize("names", ["version_ids", "discriminators"])
def test_a_profile_is_read_under_both_readings_of_its_names(names: Any) -> None:
    with stand_in(switches=ApsisSwitches(attribute_names=names)) as box:
        talk(box, lambda client: client.upsert("C-1", {**ADA, SCORE: 7}))
        read = talk(box, lambda client: client.profile("C-1"))
        assert read is not None
        assert read.attributes == {CRM_ID: "C-1", **ADA, SCORE: 7}
        assert talk(box, lambda client: client.profile("C-2")) is None


def test_the_same_write_again_has_no_effect() -> None:
    with stand_in() as box:
        for _ in range(3):
            talk(box, lambda client: client.upsert("C-1", ADA))
        audit = box.account.audit
        assert (audit.effects("attributes"), audit.repeats("attributes")) == (1, 2)


def test_an_attribute_that_the_keyspace_may_not_write_is_forbidden() -> None:
    with stand_in() as box:
        with pytest.raises(ApsisForbidden, match="write permission"):
            talk(box, lambda client: client.upsert("S-1", {TIER: "gold"}), SHOP)
        assert box.account.profiles() == []


def test_profiles_that_share_an_address_stay_apart() -> None:
    with stand_in() as box:
        crm_and_form(box)
        talk(box, lambda client: client.patch("C-1", {FIRST_NAME: "Ada L"}))
        assert len(box.account.profiles()) == 2


@pytest.mark.parametrize(("reading", "left"), [("conflict", 2), ("merge", 1)])
def test_an_address_that_is_the_key_of_another_profile(reading: Any, left: int) -> None:
    """A v2 patch under both readings: a typed refusal that changes nothing, or one profile."""
    switches = ApsisSwitches(key_of_another=reading, mapped_key="made")
    with stand_in(switches=switches) as box:
        talk(box, lambda client: client.create("C-1"))
        box.control.sign_up({"email": "ada@example.com"})
        if reading == "conflict":
            with pytest.raises(ApsisConflict):
                talk(box, lambda client: client.patch("C-1", ADA))
            assert values(box) == {CRM_ID: "C-1"}
        else:
            talk(box, lambda client: client.patch("C-1", ADA))
            assert values(box) == {CRM_ID: "C-1", **ADA}
        assert len(box.account.profiles()) == left


@pytest.mark.parametrize("wins", ["first", "second"])
@pytest.mark.parametrize("again", ["ok", "conflict"])
def test_merging_makes_one_profile_and_keeps_the_opt_out(wins: Any, again: Any) -> None:
    with stand_in(switches=ApsisSwitches(merge_wins=wins, merge_of_one=again)) as box:
        crm, form = crm_and_form(box)
        talk(box, lambda c: c.consent("C-1", NEWS, EMAIL_CHANNEL, "opt-in", "test"))
        out = {"topic_discriminator": NEWS, "channel_discriminator": EMAIL_CHANNEL}
        named = {"keyspace": EMAIL_KEYSPACE, "profile_key": "ada@example.com"}
        box.control.consent({**out, **named})
        talk(box, lambda client: client.merge(crm, form))
        consents = talk(box, lambda client: client.consents("C-1"))
        assert [consent.type for consent in consents or ()] == ["opt-out"]
        assert len(box.account.profiles()) == 1
        if again == "conflict":
            with pytest.raises(ApsisConflict):
                talk(box, lambda client: client.merge(form, crm))
        else:
            talk(box, lambda client: client.merge(form, crm))
        assert box.account.audit.effects("merge") == 1


def test_two_keys_of_one_keyspace_are_not_merged() -> None:
    with stand_in() as box:
        first, second = ProfileKey(PLACE.keyspace, "C-1"), ProfileKey(PLACE.keyspace, "C-2")
        with pytest.raises(ApsisConflict):
            talk(box, lambda client: client.merge(first, second))


def test_nothing_is_deleted_without_a_permission() -> None:
    with stand_in() as box:
        talk(box, lambda client: client.create("C-1"))
        with pytest.raises(ApsisError, match="permission"):
            talk(box, lambda client: client.delete("C-1", None))
        assert len(box.account.profiles()) == 1
    with pytest.raises(ValueError, match="reason"):
        DeletionPermission("an operator", " ")


def test_a_deletion_whose_answer_was_lost_is_still_one_deletion() -> None:
    permission = DeletionPermission("an operator", "the contact was deleted in the CRM")
    with stand_in() as box:
        talk(box, lambda client: client.create("C-1"))
        fault(box, "profiles/C-1$", "reset", when="after", times=1)
        assert talk(box, lambda client: client.delete("C-1", permission))
        assert box.account.audit.effects("profile_deleted") == 1
        assert not talk(box, lambda client: client.delete("C-1", permission))


def test_a_locked_profile_is_given_up_on() -> None:
    with stand_in() as box:
        talk(box, lambda client: client.create("C-1"))
        box.control.lock({"profile_key": "C-1"})
        for call in (
            lambda c: c.upsert("C-1", ADA),
            lambda c: c.profile("C-1"),
            lambda c: c.create("C-1"),
            lambda c: c.consent("C-1", NEWS, EMAIL_CHANNEL, "opt-out", "test"),
        ):
            with pytest.raises(ApsisLocked, match="locked for ever"):
                talk(box, call)


def test_no_call_of_the_client_locks() -> None:
    assert not [name for name in dir(ApsisClient) if "lock" in name.lower()]


@pytest.mark.parametrize("body", ["object", "items"])
def test_tags_are_set_read_and_taken_off(body: Any) -> None:
    with stand_in(switches=ApsisSwitches(tags_body=body)) as box:

        async def tagging(client: ApsisClient) -> list[frozenset[str]]:
            await client.create("C-1")
            seen = []
            await client.tag("C-1", MEMBER, LEAD)
            seen.append(await client.tags("C-1"))
            await client.untag("C-1", LEAD)
            await client.untag("C-1", LEAD)
            seen.append(await client.tags("C-1"))
            return [*seen, await client.tags("C-2")]

        assert talk(box, tagging) == [{MEMBER, LEAD}, {MEMBER}, frozenset()]
        assert (box.account.audit.effects("tags"), box.account.audit.repeats("tags")) == (2, 1)


def definitions(place: Place = PLACE) -> Definitions:
    with stand_in() as box:
        return talk(box, lambda client: client.definitions(), place)


def test_the_version_in_force_is_taken_and_never_the_deprecated_one() -> None:
    found = definitions()
    assert found.version_id(TIER) == "700006"
    assert "699999" not in found.discriminators


def test_a_mapping_is_checked_and_near_misses_are_named() -> None:
    found = definitions()
    good = Wanted([FIRST_NAME, TIER], [(NEWS, EMAIL_CHANNEL)], [MEMBER])
    assert found.check(good) == []
    wrong = Wanted(["Tier"], [(NEWS[:-1], "com.apsis1.channels.mail")], ["x"])
    with pytest.raises(ApsisSetupError) as refused:
        found.require(wrong)
    message = str(refused.value)
    for hint in (f"did you mean {TIER}", f"did you mean {NEWS}", f"mean {EMAIL_CHANNEL}", MEMBER):
        assert hint in message


@pytest.mark.parametrize(
    ("place", "finding"),
    [
        (Place("usercreated.sections.nowhere"), "no section"),
        (Place(SECTION, "com.apsis1.keyspaces.crmid"), "mean com.apsis1.keyspaces.crm-id"),
        (SHOP, "lacks manage_subscriptions"),
    ],
)
def test_a_place_is_checked_as_well(place: Place, finding: str) -> None:
    assert finding in "; ".join(definitions(place).check(Wanted(consents=[(NEWS, EMAIL_CHANNEL)])))


def test_a_channel_that_the_account_calls_otherwise_is_found_by_the_check() -> None:
    channels = (Named(EMAIL_CHANNEL, "Email"), Named("com.apsis1.channels.sms-text", "SMS"))
    with stand_in(catalogue=Catalogue(channels=channels)) as box:
        found = talk(box, lambda client: client.definitions())
    (finding,) = found.check(Wanted(consents=[(NEWS, SMS_CHANNEL)]))
    assert "did you mean com.apsis1.channels.sms-text" in finding


def test_a_wrong_section_is_named_before_its_attributes() -> None:
    with stand_in() as box, pytest.raises(ApsisSetupError, match="no section"):
        talk(box, lambda client: client.upsert("C-1", ADA), Place("usercreated.sections.x"))


def test_an_attribute_that_is_not_there_is_refused_before_anything_is_sent() -> None:
    with stand_in() as box:
        with pytest.raises(ApsisSetupError, match="no attribute"):
            talk(box, lambda client: client.upsert("C-1", {"com.apsis1.attributes.nope": "x"}))
        assert box.account.profiles() == []
