"""How columns of the CRM spell what has a meaning: yes and no of a consent, options of a select."""

from typing import Annotated, Self
from unicodedata import category

from pydantic import AfterValidator, model_validator

from vibes_pipelines.blanks import trimmed
from vibes_pipelines.sync_config.conditions import ConditionText, Section, no_blank


def as_compared(text: str) -> str:
    """A spelling as cells are compared with it: `trimmed`, in lower case.

    Letter by letter, each one letter, as the reconcile's SQL has it; Python alone knows a Greek
    sigma that ends a word.
    """
    return "".join(letter.lower()[0] for letter in trimmed(text) or "")


def _option_key(text: str) -> str:
    """Refuses what no option key is: a blank would clear, and a control character spoil a file."""
    key = trimmed(text)
    if key is None:
        msg = "an option key may not be blank; leave the value out, or name its key"
        raise ValueError(msg)
    if any(category(one) == "Cc" or one == "\ufffd" for one in key):
        msg = f"the option key {text!r} holds a control or replacement character"
        raise ValueError(msg)
    return text


OptionSpelling = Annotated[ConditionText, AfterValidator(no_blank)]
OptionKey = Annotated[ConditionText, AfterValidator(_option_key)]


class ConsentSpellings(Section):
    """The accepted spellings of a consent column; blank ones mean nothing, as blank cells do.

    `written_*` are what a column may be given, `says_*` what its cells are compared with.
    """

    opted_in: tuple[ConditionText, ...] = ("true", "1", "y", "yes")
    opted_out: tuple[ConditionText, ...] = ("false", "0", "n", "no")

    @property
    def written_in(self) -> tuple[str, ...]:
        """The spellings of opted in, as they are written."""
        return tuple(said for one in self.opted_in if (said := trimmed(one)))

    @property
    def written_out(self) -> tuple[str, ...]:
        """The spellings of opted out, as they are written; there is at least one."""
        return tuple(said for one in self.opted_out if (said := trimmed(one)))

    @property
    def says_in(self) -> frozenset[str]:
        """What cells say that are opted in."""
        return frozenset(map(as_compared, self.written_in))

    @property
    def says_out(self) -> frozenset[str]:
        """What cells say that are opted out."""
        return frozenset(map(as_compared, self.written_out))

    @model_validator(mode="after")
    def _spellings_can_be_told_apart(self) -> Self:
        if not self.says_out:
            msg = "opted_out holds no spelling, and without one nobody opts out; name at least one"
            raise ValueError(msg)
        both = self.says_in & self.says_out
        if both:
            msg = f"opted_in and opted_out both hold {sorted(both)}"
            raise ValueError(msg)
        return self
