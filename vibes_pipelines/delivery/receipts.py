"""Turns answers of the outside into receipts: one registry says which refusals may be retried."""

from typing import Literal

from vibes_pipelines.store.records import Receipt
from vibes_pipelines.vibes.error_classes import lookup, storable, without_personal_data

NO_CLASS = "NoErrorClass"
"""Stands in where an answer refuses without naming a class."""

_LONGEST_CLASS = 255
"""How many characters of a class the ledger keeps."""


def receipt(
    operation_id: str,
    outcome: Literal["accepted", "rejected", "unknown"],
    error_class: str | None = None,
    message: str | None = None,
    *,
    retry_later: bool | None = None,
) -> Receipt:
    """The receipt of one operation; messages are kept without numbers and addresses.

    Whatever the outside says, the ledger can keep it: one odd answer costs no other its receipt.

    Whether a refusal may be tried again is the registry's to say, unless `retry_later` is given.
    """
    if outcome == "accepted":
        return Receipt(operation_id, "accepted")
    return Receipt(
        operation_id,
        outcome,
        storable(error_class or "")[:_LONGEST_CLASS] or NO_CLASS,
        without_personal_data(message) if message else None,
        retry_later=_may_retry(error_class) if retry_later is None else retry_later,
    )


def _may_retry(error_class: str | None) -> bool:
    return lookup(error_class or NO_CLASS).category == "retry_later"
