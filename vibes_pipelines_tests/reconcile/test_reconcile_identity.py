"""Identity: who is whom, and which groups are in doubt."""

import pytest

MDN = [f"+1312555{n:04d}" for n in range(100, 110)]


def person(key, external=None, mdn=None, **fields):
    return {"person_key": key, "external_person_id": external, "mdn": mdn, **fields}


def contact(key, phone=None, **cells):
    return {"id": key, "phone": phone, **cells}


def test_a_contact_is_matched_by_external_id(run, make_config):
    done = run(make_config(), [contact("C1", name="Ann")], [person("k1", "C1", MDN[0])])
    [row] = done.person_changes
    assert (row["operation"], row["person_key"], row["matched_by"], row["mdn"]) == (
        "update",
        "k1",
        "external_person_id",
        MDN[0],
    )


def test_a_match_by_mdn_alone_adopts_the_person(run, make_config):
    done = run(make_config(), [contact("C1", "(312) 555-0100")], [person("K1", None, MDN[0])])
    assert done.person_changes[0]["matched_by"] == "mdn"
    assert done.person_changes[0]["person_key"] == "k1"
    assert done.changes_of("C1") == {"external_person_id": ("set", None, "C1", "adopt")}


def test_a_person_without_mdn_is_given_the_contacts(run, make_config):
    done = run(make_config(), [contact("C1", "312-555-0100")], [person("k1", "C1")])
    assert done.changes_of("C1") == {"mdn": ("set", None, MDN[0], "mdn_added")}


def test_person_key_goes_before_external_id_and_mdn(run, make_config):
    config = make_config(
        contacts={
            "key": "id",
            "person_key": "pk",
            "mdn": {"column": "phone", "default_region": "US"},
        }
    )
    done = run(config, [contact("C1", pk="K1", name="Ann")], [person("k1"), person("k2")])
    assert done.person_changes[0]["matched_by"] == "person_key"
    assert done.changes_of("C1")["external_person_id"] == ("set", None, "C1", "adopt")


def test_a_contact_that_nobody_is_becomes_an_add(run, make_config):
    done = run(make_config(), [contact("C1", "3125550100", name="Ann")], [person("k2", "C2")])
    [row] = done.person_changes
    assert (row["operation"], row["person_key"], row["mdn"], row["matched_by"]) == (
        "add",
        None,
        MDN[0],
        None,
    )
    assert done.changes_of("C1") == {"name": ("set", None, "Ann", "new_contact")}
    assert done.summary.persons_only == 1


def test_a_contact_without_key_is_quarantined(run, make_config):
    done = run(make_config(), [contact("  ", MDN[0])], [])
    assert done.quarantine == {("missing_contact_key", "contact", None)}


def test_contacts_of_one_key_are_all_quarantined(run, make_config):
    contacts = [contact("C1", name="a"), contact(" C1", name="b"), contact("C2", name="c")]
    done = run(make_config(), contacts, [person("k1", "C1", MDN[0])])
    assert [row["kind"] for row in done.rows("quarantine")] == ["duplicate_contact_key"] * 2
    assert done.summary.quarantined == 2
    assert done.summary.added == 1


def test_contacts_of_one_key_are_no_two_contacts_of_one_person(run, make_config):
    contacts = [contact("C1", MDN[0]), contact("C1", MDN[1])]
    done = run(make_config(), contacts, [person("k1", "C1")])
    assert {kind for kind, _, _ in done.quarantine} == {"duplicate_contact_key"}


@pytest.mark.parametrize("number", [MDN[0], None])
def test_contacts_of_one_key_and_one_number_are_in_both_doubts(run, make_config, number):
    contacts = [contact("C1", MDN[0]), contact("C1", MDN[0])]
    done = run(make_config(), contacts, [person("k1", "C1", number)])
    assert {kind for kind, source, _ in done.quarantine if source == "contact"} == {
        "duplicate_contact_key",
        "shared_mdn",
    }


def test_persons_of_one_external_id_are_quarantined_with_their_contact(run, make_config):
    persons = [person("k1", "C1", MDN[0]), person("k2", "C1", MDN[1])]
    done = run(make_config(), [contact("C1", name="x")], persons)
    assert done.summary.quarantined == 1
    assert done.summary.quarantined_persons == 2
    assert {kind for kind, _, _ in done.quarantine} == {"duplicate_external_id"}


