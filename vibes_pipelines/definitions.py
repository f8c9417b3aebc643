"""What Dagster loads; everything is assembled in `orchestration.build`."""

from vibes_pipelines.loading import kept_for_good

with kept_for_good():
    import dagster as dg

    from vibes_pipelines.orchestration.build import build_defs


@dg.definitions
def defs() -> dg.Definitions:
    """The code location."""
    return build_defs()
