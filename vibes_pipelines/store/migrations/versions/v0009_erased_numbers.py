"""Keyed hashes of erased people's numbers, with the lists that they were opted out of."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Creates the table."""
    op.create_table(
        "erased_numbers",
        sa.Column("erasure_id", sa.String(32), primary_key=True),
        sa.Column("number_hash", sa.String(64), primary_key=True),
        sa.Column("subscription_list_id", sa.String(255), primary_key=True),
        sa.Column("opted_out_at", sa.DateTime(timezone=True)),
        sa.Column("after_day", sa.String(10), nullable=False),
    )
    op.create_index("ix_erased_numbers_number_hash", "erased_numbers", ["number_hash"])
