"""Command line: a thin face over the functions that the assets call, a file per group."""
