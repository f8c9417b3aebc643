"""Turns answers of the outside into receipts: one registry says which refusals may be retried."""

from typing import Literal

from vibes_pipelines.store.records import Receipt
from vibes_pipelines.vibes.error_classes import lookup, without_personal_data

NO_CLASS = "NoErrorClass"
"""Stands in where an answer refuses without naming a class."""


def receipt(
    operation_id: str,
    outcome: Literal["accepted", "rejected", "unknown"],
    error_class: str | None = None,
    message: str | None = None,
) -> Receipt:
    """The receipt of one operation; messages are kept without numbers and addresses."""
    if outcome == "accepted":
        return Receipt(operation_id, "accepted")
    return Receipt(
        operation_id,
        outcome,
        error_class or NO_CLASS,
        without_personal_data(message) if message else None,
        retry_later=lookup(error_class or NO_CLASS).category == "retry_later",
    )
