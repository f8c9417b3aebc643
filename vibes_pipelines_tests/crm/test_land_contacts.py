"""Contacts land as the CRM holds them: mapped columns only, duplicates kept, flat memory."""

from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa

from vibes_pipelines.crm import contacts
from vibes_pipelines.crm.contacts import CrmError, land_contacts
from vibes_pipelines.store.snapshots import EmptySource, SnapshotStore
from vibes_pipelines.sync_config import SyncConfig

DAY = "2026-01-02"
AS_OF = datetime(2026, 1, 2, 5, tzinfo=UTC)


def build_config(**changes: Any) -> SyncConfig:
    return SyncConfig.model_validate(
        {
            "version": 1,
            "company_key": "A1b2C3",
            "contacts": {
                "key": "contact_id",
                "mdn": {"column": "mobile", "default_region": "US"},
                "conditions": [{"column": "customer_type", "equals": "A"}],
            }
            | changes.pop("contacts", {}),
            "fields": [
                {"from": "First Name", "to": "first_name", "type": "string"},
                {"from": "score", "to": "score", "type": "number"},
            ],
            "consents": [{"from": "opt_in", "list": "1", "changed_at": "opt_in_at"}],
        }
        | changes
    )


COLUMNS = ["contact_id", "mobile", "customer_type", "First Name", "score", "opt_in", "opt_in_at"]


def create_typed(url: str, rows: list[dict[str, Any]], schema: str | None = None) -> None:
    engine = sa.create_engine(url)
    table = sa.Table(
        "contacts",
        sa.MetaData(),
        sa.Column("contact_id", sa.BigInteger),
        sa.Column("mobile", sa.Text),
        sa.Column("customer_type", sa.CHAR(1)),
        sa.Column("First Name", sa.Text),
        sa.Column("score", sa.Numeric(12, 3)),
        sa.Column("opt_in", sa.Boolean),
        sa.Column("opt_in_at", sa.DateTime(timezone=True)),
        sa.Column("secret_note", sa.Text),
        schema=schema,
    )
    with engine.begin() as connection:
        if schema:
            connection.execute(sa.schema.CreateSchema(schema))
        table.create(connection)
        connection.execute(sa.insert(table), rows)
    engine.dispose()


def typed_row(key: int | None) -> dict[str, Any]:
    return {
        "contact_id": key,
        "mobile": " (312) 555-0142 ",
        "customer_type": "A",
        "First Name": "Zoë",
        "score": Decimal("12.500"),
        "opt_in": False,
        "opt_in_at": AS_OF,
        "secret_note": "not mapped",
    }


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """A CRM whose columns hold whatever was put into them, as SQLite's do."""
    url = f"sqlite:///{tmp_path / 'crm.db'}"
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE TABLE contacts (contact_id TEXT, mobile TEXT, customer_type TEXT, "
            '"First Name" TEXT, score NUMERIC, opt_in BOOLEAN, opt_in_at TIMESTAMP, birth DATE)'
        )
        for row in (
            ("C-1", "312 555 0142", "A", "  Ada ", 12.5, 1, "2026-01-01T00:00:00Z", None),
            ("C-2", None, "B", "", "n/a", 0, "yesterday", "not a date"),
            ("C-2", None, "B", None, 7, None, None, None),
        ):
            connection.exec_driver_sql("INSERT INTO contacts VALUES (?,?,?,?,?,?,?,?)", row)
    engine.dispose()
    return url


@pytest.fixture
def store(tmp_path: Path) -> SnapshotStore:
    return SnapshotStore(tmp_path / "landing")


def test_sqlite_lands_every_value_as_text(store: SnapshotStore, sqlite_url: str) -> None:
    snapshot, is_new = land_contacts(store, DAY, sqlite_url, build_config(), AS_OF)
    assert is_new
    assert snapshot.manifest.feed == "crm/contacts"
    assert (snapshot.manifest.source, snapshot.manifest.as_of) == ("contacts", AS_OF)
    assert snapshot.manifest.columns == dict.fromkeys(COLUMNS, "string")
    assert [tuple(row.values()) for row in pq.read_table(snapshot.data).to_pylist()] == [
        ("C-1", "312 555 0142", "A", "  Ada ", "12.5", "1", "2026-01-01T00:00:00Z"),
        ("C-2", None, "B", "", "n/a", "0", "yesterday"),
        ("C-2", None, "B", None, "7", None, None),
    ]


def test_a_query_is_a_source_too(store: SnapshotStore, sqlite_url: str) -> None:
    query = "SELECT *, upper(mobile) AS loud FROM contacts -- all\nWHERE contact_id LIKE 'C-%';"
    config = build_config(contacts={"query": query, "key": "contact_id"})
    snapshot, _ = land_contacts(store, DAY, sqlite_url, config, AS_OF)
    assert snapshot.manifest.source == "contacts.query"
    assert (snapshot.manifest.rows, list(snapshot.manifest.columns)) == (3, COLUMNS)


