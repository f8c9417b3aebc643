"""Accidents with consent that happened to users of other tools, as histories: none happens here.

Each test is one history on both sides, in real time and over the daily job.
"""

from collections.abc import Iterator

import pytest

from vibes_pipelines.sandbox.platform_records import PersonPatch, Subscription
from vibes_pipelines.sandbox.population import build_world
from vibes_pipelines.stages.opt_outs import opt_out_clock
from vibes_pipelines_tests.support.loop import agreed_keys
from vibes_pipelines_tests.support.realtime import LIST, RealTime, running_real_time

WORLD = build_world(150, seed=5)
OUT, IN = {"false", "0", "n", "no"}, {"true", "1", "y", "yes"}


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealTime]:
    with running_real_time(tmp_path_factory.mktemp("real"), WORLD) as running:
        yield running


def stays(real: RealTime, key: str) -> list[Subscription]:
    """The active subscriptions of a contact's person."""
    return real.loop.sandbox.platform.subscriptions_of(real.person(key).person_key)


def crm_state(real: RealTime, key: str) -> str:
    return str(real.contact(key, "sms_opt_in")[0]).lower()


@pytest.fixture(scope="module")
def subscribed(real: RealTime) -> Iterator[str]:
    """Contacts that both sides have as subscribed, each given to one history."""
    platform = real.loop.sandbox.platform
    keys = [k for k in agreed_keys(WORLD) if platform.find(external_person_id=k)]
    return iter([k for k in keys if stays(real, k) and crm_state(real, k) in IN])


@pytest.fixture(scope="module")
def never_asked(real: RealTime) -> Iterator[str]:
    """Contacts whose person never had a subscription."""
    platform = real.loop.sandbox.platform
    keys = [k for k in agreed_keys(WORLD) if platform.find(external_person_id=k)]
    found = [
        k
        for k in keys
        if not platform.subscriptions_of(real.person(k).person_key, active_only=False)
    ]
    return iter(found)


def whole_day(real: RealTime) -> None:
    real.loop.sandbox.next_day(edits=False)
    real.loop.day(approve=True)


def everyone_subscribed(real: RealTime) -> set[tuple[str, str]]:
    platform = real.loop.sandbox.platform
    return {(s.person_key, s.list_id) for s in platform.subscriptions if s.is_active}


@pytest.mark.slow
def test_1_a_resync_subscribes_nobody_who_was_never_asked(
    real: RealTime, never_asked: Iterator[str]
) -> None:
    key, before = next(never_asked), everyone_subscribed(real)
    real.edit(key, sms_opt_in="true", sms_opt_in_at="2026-05-30 08:00:00", first_name="Archie")
    real.carry()
    whole_day(real)
    assert everyone_subscribed(real) == before
    assert real.person(key).custom["first_name"] == "Archie"


@pytest.mark.slow
def test_2_an_opt_out_that_reached_one_side_reaches_the_other_before_any_resync(
    real: RealTime, subscribed: Iterator[str]
) -> None:
    key = next(subscribed)
    with real.hearing("subscription_removed"):
        assert real.loop.sandbox.text("stop", {"external_person_id": key}, LIST)
    # The CRM still says yes, and is resynchronised before the callback was acted on.
    real.edit(key, first_name="Resynced")
    real.carry()
    assert stays(real, key) == []
    whole_day(real)
    assert stays(real, key) == []
    real.drain()
    assert crm_state(real, key) in OUT
    whole_day(real)
    assert stays(real, key) == []
    assert crm_state(real, key) in OUT


@pytest.mark.parametrize("written", [None, "archived"])
def test_3_a_value_that_is_no_consent_changes_none(
    real: RealTime, subscribed: Iterator[str], written: str | None
) -> None:
    key, before = next(subscribed), everyone_subscribed(real)
    real.edit(key, sms_opt_in=written, sms_opt_in_at="2026-05-30 08:00:00")
    real.carry()
    assert everyone_subscribed(real) == before
    assert real.contact(key, "sms_opt_in") == (written,)


def test_4_an_update_of_fields_resets_no_consent_and_no_other_field(
    real: RealTime, subscribed: Iterator[str]
) -> None:
    key = next(subscribed)
    with real.hearing("subscription_removed"):
        assert real.loop.sandbox.text("stop", {"external_person_id": key}, LIST)
    real.drain()
    before = dict(real.person(key).custom)
    real.edit(key, last_name="Onlythis")
    real.carry()
    assert stays(real, key) == []
    assert real.person(key).custom == before | {"last_name": "Onlythis"}
    assert crm_state(real, key) in OUT


@pytest.mark.slow
def test_5_two_systems_that_hear_each_other_come_to_rest(
    real: RealTime, subscribed: Iterator[str]
) -> None:
    key = next(subscribed)
    before = everyone_subscribed(real)
    for name in ("Ping", "Pong"):
        with real.hearing("person_updated"):
            real.edit(key, first_name=name)
            real.carry()
        real.drain()
    rows, log = len(real.rows()), len(real.loop.sandbox.audit_log("request", 10_000))
    # Nothing is left to say on either side, however often both are asked.
    for waiting in (real.drain, real.carry):
        with pytest.raises(AssertionError, match=r"no callback waits|no change of the CRM waits"):
            waiting()
    assert len(real.rows()) == rows
    assert len(real.loop.sandbox.audit_log("request", 10_000)) == log
    assert everyone_subscribed(real) == before
    assert real.person(key).custom["first_name"] == "Pong"


def test_6_it_can_be_shown_that_both_sides_agree(real: RealTime, subscribed: Iterator[str]) -> None:
    key = next(subscribed)
    with real.hearing("subscription_removed"):
        assert real.loop.sandbox.text("stop", {"external_person_id": key}, LIST)
    assert opt_out_clock(real.project).open == {"to_crm": 1}
    real.drain()
    assert opt_out_clock(real.project).open == {}
    whole_day(real)
    assert opt_out_clock(real.project).open == {}


@pytest.mark.slow
def test_7_who_is_absent_from_the_crm_is_not_unsubscribed(
    real: RealTime, subscribed: Iterator[str]
) -> None:
    key, before = next(subscribed), everyone_subscribed(real)
    real.crm("DELETE FROM contacts WHERE contact_id = ?", key)
    real.edit(next(subscribed), first_name="Other")
    real.carry()
    whole_day(real)
    assert everyone_subscribed(real) == before


def test_20_an_opt_out_does_not_stay_behind_with_a_changed_number(
    real: RealTime, subscribed: Iterator[str]
) -> None:
    key, mdn = next(subscribed), "+13125550300"
    with real.hearing("subscription_removed"):
        assert real.loop.sandbox.text("stop", {"external_person_id": key}, LIST)
    real.drain()
    # The contact gets another number, under which the platform knows a person that is subscribed.
    platform = real.loop.sandbox.platform
    holder = platform.add(PersonPatch(mdn=mdn)).person
    platform.subscribe(holder.person_key, LIST, real.loop.sandbox.now())
    real.edit(key, mobile=mdn)
    real.carry()
    whole_day(real)
    assert crm_state(real, key) in OUT  # the opt-out belongs to the contact, not to the number
    assert stays(real, key) == []
    # And the consent of the number's holder, who is somebody else until shown otherwise, stands.
    assert [s.list_id for s in platform.subscriptions_of(holder.person_key)] == [LIST]
