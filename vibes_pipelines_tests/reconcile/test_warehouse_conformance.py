"""Conformance: three ways to the persons of the share, one set of landed rows, one diff set.

Plainly read; compared with the contacts by the same SELECT in DuckDB; compared by it through the
unmodified Snowflake connector.
"""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import snowflake.connector
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from vibes_pipelines.reconcile.run import Inputs, reconcile
from vibes_pipelines.reconcile.summary import Summary
from vibes_pipelines.reconcile.warehouse import VALUES_LEFT, ContactsAtHand, comparing_select
from vibes_pipelines.sandbox.share_staging import WORK
from vibes_pipelines.store.snapshots import SnapshotStore
from vibes_pipelines.sync_config import SyncConfig
from vibes_pipelines.vibes.share import land_share_feed
from vibes_pipelines.vibes.share_staging import AtHand
from vibes_pipelines_tests.reconcile.conftest import (
    SUBSCRIPTION,
    build_config,
    contact_columns,
    write_parquet,
)
from vibes_pipelines_tests.reconcile.test_reconcile_laws import (
    SECTIONS,
    contact_rows,
    maybe,
    subscription_rows,
)
from vibes_pipelines_tests.support.examples import examples
from vibes_pipelines_tests.support.sandbox_parts import RunningShare

DAY = "2026-01-05"
NOON = datetime(2026, 1, 5, 12)  # noqa: DTZ001 - TIMESTAMP_NTZ, UTC by convention
CONFIG = build_config(**SECTIONS, engine="snowflake")
OUTPUTS = ("person_changes", "subscription_changes", "crm_changes", "quarantine")
# As the share may have them: typed where the contacts are text.
SCHEMA = pa.schema(
    {
        "PERSON_KEY": pa.string(),
        "EXTERNAL_PERSON_ID": pa.string(),
        "MDN": pa.string(),
        "NAME": pa.string(),
        "SCORE": pa.decimal128(18, 4),
        "BORN": pa.timestamp("us"),
        "TIER": pa.string(),
        "LIKES": pa.string(),
        "UPDATED_AT": pa.timestamp("us"),
    }
)


@dataclass
class Ways:
    """One share, one folder of contacts, and the three ways to read the persons."""

    share: RunningShare
    folder: Path

    def world(
        self, contacts: Sequence[Any], persons: pa.Table, config: SyncConfig = CONFIG
    ) -> "World":
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        self.share.load(PERSONS=persons)
        pq.write_table(persons, self.folder / "share.parquet")
        file = self.folder / "contacts.parquet"
        write_parquet(file, contacts, contact_columns(config))
        return World(self, file, config)


@dataclass
class World:
    """Contacts and the share of one day."""

    ways: Ways
    contacts: Path
    config: SyncConfig

    @property
    def at_hand(self) -> ContactsAtHand:
        return ContactsAtHand(self.config, self.contacts)

    def read(self, name: str, at_hand: AtHand | None = None) -> Path:
        """Lands the persons through the connector; returns their folder."""

        @contextmanager
        def connect() -> Iterator[Any]:
            database, schema = WORK
            arguments = self.ways.share.arguments(
                database=database, schema=schema, warehouse="SMALL"
            )
            with snowflake.connector.connect(**arguments) as connection:
                yield connection

        store = SnapshotStore(self.ways.folder / name)
        landed, _ = land_share_feed(store, DAY, "share/persons", connect, self.config, at_hand)
        return landed.folder

    def read_by_duckdb(self) -> Path:
        """The same comparison without Snowflake, which ends in the same columns."""
        folder = self.ways.folder / "duckdb"
        folder.mkdir()
        staged, came_back = folder / "staged.parquet", folder / "came_back.parquet"
        share = f"read_parquet('{self.ways.folder / 'share.parquet'}')"
        names = ["person_key", "external_person_id", "mdn", *(f.to for f in self.config.fields)]
        columns = {name: f'"{name.upper()}"' for name in names}
        types = {name: _TYPES[SCHEMA.field(name.upper()).type] for name in names}
        compared = self.at_hand.comparable(types)
        self.at_hand.stage(compared, staged)
        select = comparing_select(share, f"read_parquet('{staged}')", columns, compared)
        with duckdb.connect() as connection:
            connection.execute(f"COPY ({select}) TO '{came_back}' (FORMAT parquet)")
        self.at_hand.complete(came_back, staged, compared, folder / "data.parquet")
        return folder

    def reconcile(self, persons: Path, subscriptions: Sequence[Any] = ()) -> tuple[Summary, Path]:
        out = persons / "out"
        told = self.ways.folder / "subscriptions.parquet"
        write_parquet(told, subscriptions, SUBSCRIPTION)
        inputs = Inputs(
            self.contacts,
            persons / "data.parquet",
            (told,),
            as_of=datetime(2026, 1, 5, tzinfo=UTC),
            relative_guards=False,
        )
        return reconcile(self.config, inputs, out), out


