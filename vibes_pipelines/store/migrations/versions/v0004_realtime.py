"""What is sent between two daily runs, how far changes were read, and decisions at the desk."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

INSTANT = sa.DateTime(timezone=True)
SOUGHT = ("day", "external_person_id", "status")


def upgrade() -> None:
    """Creates the tables, and the columns of a decision."""
    op.create_table(
        "realtime_operations",
        sa.Column("operation_id", sa.String(32), primary_key=True),
        sa.Column("diff_set", sa.String(64), nullable=False),
        sa.Column("day", sa.String(10), nullable=False),
        sa.Column("as_of", INSTANT, nullable=False),
        sa.Column("lane", sa.String(16), nullable=False),
        sa.Column("route", sa.String(16), nullable=False),
        sa.Column("route_reason", sa.Text, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("external_person_id", sa.String(255)),
        sa.Column("person_key", sa.String(255)),
        sa.Column("mdn", sa.String(32)),
        sa.Column("subscription_list_id", sa.String(64)),
        sa.Column("changes", sa.JSON, nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("error_class", sa.String(255)),
        sa.Column("message", sa.Text),
        sa.Column("retry_later", sa.Boolean, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("sent_at", INSTANT),
        sa.Column("finished_at", INSTANT),
    )
    for column in SOUGHT:
        op.create_index(f"ix_realtime_operations_{column}", "realtime_operations", [column])
    op.create_table(
        "cursors",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
    )
    op.add_column("callbacks", sa.Column("decided_reason", sa.Text))
    op.add_column("callbacks", sa.Column("decided_at", INSTANT))
