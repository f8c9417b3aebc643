"""Consent: an opt-out wins, an opt-in is never carried, absence changes nothing."""

from datetime import UTC, datetime

import pytest

from vibes_pipelines.reconcile.errors import ReconcileError

OLD, NEW = "2026-01-01 00:00:00 +0000", "2026-01-05T00:00:00Z"
CONSENT = [{"from": "sms", "list": "77", "changed_at": "sms_at"}]


def rows_of(opt_in=None, opt_out=None, key="K1", listed="77"):
    return {
        "person_key": key,
        "subscription_list_id": listed,
        "opt_in_date": opt_in,
        "opt_out_date": opt_out,
    }


def told(run, config, contact, subscriptions, **inputs):
    persons = [{"person_key": "k1", "external_person_id": "C1", "mdn": "+13125550100"}]
    done = run(config, [{"id": "C1"} | contact], persons, subscriptions=subscriptions, **inputs)
    return [(r["side"], r["action"], r["reason"]) for r in done.rows("subscription_changes")]


TO_PLATFORM = [("platform", "opt_out", "crm_opted_out")]
TO_CRM = [("crm", "opt_out", "platform_opted_out")]


@pytest.mark.parametrize(
    ("sms", "sms_at", "subscriptions", "expected"),
    [
        ("no", None, [rows_of(OLD)], TO_PLATFORM),
        ("FALSE ", NEW, [rows_of(OLD)], TO_PLATFORM),
        ("no", OLD, [rows_of(OLD)], TO_PLATFORM),
        ("no", OLD, [rows_of(NEW)], []),
        ("no", None, [rows_of(None)], TO_PLATFORM),
        ("no", NEW, [], []),
        ("no", NEW, [rows_of(OLD, listed="78")], []),
        ("no", NEW, [rows_of(OLD, NEW)], []),
        (None, NEW, [rows_of(OLD)], []),
        (" ", NEW, [rows_of(OLD)], []),
        ("yes", NEW, [rows_of(OLD)], []),
        ("yes", NEW, [], []),
        ("yes", OLD, [rows_of(OLD, NEW)], TO_CRM),
        ("yes", None, [rows_of(OLD, NEW)], TO_CRM),
        ("yes", NEW, [rows_of(None, OLD)], []),
        (None, NEW, [rows_of(None, OLD)], TO_CRM),
        ("yes", OLD, [rows_of(OLD, OLD)], TO_CRM),
        ("yes", OLD, [rows_of(OLD, OLD), rows_of(NEW)], []),
        ("no", None, [rows_of(OLD, OLD), rows_of(NEW)], TO_PLATFORM),
        ("yes", OLD, [rows_of(OLD), rows_of(None, NEW)], TO_CRM),
        # Of an opt-out only the day is known: it may have been given after the opt-in of that day.
        ("yes", "2026-01-05T09:00:00Z", [rows_of(OLD, "2026-01-05")], TO_CRM),
        ("yes", "2026-01-06T09:00:00Z", [rows_of(OLD, "2026-01-05")], []),
        # So also within the platform's own rows.
        ("yes", OLD, [rows_of("2026-01-05T09:00:00Z", "2026-01-05")], TO_CRM),
        ("no", None, [rows_of("2026-01-06", "2026-01-05")], TO_PLATFORM),
        ("yes", OLD, [rows_of("2026-01-05T09:00:00Z", "2026-01-05T09:00:00Z")], TO_CRM),
        ("yes", OLD, [rows_of("2026-01-05T09:00:01Z", "2026-01-05T09:00:00Z")], []),
    ],
)
def test_who_learns_of_which_opt_out(run, make_config, sms, sms_at, subscriptions, expected):
    contact = {"sms": sms, "sms_at": sms_at}
    assert told(run, make_config(consents=CONSENT), contact, subscriptions) == expected


def test_opt_outs_are_planned_for_filtered_contacts(run, make_config):
    contacts = {"key": "id", "conditions": [{"column": "type", "equals": "A"}]}
    config = make_config(contacts=contacts, consents=CONSENT)
    assert told(run, config, {"sms": "no", "type": "B"}, [rows_of(OLD)]) == TO_PLATFORM


@pytest.mark.parametrize("contact", [{"phone": "12"}, {"score": "x"}, {"tier": "Tin"}])
def test_opt_outs_are_planned_for_contacts_whose_values_are_in_doubt(run, make_config, contact):
    fields = [
        {"from": "score", "to": "score", "type": "number"},
        {"from": "tier", "to": "tier", "type": "single_select", "options": {"Gold": "gold"}},
    ]
    config = make_config(fields=fields, consents=CONSENT)
    assert told(run, config, {"sms": "no"} | contact, [rows_of(OLD)]) == TO_PLATFORM


IN_DOUBT = {"phone": "312-555-0199"}  # the person has another number: quarantined as mdn_change


def test_a_contact_in_doubt_still_opts_out_the_person_its_key_names(run, make_config):
    config = make_config(consents=CONSENT)
    assert told(run, config, {"sms": "no"} | IN_DOUBT, [rows_of(OLD)]) == TO_PLATFORM


