"""Alembic's home for the ledger: `env` runs the migrations in `versions`."""
