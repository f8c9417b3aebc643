"""Landed hashes change how long a reconcile takes, and nothing else."""

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vibes_pipelines.reconcile import identifiers, narrow
from vibes_pipelines.reconcile.errors import ReconcileError
from vibes_pipelines.reconcile.landed import HASHES, write_contact_hashes, write_person_hashes
from vibes_pipelines.reconcile.run import Inputs, reconcile
from vibes_pipelines.store.snapshots import SnapshotStore, Source
from vibes_pipelines_tests.reconcile.conftest import (
    PERSON,
    SUBSCRIPTION,
    build_config,
    contact_columns,
    write_parquet,
)
from vibes_pipelines_tests.reconcile.test_reconcile_laws import (
    SECTIONS,
    contact_rows,
    person_rows,
    subscription_rows,
)
from vibes_pipelines_tests.support.examples import examples

CONFIG = build_config(**SECTIONS)
DAY = "2026-01-05"


class World:
    """Landed contacts, persons and subscriptions, reconciled with and without hashes."""

    def __init__(self, folder, contacts, persons, subscriptions=()):
        self.folder = folder
        store = SnapshotStore(folder / "landing")

        def landed(feed, rows, columns):
            def write(place):
                write_parquet(place / "data.parquet", rows, columns)
                return Source(feed, datetime(2026, 1, 5, tzinfo=UTC))

            return store.land(feed, DAY, write)[0].folder

        self.contacts = landed("crm/contacts", contacts, contact_columns(CONFIG))
        columns = [*PERSON, *(field.to for field in CONFIG.fields)]
        self.persons = landed("share/persons", persons, columns)
        self.subscriptions = landed("share/subscriptions", subscriptions, SUBSCRIPTION)

    def hash(self, config=CONFIG):
        write_contact_hashes(config, self.contacts)
        write_person_hashes(config, self.persons)

    def reconcile(self, name, config=CONFIG):
        inputs = Inputs(
            self.contacts,
            self.persons,
            (self.subscriptions,),
            relative_guards=False,
            for_next_base=True,
        )
        out = self.folder / name
        summary = reconcile(config, inputs, out)
        return summary, json.loads((out / "run.json").read_text())["plan"]

    def cases(self, name):
        """With the evidence that decisions are bound to."""
        return (self.folder / name / "cases.parquet").read_bytes()


