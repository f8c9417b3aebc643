"""Runs migrations on the connection that `database.migrate` gives; it owns the transaction."""

from alembic import context

from vibes_pipelines.store.models import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=False,
)
context.run_migrations()