def test_persons_of_one_person_key_are_quarantined_with_their_contacts(run, make_config):
    persons = [person("k1", "C1", MDN[0]), person("K1", "C2", MDN[1])]
    done = run(make_config(), [contact("C1", name="x"), contact("C2", name="y")], persons)
    assert done.summary.quarantined == 2
    assert {kind for kind, _, _ in done.quarantine} == {"duplicate_person_key"}


def test_contacts_of_one_number_are_all_quarantined(run, make_config):
    contacts = [contact("C1", MDN[0]), contact("C2", "(312) 555 0100"), contact("C3", MDN[1])]
    done = run(make_config(), contacts, [])
    assert done.quarantine == {
        ("shared_mdn", "contact", "C1"),
        ("shared_mdn", "contact", "C2"),
    }
    assert done.summary.added == 1


def test_persons_of_one_number_are_quarantined_with_the_contact_that_has_it(run, make_config):
    persons = [person("k1", "C1", MDN[0]), person("k2", "C2", MDN[0])]
    done = run(make_config(), [contact("C1", MDN[0]), contact("C3", MDN[1])], persons)
    assert done.quarantine == {
        ("shared_mdn", "contact", "C1"),
        ("shared_mdn", "person", "C1"),
        ("shared_mdn", "person", "C2"),
    }


def test_identifiers_of_two_persons_are_a_split_for_the_whole_group(run, make_config):
    persons = [person("k1", "C1", MDN[1]), person("k2", "C2", MDN[0])]
    contacts = [contact("C1", MDN[0]), contact("C2", name="x")]
    done = run(make_config(), contacts, persons)
    assert done.quarantine == {
        ("identity_split", "contact", "C1"),
        ("identity_split", "contact", "C2"),
        ("identity_split", "person", "C1"),
        ("identity_split", "person", "C2"),
    }


def test_a_number_whose_person_has_another_external_id_is_a_split(run, make_config):
    done = run(make_config(), [contact("C1", MDN[0])], [person("k1", "C9", MDN[0])])
    assert ("identity_split", "contact", "C1") in done.quarantine
    assert done.summary.quarantined_persons == 1


def test_a_person_key_and_an_external_id_of_two_persons_are_a_split(run, make_config):
    config = make_config(contacts={"key": "id", "person_key": "pk"})
    done = run(config, [contact("C1", pk="k2")], [person("k1", "C1"), person("k2")])
    assert ("identity_split", "contact", "C1") in done.quarantine
    assert done.summary.quarantined_persons == 2


def test_a_person_key_that_nobody_has_is_passed_over(run, make_config):
    config = make_config(contacts={"key": "id", "person_key": "pk"})
    done = run(config, [contact("C1", pk="k9"), contact("C2", pk="k9")], [person("k1", "C1")])
    assert (done.summary.unchanged, done.summary.added) == (1, 1)


def test_two_contacts_that_claim_one_person_are_quarantined_with_it(run, make_config):
    config = make_config(contacts={"key": "id", "person_key": "pk"})
    done = run(config, [contact("C1", pk="k1"), contact("C2", pk="k1")], [person("k1")])
    assert done.quarantine == {
        ("shared_person", "contact", "C1"),
        ("shared_person", "contact", "C2"),
        ("shared_person", "person", "k1"),
    }


def test_a_changed_number_is_reported_and_nothing_else_is_done(run, make_config):
    done = run(make_config(), [contact("C1", MDN[1], name="x")], [person("k1", "C1", MDN[0])])
    assert done.quarantine == {("mdn_change", "contact", "C1")}
    assert done.person_changes == []


@pytest.mark.parametrize("phone", ["12", "312-555-0100 x12", "+1 312 555", "not a number"])
def test_an_invalid_number_is_quarantined_with_its_evidence(run, make_config, phone):
    done = run(make_config(), [contact("C1", phone)], [person("k1", "C1", MDN[0])])
    [row] = done.rows("quarantine")
    assert (row["kind"], row["mdn"], row["person_key"]) == ("invalid_mdn", phone, "k1")


def test_persons_that_no_contact_is_are_persons_only(run, make_config):
    done = run(make_config(), [contact("C1")], [person("k1", "C1"), person("k2"), person("k3")])
    assert (done.summary.unchanged, done.summary.persons_only) == (1, 2)