@given(contact_rows, person_rows, subscription_rows, st.sampled_from([1, 3, 1_000]))
@settings(
    max_examples=examples(16),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_a_diff_set_from_hashes_equals_the_one_from_a_scan(
    tmp_path, contacts, persons, subscriptions, rows_at_once
):
    """However many ranges of keys it is joined in."""
    folder = tmp_path / "world"
    shutil.rmtree(folder, ignore_errors=True)
    world = World(folder, contacts, persons, subscriptions)
    scanned, plan = world.reconcile("scanned")
    assert plan == "scan"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vibes_pipelines.reconcile.landed._ROWS_AT_ONCE", rows_at_once)
        world.hash()
        landed, plan = world.reconcile("landed")
    assert plan == "landed hashes"
    assert landed == scanned
    assert world.cases("landed") == world.cases("scanned")


RULES = build_config(
    **{
        **SECTIONS,
        "contacts": {
            **SECTIONS["contacts"],
            "conditions": [{"column": "score", "at_least": 1}],
        },
        "consents": [{**SECTIONS["consents"][0], "campaign": "9", "invites": True}],
        "policies": {"mdn_change": "replace"},
    }
)


@pytest.mark.slow
@given(contact_rows, person_rows, subscription_rows)
@settings(
    max_examples=examples(8),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_it_does_so_with_wrong_texts_comparisons_replacements_and_invitations(
    tmp_path, contacts, persons, subscriptions
):
    wrong = {"\u00e9": "A\0B", "Bob": "A\0B", "Ann": "A\ufffd", "C5": "C5\u200b"}
    for row in (*contacts, *persons):
        row.update({name: wrong.get(text, text) for name, text in row.items()})
    folder = tmp_path / "world"
    shutil.rmtree(folder, ignore_errors=True)
    world = World(folder, contacts, persons, subscriptions)
    scanned, _ = world.reconcile("scanned", RULES)
    world.hash(RULES)
    landed, plan = world.reconcile("landed", RULES)
    assert plan == "landed hashes"
    assert landed == scanned
    assert world.cases("landed") == world.cases("scanned")


CONTACT = {"id": "C1", "phone": "(312) 555-0100", "type": "A", "name": "Ann", "tier": "Gold"}
SAME = {"person_key": "k1", "external_person_id": "C1", "mdn": "+13125550100", "name": "Ann"}


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path, [CONTACT], [SAME])
    world.hash()
    return world


def test_hashes_of_another_mapping_are_not_used(world):
    fields = [{"from": "name", "to": "name", "type": "string"}]
    other = build_config(**{**SECTIONS, "fields": fields})
    assert world.reconcile("other", other)[1] == "scan"
    world.hash(other)
    assert world.reconcile("again", other)[1] == "landed hashes"
    assert world.reconcile("first")[1] == "scan"


def test_hashes_of_other_content_are_not_used(world):
    manifest = world.persons / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"content_hash": "', '"content_hash": "0'))
    assert world.reconcile("other")[1] == "scan"


@pytest.mark.parametrize("harm", ["", "not Parquet"])
def test_broken_hashes_are_not_used(world, harm):
    (world.contacts / HASHES).write_text(harm)
    assert world.reconcile("broken")[1] == "scan"


def test_deleted_hashes_are_not_missed(world):
    (world.contacts / HASHES).unlink()
    assert world.reconcile("without")[1] == "scan"


def test_hashing_leaves_the_snapshot_as_it_was(world):
    before = {file.name: file.read_bytes() for file in world.persons.iterdir()}
    world.hash()
    assert {file.name: file.read_bytes() for file in world.persons.iterdir()} == before
    assert set(before) == {"data.parquet", "rejects.parquet", "manifest.json", HASHES}


def test_a_collision_of_landed_hashes_falls_back_to_a_scan(tmp_path, monkeypatch):
    other = {**SAME, "external_person_id": "C2", "name": "Bo", "mdn": None}
    world = World(tmp_path, [{**CONTACT, "phone": None}], [other])
    with monkeypatch.context() as patch:
        patch.setattr(
            narrow, "hashed", lambda text, _salt: f"CASE WHEN {text} > '' THEN 7::UBIGINT END"
        )
        world.hash()
    assert narrow.hashed is identifiers.hashed
    summary, plan = world.reconcile("collided")
    assert plan == "scan"
    assert (summary.added, summary.persons_only) == (1, 1)


def test_a_number_given_in_another_spelling_is_shown_as_the_number_it_is(tmp_path):
    blank = dict.fromkeys(field.to for field in CONFIG.fields)
    contact = {"id": "C1", "phone": "(312) 555-0100", **blank}
    person = {"person_key": "k1", "external_person_id": "C1", "mdn": None, **blank}
    stop = {"person_key": "k1", "subscription_list_id": "77", "opt_out_date": "2026-01-01"}
    world = World(tmp_path / "world", [contact], [person], [stop])
    scanned, _ = world.reconcile("scanned")
    world.hash()
    landed, _ = world.reconcile("landed")
    assert landed == scanned
    [told] = pq.read_table(world.folder / "landed" / "subscription_changes.parquet").to_pylist()
    assert told["mdn"] == "+13125550100"


@pytest.mark.parametrize(("home", "other"), [("vibes[1]", "vibes1"), ("name=Zoe", "name")])
def test_only_the_installation_that_is_named_is_read(tmp_path, home, other):
    blank = dict.fromkeys(field.to for field in CONFIG.fields)
    mine, _ = (
        World(tmp_path / place, [{"id": key, **blank, "name": "Ann"}], [])
        for place, key in ((home, "C1"), (other, "C2"))
    )
    for name, plan in (("scanned", "scan"), ("landed", "landed hashes")):
        assert mine.reconcile(name)[1] == plan
        [added] = pq.read_table(mine.folder / name / "person_changes.parquet").to_pylist()
        assert added["external_person_id"] == "C1"
        assert {c["field"]: c["after"] for c in added["changes"]}["name"] == "Ann"
        mine.hash()


@pytest.mark.parametrize("write", [write_contact_hashes, write_person_hashes])
def test_bytes_that_are_no_utf8_are_told_with_their_file(tmp_path, write):
    world = World(tmp_path, [], [])
    folder = world.contacts if write is write_contact_hashes else world.persons
    columns = pq.read_schema(folder / "data.parquet").names
    broken = pa.Array.from_buffers(pa.string(), 1, pa.array([b"Secret\xff"], pa.binary()).buffers())
    pq.write_table(pa.table(dict.fromkeys(columns, broken)), folder / "data.parquet")
    with pytest.raises(ReconcileError, match=r"data\.parquet: .* not UTF-8") as refused:
        write(CONFIG, folder)
    assert "Secret" not in str(refused.value)
