"""The ledger's tables, for SQLite and PostgreSQL alike.

Only the shape of the tables belongs here; a change of shape needs a migration beside it.
"""

from datetime import UTC, datetime

import sqlalchemy as sa


class UtcDateTime(sa.TypeDecorator[datetime]):
    """An aware instant in UTC, also on databases that keep no offset."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        """Refuses naive times: the ledger would not know what they mean."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("the ledger keeps aware times only; give the time its offset")
        instant = value.astimezone(UTC)
        return instant.replace(tzinfo=None) if dialect.name == "sqlite" else instant

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        """Gives every instant back in UTC."""
        if value is None:
            return None
        naive = dialect.name == "sqlite"
        return value.replace(tzinfo=UTC) if naive else value.astimezone(UTC)


metadata = sa.MetaData()

JSON = sa.JSON(none_as_null=True)

# SQLite counts up only a primary key of this very type.
COUNTER = sa.BigInteger().with_variant(sa.Integer, "sqlite")

diff_sets = sa.Table(
    "diff_sets",
    metadata,
    sa.Column("diff_set", sa.String(64), primary_key=True),
    sa.Column("sequence", sa.Integer, nullable=False, unique=True),
    sa.Column("day", sa.String(10), nullable=False),
    sa.Column("as_of", UtcDateTime, nullable=False),
    sa.Column("mapping_hash", sa.String(64), nullable=False),
    sa.Column("config_hash", sa.String(64), nullable=False),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("summary", JSON, nullable=False),
    sa.Column("snapshots", JSON, nullable=False),
    sa.Column("plan", JSON),
    sa.Column("approved_reason", sa.Text),
    sa.Column("approved_at", UtcDateTime),
)

batches = sa.Table(
    "batches",
    metadata,
    sa.Column("batch_id", sa.String(64), primary_key=True),
    sa.Column(
        "diff_set", sa.String(64), sa.ForeignKey("diff_sets.diff_set"), nullable=False, index=True
    ),
    sa.Column("name", sa.String(255), nullable=False, unique=True),
    sa.Column("rows", sa.Integer, nullable=False),
    sa.Column("status", sa.String(16), nullable=False, index=True),
    sa.Column("report", JSON),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("sent_at", UtcDateTime),
    sa.Column("done_at", UtcDateTime),
)