def test_a_contact_whose_number_or_value_is_in_doubt_still_learns_of_an_opt_out(run, make_config):
    fields = [{"from": "score", "to": "score", "type": "number"}]
    config = make_config(fields=fields, consents=CONSENT)
    for contact in (IN_DOUBT, {"score": "x"}, {"phone": "12"}):
        assert told(run, config, {"sms": "yes"} | contact, [rows_of(OLD, NEW)]) == TO_CRM


def test_a_contact_of_whom_it_is_unsure_who_it_is_learns_of_no_opt_out(run, make_config):
    config = make_config(consents=CONSENT)
    persons = [
        {"person_key": key, "external_person_id": name, "mdn": mdn}
        for key, name, mdn in (("k1", "C1", "+13125550100"), ("k2", "C2", "+13125550199"))
    ]
    done = run(
        config, [{"id": "C1", "sms": "yes"} | IN_DOUBT], persons, subscriptions=[rows_of(OLD, NEW)]
    )
    assert done.rows("subscription_changes") == []


def test_an_opt_out_of_which_only_the_day_is_known_beats_an_opt_in_of_that_day(run, make_config):
    config = make_config(consents=CONSENT)
    contact = {"sms": "no", "sms_at": "2026-01-05"}
    assert told(run, config, contact, [rows_of("2026-01-05T09:00:00Z")]) == TO_PLATFORM
    assert told(run, config, contact, [rows_of("2026-01-06T09:00:00Z")]) == []


@pytest.mark.parametrize(
    ("sms_at", "expected"), [("2026-01-08T11:00:00Z", []), ("2062-01-07T00:00:00Z", TO_CRM)]
)
def test_an_opt_in_that_is_still_to_come_is_no_evidence(run, make_config, sms_at, expected):
    """A day later than the snapshot is allowed for: the column may hold local time."""
    config, stays = make_config(consents=CONSENT), [rows_of(OLD, NEW)]
    contact = {"sms": "yes", "sms_at": sms_at}
    as_of = datetime(2026, 1, 7, 12, tzinfo=UTC)
    assert told(run, config, contact, stays, as_of=as_of) == expected
    assert told(run, config, contact, stays) == []


@pytest.mark.parametrize(
    ("sms", "dates", "expected"),
    [
        ("no", ["2062-01-01 10:00:00"], TO_PLATFORM),
        ("yes", ["2062-01-01 10:00:00", NEW], TO_CRM),
        ("yes", ["2026-01-08T11:00:00Z", NEW], []),
    ],
)
def test_an_opt_in_of_the_platform_that_is_still_to_come_is_none(
    run, make_config, sms, dates, expected
):
    contact = {"sms": sms, "sms_at": OLD}
    as_of = datetime(2026, 1, 7, 12, tzinfo=UTC)
    stays = [rows_of(*dates)]
    assert told(run, make_config(consents=CONSENT), contact, stays, as_of=as_of) == expected


def test_an_opt_in_that_is_older_counts_beside_one_that_is_still_to_come(run, make_config):
    contact = {"sms": "no", "sms_at": OLD}
    stays = [rows_of(NEW), rows_of("2062-01-01 10:00:00")]
    as_of = datetime(2026, 1, 7, 12, tzinfo=UTC)
    assert told(run, make_config(consents=CONSENT), contact, stays, as_of=as_of) == []


def test_what_was_heard_after_the_share_has_come(run, make_config):
    contact, stays = {"sms": "no", "sms_at": OLD}, [rows_of("2026-01-12T10:00:00Z")]
    as_of, until = (datetime(2026, 1, day, 12, tzinfo=UTC) for day in (7, 12))
    config = make_config(consents=CONSENT)
    assert told(run, config, contact, stays, as_of=as_of) == TO_PLATFORM
    assert told(run, config, contact, stays, as_of=as_of, until=until) == []


def test_a_spelling_that_is_not_accepted_is_an_invalid_value_and_no_consent(run, make_config):
    done = run(make_config(consents=CONSENT), [{"id": "C1", "sms": "maybe"}], [])
    assert done.quarantine == {("invalid_value", "contact", "C1")}
    done = run(make_config(consents=CONSENT), [{"id": "C1", "sms_at": "yesterday"}], [])
    assert done.quarantine == {("invalid_value", "contact", "C1")}


def test_evidence_is_the_time_of_the_opt_out(run, make_config):
    persons = [{"person_key": "k1", "external_person_id": "C1"}]
    done = run(
        make_config(consents=CONSENT),
        [{"id": "C1"}],
        persons,
        subscriptions=[rows_of(None, "2017-04-05 14:30:00 -0600")],
    )
    assert str(done.rows("subscription_changes")[0]["evidence_at"]) == "2017-04-05 20:30:00"


def test_an_unreadable_opt_out_date_stops_the_reconcile(run, make_config):
    with pytest.raises(ReconcileError, match=r"subscriptions\.parquet: 1 .* unreadable"):
        told(run, make_config(consents=CONSENT), {}, [rows_of(OLD, "soon")])
