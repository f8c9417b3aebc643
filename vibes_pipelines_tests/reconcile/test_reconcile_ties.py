"""What several rows would answer alike is answered by what they hold, never by their order."""

import pytest

SECTIONS = {
    "contacts": {"key": "id", "mdn": {"column": "phone", "default_region": "US"}},
    "fields": [{"from": "name", "to": "name", "type": "string"}],
}
CONTACT = {"id": "C1", "phone": "12", "name": "Ann"}
PERSON = {"person_key": "k1", "external_person_id": "C1", "mdn": "+13125550100", "name": "Bob"}
DECISION = {"action": "link", "kind": "invalid_mdn", "source": "contact", "record": "key C1"}
DECISION |= {"target": "k1", "since": "2026-01-01", "reason": "asked"}


@pytest.mark.parametrize("name", ["Ann", "Bob"])
def test_a_contact_linked_to_the_person_of_its_own_key_goes_on_without_its_number(
    run, make_config, name
):
    config, contacts = make_config(**SECTIONS), [CONTACT | {"name": name}]
    [case] = run(config, contacts, [PERSON]).rows("cases")
    decision = DECISION | {"evidence": case["own"]}
    done = run(config, contacts, [PERSON], decisions=[decision])
    assert (done.summary.updated, done.summary.unchanged) == (
        int(name == "Ann"),
        int(name == "Bob"),
    )
    if name == "Ann":
        assert done.changes_of("C1") == {"name": ("set", "Bob", "Ann", "no_base")}


def test_an_opt_out_names_one_number_whatever_the_order_of_the_contacts(run, make_config):
    config = make_config(**SECTIONS, consents=[{"from": "sms", "list": "77"}])
    phones = ("+13125550101", "+13125550102", "12", None)
    contacts = [CONTACT | {"phone": phone, "sms": "no"} for phone in phones]
    active = [{"person_key": "k1", "subscription_list_id": "77", "opt_in_date": "2025-01-01"}]
    diff_sets = {
        run(config, order, [PERSON | {"mdn": None}], subscriptions=active).summary.diff_set
        for order in (contacts, contacts[::-1], contacts[1:] + contacts[:1])
    }
    assert len(diff_sets) == 1


@pytest.mark.parametrize("action", ["link", "ignore"])
def test_of_two_decisions_one_is_told_whatever_their_order(run, make_config, action):
    config = make_config(**SECTIONS)
    decisions = [
        DECISION | {"action": action, "evidence": "other", "target": f"k{n}", "since": f"2026-0{n}"}
        for n in (7, 8)
    ]
    told = [
        run(config, [CONTACT], [PERSON], decisions=order).rows("quarantine")
        for order in (decisions, decisions[::-1])
    ]
    assert told[0] == told[1]
    assert "2026-07" in told[0][0]["detail"]
