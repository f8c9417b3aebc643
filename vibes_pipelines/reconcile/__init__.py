"""The reconcile: which changes bring the two sides into agreement, and which rows are in doubt.

Rules only: pure functions that write SQL, and one engine that runs it. No clock, no network, no
environment and no Dagster belong here.
"""
