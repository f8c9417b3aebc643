"""The scenarios of the Vibes Data Syncing Guide, one test for each row of its table.

Each goes through the sandbox's API and handsets, real callbacks, the sensors and their jobs, and
the CRM's database.
"""

import asyncio
import json
from collections.abc import Iterator

import pytest

from vibes_pipelines.sandbox.platform_records import PersonPatch
from vibes_pipelines.sandbox.population import build_world
from vibes_pipelines.stages.api import vibes_api
from vibes_pipelines.store.realtime import RealtimeBook
from vibes_pipelines_tests.support.loop import agreed_keys
from vibes_pipelines_tests.support.realtime import LIST, RealTime, running_real_time

WORLD = build_world(150, seed=3)
FREE_NUMBERS = [f"+1312555{n:04d}" for n in range(200, 240)]


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealTime]:
    with running_real_time(
        tmp_path_factory.mktemp("real"),
        WORLD,
        (
            "to: tier,       type: single_select",
            "to: tier,  authority: platform, type: single_select",
        ),
    ) as running:
        yield running


@pytest.fixture(scope="module")
def keys(real: RealTime) -> Iterator[str]:
    """Contacts that both sides agree on, that are subscribed, each given to one test."""
    platform = real.loop.sandbox.platform
    found = []
    for key in agreed_keys(WORLD):
        person = platform.find(external_person_id=key)
        if person and person.mdn and platform.subscriptions_of(person.person_key):
            state = str(real.contact(key, "sms_opt_in")[0]).lower()
            if state in {"true", "1", "y", "yes"}:
                found.append(key)
    return iter(found)


def test_a_new_subscriber_has_been_added_to_the_vibes_platform(real: RealTime) -> None:
    platform = real.loop.sandbox.platform
    key = next(
        key
        for key in agreed_keys(WORLD)
        if (person := platform.find(external_person_id=key))
        and person.mdn
        and not platform.subscriptions_of(person.person_key, active_only=False)
    )
    consent = real.contact(key, "sms_opt_in", "sms_opt_in_at")
    with real.hearing("subscription_added"):
        platform.subscribe(real.person(key).person_key, LIST, real.loop.sandbox.now())
    real.drain()
    assert real.facts(key) == {("subscription", LIST, "subscribed")}
    assert real.contact(key, "sms_opt_in", "sms_opt_in_at") == consent  # a fact is no consent
    assert real.rows("subscription_added")[-1]["reason"] == "noted"


@pytest.mark.slow
def test_a_person_has_been_updated_in_your_crm_by_external_person_id(
    real: RealTime, keys: Iterator[str]
) -> None:
    key = next(keys)
    real.edit(key, first_name="Zora", zip="60601")
    with real.hearing("person_updated"):
        real.carry()
    person = real.person(key)
    assert (person.custom["first_name"], person.custom["zip_code"]) == ("Zora", "60601")
    # What the platform tells of our own write does not travel again.
    real.drain()
    assert real.rows("person_updated")[-1]["reason"] == "echo"
    assert real.contact(key, "first_name", "zip") == ("Zora", "60601")
    writes = real.loop.sandbox.audit()
    with real.hearing("person_updated"):
        real.edit(key, first_name="Zoraida")
        real.carry()
    assert real.person(key).custom["first_name"] == "Zoraida"
    assert writes != real.loop.sandbox.audit()


def test_a_person_has_been_updated_in_your_crm_and_only_the_mdn_is_known(real: RealTime) -> None:
    platform, mdn = real.loop.sandbox.platform, FREE_NUMBERS[0]
    person = platform.add(PersonPatch(mdn=mdn)).person
    real.enter("C900001", mobile=mdn, first_name="Ada", tier=None)
    real.carry()
    adopted = real.person("C900001")
    assert adopted.person_key == person.person_key
    assert (adopted.mdn, adopted.custom["first_name"]) == (mdn, "Ada")


def test_a_new_person_has_been_added_in_your_crm(real: RealTime) -> None:
    real.enter("C900002", mobile=FREE_NUMBERS[1], first_name="Ben")
    with real.hearing("person_added"):
        real.carry()
    person = real.person("C900002")
    assert (person.mdn, person.custom["first_name"]) == (FREE_NUMBERS[1], "Ben")
    assert real.loop.sandbox.platform.subscriptions_of(person.person_key, active_only=False) == []


def test_a_person_has_unsubscribed_to_a_vibes_list(real: RealTime, keys: Iterator[str]) -> None:
    key = next(keys)
    with real.hearing("subscription_removed"):
        assert real.loop.sandbox.text("stop", {"external_person_id": key}, LIST)
    real.drain()
    assert str(real.contact(key, "sms_opt_in")[0]).lower() in {"false", "0", "n", "no"}
    assert ("subscription", LIST, "unsubscribed") in real.facts(key)


