"""Conditions of `sync.yaml`, and what all of that file is made of: texts and sections.

Everything else of it is in `sync_config`.
"""

import re
from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)

from vibes_pipelines.blanks import trimmed


class PlacedError(ValueError):
    """A fault of an entry that a section holds; `place` leads there from the section."""

    def __init__(self, place: tuple[str | int, ...], message: str) -> None:
        super().__init__(message)
        self.place = place


def _as_text(value: object) -> object:
    """Lets numbers stand unquoted where text is meant, e.g. `list: 1234`."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _as_condition_text(value: object) -> object:
    """Writes YAML scalars the way a CRM column shows them as text."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else value


def _no_boolean(value: object) -> object:
    """Python counts with `true` as with 1, which nobody means by it."""
    if isinstance(value, bool):
        msg = f"{str(value).lower()!r} is no number"
        raise ValueError(msg)  # noqa: TRY004 - pydantic tells the place of a ValueError only
    return value


def _known_region(region: str) -> str:
    """Refuses what `phonenumbers` knows no numbers of; ZZ says that none is written nationally."""
    from phonenumbers import SUPPORTED_REGIONS  # noqa: PLC0415 - slow to import

    if region not in {*SUPPORTED_REGIONS, "ZZ"}:
        hint = "; for the United Kingdom write GB" if region == "UK" else ""
        msg = f"{region!r} is no region with phone numbers; write two capitals such as US{hint}"
        raise ValueError(msg)
    return region


def no_blank(text: str) -> str:
    """Refuses what is empty as the reconcile reads it: no column, list or key is called so."""
    if trimmed(text) is None:
        msg = "a blank text; write what is meant"
        raise ValueError(msg)
    return text


Region = Annotated[str, AfterValidator(_known_region)]
Text = Annotated[str, BeforeValidator(_as_text), AfterValidator(no_blank)]
Whole = Annotated[int, BeforeValidator(_no_boolean)]
Share = Annotated[float, BeforeValidator(_no_boolean), Field(ge=0, le=1)]
ConditionText = Annotated[str, BeforeValidator(_as_condition_text)]


class Section(BaseModel):
    """A part of the file: frozen, and without settings that are not known."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_by_name=True, defer_build=True)


ComparedType = Literal["number", "date"]


class Condition(Section):
    """One test on a contact column; exactly one operator.

    Comparisons (`less_than` and so on) read both sides as `type`; left out, the value tells it.
    """

    column: Text
    type: ComparedType | None = None
    equals: ConditionText | None = None
    not_equals: ConditionText | None = None
    in_: tuple[ConditionText, ...] | None = Field(
        None, min_length=1, validation_alias=AliasChoices("in", "in_"), serialization_alias="in"
    )
    is_null: Literal[True] | None = None
    not_null: Literal[True] | None = None
    less_than: ConditionText | None = None
    at_most: ConditionText | None = None
    greater_than: ConditionText | None = None
    at_least: ConditionText | None = None

    @model_validator(mode="after")
    def _one_operator(self) -> Self:
        given = [name for name in _OPERATORS if getattr(self, name) is not None]
        if len(given) != 1:
            allowed = ", ".join(name.rstrip("_") for name in _OPERATORS)
            msg = f"exactly one operator is needed; allowed: {allowed}"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _compares_what_can_be_compared(self) -> Self:
        if self.operator not in COMPARISONS:
            if self.type is not None:
                msg = f"type belongs to {', '.join(COMPARISONS)} only, not to {self.operator}"
                raise ValueError(msg)
            return self
        of_value = _compared_type(self.limit)
        if of_value is None or self.type not in {None, of_value}:
            wanted = self.type or "number or date"
            msg = (
                f"{self.operator} {self.limit!r} is no {wanted}; write a number such as 10 or"
                " 0.5, or a date such as 2026-01-31 or 2026-01-31T08:00:00Z"
            )
            raise ValueError(msg)
        return self

    @property
    def limit(self) -> str:
        """What a comparison compares with."""
        return str(getattr(self, self.operator))

    @property
    def compared_type(self) -> ComparedType | None:
        """As what a comparison reads both sides; None for the other operators."""
        return _compared_type(self.limit) if self.operator in COMPARISONS else None

    @property
    def operator(self) -> str:
        """The name of the one operator given."""
        return next(name for name in _OPERATORS if getattr(self, name) is not None)


COMPARISONS = ("less_than", "at_most", "greater_than", "at_least")
_OPERATORS = ("equals", "not_equals", "in_", "is_null", "not_null", *COMPARISONS)
_NUMBER = re.compile(r"-?[0-9]{1,308}(\.[0-9]+)?")
_TIME = r"[T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?(Z|[+-][0-9]{2}:?[0-9]{2})?"
_DATE = re.compile(rf"[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}({_TIME})?")


def _compared_type(text: str) -> ComparedType | None:
    if _NUMBER.fullmatch(text):
        return "number"
    if not _DATE.fullmatch(text):
        return None
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return None
    return "date"