operations = sa.Table(
    "operations",
    metadata,
    sa.Column("operation_id", sa.String(32), primary_key=True),
    sa.Column("diff_set", sa.String(64), sa.ForeignKey("diff_sets.diff_set"), nullable=False),
    sa.Column("day", sa.String(10), nullable=False),
    sa.Column("as_of", UtcDateTime, nullable=False),
    sa.Column("lane", sa.String(16), nullable=False),
    sa.Column("route", sa.String(16), nullable=False),
    sa.Column("route_reason", sa.Text, nullable=False),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("external_person_id", sa.String(255), index=True),
    sa.Column("person_key", sa.String(255), index=True),
    sa.Column("mdn", sa.String(32)),
    sa.Column("subscription_list_id", sa.String(255)),
    sa.Column("changes", JSON, nullable=False),
    sa.Column("batch_id", sa.String(64), sa.ForeignKey("batches.batch_id")),
    sa.Column("row_number", sa.Integer),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("error_class", sa.String(255)),
    sa.Column("message", sa.Text),
    sa.Column("retry_later", sa.Boolean, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("sent_at", UtcDateTime),
    sa.Column("finished_at", UtcDateTime),
    sa.Column("finished_day", sa.String(10)),
    sa.Column("outcome", sa.String(16)),
    sa.Column("confirmed_day", sa.String(10)),
    sa.Column("evidence", sa.String(64)),
    sa.Index("ix_operations_work", "diff_set", "lane", "route", "status"),
    sa.Index("ix_operations_batch", "batch_id", "row_number"),
    sa.Index("ix_operations_outcome", "outcome", "day"),
)

accepted_snapshots = sa.Table(
    "accepted_snapshots",
    metadata,
    sa.Column("day", sa.String(10), primary_key=True),
    sa.Column("feed", sa.String(64), primary_key=True),
    sa.Column("rows", sa.Integer, nullable=False),
    sa.Column("content_hash", sa.String(64), nullable=False),
)

leases = sa.Table(
    "leases",
    metadata,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("holder", sa.String(255), nullable=False),
    sa.Column("until", UtcDateTime, nullable=False),
)

callbacks = sa.Table(
    "callbacks",
    metadata,
    sa.Column("id", COUNTER, primary_key=True, autoincrement=True),
    sa.Column("received_at", UtcDateTime, nullable=False),
    sa.Column("source_address", sa.String(64), nullable=False),
    sa.Column("path", sa.Text, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.Column("body_bytes", sa.BigInteger, nullable=False),
    sa.Column("content_hash", sa.String(64), nullable=False),
    sa.Column("dedup_key", sa.String(80), nullable=False, unique=True),
    sa.Column("event_id", sa.String(255), index=True),
    sa.Column("event_type", sa.String(255)),
    sa.Column("event_at", UtcDateTime),
    sa.Column("order_at", UtcDateTime, nullable=False),
    sa.Column("company_key", sa.String(255)),
    sa.Column("subscription_list_id", sa.String(255)),
    sa.Column("external_person_id", sa.String(255), index=True),
    sa.Column("person_key", sa.String(255), index=True),
    sa.Column("person_id", sa.String(255), index=True),
    sa.Column("mdn", sa.String(32), index=True),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("reason", sa.Text),
    sa.Column("finished_at", UtcDateTime),
    sa.Column("decided_reason", sa.Text),
    sa.Column("decided_at", UtcDateTime),
    sa.Index("ix_callbacks_work", "status", "order_at", "id"),
    sqlite_autoincrement=True,
)

realtime_operations = sa.Table(
    "realtime_operations",
    metadata,
    sa.Column("operation_id", sa.String(32), primary_key=True),
    sa.Column("diff_set", sa.String(64), nullable=False),
    sa.Column("day", sa.String(10), nullable=False, index=True),
    sa.Column("as_of", UtcDateTime, nullable=False),
    sa.Column("lane", sa.String(16), nullable=False),
    sa.Column("route", sa.String(16), nullable=False),
    sa.Column("route_reason", sa.Text, nullable=False),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("external_person_id", sa.String(255), index=True),
    sa.Column("person_key", sa.String(255)),
    sa.Column("mdn", sa.String(32)),
    sa.Column("subscription_list_id", sa.String(255)),
    sa.Column("changes", JSON, nullable=False),
    sa.Column("status", sa.String(16), nullable=False, index=True),
    sa.Column("error_class", sa.String(255)),
    sa.Column("message", sa.Text),
    sa.Column("retry_later", sa.Boolean, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("sent_at", UtcDateTime),
    sa.Column("finished_at", UtcDateTime),
    sa.Column("outcome", sa.String(16)),
    sa.Column("confirmed_day", sa.String(10)),
    sa.Column("evidence", sa.String(64)),
)

cursors = sa.Table(
    "cursors",
    metadata,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)

signups = sa.Table(
    "signups",
    metadata,
    sa.Column("id", COUNTER, primary_key=True, autoincrement=True),
    sa.Column("requested_at", UtcDateTime, nullable=False),
    sa.Column("source_address", sa.String(64), nullable=False),
    sa.Column("mdn", sa.String(32), nullable=False),
    sa.Column("campaign_id", sa.String(255), nullable=False),
    sa.Column("result", sa.String(32)),
    sa.Column("error_class", sa.String(255)),
    sa.Column("finished_at", UtcDateTime),
    sa.Index("ix_signups_address", "source_address", "requested_at"),
    sa.Index("ix_signups_mdn", "mdn", "requested_at"),
)

events = sa.Table(
    "events",
    metadata,
    sa.Column("event_id", sa.String(40), primary_key=True),
    sa.Column("source", sa.String(255), nullable=False),
    sa.Column("event_type", sa.String(255), nullable=False),
    sa.Column("event_data", JSON, nullable=False),
    sa.Column("debug_data", JSON, nullable=False),
    sa.Column("planned_at", UtcDateTime, nullable=False),
    sa.Column("send_until", UtcDateTime),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("error_class", sa.String(255)),
    sa.Column("message", sa.Text),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("sent_at", UtcDateTime),
    sa.Column("finished_at", UtcDateTime),
    sa.Index("ix_events_status", "status", "event_id"),
)

event_outcomes = sa.Table(
    "event_outcomes",
    metadata,
    sa.Column("callback_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("event_id", sa.String(255), index=True),
    sa.Column("stage", sa.String(255), nullable=False),
    sa.Column("state", sa.String(255), nullable=False),
    sa.Column("reason", sa.String(255)),
    sa.Column("happened_at", UtcDateTime, nullable=False),
)

case_decisions = sa.Table(
    "case_decisions",
    metadata,
    sa.Column("id", COUNTER, primary_key=True, autoincrement=True),
    sa.Column("case_id", sa.String(64), nullable=False, index=True),
    sa.Column("kind", sa.String(64), nullable=False),
    sa.Column("source", sa.String(16), nullable=False),
    sa.Column("action", sa.String(16), nullable=False),
    sa.Column("record", sa.Text),
    sa.Column("target", sa.String(255)),
    sa.Column("evidence", sa.String(64)),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("decided_by", sa.String(255), nullable=False),
    sa.Column("decided_at", UtcDateTime, nullable=False),
    sa.Column("after_day", sa.String(10), nullable=False),
)

erasures = sa.Table(
    "erasures",
    metadata,
    sa.Column("erasure_id", sa.String(32), primary_key=True),
    sa.Column("pseudonyms", JSON, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("decided_by", sa.String(255), nullable=False),
    sa.Column("began_at", UtcDateTime, nullable=False),
    sa.Column("finished_at", UtcDateTime),
    sa.Column("outcome", JSON),
    sa.Column("undone_at", UtcDateTime),
    sa.Column("undone_by", sa.String(255)),
    sa.Column("undone_reason", sa.Text),
)

erased_numbers = sa.Table(
    "erased_numbers",
    metadata,
    sa.Column("erasure_id", sa.String(32), primary_key=True),
    sa.Column("number_hash", sa.String(64), primary_key=True, index=True),
    sa.Column("subscription_list_id", sa.String(255), primary_key=True),
    sa.Column("opted_out_at", UtcDateTime),
    sa.Column("after_day", sa.String(10), nullable=False),
)

consent_looks = sa.Table(
    "consent_looks",
    metadata,
    sa.Column("contact", sa.String(255), primary_key=True),
    sa.Column("consent", sa.String(255), primary_key=True),
    sa.Column("is_in", sa.Boolean, nullable=False),
    sa.Column("looked_at", UtcDateTime, nullable=False),
    sa.Column("last_in_at", UtcDateTime),
    sa.Column("last_out_at", UtcDateTime),
)

full_syncs = sa.Table(
    "full_syncs",
    metadata,
    sa.Column("sync_id", sa.String(32), primary_key=True),
    sa.Column("day", sa.String(10), nullable=False),
    sa.Column("started_at", UtcDateTime, nullable=False),
    sa.Column("finished_at", UtcDateTime),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("phase", sa.String(16), nullable=False),
    sa.Column("cancel_reason", sa.Text),
    sa.Column("progress", JSON, nullable=False),
)
