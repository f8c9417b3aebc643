"""A number that may have a new holder is quarantined, until the doubt is gone."""

import pytest

from vibes_pipelines_tests.reconcile.conftest import build_config
from vibes_pipelines_tests.reconcile.test_reconcile_next_base import Days

ANN = {"id": "C1", "name": "Ann", "phone": "312-555-0100"}


def person(carrier="102", key="k1", external="C1", mdn="+13125550100", name="Ann"):
    return {
        "person_key": key,
        "external_person_id": external,
        "mdn": mdn,
        "name": name,
        "carrier_code": carrier,
    }


class Watched(Days):
    """Days whose share has the carrier of each number."""

    person_columns = ("carrier_code",)


def build_days(tmp_path, **policies):
    return Watched(tmp_path, build_config(policies=policies))


@pytest.fixture
def days(tmp_path):
    return build_days(tmp_path)


def kinds(days):
    return dict(days.summary.quarantine_kinds)


def test_without_a_base_there_is_nothing_to_claim(days):
    days.day([ANN], [person("102")])
    assert kinds(days) == {}


def test_another_carrier_of_the_same_number_is_quarantined_with_both_carriers(days, rows_in):
    days.day([ANN], [person("102")])
    out = days.day([ANN], [person("105", name="Bob")])
    [row] = rows_in(out, "quarantine")
    assert (row["kind"], row["external_person_id"]) == ("mdn_recycled", "C1")
    assert "from carrier 102 to 105" in row["detail"]
    assert rows_in(out, "person_changes") == []


def test_the_doubt_stays_until_the_carrier_or_the_number_says_otherwise(days):
    days.day([ANN], [person("102")])
    for _ in range(3):
        days.day([ANN], [person("105")])
        assert kinds(days) == {"mdn_recycled": 1}
    days.day([ANN], [person("102")])
    assert kinds(days) == {}


def test_a_contact_that_gave_up_the_number_for_a_day_is_free_with_it_again(days):
    days.day([ANN], [person("102")])
    days.day([ANN], [person("105")])
    days.day([ANN | {"phone": None}], [person("105")])
    days.day([ANN], [person("105")])
    assert kinds(days) == {}


@pytest.mark.parametrize(("before", "after"), [(None, "105"), ("102", None), ("102", "102")])
def test_an_unknown_carrier_is_no_evidence(days, before, after):
    days.day([ANN], [person(before)])
    days.day([ANN], [person(after)])
    assert kinds(days) == {}


def test_a_number_that_changed_with_its_carrier_is_not_recycled(days):
    days.day([ANN], [person("102")])
    days.day([ANN | {"phone": "312-555-0101"}], [person("105", mdn="+13125550101")])
    assert kinds(days) == {}


def test_what_was_agreed_with_another_contact_is_no_evidence(days):
    days.day([ANN], [person("102")])
    days.day([ANN | {"id": "C2"}], [person("105", external="C2")])
    assert kinds(days) == {}


def test_the_policy_can_ignore_it(tmp_path):
    days = build_days(tmp_path, mdn_recycled="ignore")
    days.day([ANN], [person("102")])
    days.day([ANN], [person("105")])
    assert kinds(days) == {}


NEWCOMER = person("102", key="k2", external=None)


@pytest.mark.parametrize(
    ("earlier", "expected"),
    [
        ([], {"mdn_recycled": 1}),
        ([person(mdn=None)], {"identity_split": 3, "mdn_recycled": 1}),
    ],
)
def test_a_number_that_moved_to_a_new_person_is_quarantined_by_policy(tmp_path, earlier, expected):
    days = build_days(tmp_path, mdn_recycled="carrier_or_person")
    days.day([ANN], [person("102")])
    days.day([ANN], [*earlier, NEWCOMER])
    assert kinds(days) == expected


def test_a_new_person_of_a_number_that_was_nobodys_is_adopted(tmp_path):
    days = build_days(tmp_path, mdn_recycled="carrier_or_person")
    days.day([ANN], [person("102", external="C9", mdn="+13125550109")])
    days.day([ANN], [NEWCOMER, person("102", external="C9", mdn="+13125550109")])
    assert kinds(days) == {}
    assert days.summary.updated == 1


def test_another_person_with_the_number_is_adopted_unless_the_policy_says_so(days):
    days.day([ANN], [person("102")])
    days.day([ANN], [NEWCOMER])
    assert kinds(days) == {}


@pytest.mark.parametrize("hidden", [1, 3])
def test_a_carrier_that_is_blank_for_days_hides_no_new_holder(days, hidden):
    days.day([ANN], [person("102")])
    for _ in range(hidden):
        days.day([ANN], [person(None)])
        assert kinds(days) == {}
    days.day([ANN], [person("105")])
    assert kinds(days) == {"mdn_recycled": 1}


def test_a_blank_carrier_of_another_number_keeps_nothing_of_the_earlier_one(days):
    other = ANN | {"phone": "312-555-0101"}
    days.day([ANN], [person("102")])
    days.day([other], [person(None, mdn="+13125550101")])
    days.day([other], [person("105", mdn="+13125550101")])
    assert kinds(days) == {}
