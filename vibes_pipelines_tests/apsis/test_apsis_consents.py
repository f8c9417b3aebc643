"""Consents of APSIS One, per topic and channel: outcomes, refused transitions, lost answers."""

from typing import Any

import pytest

from vibes_pipelines.apsis.client import ApsisClient
from vibes_pipelines.apsis.consents import CONSENT_TYPES, ConsentOutcome, SettableType
from vibes_pipelines.apsis.errors import (
    ApsisError,
    ApsisForbidden,
    ApsisNotFound,
    ApsisUnavailable,
    ConsentRefused,
)
from vibes_pipelines.sandbox.apsis_records import ConsentType
from vibes_pipelines.sandbox.apsis_service import ApsisSandbox
from vibes_pipelines.sandbox.apsis_switches import ApsisSwitches
from vibes_pipelines_tests.apsis.apsis_parts import (
    EMAIL_CHANNEL,
    NEWS,
    OFFERS,
    SHOP,
    SMS_CHANNEL,
    fault,
    requests,
    stand_in,
    talk,
)

CREATED, UPDATED, UNCHANGED = ConsentOutcome


def give(consent_type: SettableType, topic: str = NEWS, channel: str = EMAIL_CHANNEL) -> Any:
    return lambda c: c.consent("C-1", topic, channel, consent_type, "label in the CRM")


def begin(box: ApsisSandbox, state: ConsentType | None) -> None:
    """A profile with this consent, as its recipient has left it."""
    talk(box, lambda client: client.create("C-1"))
    if state:
        named = {"topic_discriminator": NEWS, "channel_discriminator": EMAIL_CHANNEL}
        box.control.consent({"profile_key": "C-1", "type": state, **named})


def now(box: ApsisSandbox) -> dict[tuple[str, str], str]:
    consents = talk(box, lambda client: client.consents("C-1"))
    return {(consent.topic, consent.channel): consent.type for consent in consents or ()}


@pytest.mark.parametrize("repeated", ["conflict", "ok"])
@pytest.mark.parametrize("items", ["typed", "untyped"])
@pytest.mark.parametrize(
    ("state", "wanted", "outcome"),
    [
        (None, "opt-in", CREATED),
        (None, "opt-out", CREATED),
        ("opt-in", "opt-in", UNCHANGED),
        ("opt-in", "opt-out", UPDATED),
        ("opt-out", "opt-out", UNCHANGED),
        ("opt-out", "opt-in", UPDATED),
        ("confirmed-opt-in", "opt-in", UNCHANGED),
        ("confirmed-opt-in", "opt-out", UPDATED),
        ("pending-opt-in", "opt-out", UPDATED),
    ],
)
def test_a_transition_means_the_same_under_both_pages(
    state: Any, wanted: SettableType, outcome: ConsentOutcome, repeated: Any, items: Any
) -> None:
    switches = ApsisSwitches(repeated_consent=repeated, consent_items=items)
    with stand_in(switches=switches) as box:
        begin(box, state)
        assert talk(box, give(wanted)) is outcome
        kept = state if outcome is UNCHANGED else wanted
        assert now(box) == {(NEWS, EMAIL_CHANNEL): kept}


@pytest.mark.parametrize("state", ["pending-opt-in", "opt-out"])
def test_a_transition_that_is_not_supported_is_refused_with_what_is_there(state: Any) -> None:
    with stand_in(switches=ApsisSwitches(opt_in_after_opt_out="conflict")) as box:
        begin(box, state)
        with pytest.raises(ConsentRefused, match=f"it is {state}; ") as refused:
            talk(box, give("opt-in"))
        assert (refused.value.current, refused.value.wanted) == (state, "opt-in")
        assert now(box) == {(NEWS, EMAIL_CHANNEL): state}


def test_topics_and_channels_are_apart() -> None:
    with stand_in() as box:
        begin(box, None)
        talk(box, give("opt-in"))
        talk(box, give("opt-out", NEWS, SMS_CHANNEL))
        talk(box, give("opt-in", OFFERS, SMS_CHANNEL))
        assert now(box) == {
            (NEWS, EMAIL_CHANNEL): "opt-in",
            (NEWS, SMS_CHANNEL): "opt-out",
            (OFFERS, SMS_CHANNEL): "opt-in",
        }


