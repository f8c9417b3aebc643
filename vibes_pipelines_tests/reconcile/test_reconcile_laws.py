"""The laws of the reconcile, and its agreement with an oracle that knows no SQL.

Frames are random, small and crowded, so that duplicates, blanks, shared numbers and contradictions
are the usual case.
"""

import random
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vibes_pipelines.reconcile import run
from vibes_pipelines.reconcile.engine import Limits, engine
from vibes_pipelines.reconcile.run import Inputs, reconcile
from vibes_pipelines.reconcile.summary import CONTACT_STATUSES
from vibes_pipelines_tests.reconcile.oracle import FIELDS, NUMBERS, SPELT, Oracle
from vibes_pipelines_tests.support.examples import examples

SECTIONS = {
    "contacts": {
        "key": "id",
        "person_key": "pk",
        "mdn": {"column": "phone", "default_region": "US"},
        "conditions": [{"column": "type", "not_equals": "B"}],
    },
    "fields": FIELDS,
    "consents": [{"from": "sms", "list": "77", "changed_at": "sms_at"}],
}
TIMES = ["2026-01-01", "2026-01-02", "2026-01-03"]


def maybe(*values):
    return st.sampled_from([None, *values])


contact_rows = st.lists(
    st.fixed_dictionaries(
        {
            "id": maybe("C1", "C2", "C3", " C4 ", "", "C5", "C6"),
            "pk": maybe(None, None, "k1", "K2", "k9"),
            "phone": maybe(None, *SPELT, "12", "312-555-0100 x5"),
            "type": maybe("A", "B"),
            "name": maybe("Ann", " Ann", "e\u0301", "", "a\nb"),
            "score": maybe("1", "1.0", "x"),
            "born": maybe("2017-01-15", "2017-01-15T00:00Z", "never", "2024-02-30"),
            "tier": maybe("Gold", "Tin", "Wood"),
            "likes": maybe("a;b", "b; a", ";", "a|b"),
            "sms": maybe("yes", "no", "NO", "maybe"),
            "sms_at": maybe(*TIMES),
        }
    ),
    max_size=9,
)
person_rows = st.lists(
    st.fixed_dictionaries(
        {
            "person_key": maybe("k1", "k2", "K3", "k4", "k5", "k6"),
            "external_person_id": maybe("C1", "C2", "C3", "C4", "C9", " "),
            "mdn": maybe(*NUMBERS),
            "name": maybe("Ann", "Bob", "\u00e9"),
            "score": maybe("1.00", "2"),
            "born": maybe("2017-01-15T00:00:00.000Z", "2018-01-01", "2024-02-30"),
            "tier": maybe("g", "t"),
            "likes": maybe("b|a", "c"),
        }
    ),
    max_size=9,
)
subscription_rows = st.lists(
    st.fixed_dictionaries(
        {
            "person_key": maybe("k1", "K2", "k3"),
            "subscription_list_id": maybe("77", "78"),
            "opt_in_date": maybe(*TIMES),
            "opt_out_date": maybe(*TIMES),
        }
    ),
    max_size=6,
)


