"""Guards of `sync.yaml`: how much one day may change before a person has to look.

The same caps stand in the core and in each destination; what breaks one is judged in `reconcile`.
"""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, model_validator

from vibes_pipelines.sync_config.conditions import Section, Share, Whole


class Cap(Section):
    """The most that one operation may change in a day: in rows, and as a share of its side."""

    max_rows: Annotated[Whole, Field(ge=0)] | None = None
    max_share: Share | None = None


class Caps(Section):
    """A section with a cap for each operation.

    A limit that the file leaves out of a cap is the default of that operation; only a null is none.
    """

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, document: Any) -> Any:
        if not isinstance(document, Mapping):
            return document
        filled = dict(document)
        for name, field in cls.model_fields.items():
            if isinstance(field.default, Cap) and isinstance(document.get(name), Mapping):
                filled[name] = {**field.default.model_dump(), **document[name]}
        return filled


class Guards(Caps):
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
    min_input_share: Share = 0.80
    max_rewritten_share: Share | None = 0.05
    max_quarantine_rise: Share | None = 0.05
