"""The one error of the reconcile; what is wrong with its inputs or, worse, with itself."""

from pathlib import Path


class ReconcileError(Exception):
    """An input cannot be used, or the result does not add up; the message says where and the cure.

    Rows that cannot be acted on safely are not errors: they go to quarantine.
    """


def unreadable(file: Path) -> str:
    """What to say of a file in the folder of a day's diff set that cannot be read, and the cure."""
    return f"{file} cannot be read; reconcile {file.parent.name} again, which writes it anew"
