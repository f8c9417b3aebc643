"""Invitations: only on first-hand evidence newer than all else, only once, only when wanted.

An invitation is a text message to a person: it cannot be taken back.
"""

from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from vibes_pipelines.reconcile.guards import Breach, held_lanes
from vibes_pipelines_tests.reconcile.conftest import build_config
from vibes_pipelines_tests.reconcile.test_reconcile_periods import Watched
from vibes_pipelines_tests.support.examples import examples

OLD, MID, NEW = "2026-01-01T00:00:00Z", "2026-01-03T00:00:00Z", "2026-01-05T09:00:00Z"
NOW = datetime(2026, 1, 10, tzinfo=UTC)
CONSENT = {"from": "sms", "list": "77", "campaign": "9", "changed_at": "sms_at", "invites": True}
ANN = {"id": "C1", "name": "Ann", "phone": "312-555-0100", "sms": "yes", "sms_at": NEW}
PERSON = {"person_key": "k1", "external_person_id": "C1", "mdn": "+13125550100", "name": "Ann"}


def stay(opt_in=None, opt_out=None, listed="77", reason=None):
    return {
        "person_key": "K1",
        "subscription_list_id": listed,
        "opt_in_date": opt_in,
        "opt_out_date": opt_out,
        "opt_out_reason": reason,
    }


def invited(run, contact=ANN, subscriptions=(), *, persons=(PERSON,), config=None, **inputs):
    inputs = {"as_of": NOW} | inputs
    done = run(
        config or build_config(consents=[CONSENT]),
        [contact],
        persons,
        subscriptions=list(subscriptions),
        **inputs,
    )
    rows = [r for r in done.rows("subscription_changes") if r["action"] == "invite"]
    assert done.summary.invites == len(rows)
    assert done.summary.subscription_changes == len(done.rows("subscription_changes"))
    return rows


def test_an_opt_in_of_somebody_never_subscribed_is_asked_about(run):
    [row] = invited(run)
    assert row == {
        "side": "platform",
        "action": "invite",
        "external_person_id": "C1",
        "person_key": "k1",
        "mdn": "+13125550100",
        "subscription_list_id": "77",
        "evidence_at": datetime(2026, 1, 5, 9),  # noqa: DTZ001 - as the file has it
        "reason": "crm_opted_in",
    }


@pytest.mark.parametrize(
    ("subscriptions", "is_asked"),
    [
        ([stay(OLD, MID)], True),
        ([stay(OLD)], False),
        ([stay(OLD, NEW)], False),
        ([stay(OLD, "2026-01-05T09:00:01Z")], False),
        ([stay(OLD, MID), stay(NEW)], False),
        ([stay(OLD, listed="78")], True),
        ([stay(OLD, "2026-01-06", listed="78", reason="disconnect")], False),
        ([stay(OLD, MID, listed="78", reason="DISCONNECT")], True),
        ([stay(OLD, "2026-01-06", listed="78", reason="user_opt_out")], True),
    ],
)
def test_the_opt_in_is_strictly_newer_than_what_speaks_against_it(run, subscriptions, is_asked):
    assert bool(invited(run, subscriptions=subscriptions)) is is_asked


@pytest.mark.parametrize(
    "contact",
    [
        {"sms": "no"},
        {"sms": None},
        {"sms_at": None},
        {"sms_at": "2026-01-11"},
        {"phone": None},
        {"phone": "312-555-0199"},
        {"phone": "12"},
        {"name": "A\0B"},
    ],
    ids=lambda contact: ",".join(f"{name}={value!r}" for name, value in contact.items()),
)
def test_without_evidence_or_in_doubt_nobody_is_asked(run, contact):
    assert invited(run, ANN | contact) == []


def test_a_day_alone_is_no_evidence_against_an_opt_out_of_that_day(run):
    contact = ANN | {"sms_at": "2026-01-05"}
    assert invited(run, contact, [stay(OLD, "2026-01-05T08:00:00Z")]) == []
    assert invited(run, contact, [stay(OLD, "2026-01-04T23:59:00Z")])


def test_a_filtered_contact_is_not_asked(run):
    contacts = {
        "key": "id",
        "mdn": {"column": "phone", "default_region": "US"},
        "conditions": [{"column": "type", "equals": "A"}],
    }
    config = build_config(contacts=contacts, consents=[CONSENT])
    assert invited(run, ANN | {"type": "A"}, config=config)
    assert invited(run, ANN | {"type": "B"}, config=config) == []


