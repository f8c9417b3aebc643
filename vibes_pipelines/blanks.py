"""What a blank is: the one definition by which identifiers and values of every side are trimmed.

Python's own `strip` knows more blanks: two keys that the reconcile tells apart would be one.
"""

from unicodedata import normalize

BLANKS = " \t\n\r\x0b\x0c\u00a0\ufeff"
"""Characters trimmed from both ends of every text; the byte order mark counts as blank."""


def trimmed(text: str) -> str | None:
    """The text as the reconcile reads it: NFC, without blanks around it; None when it is blank."""
    return normalize("NFC", text).strip(BLANKS) or None
