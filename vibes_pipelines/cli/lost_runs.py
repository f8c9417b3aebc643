"""`vibes-pipelines end-lost-runs`: what the code server's unit does before it starts."""

import click


@click.command("end-lost-runs")
def lost_runs() -> None:
    """End the records of Dagster runs whose processes died with the code server.

    For the start of the code server alone: while one runs, its runs would be taken for dead. They
    count as failed, and the daemon starts them again; nothing is sent twice. Needs DAGSTER_HOME.
    """
    import dagster as dg  # noqa: PLC0415 - slow to import

    from vibes_pipelines.orchestration.lost_runs import end_lost_runs  # noqa: PLC0415 - as above

    with dg.DagsterInstance.get() as instance:
        ended = end_lost_runs(instance)
    for run in ended:
        click.echo(f"{run.job_name} {run.run_id} was {run.status.value.lower()}; ended")
    click.echo(f"{len(ended)} runs had lost their process")
