"""Tables of destinations without a share: what consent cells showed, and the runs of full syncs.

Names of consents that hold a topic and a channel need more room than those of lists.
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

INSTANT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Adds the tables; widens a column where its length means something."""
    op.create_table(
        "consent_looks",
        sa.Column("contact", sa.String(255), primary_key=True),
        sa.Column("consent", sa.String(255), primary_key=True),
        sa.Column("is_in", sa.Boolean, nullable=False),
        sa.Column("looked_at", INSTANT, nullable=False),
        sa.Column("last_in_at", INSTANT),
        sa.Column("last_out_at", INSTANT),
    )
    op.create_table(
        "full_syncs",
        sa.Column("sync_id", sa.String(32), primary_key=True),
        sa.Column("day", sa.String(10), nullable=False),
        sa.Column("started_at", INSTANT, nullable=False),
        sa.Column("finished_at", INSTANT),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("phase", sa.String(16), nullable=False),
        sa.Column("cancel_reason", sa.Text),
        sa.Column("progress", sa.JSON, nullable=False),
    )
    if op.get_context().dialect.name == "postgresql":
        for table in ("operations", "realtime_operations"):
            op.alter_column(table, "subscription_list_id", type_=sa.String(255))