def test_rows_stream_in_partitions(
    store: SnapshotStore, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contacts, "PARTITION_ROWS", 2)
    snapshot, _ = land_contacts(store, DAY, sqlite_url, build_config(), AS_OF)
    assert pq.read_metadata(snapshot.data).num_row_groups == 2
    assert snapshot.manifest.rows == 3


def test_a_landed_day_needs_no_database(store: SnapshotStore, sqlite_url: str) -> None:
    first, _ = land_contacts(store, DAY, sqlite_url, build_config(), AS_OF)
    again = land_contacts(store, DAY, "sqlite:////nowhere/crm.db", build_config(), AS_OF)
    assert again == (first, False)


@pytest.mark.postgresql
def test_postgresql_keeps_its_types(store: SnapshotStore, postgresql_url: str) -> None:
    create_typed(postgresql_url, [typed_row(1), typed_row(1), typed_row(None)], "sales")
    config = build_config(contacts={"table": "sales.contacts", "key": "contact_id"})
    snapshot, _ = land_contacts(store, DAY, postgresql_url, config, AS_OF)
    assert snapshot.manifest.columns == {
        "contact_id": "int64",
        "mobile": "string",
        "customer_type": "string",
        "First Name": "string",
        "score": "decimal128(12, 3)",
        "opt_in": "bool",
        "opt_in_at": "timestamp[us, tz=UTC]",
    }
    landed = pq.read_table(snapshot.data).to_pylist()
    expected = {name: value for name, value in typed_row(1).items() if name != "secret_note"}
    assert landed == [expected, expected, expected | {"contact_id": None}]


@pytest.mark.postgresql
def test_a_postgresql_query_lands_as_text(store: SnapshotStore, postgresql_url: str) -> None:
    create_typed(postgresql_url, [typed_row(1)])
    query = """SELECT contact_id, mobile, customer_type, "First Name", score, opt_in,
        DATE '2026-01-01' AS opt_in_at FROM contacts"""
    config = build_config(contacts={"query": query, "key": "contact_id"})
    snapshot, _ = land_contacts(store, DAY, postgresql_url, config, AS_OF)
    assert pq.read_table(snapshot.data).to_pylist() == [
        {
            "contact_id": "1",
            "mobile": " (312) 555-0142 ",
            "customer_type": "A",
            "First Name": "Zoë",
            "score": "12.500",
            "opt_in": "false",
            "opt_in_at": date(2026, 1, 1).isoformat(),
        }
    ]


@pytest.mark.postgresql
def test_a_wrong_password_is_not_shown(store: SnapshotStore, postgresql_url: str) -> None:
    url = sa.make_url(postgresql_url).set(password="topsecret", database="nowhere")
    secret = url.render_as_string(hide_password=False)
    with pytest.raises(CrmError, match=r"CRM postgresql.*:\*\*\*@.*check CRM_URL") as error:
        land_contacts(store, DAY, secret, build_config(), AS_OF)
    assert "topsecret" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"fields": [{"from": "nick", "to": "first_name", "type": "string"}]},
            r"sync.yaml: fields\[0\].from: contacts has no column 'nick'; .* It has: contact_id",
        ),
        (
            {"consents": [{"from": "opt_in", "list": "1", "changed_at": "when"}]},
            r"consents\[0\].changed_at: contacts has no column 'when'",
        ),
        ({"contacts": {"key": "id"}}, "contacts.key: contacts has no column 'id'"),
        (
            {"contacts": {"table": "people", "key": "contact_id"}},
            "no table people; correct contacts.table in sync.yaml. The database has: contacts",
        ),
        (
            {"contacts": {"query": "SELECT contact_id FROM contacts", "key": "contact_id"}},
            "contacts.mdn.column: contacts.query has no column 'mobile'.* It has: contact_id",
        ),
        (
            {"contacts": {"query": "SELECT broken", "key": "contact_id"}},
            "CRM sqlite.*: OperationalError, SQLITE_[A-Z]+; check CRM_URL",
        ),
    ],
)
def test_what_sync_yaml_names_wrongly_is_named(
    store: SnapshotStore, sqlite_url: str, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(CrmError, match=message):
        land_contacts(store, DAY, sqlite_url, build_config(**changes), AS_OF)


@pytest.mark.parametrize("url", ["not a url", "oracle+nothing://crm", "mssql+pyodbc://crm"])
def test_a_url_nothing_can_open_is_refused_without_showing_it(
    store: SnapshotStore, url: str
) -> None:
    with pytest.raises(CrmError, match="CRM_URL is not a SQLAlchemy URL of an installed driver"):
        land_contacts(store, DAY, url, build_config(), AS_OF)


def test_an_empty_crm_is_an_error(store: SnapshotStore, sqlite_url: str) -> None:
    engine = sa.create_engine(sqlite_url)
    with engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM contacts")
    engine.dispose()
    with pytest.raises(EmptySource, match="CRM: contacts holds no contact; check CRM_URL"):
        land_contacts(store, DAY, sqlite_url, build_config(), AS_OF)
    assert store.find("crm/contacts", DAY) is None
