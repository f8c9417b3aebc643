"""Pseudonyms: what the identifiers of an erased person are replaced by.

A pseudonym is a keyed hash: the same identifier has the same one in every file and on every day, so
that rows still belong together and the person is known again; only who has the key of this
installation could try identifiers until one fits.
"""

from vibes_pipelines.stages.masking import keyed_hash
from vibes_pipelines.store.records import ERASED_PREFIX

PREFIX = ERASED_PREFIX
BLANK = "erased"
"""What stands in place of a text that has to be there."""

_DIGITS = 20

KEYS = frozenset({"external_person_id", "person_key", "person_id", "contact_id", "contact_key"})
"""Columns of any file that hold an identifier which is one person's alone."""


def pseudonym(identifier: str, key: bytes) -> str:
    """What an identifier is replaced by. A person_key counts in lower case."""
    return PREFIX + keyed_hash(identifier, key)[:_DIGITS]