def test_whom_the_platform_refuses_is_not_asked(run):
    refused = {"external_person_id": "C1", "field": "name", "value": "Anna"}
    assert invited(run, ANN | {"name": "Anna"}, blocked=[refused]) == []


def test_whose_value_the_platform_does_not_keep_is_asked(run):
    kept = {"external_person_id": "C1", "field": "name", "value": "Anna"}
    kept |= {"before": "Ann", "was_accepted": "true"}
    assert invited(run, ANN | {"name": "Anna"}, blocked=[kept])


@pytest.mark.parametrize("persons", [[], [PERSON | {"person_key": None}], [PERSON | {"mdn": None}]])
def test_whom_the_platform_does_not_show_with_the_number_is_not_asked(run, persons):
    assert invited(run, persons=persons) == []


def test_without_the_subscriptions_nobody_is_asked(run):
    done = run(build_config(consents=[CONSENT]), [ANN], [PERSON])
    assert done.rows("subscription_changes") == []


def test_nobody_is_asked_unless_it_is_switched_on(run):
    config = build_config(consents=[{k: v for k, v in CONSENT.items() if k != "invites"}])
    assert invited(run, config=config) == []


def sent(accepted_at, listed="77"):
    return {
        "external_person_id": "C1",
        "field": f"invite:{listed}",
        "value": "9",
        "accepted_at": accepted_at,
    }


AGAIN = build_config(consents=[CONSENT], policies={"invite_again_after_d": 7})


@pytest.mark.parametrize(
    ("earlier", "config", "is_asked"),
    [
        (sent("2025-01-01"), None, False),
        (sent(None), None, False),
        (sent("2026-01-09", listed="78"), None, True),
        (sent("2026-01-04"), AGAIN, False),
        (sent("2026-01-03"), AGAIN, True),
        (sent(None), AGAIN, False),
    ],
)
def test_nobody_is_asked_twice_while_the_question_is_open(run, earlier, config, is_asked):
    assert bool(invited(run, pending=[earlier], config=config)) is is_asked


def test_a_question_that_was_answered_is_closed(run):
    answered = [stay("2026-01-02", MID)]
    assert invited(run, subscriptions=answered, pending=[sent("2026-01-01")])
    assert invited(run, subscriptions=answered, pending=[sent("2026-01-04")]) == []


def test_an_open_question_is_no_pending_change_of_the_contact(run):
    done = run(
        build_config(consents=[CONSENT]), [ANN], [PERSON], subscriptions=[], pending=[sent(OLD)]
    )
    assert done.summary.unchanged == 1


def asked_on(days, rows_in, contact, person):
    """Whether this day asks. The first day is 2026-01-02."""
    out = days.day([contact], [person])
    return [row["action"] for row in rows_in(out, "subscription_changes")] == ["invite"]


@pytest.mark.slow
def test_consent_does_not_travel_to_a_changed_number(tmp_path, rows_in):
    days = Watched(tmp_path, build_config(consents=[CONSENT]))
    before = ANN | {"sms_at": "2026-01-01"}
    after = before | {"phone": "312-555-0101"}
    assert asked_on(days, rows_in, before, PERSON)
    moved = PERSON | {"mdn": "+13125550101"}
    assert not asked_on(days, rows_in, after, moved)
    assert not asked_on(days, rows_in, after, moved)
    assert asked_on(days, rows_in, after | {"sms_at": "2026-01-04"}, moved)


def test_consent_does_not_travel_to_a_number_that_came_after_none(tmp_path, rows_in):
    days = Watched(tmp_path, build_config(consents=[CONSENT], policies={"mdn_change": "replace"}))
    other = {"person_key": "k9", "subscription_list_id": "77", "opt_in_date": "2025-01-01"}
    for theirs in ("+13125550100", None, "+13125550199"):
        contact = {"id": "C1", "name": "Ann", "phone": "+13125550199"} | {
            "sms": "yes",
            "sms_at": "2025-06-01T00:00:00Z",
        }
        person = {"person_key": "k1", "external_person_id": "C1", "mdn": theirs, "name": "Ann"}
        out = days.day([contact], [person], subscriptions=[other])
        assert rows_in(out, "subscription_changes") == []


