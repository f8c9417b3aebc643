"""Rules by which the stand-in platform merges, refuses, unsubscribes and counts."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vibes_pipelines.sandbox.platform import (
    CustomField,
    Person,
    PersonPatch,
    Platform,
    Subscription,
)
from vibes_pipelines.sandbox.platform_refusals import (
    ExternalPersonIdTakenError,
    IdentityConflictError,
    MdnTakenError,
    MdnWriteOnceError,
    NoCarrierError,
    NoIdentifierError,
    NotSubscribedError,
    PersonNotFoundError,
    RefusalError,
)
from vibes_pipelines_tests.sandbox.stand_in import (
    ADA_KEY,
    ADA_MDN,
    BEA_KEY,
    BEA_MDN,
    CAL_KEY,
    LANDLINE,
    NEW_MDN,
    OFFERS,
    TickingClock,
    build_platform,
)


@pytest.fixture
def platform() -> Platform:
    return build_platform()


def test_add_creates_a_person_that_is_found_by_every_identifier(platform: Platform) -> None:
    written = platform.add(PersonPatch("CRM-9", NEW_MDN, {"first_name": "Dee"}))
    person = written.person
    assert (written.created, person.carrier_code is not None) == (True, True)
    assert platform.find(person_key=person.person_key) is person
    assert platform.find(person_id=person.person_id) is person
    assert platform.find(external_person_id="CRM-9") is person
    assert platform.find(mdn=NEW_MDN) is person
    assert platform.subscriptions_of(person.person_key, active_only=False) == []


def test_the_same_calls_make_the_same_keys() -> None:
    def made(seed: int) -> list[str]:
        platform = build_platform(seed=seed)
        patches = [PersonPatch("X-1"), PersonPatch("X-2")]
        return [platform.add(patch).person.person_key for patch in patches]

    assert made(1) == made(1)
    assert set(made(1)).isdisjoint(made(2))


def test_add_with_a_known_mdn_updates_that_person_and_keeps_the_rest(platform: Platform) -> None:
    written = platform.add(PersonPatch(mdn=ADA_MDN, custom={"first_name": "Augusta"}))
    assert (written.person.person_key, written.created) == (ADA_KEY, False)
    assert written.person.external_person_id == "CRM-1"
    assert written.person.custom["tier"] == "gold"
    assert written.person.custom["first_name"] == "Augusta"


def test_add_with_a_known_external_id_updates_that_person(platform: Platform) -> None:
    written = platform.add(PersonPatch("CRM-3", NEW_MDN))
    assert (written.person.person_key, written.person.mdn) == (CAL_KEY, NEW_MDN)


def test_add_gives_an_external_id_to_the_person_who_has_none(platform: Platform) -> None:
    platform.add(PersonPatch("CRM-2", BEA_MDN), may_rename=False)
    assert platform.persons[BEA_KEY].external_person_id == "CRM-2"


def test_add_renames_a_person_found_by_mdn_only_under_that_reading() -> None:
    renaming, strict = build_platform(), build_platform()
    renaming.add(PersonPatch("CRM-7", ADA_MDN), may_rename=True)
    assert renaming.persons[ADA_KEY].external_person_id == "CRM-7"
    assert renaming.find(external_person_id="CRM-1") is None
    with pytest.raises(IdentityConflictError):
        strict.add(PersonPatch("CRM-7", ADA_MDN), may_rename=False)


def test_add_refuses_identifiers_of_two_persons(platform: Platform) -> None:
    with pytest.raises(IdentityConflictError):
        platform.add(PersonPatch("CRM-1", BEA_MDN))


@pytest.mark.parametrize("patch", [PersonPatch(), PersonPatch(None, None), PersonPatch(mdn=None)])
def test_add_needs_something_to_create_from(platform: Platform, patch: PersonPatch) -> None:
    with pytest.raises(NoIdentifierError):
        platform.add(patch)


def test_an_mdn_is_write_once_but_can_be_removed_and_set_again(platform: Platform) -> None:
    with pytest.raises(MdnWriteOnceError):
        platform.update(ADA_KEY, PersonPatch(mdn=NEW_MDN))
    platform.update(ADA_KEY, PersonPatch(mdn=None))
    assert platform.find(mdn=ADA_MDN) is None
    assert platform.persons[ADA_KEY].carrier_code is None
    platform.update(ADA_KEY, PersonPatch(mdn=NEW_MDN))
    assert platform.find(mdn=NEW_MDN) is platform.persons[ADA_KEY]


def test_add_cannot_change_an_mdn_either(platform: Platform) -> None:
    with pytest.raises(MdnWriteOnceError):
        platform.add(PersonPatch("CRM-1", NEW_MDN))


def test_removing_the_mdn_ends_the_subscriptions(platform: Platform) -> None:
    platform.update(ADA_KEY, PersonPatch(mdn=None))
    assert platform.subscriptions_of(ADA_KEY) == []
    platform.update(ADA_KEY, PersonPatch(mdn=NEW_MDN))
    assert platform.subscriptions_of(ADA_KEY) == [], "consent does not come back with a number"


@pytest.mark.parametrize(
    ("person_key", "patch", "refusal"),
    [
        (CAL_KEY, PersonPatch(mdn=ADA_MDN), MdnTakenError),
        (CAL_KEY, PersonPatch(mdn=LANDLINE), NoCarrierError),
        (BEA_KEY, PersonPatch("CRM-1"), ExternalPersonIdTakenError),
        ("nobody", PersonPatch("CRM-8"), PersonNotFoundError),
    ],
)
def test_a_refused_update_changes_nothing_and_counts_nothing(
    platform: Platform, person_key: str, patch: PersonPatch, refusal: type[RefusalError]
) -> None:
    before = repr(platform.persons)
    mixed = PersonPatch(patch.external_person_id, patch.mdn, {"first_name": "Eve"})
    with pytest.raises(refusal):
        platform.update(person_key, mixed)
    assert repr(platform.persons) == before
    assert (platform.audit.effects(), platform.audit.repeats()) == (0, 0)


def test_an_external_id_can_be_detached_and_then_belongs_to_nobody(platform: Platform) -> None:
    platform.update(ADA_KEY, PersonPatch(None))
    platform.update(BEA_KEY, PersonPatch("CRM-1"))
    assert platform.find(external_person_id="CRM-1") is platform.persons[BEA_KEY]


def test_upsert_creates_updates_and_takes_over_by_mdn(platform: Platform) -> None:
    assert platform.upsert("CRM-9", PersonPatch()).created
    assert not platform.upsert("CRM-9", PersonPatch(custom={"first_name": "Dee"})).created
    adopted = platform.upsert("CRM-2", PersonPatch(mdn=BEA_MDN))
    assert (adopted.person.person_key, adopted.created) == (BEA_KEY, False)


def test_upsert_creates_only_under_the_id_it_was_called_with(platform: Platform) -> None:
    with pytest.raises(ExternalPersonIdTakenError):
        platform.upsert("CRM-9", PersonPatch("CRM-10"))
    with pytest.raises(PersonNotFoundError):
        platform.upsert("CRM-9", PersonPatch(), may_create=False)


def test_unsubscribing_ends_the_active_stay_only(platform: Platform) -> None:
    ended = platform.unsubscribe(ADA_KEY, OFFERS.id)
    first, second = platform.subscriptions_of(ADA_KEY, active_only=False)
    assert first.opt_out_reason == "user_opt_out"
    assert (second, second.opt_out_reason) == (ended, "api_opt_out")
    assert platform.subscriptions_of(ADA_KEY) == []


def test_unsubscribing_again_is_refused_and_counted_as_a_repeat(platform: Platform) -> None:
    platform.unsubscribe(ADA_KEY, OFFERS.id)
    for _ in range(2):
        with pytest.raises(NotSubscribedError):
            platform.unsubscribe(ADA_KEY, OFFERS.id)
    assert platform.audit.effects("api_unsubscribe") == 1
    assert platform.audit.repeats("api_unsubscribe") == 2
    with pytest.raises(NotSubscribedError):
        platform.unsubscribe(CAL_KEY, OFFERS.id)
    assert platform.audit.repeats("api_unsubscribe") == 2, "nobody to repeat for"


def test_an_identical_write_is_a_repeat_and_leaves_no_trace(platform: Platform) -> None:
    patch = PersonPatch("CRM-1", ADA_MDN, {"tier": "silver", "interests": ()})
    platform.add(patch)
    stamped = platform.persons[ADA_KEY].updated_at
    platform.add(patch)
    platform.update(ADA_KEY, PersonPatch(custom={"interests": None}))
    assert platform.persons[ADA_KEY].updated_at == stamped
    counted = platform.audit.as_dict()
    assert counted["effects_by_person"] == {ADA_KEY: {"api_update": 1}}
    assert counted["repeats_by_person"] == {ADA_KEY: {"api_update": 2}}


def test_what_happens_on_the_platform_itself_is_no_effect_of_a_client(platform: Platform) -> None:
    at = datetime(2026, 1, 2, tzinfo=UTC)
    platform.edit(ADA_KEY, {"tier": None}, at)
    platform.subscribe(CAL_KEY, OFFERS.id, at)
    assert platform.opt_out(ADA_KEY, OFFERS.id, at)
    assert not platform.opt_out(BEA_KEY, OFFERS.id, at)
    assert (platform.audit.effects(), platform.persons[ADA_KEY].updated_at) == (0, at)
    assert [s.person_key for s in platform.subscriptions if s.is_active] == [CAL_KEY]


def test_loading_refuses_a_world_that_contradicts_itself(platform: Platform) -> None:
    at = datetime(2026, 1, 2, tzinfo=UTC)
    twins = [Person(str(n), str(n), None, NEW_MDN, None, {}, at, at) for n in range(2)]
    with pytest.raises(ValueError, match="share one mdn"):
        platform.load(twins, [])
    with pytest.raises(ValueError, match="unknown person"):
        platform.load(twins[:1], [Subscription("9", OFFERS.id, at)])


IDENTIFIERS = st.sampled_from(["CRM-1", "CRM-2", "CRM-3", None])
NUMBERS = st.sampled_from([ADA_MDN, BEA_MDN, NEW_MDN, LANDLINE, None])
PATCHES = st.builds(PersonPatch, IDENTIFIERS, NUMBERS) | st.builds(PersonPatch, IDENTIFIERS)


@given(
    st.lists(
        st.tuples(st.sampled_from(["add", "upsert", "update", "create"]), IDENTIFIERS, PATCHES)
    )
)
def test_identifiers_stay_unique_and_findable_whatever_is_called(
    calls: list[tuple[str, str | None, PersonPatch]],
) -> None:
    platform = Platform("K", (CustomField("a", "string"),), (OFFERS,), TickingClock())
    effects = 0
    for kind, external, patch in calls:
        before = repr(platform.persons)
        try:
            match kind:
                case "add":
                    platform.add(patch)
                case "create":
                    platform.create(patch)
                case "upsert":
                    platform.upsert(external or "CRM-1", patch)
                case _:
                    platform.update(next(iter(platform.persons), "nobody"), patch)
        except RefusalError:
            assert repr(platform.persons) == before
        effects += repr(platform.persons) != before
        for person in platform.persons.values():
            if person.external_person_id is not None:
                found = platform.find(external_person_id=person.external_person_id)
                assert found is person
            if person.mdn is not None:
                assert platform.find(mdn=person.mdn) is person
        held = [p.external_person_id for p in platform.persons.values() if p.external_person_id]
        assert {e for e in ("CRM-1", "CRM-2", "CRM-3") if platform.find(external_person_id=e)} == {
            *held
        }
    assert platform.audit.effects() == effects
