"""Hashes stand in for identifiers; when two of them collide, nothing but time is lost."""

import pytest

from vibes_pipelines.reconcile import consent, identifiers, narrow


@pytest.fixture
def salts(monkeypatch):
    """Makes the unsalted hash have three values only; gives the salts that were used."""
    used = []

    def weak(text, salt):
        used.append(salt)
        strong = identifiers.hashed(text, salt)
        return strong if salt else f"({strong}) % 3"

    monkeypatch.setattr(narrow, "hashed", weak)
    monkeypatch.setattr(consent, "hashed", weak)
    return used


CONTACTS = [
    {"id": f"C{n}", "phone": f"(312) 555-01{n:02d}", "name": f"name {n % 7}", "no": "yes"}
    for n in range(40)
]
PERSONS = [
    {
        "person_key": f"k{n}",
        "external_person_id": f"C{n}" if n % 5 else None,
        "mdn": f"+131255501{n:02d}" if n % 3 else None,
        "name": f"name {n % 6}",
    }
    for n in range(10, 60)
]
SUBSCRIPTIONS = [
    {"person_key": f"k{n}", "subscription_list_id": "7", "opt_in_date": "2026-01-01T00:00:00Z"}
    for n in range(10, 60)
]
CONSENTS = [{"from": "no", "list": "7", "opted_out": ["yes"], "opted_in": ["never"]}]


def test_a_diff_set_does_not_depend_on_the_hashes(run, make_config, salts):
    config = make_config(consents=CONSENTS)
    weak = run(config, CONTACTS, PERSONS, subscriptions=SUBSCRIPTIONS)
    assert set(salts) == {0, 1}
    salts.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(narrow, "hashed", identifiers.hashed)
        patch.setattr(consent, "hashed", identifiers.hashed)
        strong = run(config, CONTACTS, PERSONS, subscriptions=SUBSCRIPTIONS)
    assert weak.summary == strong.summary
    assert strong.summary.subscription_changes > 0
    assert strong.summary.updated > 0


@pytest.mark.parametrize(
    ("contact", "person"),
    [
        pytest.param({"id": "A", "name": "Ann"}, {"external_person_id": "B"}, id="paired"),
        pytest.param(
            {"id": "A", "name": "Ann", "phone": "312 555 0101"},
            {"external_person_id": "B", "mdn": "+13125550102"},
            id="claimed",
        ),
    ],
)
def test_a_contact_is_not_taken_for_a_person_of_the_same_hash(
    run, make_config, monkeypatch, contact, person
):
    def constant(text, salt):
        return identifiers.hashed(text, salt) if salt else f"CASE WHEN {text} > '' THEN 7 END"

    monkeypatch.setattr(narrow, "hashed", constant)
    done = run(make_config(), [contact], [{"person_key": "k1", **person}])
    assert (done.summary.added, done.summary.persons_only) == (1, 1)
    assert done.person_changes[0]["person_key"] is None


def test_two_contacts_of_the_same_hash_are_no_duplicates(run, make_config, monkeypatch):
    def constant(text, salt):
        return identifiers.hashed(text, salt) if salt else f"CASE WHEN {text} > '' THEN 7 END"

    monkeypatch.setattr(narrow, "hashed", constant)
    done = run(make_config(), [{"id": "A", "name": "Ann"}, {"id": "B", "name": "Bo"}], [])
    assert (done.summary.added, done.summary.quarantined) == (2, 0)
