"""The one error of the reconcile; what is wrong with its inputs or, worse, with itself."""

MADE_ANEW = "reconcile {day} again, which writes it anew"
"""The cure for a file of a day's diff set that cannot be read."""


class ReconcileError(Exception):
    """An input cannot be used, or the result does not add up; the message says where and the cure.

    Rows that cannot be acted on safely are not errors: they go to quarantine.
    """