_TYPES = {
    pa.string(): "VARCHAR",
    pa.decimal128(18, 4): "DECIMAL(18,4)",
    pa.timestamp("us"): "DATETIME",
}


def rows_of(folder: Path) -> list[tuple[Any, ...]]:
    table = pq.read_table(folder / "data.parquet")
    assert table.num_rows == pq.read_metadata(folder / "data.parquet").num_rows
    return sorted((tuple(row.values()) for row in table.to_pylist()), key=repr)


def values_left(folder: Path) -> int:
    metadata = pq.read_metadata(folder / "data.parquet").metadata
    return int(metadata[VALUES_LEFT.encode()])


def assert_all_land_the_same(world: World) -> dict[str, Path]:
    """The landed persons by their way, the plainly read ones first."""
    plain = world.read("plain")
    landed = {"connector": world.read("compared", world.at_hand), "duckdb": world.read_by_duckdb()}
    for name, folder in landed.items():
        assert rows_of(folder) == rows_of(plain), name
        schemas = [pq.read_schema(one / "data.parquet") for one in (folder, plain)]
        assert schemas[0].remove_metadata() == schemas[1].remove_metadata(), name
    assert len({values_left(folder) for folder in landed.values()}) == 1
    return {"plain": plain, **landed}


def assert_diff_sets_equal(
    world: World, landed: dict[str, Path], subscriptions: Sequence[Any] = ()
) -> None:
    told, out = world.reconcile(landed["plain"], subscriptions)
    for name in ("connector", "duckdb"):
        same, other = world.reconcile(landed[name], subscriptions)
        assert same == told, name
        for output in OUTPUTS:
            file = f"{output}.parquet"
            assert (other / file).read_bytes() == (out / file).read_bytes(), (name, output)


def left_of(landed: dict[str, Path]) -> set[str]:
    """The external ids of the persons whose values stayed in the share."""
    came_back = pq.read_table(landed["duckdb"] / "came_back.parquet")
    staged = pq.read_table(landed["duckdb"] / "staged.parquet").to_pylist()
    keys = {row[ContactsAtHand.row]: row["VALUE_0"] for row in staged}
    return {keys[row] for row in came_back[ContactsAtHand.row].to_pylist() if row is not None}


@pytest.fixture
def ways(share: RunningShare, tmp_path: Path) -> Ways:
    return Ways(share, tmp_path / "world")


def persons_table(rows: Sequence[dict[str, Any]]) -> pa.Table:
    filled = [{"UPDATED_AT": NOON, **row} for row in rows]
    return pa.Table.from_pylist(filled, schema=SCHEMA)


odd_texts = maybe(
    "", " ", "Ann", " Ann", "ann", "é", "e\u0301", "\\N", "a'b\"", "NULL", "\U0001f600"
)
share_rows = st.lists(
    st.fixed_dictionaries(
        {
            "PERSON_KEY": maybe("k1", "k2", "K3", "k4", "k5", "k6"),
            "EXTERNAL_PERSON_ID": maybe("C1", "C2", "C3", "C4", "C9", " ", "", "c1"),
            "MDN": maybe("+13125550100", "+13125550101", "3125550100", "12"),
            "NAME": odd_texts,
            "SCORE": maybe(Decimal("1.0000"), Decimal("2.5000")),
            "BORN": maybe(datetime(2017, 1, 15), NOON, datetime(2017, 1, 15, 0, 0, 0, 5)),  # noqa: DTZ001
            "TIER": maybe("g", "t", "Gold"),
            "LIKES": maybe("a|b", "b|a", "c", ""),
        }
    ),
    min_size=1,
    max_size=9,
)
odd_contacts = st.tuples(contact_rows, st.lists(odd_texts, min_size=9, max_size=9)).map(
    lambda drawn: [row | {"name": name} for row, name in zip(*drawn, strict=False)]
)


