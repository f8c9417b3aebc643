"""Web sign-ups, events sent to the platform, and what became of those."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

INSTANT = sa.DateTime(timezone=True)
COUNTER = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Creates the tables and their indexes."""
    op.create_table(
        "signups",
        sa.Column("id", COUNTER, primary_key=True, autoincrement=True),
        sa.Column("requested_at", INSTANT, nullable=False),
        sa.Column("source_address", sa.String(64), nullable=False),
        sa.Column("mdn", sa.String(32), nullable=False),
        sa.Column("campaign_id", sa.String(255), nullable=False),
        sa.Column("result", sa.String(32)),
        sa.Column("error_class", sa.String(255)),
        sa.Column("finished_at", INSTANT),
    )
    op.create_index("ix_signups_address", "signups", ["source_address", "requested_at"])
    op.create_index("ix_signups_mdn", "signups", ["mdn", "requested_at"])
    op.create_table(
        "events",
        sa.Column("event_id", sa.String(40), primary_key=True),
        sa.Column("source", sa.String(255), nullable=False),
        sa.Column("event_type", sa.String(255), nullable=False),
        sa.Column("event_data", sa.JSON, nullable=False),
        sa.Column("debug_data", sa.JSON, nullable=False),
        sa.Column("planned_at", INSTANT, nullable=False),
        sa.Column("send_until", INSTANT),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("error_class", sa.String(255)),
        sa.Column("message", sa.Text),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("sent_at", INSTANT),
        sa.Column("finished_at", INSTANT),
    )
    op.create_index("ix_events_status", "events", ["status", "event_id"])
    op.create_table(
        "event_outcomes",
        sa.Column("callback_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("event_id", sa.String(255)),
        sa.Column("stage", sa.String(255), nullable=False),
        sa.Column("state", sa.String(255), nullable=False),
        sa.Column("reason", sa.String(255)),
        sa.Column("happened_at", INSTANT, nullable=False),
    )
    op.create_index("ix_event_outcomes_event_id", "event_outcomes", ["event_id"])
