"""Runs that nobody executes: what an instance knows of a job in progress, for tests of sensors."""

import dagster as dg
from dagster._core.remote_origin import (
    RegisteredCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)


def run_of(
    job: str, status: dg.DagsterRunStatus, tags: dict[str, str] | None = None
) -> dg.DagsterRun:
    """A run of a job of this code location, as the queue would have made it."""
    location = RegisteredCodeLocationOrigin("vibes_pipelines")
    origin = RemoteJobOrigin(RemoteRepositoryOrigin(location, "__repository__"), job)
    return dg.DagsterRun(job_name=job, status=status, remote_job_origin=origin, tags=tags)
