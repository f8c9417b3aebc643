"""Guards of `sync.yaml`: how much one day may change before a person has to look.

The same caps stand in the core and in each destination; what breaks one is judged in `reconcile`.
"""

from typing import Annotated

from pydantic import Field

from vibes_pipelines.sync_config.conditions import Section


class Cap(Section):
    """The most that one operation may change in a day: in rows, and as a share of its side."""

    max_rows: Annotated[int, Field(ge=0)] | None = None
    max_share: Annotated[float, Field(ge=0, le=1)] | None = None


class Guards(Section):
    """Change caps per operation, and what is judged against the last accepted day.

    `min_input_share`: of the rows, the keys and the filled cells of each column. Of contacts, the
    most that may differ in one column (`max_rewritten_share`), and that may newly be in quarantine
    (`max_quarantine_rise`); null does not judge it.
    """

    updates: Cap = Cap(max_rows=50_000, max_share=0.20)
    adds: Cap = Cap(max_rows=50_000, max_share=0.20)
    clears: Cap = Cap(max_rows=1_000, max_share=0.01)
    opt_outs: Cap = Cap(max_rows=5_000, max_share=0.05)
    invites: Cap = Cap(max_rows=500, max_share=0.01)
    min_input_share: Annotated[float, Field(ge=0, le=1)] = 0.80
    max_rewritten_share: Annotated[float, Field(ge=0, le=1)] | None = 0.05
    max_quarantine_rise: Annotated[float, Field(ge=0, le=1)] | None = 0.05
