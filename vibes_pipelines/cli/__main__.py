"""`python -m vibes_pipelines.cli`: the same as the console script."""

from vibes_pipelines.cli.main import main

main()
