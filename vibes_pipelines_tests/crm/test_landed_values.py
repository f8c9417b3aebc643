"""Every value of a contact lands as what it is, and what cannot land is told with its column."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa

from vibes_pipelines.crm.contacts import CrmError, land_contacts
from vibes_pipelines.store.snapshots import SnapshotStore
from vibes_pipelines.sync_config import SyncConfig

DAY = "2026-01-02"
AS_OF = datetime(2026, 1, 2, 5, tzinfo=UTC)


def run(url: str, *statements: str) -> None:
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(sa.text(statement.replace(":", "\\:")))
    engine.dispose()


def land_fields(
    store: SnapshotStore, url: str, fields: list[dict[str, Any]], query: str | None = None
) -> list[dict[str, Any]]:
    """Lands contacts of which only their key and fields are mapped."""
    entries = {"version": 1, "company_key": "A1b2C3", "fields": fields}
    contacts = {"key": "contact_id", "query": query}
    config = SyncConfig.model_validate({**entries, "contacts": contacts})
    snapshot, _ = land_contacts(store, DAY, url, config, AS_OF)
    rows: list[dict[str, Any]] = pq.read_table(snapshot.data).to_pylist()
    return rows


@pytest.fixture
def store(tmp_path: Path) -> SnapshotStore:
    return SnapshotStore(tmp_path / "landing")


@pytest.mark.parametrize("neighbour", ["'Bo'", "7", "x'ff00'", "NULL"])
def test_bytes_land_alike_whatever_stands_beside_them(
    store: SnapshotStore, tmp_path: Path, neighbour: str
) -> None:
    url = f"sqlite:///{tmp_path / 'crm.db'}"
    values = ["x'416e6e61'", "x'5a6feb'", "x'410042'", neighbour]
    run(url, "CREATE TABLE contacts (contact_id TEXT, name)")
    run(url, *(f"INSERT INTO contacts VALUES ('{n}', {v})" for n, v in enumerate(values)))
    landed = land_fields(store, url, [{"from": "name", "to": "name", "type": "string"}])
    assert [row["name"] for row in landed[:3]] == ["Anna", "5a6feb", "410042"]


def test_text_that_is_not_utf_8_is_named(store: SnapshotStore, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'crm.db'}"
    insert = "INSERT INTO contacts VALUES ('C1', CAST(x'5a6feb' AS TEXT))"
    run(url, "CREATE TABLE contacts (contact_id TEXT, name TEXT)", insert)
    with pytest.raises(CrmError, match="column name holds text that is not UTF-8") as error:
        land_fields(store, url, [{"from": "name", "to": "name", "type": "string"}])
    assert "Zo" not in str(error.value)


QUERIES = ["' :note'", "'a:b :c:'", "'\\x'", "'x :y' || '%s'"]


@pytest.mark.parametrize("text", QUERIES)
def test_a_colon_in_a_query_begins_no_parameter(
    store: SnapshotStore, tmp_path: Path, text: str
) -> None:
    (tmp_path / "crm.db").touch()
    fields = [{"from": "note", "to": "note", "type": "string"}]
    query = f"SELECT 'C1' AS contact_id, {text} AS note"
    landed = land_fields(store, f"sqlite:///{tmp_path / 'crm.db'}", fields, query)
    assert landed[0]["note"] == text.strip("'").replace("' || '", "")


@pytest.mark.postgresql
def test_a_slice_in_a_query_begins_no_parameter(store: SnapshotStore, postgresql_url: str) -> None:
    query = "SELECT 'C1' AS contact_id, (array['a','b','c'])[:2] AS tags, '5'::int::text AS five"
    kinds = (("tags", "multi_select"), ("five", "number"))
    fields = [{"from": name, "to": name, "type": kind} for name, kind in kinds]
    [landed] = land_fields(store, postgresql_url, fields, query)
    assert landed == {"contact_id": "C1", "tags": ["a", "b"], "five": "5"}


@pytest.mark.postgresql
@pytest.mark.parametrize("query", [None, "SELECT * FROM contacts"])
@pytest.mark.parametrize("value", ["infinity", "0044-03-15 BC", "10000-01-01"])
def test_a_date_that_python_cannot_hold_is_told_with_its_column(
    store: SnapshotStore, postgresql_url: str, query: str | None, value: str
) -> None:
    run(
        postgresql_url,
        "CREATE TABLE contacts (contact_id text, born date)",
        f"INSERT INTO contacts VALUES ('C1', '{value}')",
    )
    fields = [{"from": "born", "to": "born", "type": "date"}]
    place = "of the columns born, one" if query is None else "a column that is read"
    with pytest.raises(CrmError, match=f"{place} holds a date .* cast that column to text") as told:
        land_fields(store, postgresql_url, fields, query)
    assert value[:5] not in str(told.value).replace("(infinity", "")
    as_text = "SELECT contact_id, CAST(born AS text) AS born FROM contacts"
    assert land_fields(store, postgresql_url, fields, as_text)[0]["born"] == value


@pytest.mark.postgresql
def test_values_at_the_edge_of_their_types_land(store: SnapshotStore, postgresql_url: str) -> None:
    types = {"a": "numeric(5,-2)", "b": "numeric(3,5)", "c": "json", "d": "json"}
    columns = ", ".join(f"{name} {declared}" for name, declared in types.items())
    run(
        postgresql_url,
        f"CREATE TABLE contacts (contact_id text, {columns})",
        """INSERT INTO contacts VALUES ('C1', 12345, 0.00123, '"x\\ud800"', '{"k":"\\ud800"}')""",
    )
    fields = [{"from": name, "to": name, "type": "string"} for name in types]
    [landed] = land_fields(store, postgresql_url, fields)
    half = "\N{REPLACEMENT CHARACTER}"
    expected = {"a": "12300", "b": "0.00123", "c": f"x{half}", "d": f'{{"k": "{half}"}}'}
    assert landed == {"contact_id": "C1"} | expected


@pytest.mark.postgresql
def test_times_land_alike_however_the_database_writes_them(
    store: SnapshotStore, postgresql_url: str
) -> None:
    database = sa.make_url(postgresql_url).database
    run(
        postgresql_url,
        "CREATE TABLE contacts (contact_id text, at timestamptz, lasts interval)",
        "INSERT INTO contacts VALUES ('C1', '2026-01-02 05:00+00', '1 day')",
        f"ALTER DATABASE {database} SET datestyle = 'German, DMY'",
        f"ALTER DATABASE {database} SET intervalstyle = 'iso_8601'",
    )
    fields = [{"from": name, "to": name, "type": "string"} for name in ("at", "lasts")]
    assert land_fields(store, postgresql_url, fields) == [
        {"contact_id": "C1", "at": AS_OF, "lasts": "1 day, 0:00:00"}
    ]


@pytest.mark.postgresql
@pytest.mark.parametrize("query", [None, "SELECT * FROM contacts"])
@pytest.mark.parametrize("declared", ["text[]", "varchar(9)[]"])
def test_an_array_of_texts_lands_as_the_set_it_is(
    store: SnapshotStore, postgresql_url: str, query: str | None, declared: str
) -> None:
    run(
        postgresql_url,
        f"CREATE TABLE contacts (contact_id text, tags {declared}, names text[], scores int[])",
        "INSERT INTO contacts VALUES ('C1', '{red,\"a;b\"}', '{Ada,Bo}', '{1,2}')",
        "INSERT INTO contacts VALUES ('C2')",
    )
    fields = [
        {"from": column, "to": column, "type": kind}
        for column, kind in (("tags", "multi_select"), ("names", "string"), ("scores", "string"))
    ]
    landed = land_fields(store, postgresql_url, fields, query=query)
    assert landed == [
        {
            "contact_id": "C1",
            "tags": ["red", "a;b"],
            "names": '["Ada", "Bo"]',
            "scores": "[1, 2]",
        },
        {"contact_id": "C2", "tags": None, "names": None, "scores": None},
    ]


@pytest.mark.postgresql
@pytest.mark.parametrize("query", [None, "SELECT * FROM contacts"])
def test_odd_names_of_columns_are_names_like_others(
    store: SnapshotStore, postgresql_url: str, query: str | None
) -> None:
    odd = ["Rabatt %", "x %(s)s", 'a"b', "order", "a:b", "Größe", "a (b)"]
    columns = ", ".join('"{}" text'.format(name.replace('"', '""')) for name in odd)
    run(
        postgresql_url,
        f"CREATE TABLE contacts (contact_id text, {columns})",
        "INSERT INTO contacts VALUES ('C1', '0', '1', '2', '3', '4', '5', '6')",
    )
    fields = [{"from": name, "to": f"f{n}", "type": "string"} for n, name in enumerate(odd)]
    [landed] = land_fields(store, postgresql_url, fields, query=query)
    assert landed == {"contact_id": "C1"} | {name: str(n) for n, name in enumerate(odd)}


@pytest.mark.postgresql
def test_mapped_columns_that_differ_only_in_case_are_refused(
    store: SnapshotStore, postgresql_url: str
) -> None:
    run(
        postgresql_url,
        'CREATE TABLE contacts (contact_id text, "Name" text, name text)',
        "INSERT INTO contacts VALUES ('C1', 'Ada', 'Bo')",
    )
    fields = [
        {"from": one, "to": to, "type": "string"} for one, to in (("Name", "a"), ("name", "b"))
    ]
    message = r"fields\[1\].from: column 'name' differs from 'Name' \(fields\[0\].from\) .* AS in"
    with pytest.raises(CrmError, match=message):
        land_fields(store, postgresql_url, fields)
    assert land_fields(store, postgresql_url, fields[1:]) == [{"contact_id": "C1", "name": "Bo"}]
