"""`mdn_change: replace`: the changed number of a contact is given to its person."""

import pytest

from vibes_pipelines_tests.reconcile.conftest import build_config

REPLACE = {"policies": {"mdn_change": "replace"}}
OLD, NEW = "+13125550100", "+13125550199"
ANN = {"id": "C1", "name": "Ann", "phone": "312-555-0199"}
PERSON = {"person_key": "k1", "external_person_id": "C1", "mdn": OLD, "name": "Ann"}


def test_a_changed_number_is_a_change_with_before_and_after(run):
    done = run(build_config(**REPLACE), [ANN], [PERSON])
    assert done.quarantine == set()
    assert done.changes_of("C1") == {"mdn": ("set", OLD, NEW, "mdn_replaced")}
    [row] = done.person_changes
    assert (row["operation"], row["mdn"], row["person_key"]) == ("update", OLD, "k1")
    assert done.summary.updated == 1


def test_other_changes_go_with_it(run):
    done = run(build_config(**REPLACE), [ANN | {"name": "Anna"}], [PERSON])
    assert set(done.changes_of("C1")) == {"mdn", "name"}


def test_a_person_without_a_number_is_only_given_one(run):
    done = run(build_config(**REPLACE), [ANN], [PERSON | {"mdn": None}])
    assert done.changes_of("C1") == {"mdn": ("set", None, NEW, "mdn_added")}


def test_a_blank_number_takes_none_away(run):
    done = run(build_config(**REPLACE), [ANN | {"phone": None}], [PERSON])
    assert done.summary.unchanged == 1


def test_a_replacement_that_was_accepted_is_pending(run):
    sent = {"external_person_id": "C1", "field": "mdn", "value": NEW}
    done = run(build_config(**REPLACE), [ANN], [PERSON], pending=[sent])
    assert done.summary.pending == 1
    assert done.person_changes == []


@pytest.mark.parametrize(
    ("contacts", "persons", "kind"),
    [
        ([ANN], [PERSON, {"person_key": "k2", "mdn": NEW}], "identity_split"),
        ([ANN, ANN | {"id": "C2"}], [PERSON], "shared_mdn"),
        ([ANN | {"phone": "12"}], [PERSON], "invalid_mdn"),
    ],
)
def test_a_number_in_doubt_replaces_none(run, contacts, persons, kind):
    done = run(build_config(**REPLACE), contacts, persons)
    assert done.person_changes == []
    assert kind in {found for found, *_ in done.quarantine}


def test_a_filtered_contact_replaces_no_number(run):
    contacts = {
        "key": "id",
        "mdn": {"column": "phone", "default_region": "US"},
        "conditions": [{"column": "type", "equals": "A"}],
    }
    done = run(build_config(contacts=contacts, **REPLACE), [ANN | {"type": "B"}], [PERSON])
    assert done.summary.filtered == 1
    assert done.person_changes == []


def test_an_opt_out_goes_to_the_person_whatever_becomes_of_its_number(run):
    consents = [{"from": "sms", "list": "77"}]
    subscribed = {"person_key": "k1", "subscription_list_id": "77", "opt_in_date": "2026-01-01"}
    done = run(
        build_config(consents=consents, **REPLACE),
        [ANN | {"sms": "no"}],
        [PERSON],
        subscriptions=[subscribed],
    )
    [row] = done.rows("subscription_changes")
    assert (row["side"], row["action"], row["mdn"]) == ("platform", "opt_out", OLD)