@pytest.mark.parametrize("consent_type", ["pending-opt-in", "confirmed-opt-in"])
def test_double_opt_in_is_read_and_never_set(consent_type: Any) -> None:
    with stand_in() as box:
        begin(box, consent_type)
        assert now(box) == {(NEWS, EMAIL_CHANNEL): consent_type}
        with pytest.raises(ApsisError, match="can only be read"):
            talk(box, give(consent_type))


def test_an_unsubscribe_by_the_recipient_is_read_back() -> None:
    with stand_in(switches=ApsisSwitches(consent_stamps="updated_at")) as box:
        begin(box, None)
        talk(box, give("opt-in"))
        before = box.clock.now()
        named = {"topic_discriminator": NEWS, "channel_discriminator": EMAIL_CHANNEL}
        assert box.control.consent({"profile_key": "C-1", **named}) == {"changed": True}
        (consent,) = talk(box, lambda client: client.consents("C-1")) or ()
        assert (consent.type, consent.is_opted_in) == ("opt-out", False)
        assert consent.changed_at is not None
        assert consent.changed_at >= before


@pytest.mark.parametrize("wanted", ["opt-in", "opt-out"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_lost_answer_is_read_back_before_anything_is_sent_again(wanted: Any, when: str) -> None:
    with stand_in() as box:
        begin(box, None)
        fault(box, "consents", "reset", when=when, times=1)
        outcome = talk(box, give(wanted))
        assert outcome is (UPDATED if when == "after" else CREATED)
        assert now(box) == {(NEWS, EMAIL_CHANNEL): wanted}
        assert box.account.audit.effects("consent") == 1
        assert box.account.audit.repeats("consent") == 0


def test_without_any_answer_the_unknown_effect_is_told() -> None:
    with stand_in() as box:
        begin(box, None)
        box.control.set_faults(
            {"faults": [{"match": {"path_regex": "consents", "method": "POST"}, "action": "reset"}]}
        )
        with pytest.raises(ApsisUnavailable) as unavailable:
            talk(box, give("opt-in"))
        assert not unavailable.value.did_nothing
        assert now(box) == {}


def test_a_read_back_that_fails_does_not_excuse_the_write() -> None:
    with stand_in() as box:
        begin(box, None)
        write = {"method": "POST", "path_regex": "consents"}
        read = {"method": "GET", "path_regex": "consents"}
        faults = [
            {"match": write, "action": "reset", "when": "after"},
            {"match": read, "action": "status", "status": 429},
        ]
        box.control.set_faults({"faults": faults})
        with pytest.raises(ApsisUnavailable) as unavailable:
            talk(box, give("opt-in"))
        assert not unavailable.value.did_nothing
        assert box.account.audit.effects("consent") == 1


def test_a_storm_of_429_loses_no_consent() -> None:
    with stand_in() as box:
        begin(box, None)
        fault(box, "consents", status=429, times=3)
        assert talk(box, give("opt-out")) is CREATED
        assert requests(box, "POST", "consents") == {201: 1, 429: 3}


def test_a_keyspace_without_manage_subscriptions_is_forbidden() -> None:
    with stand_in() as box:
        talk(box, lambda client: client.create("C-1"), SHOP)
        with pytest.raises(ApsisForbidden, match="manage_subscriptions"):
            talk(box, give("opt-in"), SHOP)


def test_a_consent_of_nobody_is_not_found_and_nobody_has_none() -> None:
    with stand_in() as box:
        with pytest.raises(ApsisNotFound):
            talk(box, give("opt-in"))
        assert talk(box, lambda client: client.consents("C-1")) is None


def test_a_consent_needs_a_reason() -> None:
    async def without(client: ApsisClient) -> Any:
        return await client.consent("C-1", NEWS, EMAIL_CHANNEL, "opt-in", " ")

    with stand_in() as box, pytest.raises(ApsisError, match="reason"):
        talk(box, without)


def test_every_type_is_asked_for() -> None:
    with stand_in() as box:
        begin(box, None)
        for consent_type in CONSENT_TYPES:
            named = {"topic_discriminator": NEWS, "channel_discriminator": EMAIL_CHANNEL}
            box.control.consent({"profile_key": "C-1", "type": consent_type, **named})
            assert now(box) == {(NEWS, EMAIL_CHANNEL): consent_type}
