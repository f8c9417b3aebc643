"""Where nobody knows how APSIS One behaves, or two of its pages disagree: one switch each.

The first reading is the default. Tests run under both, so that clients depend on neither.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class ApsisSwitches:
    """The readings that a stand-in of APSIS One follows."""

    repeated_consent: Literal["conflict", "ok"] = "conflict"
    """A consent that is there already: 409 (developer page), or 200 (help page)."""

    opt_in_after_opt_out: Literal["updated", "conflict"] = "updated"
    """An opt-in where an opt-out stands: 204, or a transition that is not supported, 409."""

    key_of_another: Literal["conflict", "merge"] = "conflict"
    """A v2 patch of a key attribute with another profile's key: 409, or the two become one."""

    mapped_key: Literal["moved", "made"] = "moved"
    """A v2 patch of a key attribute: moves a key that the profile has, or also makes one."""

    merge_wins: Literal["first", "second"] = "first"
    """Whose attribute values stay when two merged profiles both have one."""

    merged_consents: Literal["opt_outs", "first"] = "opt_outs"
    """Which consent stays when two merged profiles both have one: the opt-out, or the first's."""

    merge_of_one: Literal["ok", "conflict"] = "ok"
    """Merging two keys of the same profile: 204, or 409."""

    expired_token: Literal[401, 403] = 401
    """The answer to a token that is no longer valid; the vendor's clients expect either."""

    stated_lifetime: Literal["present", "absent"] = "present"
    """The deprecated `expires_in` in token answers."""

    attribute_names: Literal["version_ids", "discriminators"] = "version_ids"
    """By what a read of attributes names them."""

    consent_items: Literal["typed", "untyped"] = "typed"
    """Whether consents read back say their type, or only the query does."""

    consent_stamps: Literal["absent", "updated_at"] = "absent"
    """Whether consents read back say since when."""

    tags_body: Literal["object", "items"] = "object"
    """Tags read back: an object with a member for each, or a list."""

    import_zero: Literal["ignored", "taken"] = "ignored"
    """A 0 in a consent column of an import: nothing, or the same as a 1."""

    import_result: Literal["status", "counts"] = "status"
    """The result of an import: its status alone, or how many rows became what as well."""

    retry_after: Literal["absent", "present"] = "absent"
    """Whether 429 says when to come again."""
