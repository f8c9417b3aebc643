"""The demo: the sandbox as a process of its own, and the daily job through Dagster against it."""