def test_a_person_has_unsubscribed_in_your_crm(real: RealTime, keys: Iterator[str]) -> None:
    key = next(keys)
    person_key = real.person(key).person_key
    with real.hearing("subscription_removed"):
        real.edit(key, sms_opt_in="false", sms_opt_in_at="2026-05-31 12:00:00")
        real.carry()
    assert real.loop.sandbox.platform.subscriptions_of(person_key) == []
    consent = real.contact(key, "sms_opt_in", "sms_opt_in_at")
    real.drain()
    assert real.rows("subscription_removed")[-1]["reason"] == "echo"
    assert real.contact(key, "sms_opt_in", "sms_opt_in_at") == consent


def test_a_person_has_subscribed_via_a_webpage(real: RealTime) -> None:
    key, mdn = "C900003", FREE_NUMBERS[2]
    real.enter(key, mobile=mdn, first_name="Cleo")
    real.carry()

    form = json.dumps({"mdn": mdn, "name": "Cleo"}).encode()
    with real.hearing("ack_participant_added"):
        status, answer = real.served.request("POST", "/signup", form)
    assert (status, json.loads(answer)["result"]) == (201, "confirm")
    real.drain()
    assert real.facts(key) == {("participation", "777", "pending")}
    with real.hearing("subscription_added"), real.hearing("ack_participant_changed"):
        real.loop.sandbox.act(
            "texts/reply", {"campaign_id": "777", "word": "Y", "external_person_id": key}
        )
    real.drain()
    assert real.facts(key) == {
        ("participation", "777", "confirmed"),
        ("subscription", LIST, "subscribed"),
    }


def test_an_end_user_has_installed_a_wallet_item(real: RealTime, keys: Iterator[str]) -> None:
    key = next(keys)
    with real.hearing("wallet_item_install"):
        real.loop.sandbox.act(
            "wallet/install", {"token": "r3zhm8", "uuid": key, "provider": "google_wallet"}
        )
    real.drain()
    assert ("wallet_item", f"r3zhm8/{key}", "installed") in real.facts(key)
    with real.hearing("wallet_item_remove"):
        real.loop.sandbox.act("wallet/remove", {"token": "r3zhm8", "uuid": key})
    real.drain()
    assert ("wallet_item", f"r3zhm8/{key}", "removed") in real.facts(key)


def test_a_new_push_enabled_device_is_added_to_a_person_record(
    real: RealTime, keys: Iterator[str]
) -> None:
    key = next(keys)
    opened = real.loop.sandbox.act("devices/open-app", {"app_id": "APP1", "os": "IOS"})
    device = str(opened["vibes_device_id"])

    async def link() -> str:
        async with vibes_api(real.project) as api:
            answer = await api.push.assign("APP1", device, external_person_id=key)
            return answer.outcome

    with real.hearing("device_added"):
        assert asyncio.run(link()) == "accepted"
    real.drain()
    assert ("device", f"APP1/{device}", "active") in real.facts(key)


@pytest.mark.slow
def test_you_are_adding_a_list_of_subscribers_collected_outside_of_the_vibes_system(
    real: RealTime,
) -> None:
    new = {f"C9100{n:02d}": FREE_NUMBERS[10 + n] for n in range(8)}
    for key, mdn in new.items():
        real.enter(key, mobile=mdn, first_name="Dana", sms_opt_in="true")
    real.carry()  # more than contacts.changes.max_batch
    assert all(real.loop.sandbox.platform.find(external_person_id=key) is None for key in new)
    with RealtimeBook(real.project.settings.ledger_url) as book:
        assert not book.newest(list(new))
    real.loop.sandbox.next_day(edits=False)
    with real.hearing("person_added", len(new)):
        real.loop.day(approve=True)
    platform = real.loop.sandbox.platform
    for key, mdn in new.items():
        assert real.person(key).mdn == mdn
        # A file does not take them through the acquisition flow, and creates no consent.
        assert platform.subscriptions_of(real.person(key).person_key, active_only=False) == []
    real.drain()
    assert {str(real.contact(key, "sms_opt_in")[0]) for key in new} == {"true"}


def test_a_person_has_been_updated_on_the_vibes_platform(
    real: RealTime, keys: Iterator[str]
) -> None:
    """Not a row of the guide, its way back: fields go by their authority."""
    key = next(keys)
    person = real.person(key)
    before = real.contact(key, "first_name")
    tier = "gold" if person.custom.get("tier") != "gold" else "silver"
    with real.hearing("person_updated"):
        real.loop.sandbox.platform.edit(
            person.person_key, {"tier": tier, "first_name": "Drift"}, real.loop.sandbox.now()
        )
    real.drain()
    assert real.rows("person_updated")[-1]["reason"] == "fields_written"
    assert real.contact(key, "tier") == (tier.capitalize(),)  # authority: platform
    assert real.contact(key, "first_name") == before  # authority: crm