@given(odd_contacts, share_rows, subscription_rows, st.data())
@settings(
    max_examples=examples(5),
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # a world takes a second: no shrinking
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_all_ways_land_the_same_persons(ways, contacts, persons, subscriptions, data):
    agreeing = data.draw(st.lists(st.sampled_from(contacts), max_size=4)) if contacts else []
    rows = [*persons, *(as_the_share_has(row) for row in agreeing)]
    world = ways.world(contacts, persons_table(rows))
    assert_diff_sets_equal(world, assert_all_land_the_same(world), subscriptions)


def as_the_share_has(contact: dict[str, Any]) -> dict[str, Any]:
    """A person with a contact's values, as far as they can be read."""
    tiers = {"Gold": "g", "Tin": "t"}
    return {
        "PERSON_KEY": f"of {contact['id']}",
        "EXTERNAL_PERSON_ID": (contact["id"] or "").strip() or None,
        "NAME": contact["name"],
        "SCORE": Decimal(1) if contact["score"] in {"1", "1.0"} else None,
        "BORN": datetime(2017, 1, 15) if contact["born"] else None,  # noqa: DTZ001
        "TIER": tiers.get(contact["tier"] or ""),
        "LIKES": "a|b" if contact["likes"] else None,
    }


CONTACT = {
    "id": "C1",
    "phone": "(312) 555-0100",
    "type": "A",
    "name": "Ann",
    "score": "1.50",
    "born": "2017-01-15T06:30Z",
    "tier": "Gold",
    "likes": "b;a",
}
PERSON = {
    "PERSON_KEY": "k1",
    "EXTERNAL_PERSON_ID": "C1",
    "MDN": "+13125550100",
    "NAME": "Ann",
    "SCORE": Decimal("1.5000"),
    "BORN": datetime(2017, 1, 15, 6, 30),  # noqa: DTZ001 - TIMESTAMP_NTZ
    "TIER": "g",
    "LIKES": "a|b",
}


DIFFERENCES: list[dict[str, Any]] = [
    {"NAME": "ann"},
    {"NAME": "Ann "},
    {"NAME": None},
    {"NAME": ""},
    {"SCORE": Decimal("1.5001")},
    {"SCORE": None},
    {"BORN": datetime(2017, 1, 15, 6, 30, 0, 1)},  # noqa: DTZ001 - TIMESTAMP_NTZ
    {"BORN": None},
    {"TIER": "Gold"},
    {"LIKES": "b|a"},
    {"EXTERNAL_PERSON_ID": "c"},
    {"EXTERNAL_PERSON_ID": "C "},
    {"EXTERNAL_PERSON_ID": None},
]
DOUBTS = [
    {"score": "one"},
    {"tier": "Wood"},
    {"likes": "a|b"},
    {"born": "never"},
    {"name": "A\0n"},
]


def test_only_the_values_of_agreeing_persons_stay_where_they_are(ways):
    contacts, persons = [CONTACT], [PERSON]
    for number, difference in enumerate(DIFFERENCES):
        contacts.append(CONTACT | {"id": f"D{number}"})
        persons.append(PERSON | {"EXTERNAL_PERSON_ID": f"D{number}"} | difference)
    for number, doubt in enumerate(DOUBTS):
        contacts.append(CONTACT | {"id": f"E{number}"} | doubt)
        persons.append(PERSON | {"EXTERNAL_PERSON_ID": f"E{number}"})
    landed = assert_all_land_the_same(ways.world(contacts, persons_table(persons)))
    assert left_of(landed) == {"C1"}


def test_contacts_that_share_a_key_prove_nothing(ways):
    contacts = [CONTACT, CONTACT | {"id": " C1"}]
    assert left_of(assert_all_land_the_same(ways.world(contacts, persons_table([PERSON])))) == set()


def test_persons_that_share_an_id_stay_two_persons(ways):
    twin = PERSON | {"PERSON_KEY": "k2", "MDN": None}
    world = ways.world([CONTACT], persons_table([PERSON, twin]))
    landed = assert_all_land_the_same(world)
    assert values_left(landed["connector"]) == 2
    told, _ = world.reconcile(landed["connector"])
    assert told.quarantine_kinds == {"duplicate_external_id": 3}


def test_a_blank_value_and_the_text_that_loads_as_null_are_told_apart(ways):
    contacts = [CONTACT | {"name": "\\N"}, CONTACT | {"id": "C2", "name": None}]
    persons = [PERSON | {"NAME": None}, PERSON | {"EXTERNAL_PERSON_ID": "C2", "NAME": "\\N"}]
    landed = assert_all_land_the_same(ways.world(contacts, persons_table(persons)))
    assert left_of(landed) == set()


def test_equal_shares_land_as_equal_files(ways):
    others = [PERSON | {"PERSON_KEY": f"k{n}", "EXTERNAL_PERSON_ID": None} for n in range(2, 40)]
    files = []
    for persons in ([PERSON, *others], [*reversed(others), PERSON]):
        landed = ways.world([CONTACT], persons_table(persons)).read_by_duckdb()
        files.append((landed / "data.parquet").read_bytes())
    assert files[0] == files[1]


TYPED = build_config(
    fields=[
        {"from": "flag", "to": "flag", "type": "string"},
        {"from": "day", "to": "day", "type": "date"},
        {"from": "visits", "to": "visits", "type": "number"},
        {"from": "ratio", "to": "ratio", "type": "number"},
    ]
)
TYPED_CONTACTS = [
    {"id": "C1", "flag": "true", "day": "2026-01-02", "visits": "7", "ratio": "0.3"},
    {"id": "C2", "flag": "perhaps", "day": "2026-01-02", "visits": "7", "ratio": "0.3"},
    {"id": "C3", "flag": "true", "day": "2026-01-03", "visits": "7", "ratio": "0.3"},
    {"id": "C4", "flag": "true", "day": "2026-01-02", "visits": "7.5", "ratio": "0.3"},
    {"id": "C5", "flag": None, "day": None, "visits": None, "ratio": None},
]


def test_every_type_of_the_share_lands_as_it_was(ways):
    count = len(TYPED_CONTACTS)
    persons = pa.table(
        {
            "PERSON_KEY": pa.array([f"k{n}" for n in range(count)], pa.string()),
            "EXTERNAL_PERSON_ID": pa.array([row["id"] for row in TYPED_CONTACTS], pa.string()),
            "MDN": pa.array([None] * count, pa.string()),
            "FLAG": pa.array([True] * (count - 1) + [None], pa.bool_()),
            "DAY": pa.array([date(2026, 1, 2)] * (count - 1) + [None], pa.date32()),
            "VISITS": pa.array([7] * (count - 1) + [None], pa.int64()),
            "RATIO": pa.array([0.1 + 0.2] + [None] * (count - 1), pa.float64()),
            "UPDATED_AT": pa.array([NOON] * count, pa.timestamp("us")),
        }
    )
    world = ways.world(TYPED_CONTACTS, persons, TYPED)
    plain, compared = world.read("plain"), world.read("compared", world.at_hand)
    assert rows_of(compared) == rows_of(plain)
    schemas = [pq.read_schema(one / "data.parquet") for one in (compared, plain)]
    assert schemas[0].remove_metadata() == schemas[1].remove_metadata()
    # C1 and C5: the ratio is always read, because it is floating point.
    assert values_left(compared) == 2


def test_a_key_that_is_no_text_is_not_compared(ways):
    world = ways.world([CONTACT], persons_table([PERSON]))
    types = {"external_person_id": "DECIMAL(38,0)", "name": "VARCHAR"}
    assert world.at_hand.comparable(types) == {}
    types["external_person_id"] = "VARCHAR"
    assert world.at_hand.comparable(types) == types


def test_a_share_without_a_comparable_key_is_read_whole(ways):
    persons = persons_table([PERSON]).set_column(1, "EXTERNAL_PERSON_ID", pa.array([7], pa.int64()))
    world = ways.world([CONTACT | {"id": "7"}], persons)
    plain, compared = world.read("plain"), world.read("compared", world.at_hand)
    assert rows_of(compared) == rows_of(plain)
