"""Fields: authority, blanks, three ways, what is pending and what is blocked."""

from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vibes_pipelines.reconcile.run import Inputs, reconcile

NAME = {"from": "name", "to": "name", "type": "string"}
PHONE = "+13125550100"


def field(**more):
    return [NAME | more]


def one(run, config, contact, person, **inputs):
    """One contact C1 of name `contact`, whose person k1 has name `person`."""
    persons = [{"person_key": "k1", "external_person_id": "C1", "name": person}]
    base = inputs.pop("base", "no base")
    if base != "no base":
        inputs["base"] = [{"person_key": "K1", "external_person_id": "C1", "name": base}]
    return run(config, [{"id": "C1", "name": contact}], persons, **inputs)


def outcome(done):
    """What happens at Vibes, and what at the CRM, as (action, after, reason)."""
    vibes = [
        (c["action"], c["after"], c["reason"]) for r in done.person_changes for c in r["changes"]
    ]
    crm = [("crm", r["after"], r["reason"]) for r in done.rows("crm_changes")]
    return vibes + crm


@pytest.mark.parametrize(
    ("more", "contact", "person", "base", "expected"),
    [
        ({}, "a", "b", "no base", [("set", "a", "no_base")]),
        ({}, "a", "b", "b", [("set", "a", "crm_changed")]),
        ({}, "a", "b", "a", [("set", "a", "platform_changed")]),
        ({}, "a", "b", "c", [("set", "a", "both_changed")]),
        ({}, "a", None, None, [("set", "a", "crm_changed")]),
        ({}, None, "b", "no base", []),
        ({"when_null": "clear"}, None, "b", "no base", [("clear", None, "clear")]),
        ({"when_null": "clear"}, " ", "b", "no base", [("clear", None, "clear")]),
        ({"when_null": "clear"}, None, "", "no base", []),
        ({"authority": "fill"}, "a", "b", "no base", []),
        ({"authority": "fill"}, "a", None, "no base", [("set", "a", "fill")]),
        ({"authority": "fill", "when_null": "clear"}, None, "b", "no base", []),
        ({"authority": "platform"}, "a", "b", "no base", [("crm", "b", "no_base")]),
        ({"authority": "platform"}, "a", "b", "b", [("set", "a", "crm_changed")]),
        ({"authority": "platform"}, "a", "b", "a", [("crm", "b", "platform_changed")]),
        ({"authority": "platform"}, "a", "b", "c", [("crm", "b", "both_changed")]),
        ({"authority": "platform"}, None, "b", "no base", [("crm", "b", "no_base")]),
        ({"authority": "platform"}, "a", None, "no base", []),
        ({"authority": "platform"}, "a", None, "a", []),
        (
            {"authority": "platform", "when_null": "clear"},
            "a",
            None,
            "a",
            [("crm", None, "platform_changed")],
        ),
        (
            {"authority": "platform", "when_null": "clear"},
            None,
            "b",
            "b",
            [("clear", None, "clear")],
        ),
    ],
)
def test_authority_and_blanks_decide(run, make_config, more, contact, person, base, expected):
    done = one(run, make_config(fields=field(**more)), contact, person, base=base)
    assert outcome(done) == expected
    assert done.summary.updated == sum(action != "crm" for action, _, _ in expected)


def test_a_field_that_the_base_does_not_know_has_no_base(run, make_config, tmp_path):
    folder = tmp_path / "base"
    folder.mkdir()
    pq.write_table(pa.table({"external_person_id": ["C1"]}), folder / "persons.parquet")
    first = one(run, make_config(), "a", "b")
    inputs = Inputs(
        first.folder.parent / "c.parquet", first.folder.parent / "persons.parquet", base=folder
    )
    reconcile(make_config(), inputs, first.folder)
    assert outcome(first) == [("set", "a", "no_base")]


def test_an_add_sets_every_value_of_whatever_authority(run, make_config):
    fields = [NAME | {"from": n, "to": n, "authority": n} for n in ("crm", "platform", "fill")]
    fields.append({"from": "empty", "to": "empty", "type": "string", "when_null": "clear"})
    contact = {"id": "C1", "crm": "1", "platform": "2", "fill": "3"}
    done = run(make_config(fields=fields), [contact], [])
    assert {f: c[2] for f, c in done.changes_of("C1").items()} == {
        "crm": "1",
        "platform": "2",
        "fill": "3",
    }


def test_changes_are_sorted_by_field(run, make_config):
    fields = [NAME | {"from": n, "to": n} for n in ("zeta", "alpha", "nose")]
    contact = {"id": "C1", "phone": PHONE, "zeta": "1", "alpha": "2", "nose": "3"}
    done = run(make_config(fields=fields), [contact], [{"person_key": "k", "mdn": PHONE}])
    assert list(done.changes_of("C1")) == ["alpha", "external_person_id", "nose", "zeta"]


