"""The ledger's migrations, oldest first."""
