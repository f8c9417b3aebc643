"""The inbox: every callback body as it came, and what became of it."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

INSTANT = sa.DateTime(timezone=True)
COUNTER = sa.BigInteger().with_variant(sa.Integer, "sqlite")
SOUGHT = ("event_id", "external_person_id", "person_key", "person_id", "mdn")


def upgrade() -> None:
    """Creates the table and its indexes."""
    op.create_table(
        "callbacks",
        sa.Column("id", COUNTER, primary_key=True, autoincrement=True),
        sa.Column("received_at", INSTANT, nullable=False),
        sa.Column("source_address", sa.String(64), nullable=False),
        sa.Column("path", sa.Text, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("body_bytes", sa.BigInteger, nullable=False),
        sa.Column("content_hash", sa.String(64), nullable=False),
        sa.Column("dedup_key", sa.String(80), nullable=False, unique=True),
        sa.Column("event_id", sa.String(255)),
        sa.Column("event_type", sa.String(255)),
        sa.Column("event_at", INSTANT),
        sa.Column("order_at", INSTANT, nullable=False),
        sa.Column("company_key", sa.String(255)),
        sa.Column("subscription_list_id", sa.String(255)),
        sa.Column("external_person_id", sa.String(255)),
        sa.Column("person_key", sa.String(255)),
        sa.Column("person_id", sa.String(255)),
        sa.Column("mdn", sa.String(32)),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("finished_at", INSTANT),
        sqlite_autoincrement=True,
    )
    for column in SOUGHT:
        op.create_index(f"ix_callbacks_{column}", "callbacks", [column])
    op.create_index("ix_callbacks_work", "callbacks", ["status", "order_at", "id"])
