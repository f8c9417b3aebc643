"""The CRM of a company that never heard of us: a table with names of its own, in PostgreSQL."""

from collections.abc import Iterable, Mapping
from contextlib import closing
from typing import Any

import psycopg
import sqlalchemy as sa

from tools.first_hour import COLUMNS

_TYPES = {"points": "numeric", "sms_consent_changed_at": "timestamptz"}


def fill_customers(url: str, contacts: Iterable[Mapping[str, Any]]) -> None:
    """Makes the table `customers` of the sandbox's contacts, and one of something else."""
    columns = ", ".join(f"{name} {_TYPES.get(name, 'text')}" for name in COLUMNS)
    marks = ", ".join(["%s"] * len(COLUMNS))
    with closing(psycopg.connect(address(url))) as connection, connection:
        connection.execute(f"CREATE TABLE customers ({columns}, PRIMARY KEY (customer_no))")
        connection.execute("CREATE TABLE invoices (invoice_no int)")
        with connection.cursor() as cursor:
            cursor.executemany(
                f"INSERT INTO customers VALUES ({marks}) ON CONFLICT DO NOTHING",
                [[row[theirs] for theirs in COLUMNS.values()] for row in contacts],
            )


def address(url: str) -> str:
    """The driver's own address for a URL of SQLAlchemy."""
    parsed = sa.make_url(url)
    return f"postgresql://{parsed.username}@{parsed.host}:{parsed.port}/{parsed.database}"