def test_a_number_that_came_back_from_another_carrier_starts_without_consent(tmp_path, rows_in):
    days = Watched(tmp_path, build_config(consents=[CONSENT], policies={"mdn_recycled": "ignore"}))
    contact = ANN | {"sms_at": "2026-01-01"}
    assert asked_on(days, rows_in, contact, PERSON | {"carrier_code": "102"})
    assert not asked_on(days, rows_in, contact, PERSON | {"carrier_code": "105"})
    assert not asked_on(days, rows_in, contact, PERSON | {"carrier_code": "105", "name": "Anna"})
    assert not asked_on(days, rows_in, contact, PERSON | {"carrier_code": "105"})


@pytest.mark.parametrize("meanwhile", [{"mdn": "+13125550199"}, {"carrier_code": "105"}])
def test_a_number_that_comes_back_after_a_doubt_starts_without_consent(
    tmp_path, rows_in, meanwhile
):
    days = Watched(tmp_path, build_config(consents=[CONSENT]))
    contact, person = ANN | {"sms_at": "2026-01-01"}, PERSON | {"carrier_code": "102"}
    assert asked_on(days, rows_in, contact, person)
    assert not asked_on(days, rows_in, contact, person | meanwhile)
    assert days.summary.quarantined == 1
    for _ in range(2):  # the period is remembered
        assert not asked_on(days, rows_in, contact, person)
        assert days.summary.quarantined == 0
    assert asked_on(days, rows_in, contact | {"sms_at": "2026-01-04"}, person)


def test_a_number_of_a_new_person_starts_without_consent(tmp_path, rows_in):
    """The platform makes another person of a number that another carrier serves."""
    days = Watched(tmp_path, build_config(consents=[CONSENT]))
    contact = ANN | {"sms_at": "2026-01-01"}
    days.day([contact], [PERSON | {"person_key": "k0"}])
    for _ in range(3):  # the period is remembered
        assert not asked_on(days, rows_in, contact, PERSON)
    assert asked_on(days, rows_in, contact | {"sms_at": "2026-01-04"}, PERSON)


def test_a_person_whose_key_becomes_known_is_nobody_new(tmp_path, rows_in):
    days = Watched(tmp_path, build_config(consents=[CONSENT]))
    contact = ANN | {"sms_at": "2026-01-01"}
    days.day([contact], [PERSON | {"person_key": None}])
    assert asked_on(days, rows_in, contact, PERSON)


def test_the_cap_holds_a_lane_of_its_own(run):
    config = build_config(consents=[CONSENT], guards={"invites": {"max_rows": 0}})
    done = run(config, [ANN], [PERSON], subscriptions=[], as_of=NOW)
    [breach] = done.summary.breaches
    assert (breach.guard, breach.lane) == ("invites.max_rows", "invites")


@pytest.mark.parametrize("lane", ["persons", "opt_outs", "invites"])
def test_invitations_wait_with_every_lane(lane):
    assert held_lanes([Breach("any", lane, 1, 0, "why")]) == {lane, "invites"}
    assert held_lanes([]) == frozenset()


@pytest.mark.parametrize("missing", ["campaign", "changed_at"])
def test_invites_need_a_campaign_and_the_time_of_the_opt_in(missing):
    consent = {name: value for name, value in CONSENT.items() if name != missing}
    with pytest.raises(ValidationError, match=f"invites: true needs {missing}"):
        build_config(consents=[consent])


def test_switching_invites_on_is_another_mapping_and_their_absence_the_known_one():
    off = build_config(consents=[CONSENT | {"invites": False}])
    assert build_config(consents=[CONSENT]).mapping_hash != off.mapping_hash


times = st.sampled_from([None, OLD, MID, NEW, "2026-01-04", "2027-01-01"])


@given(
    said=st.sampled_from(["yes", "no", None, "maybe"]),
    at=times,
    stays=st.lists(st.tuples(times, times), max_size=3),
    open_since=st.none() | times,
)
@settings(
    max_examples=examples(8),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_nothing_is_asked_of_whom_no_newer_opt_in_is_on_record(run, said, at, stays, open_since):
    rows = [stay(opt_in, opt_out) for opt_in, opt_out in stays]
    pending = [] if open_since is None else [sent(open_since)]
    asked = invited(run, ANN | {"sms": said, "sms_at": at}, rows, pending=pending)
    if asked:
        assert said == "yes"
        assert at is not None
        assert all(opt_out is None or opt_out < at for _, opt_out in stays)
        assert all(opt_out is not None for _, opt_out in stays) or not stays
