"""The first shape of the ledger: diff sets, batches, operations, accepted snapshots."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

INSTANT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Creates every table."""
    _create_diff_sets()
    _create_batches()
    _create_operations()
    op.create_table(
        "accepted_snapshots",
        sa.Column("day", sa.String(10), primary_key=True),
        sa.Column("feed", sa.String(64), primary_key=True),
        sa.Column("rows", sa.Integer, nullable=False),
        sa.Column("content_hash", sa.String(64), nullable=False),
    )


def _create_diff_sets() -> None:
    op.create_table(
        "diff_sets",
        sa.Column("diff_set", sa.String(64), primary_key=True),
        sa.Column("sequence", sa.Integer, nullable=False, unique=True),
        sa.Column("day", sa.String(10), nullable=False),
        sa.Column("as_of", INSTANT, nullable=False),
        sa.Column("mapping_hash", sa.String(64), nullable=False),
        sa.Column("config_hash", sa.String(64), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("summary", sa.JSON, nullable=False),
        sa.Column("snapshots", sa.JSON, nullable=False),
        sa.Column("plan", sa.JSON),
        sa.Column("approved_reason", sa.Text),
        sa.Column("approved_at", INSTANT),
    )


def _create_batches() -> None:
    op.create_table(
        "batches",
        sa.Column("batch_id", sa.String(64), primary_key=True),
        sa.Column("diff_set", sa.String(64), sa.ForeignKey("diff_sets.diff_set"), nullable=False),
        sa.Column("name", sa.String(255), nullable=False, unique=True),
        sa.Column("rows", sa.Integer, nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("report", sa.JSON),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("sent_at", INSTANT),
        sa.Column("done_at", INSTANT),
    )
    op.create_index("ix_batches_diff_set", "batches", ["diff_set"])
    op.create_index("ix_batches_status", "batches", ["status"])


def _create_operations() -> None:
    op.create_table(
        "operations",
        sa.Column("operation_id", sa.String(32), primary_key=True),
        sa.Column("diff_set", sa.String(64), sa.ForeignKey("diff_sets.diff_set"), nullable=False),
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
        sa.Column("batch_id", sa.String(64), sa.ForeignKey("batches.batch_id")),
        sa.Column("row_number", sa.Integer),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("error_class", sa.String(255)),
        sa.Column("message", sa.Text),
        sa.Column("retry_later", sa.Boolean, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("sent_at", INSTANT),
        sa.Column("finished_at", INSTANT),
        sa.Column("finished_day", sa.String(10)),
        sa.Column("outcome", sa.String(16)),
        sa.Column("confirmed_day", sa.String(10)),
        sa.Column("evidence", sa.String(64)),
    )
    op.create_index("ix_operations_external_person_id", "operations", ["external_person_id"])
    op.create_index("ix_operations_person_key", "operations", ["person_key"])
    op.create_index("ix_operations_work", "operations", ["diff_set", "lane", "route", "status"])
    op.create_index("ix_operations_batch", "operations", ["batch_id", "row_number"])
    op.create_index("ix_operations_outcome", "operations", ["outcome", "day"])
