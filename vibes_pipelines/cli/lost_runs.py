"""`vibes-pipelines end-lost-runs`: what the code server's unit does before and after its start."""

import os

import click


@click.command("end-lost-runs")
@click.option(
    "--note",
    "only_notes",
    is_flag=True,
    help="Before the code server starts: only note which runs have lost their process.",
)
def lost_runs(*, only_notes: bool) -> None:
    """End the records of Dagster runs whose processes died with the code server.

    First with --note while no code server runs, for its runs would be taken for dead; then without
    when it answers. What is ended counts as failed, and the daemon starts it again; nothing is sent
    twice. Needs DAGSTER_HOME. Where runs were lost it takes a minute, for the daemon to see the
    code server.
    """
    if not os.environ.get("DAGSTER_HOME"):
        msg = "DAGSTER_HOME is not set; set it to the folder of dagster.yaml, as the units do"
        raise click.UsageError(msg)
    import dagster as dg  # noqa: PLC0415 - slow to import

    from vibes_pipelines.orchestration.lost_runs import (  # noqa: PLC0415 - as above
        end_lost_runs,
        note_lost_runs,
    )

    with dg.DagsterInstance.get() as instance:
        lost = note_lost_runs(instance) if only_notes else end_lost_runs(instance)
    for run in lost:
        done = "noted" if only_notes else "ended"
        click.echo(f"{run.job_name} {run.run_id} was {run.status.value.lower()}; {done}")
    click.echo(f"{len(lost)} runs had lost their process")
