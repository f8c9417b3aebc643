"""`contacts.tribe` of `sync.yaml`: Tribe CRM as the source of contacts, and how its labels read.

Columns are Tribe's own field names (`FirstName`, `Address/City`); two more kinds stand for labels:
`label:<Name>` is `true`, `false` or unknown, `label_since:<Name>` the instant of that state.
"""

from typing import Literal

from vibes_pipelines.sync_config.conditions import Section, Text

LABEL = "label:"
LABEL_SINCE = "label_since:"


class TribeSource(Section):
    """What is read of Tribe beside the columns that other sections name.

    `labels` are landed even when nothing maps them. `when_label_absent` is about persons who were
    never seen with a label: `unknown` changes nothing, `opted_out` takes its absence for a no.
    """

    labels: tuple[Text, ...] = ()
    when_label_absent: Literal["unknown", "opted_out"] = "unknown"


def label_of(column: str) -> str | None:
    """The label that a column stands for; None for every other column."""
    for prefix in (LABEL, LABEL_SINCE):
        if column.startswith(prefix):
            return column.removeprefix(prefix).strip()
    return None
