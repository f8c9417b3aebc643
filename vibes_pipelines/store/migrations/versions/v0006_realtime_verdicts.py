"""The verdicts of certificates on what was sent between two daily runs."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

VERDICT = {"outcome": 16, "confirmed_day": 10, "evidence": 64}


def upgrade() -> None:
    """Creates the columns of a verdict, as operations of a diff set have them."""
    for name, size in VERDICT.items():
        op.add_column("realtime_operations", sa.Column(name, sa.String(size)))