many = settings(
    max_examples=examples(40),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
few = settings(many, max_examples=examples(8))


@given(contact_rows, person_rows, subscription_rows)
@many
def test_the_reconcile_agrees_with_the_oracle(run, make_config, contacts, persons, subscriptions):
    done = run(make_config(**SECTIONS), contacts, persons, subscriptions=subscriptions)
    told = Oracle([dict(c) for c in contacts], [dict(p) for p in persons], subscriptions).run()

    summary = done.summary
    assert {s: getattr(summary, s) for s in CONTACT_STATUSES if getattr(summary, s)} == told.status
    assert Counter((r["kind"], r["source"]) for r in done.rows("quarantine")) == Counter(
        (kind, source) for kind, source, _ in told.kinds
    )
    assert {
        row["external_person_id"]: {c["field"]: (c["before"], c["after"]) for c in row["changes"]}
        for row in done.person_changes
    } == told.changes
    assert {
        (r["contact_id"], r["field"], r["before"], r["after"]) for r in done.rows("crm_changes")
    } == told.crm
    assert {
        (r["side"], r["external_person_id"]) for r in done.rows("subscription_changes")
    } == told.consent


@given(contact_rows, person_rows, subscription_rows)
@few
def test_every_record_is_told_exactly_once(run, make_config, contacts, persons, subscriptions):
    done = run(make_config(**SECTIONS), contacts, persons, subscriptions=subscriptions)
    summary = done.summary
    assert summary.contacts == len(contacts)
    assert sum(getattr(summary, status) for status in CONTACT_STATUSES) == len(contacts)
    operations = Counter(row["operation"] for row in done.person_changes)
    assert (operations["add"], operations["update"]) == (summary.added, summary.updated)
    assert summary.persons == len(persons)
    assert summary.persons_only + summary.quarantined_persons <= len(persons)
    assert summary.subscription_changes == len(done.rows("subscription_changes"))
    assert summary.crm_changes == len(done.rows("crm_changes"))


@given(contact_rows, person_rows)
@few
def test_applying_the_diff_set_leaves_nothing_to_do(run, make_config, contacts, persons):
    config = make_config(**SECTIONS)
    before = {f"k{n}": person | {"person_key": f"k{n}"} for n, person in enumerate(persons)}
    done = run(config, contacts, list(before.values()))
    for row in done.person_changes:
        key = row["person_key"] or f"new {row['external_person_id']}"
        person = before.setdefault(
            key,
            {
                "person_key": key,
                "external_person_id": row["external_person_id"],
                "mdn": row["mdn"],
            },
        )
        renamed = {"external_person_id", "mdn", *(one["to"] for one in FIELDS)}
        assert {change["field"] for change in row["changes"]} <= renamed
        person.update({change["field"]: change["after"] for change in row["changes"]})
    again = run(config, contacts, list(before.values()))
    assert again.person_changes == []
    assert again.summary.unchanged == done.summary.unchanged + len(done.person_changes)


@given(st.lists(st.tuples(st.text(max_size=5), maybe("1", "2.5"), maybe("g", "t")), max_size=8))
@few
def test_a_side_differs_not_from_itself(run, make_config, rows):
    fields = [FIELDS[0], FIELDS[1] | {"authority": "crm"}, FIELDS[3] | {"options": None}]
    contacts = [
        {"id": f"C{n}", "name": a, "score": b, "tier": c} for n, (a, b, c) in enumerate(rows)
    ]
    persons = [
        {"person_key": f"k{n}", "external_person_id": f"C{n}", "name": a, "score": b, "tier": c}
        for n, (a, b, c) in enumerate(rows)
    ]
    done = run(make_config(fields=fields), contacts, persons)
    assert done.summary.unchanged == len(rows)
    assert done.person_changes == []


@given(contact_rows, person_rows, subscription_rows)
@few
def test_no_consent_without_a_subscription_and_never_an_opt_in(
    run, make_config, contacts, persons, subscriptions
):
    config = make_config(**SECTIONS)
    done = run(config, contacts, persons, subscriptions=subscriptions)
    told = done.rows("subscription_changes")
    assert {row["action"] for row in told} <= {"opt_out"}
    known = {(s["person_key"] or "").lower() for s in subscriptions}
    assert {row["person_key"] for row in told} <= known
    assert run(config, contacts, persons).rows("subscription_changes") == []


@pytest.fixture(scope="module")
def crowd(tmp_path_factory):
    """20 000 contacts and persons that agree, differ, collide and lack; as Parquet."""
    folder = tmp_path_factory.mktemp("crowd")
    connection = duckdb.connect()
    try:
        for name, salt, columns in (
            (
                "contacts",
                1,
                "'C' || i % 19900 AS id, NULL::VARCHAR AS pk, 'A' AS type,"
                " '312' || (2000000 + i % 19950) AS phone, 'n' || hash(i, {salt}) % 9 AS name,"
                " i % 7 AS score, DATE '2017-01-01' + (i % 30)::INTEGER AS born,"
                " ['Gold', 'Tin', NULL, 'Wood'][1 + (hash(i) % 4)::INTEGER] AS tier,"
                " 'b;a' AS likes,"
                " NULL::VARCHAR AS sms, NULL::VARCHAR AS sms_at",
            ),
            (
                "persons",
                2,
                "'k' || i AS person_key, 'C' || (i + 100) AS external_person_id,"
                " '+1312' || (2000000 + i + 100) AS mdn, 'n' || hash(i, {salt}) % 9 AS name,"
                " (i % 7)::DECIMAL(18, 4) AS score, TIMESTAMP '2017-01-01' AS born, 'g' AS tier,"
                " 'a|b' AS likes",
            ),
        ):
            connection.execute(
                f"COPY (SELECT {columns.format(salt=salt)} FROM range(20000) r(i))"
                f" TO '{folder / name}.parquet'"
            )
    finally:
        connection.close()
    return folder


def _shuffled(folder: Path, target: Path, seed: int) -> Inputs:
    for name in ("contacts", "persons"):
        table = pq.read_table(folder / f"{name}.parquet")
        order = list(range(table.num_rows))
        random.Random(seed).shuffle(order)
        pq.write_table(table.take(order), target / f"{name}.parquet", row_group_size=3000)
    return Inputs(target / "contacts.parquet", target / "persons.parquet", relative_guards=False)


def test_files_are_the_same_bytes_whatever_the_row_order_threads_and_memory(
    crowd, make_config, tmp_path
):
    config = make_config(**SECTIONS)
    hashes = []
    for number, limits in enumerate(
        [Limits(threads=1), Limits(threads=4), Limits(threads=2, memory_limit="100MB")]
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        summary = reconcile(config, _shuffled(crowd, folder, number), folder / "out", limits)
        hashes.append((summary.diff_set, (folder / "out" / "summary.json").read_bytes()))
    assert summary.updated > 1000
    assert summary.quarantined > 1000
    assert hashes[0] == hashes[1] == hashes[2]


@pytest.fixture
def many_adds(make_config, tmp_path):
    """A config and inputs whose diff set has several row groups."""
    inputs = Inputs(tmp_path / "contacts.parquet", tmp_path / "persons.parquet")
    with duckdb.connect() as connection:
        for path, sql in (
            (inputs.contacts, "SELECT printf('C%06d', i) AS id, 'n' || i AS name"),
            (inputs.persons, "SELECT NULL AS external_person_id, NULL AS person_key, '' AS name"),
        ):
            rows = "range(260_000)" if path == inputs.contacts else "range(0)"
            connection.execute(f"COPY ({sql} FROM {rows} r(i)) TO '{path}'")
    return make_config(contacts={"key": "id"}, fields=FIELDS[:1]), inputs


@pytest.mark.slow
def test_files_of_several_row_groups_are_the_same_bytes_each_time(many_adds, tmp_path):
    summaries = [
        reconcile(*many_adds, tmp_path / "out", Limits(threads=threads)) for threads in (1, 2, 4, 4)
    ]
    assert summaries[0].added == 260_000
    assert len({summary.diff_set for summary in summaries}) == 1


class ShortGroups:
    """A connection that ends the row groups of the first copy early, as threads at times do."""

    def __init__(self, connection):
        self._connection = connection
        self.copies = []

    def execute(self, sql, *parameters):
        if "COPY" in sql and "person_changes.parquet" in sql:
            self.copies.append(sql)
            if len(self.copies) == 1:
                sql = sql.replace("ROW_GROUP_SIZE 122880", "ROW_GROUP_SIZE 120832")
        return self._connection.execute(sql, *parameters)

    def __getattr__(self, name):
        return getattr(self._connection, name)


def test_row_groups_that_end_elsewhere_are_written_again(many_adds, tmp_path, monkeypatch):
    connections = []

    @contextmanager
    def engine_by_chance(limits, workspace):
        with engine(limits, workspace) as connection:
            connections.append(ShortGroups(connection))
            yield connections[0]
            [(threads,)] = connection.execute("SELECT current_setting('threads')").fetchall()
            assert threads == 2

    usual = reconcile(*many_adds, tmp_path / "out", Limits(threads=2))
    monkeypatch.setattr(run, "engine", engine_by_chance)
    again = reconcile(*many_adds, tmp_path / "out", Limits(threads=2))
    assert len(connections[0].copies) == 2
    assert again.diff_set == usual.diff_set