def test_contacts_that_do_not_meet_the_conditions_are_filtered(run, make_config):
    contacts = {
        "key": "id",
        "conditions": [
            {"column": "type", "equals": "A"},
            {"column": "left", "is_null": True},
            {"column": "land", "in": ["DE", "US"]},
            {"column": "mood", "not_equals": "bad"},
            {"column": "mail", "not_null": True},
        ],
    }
    good = {"type": " A ", "left": " ", "land": "US", "mood": None, "mail": "x"}
    bad = [{"type": "a"}, {"left": "2020"}, {"land": None}, {"mood": "bad"}, {"mail": ""}]
    rows = [{"id": f"C{n}", **good, **change} for n, change in enumerate([{}, *bad])]
    done = run(make_config(contacts=contacts), rows, [])
    assert (done.summary.added, done.summary.filtered) == (1, 5)


AS_OF = datetime(2026, 1, 10, tzinfo=UTC)


def sent(value, at="2026-01-09 12:00:00", name="name"):
    return {"external_person_id": "C1", "field": name, "value": value, "accepted_at": at}


@pytest.mark.parametrize(
    ("pending", "status"),
    [
        ([sent("a")], "pending"),
        ([sent("b")], "updated"),
        ([sent("a", at="2026-01-08 11:59:59")], "updated"),
        ([sent("a", at=None)], "pending"),
        ([sent("a", at="2026-01-09 01:00:00"), sent("c")], "updated"),
        ([sent("c", at="2026-01-09 01:00:00"), sent("a")], "pending"),
    ],
)
def test_what_was_accepted_and_is_not_yet_visible_is_pending(run, make_config, pending, status):
    done = one(run, make_config(), "a", "b", pending=pending, as_of=AS_OF)
    assert getattr(done.summary, status) == 1


def test_without_an_as_of_everything_accepted_is_still_pending(run, make_config):
    done = one(run, make_config(), "a", "b", pending=[sent("a", at="2020-01-01")])
    assert done.summary.pending == 1


def test_a_pending_clear_is_not_a_pending_value(run, make_config):
    config = make_config(fields=field(when_null="clear"))
    assert one(run, config, None, "b", pending=[sent(None)]).summary.pending == 1
    assert one(run, config, None, "b", pending=[sent("b")]).summary.updated == 1


def test_a_rejected_change_is_blocked_until_it_changes(run, make_config):
    assert one(run, make_config(), "a", "b", blocked=[sent("a")]).summary.blocked == 1
    assert one(run, make_config(), "a", "b", blocked=[sent("z")]).summary.updated == 1


def test_pending_counts_before_blocked(run, make_config):
    done = one(run, make_config(), "a", "b", blocked=[sent("a")], pending=[sent("a")])
    assert (done.summary.pending, done.summary.blocked) == (1, 0)


def test_an_update_keeps_only_what_is_not_blocked(run, make_config):
    fields = [NAME, NAME | {"from": "city", "to": "city"}]
    done = run(
        make_config(fields=fields),
        [{"id": "C1", "name": "a", "city": "x"}],
        [{"person_key": "k", "external_person_id": "C1"}],
        blocked=[sent("a")],
    )
    assert list(done.changes_of("C1")) == ["city"]


def added(run, config, blocked=(), pending=()):
    return run(
        config,
        [{"id": "C1", "name": "a", "phone": PHONE}],
        [],
        blocked=list(blocked),
        pending=list(pending),
    )


WHOLE_ADD = [sent("a"), sent("C1", name="external_person_id"), sent(PHONE, name="mdn")]


def test_an_add_under_way_is_pending_and_a_rejected_one_blocked(run, make_config):
    assert added(run, make_config(), pending=WHOLE_ADD).summary.pending == 1
    assert added(run, make_config(), blocked=WHOLE_ADD).summary.blocked == 1


def test_an_add_of_which_something_changed_since_it_was_rejected_goes_whole(run, make_config):
    done = added(run, make_config(), blocked=[sent("old"), *WHOLE_ADD[1:]])
    assert list(done.changes_of("C1")) == ["name"]
    done = added(run, make_config(), blocked=WHOLE_ADD[:2])
    assert list(done.changes_of("C1")) == ["name"]


def test_a_set_may_stand_in_a_column_of_lists(make_config, tmp_path):
    field = {"from": "likes", "to": "likes", "type": "multi_select"}
    config = make_config(contacts={"key": "id"}, fields=[field])
    contacts, persons = tmp_path / "c.parquet", tmp_path / "p.parquet"
    likes = pa.array([["b", "a, c", None]], type=pa.list_(pa.string()))
    pq.write_table(pa.table({"id": ["C1"], "likes": likes}), contacts)
    pq.write_table(
        pa.table({"person_key": ["k1"], "external_person_id": ["C1"], "likes": ["d"]}), persons
    )
    reconcile(config, Inputs(contacts, persons), tmp_path / "out")
    [row] = pq.read_table(tmp_path / "out" / "person_changes.parquet").to_pylist()
    assert [change["after"] for change in row["changes"]] == ["a, c|b"]
