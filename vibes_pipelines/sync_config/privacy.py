"""The part of sync.yaml about privacy: how long what is kept, and how a person is erased."""

from typing import Annotated

from pydantic import Field

from vibes_pipelines.sync_config.conditions import Section, Whole

Days = Annotated[Whole, Field(ge=35, le=3650)]
"""A month and the days that bases, lags and look-backs need; at most ten years."""


class Retention(Section):
    """For how many days each class of data is kept; the days a next run needs stay in any case.

    `snapshots`: what was landed. `diff_sets`: also bases and certificates. `import_files`: what
    was uploaded. `callbacks`: their bodies. `ledger_details`: the values of operations that are
    finished, and numbers of sign-ups; that and when they happened stays. `reports`: daily pages.
    """

    snapshots: Days = 90
    diff_sets: Days = 400
    import_files: Days = 90
    callbacks: Days = 90
    ledger_details: Days = 400
    reports: Days = 400
