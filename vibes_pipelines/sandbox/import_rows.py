"""What a row of a person import does: whom it names, what it sets, why it is refused.

Rules and error classes are those of the Vibes documentation, Person Import; where it is silent the
comment says so.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from vibes_pipelines.sandbox.platform import Platform
from vibes_pipelines.sandbox.platform_mdn import parse_import_mdn
from vibes_pipelines.sandbox.platform_records import OMITTED, Omitted, Person, PersonPatch, Value
from vibes_pipelines.sandbox.platform_refusals import (
    CarrierLookupDownError,
    ExternalPersonIdTakenError,
    MalformedMdnError,
    MdnTakenError,
    MdnWriteOnceError,
    NoCarrierError,
    NoIdentifierError,
    PersonNotFoundError,
    RefusalError,
)
from vibes_pipelines.sandbox.platform_values import CharsetError, InvalidValueError, read_text

Outcome = Literal["created", "updated", "unchanged"]

IDENTIFIERS = ("person_id", "person_key", "external_person_id", "mdn")
"""Identifying columns by precedence: of several values in one row the first counts."""

CLEAR = "[null]"
"""Clears external_person_id; in every other cell it is text like any other."""

_MAX_EXTERNAL_ID = 128
_SELECTS = frozenset({"single_select", "multi_select"})


@dataclass(frozen=True)
class _RowError:
    error_class: str
    message: str


_ERRORS: Mapping[type[RefusalError], _RowError] = {
    PersonNotFoundError: _RowError("PersonErrors::PersonNotFound", "Person not found"),
    ExternalPersonIdTakenError: _RowError(
        "PG::UniqueViolation", "duplicate key value violates unique constraint"
    ),
    MdnWriteOnceError: _RowError("PersonErrors::MdnChangeNotAllowed", "mdn change not allowed"),
    MdnTakenError: _RowError(
        "PersonErrors::MobilePhoneAlreadyAssigned", "Mobile Phone Already Assigned"
    ),
    MalformedMdnError: _RowError(
        "MobilePhoneErrors::InvalidMDNFormat",
        "The MDN is incorrectly formatted. It should be an E.164 MDN.",
    ),
    NoIdentifierError: _RowError(
        "PersonErrors::PersonCreateRequiresDeviceOrExternalPersonId",
        "Creating a person requires a device or an external person id",
    ),
    NoCarrierError: _RowError(
        "CarrierLookupService::PermanentLookupFailureError",
        "The MDN supplied is not a valid mobile phone active on a valid carrier.",
    ),
    CarrierLookupDownError: _RowError(
        "CarrierLookupService::TransientLookupFailureError",
        "A temporary issue with the carrier lookup service prevented the row from being processed."
        " Please try again later.",
    ),
}


class RowRefusedError(Exception):
    """The row is refused and nothing of it applied."""

    def __init__(self, error_class: str, message: str) -> None:
        super().__init__(message)
        self.error_class = error_class


def apply_row(platform: Platform, row: Mapping[str, str], separator: str) -> Outcome:
    """Apply one row, given as cells by column; `separator` parts the values of multi selects.

    Raises RowRefusedError.
    """
    try:
        with platform.lock:
            return _apply(platform, row, separator)
    except RefusalError as refusal:
        raise row_refusal(refusal) from refusal


def row_refusal(refusal: RefusalError) -> RowRefusedError:
    """What a report says of a row that the platform refuses."""
    error = _ERRORS[type(refusal)]
    return RowRefusedError(error.error_class, error.message)


def _apply(platform: Platform, row: Mapping[str, str], separator: str) -> Outcome:
    _refuse_unknown_columns(platform, row)
    mdn = parse_import_mdn(row["mdn"]) if row.get("mdn") else OMITTED
    external = _read_external(row)
    person = _find(platform, row, external, mdn)
    patch = PersonPatch(external, mdn, _read_custom(platform, row, separator))
    if person is None:
        platform.create(patch, source="import")
        return "created"
    written = platform.update(person.person_key, patch, source="import")
    return "updated" if written.changed else "unchanged"


def _refuse_unknown_columns(platform: Platform, row: Mapping[str, str]) -> None:
    if any(name not in platform.field_by_name for name in row if name not in IDENTIFIERS):
        raise RowRefusedError("PersonErrors::CustomFieldNotFound", "Custom field not found")


def _read_external(row: Mapping[str, str]) -> str | Omitted | None:
    """A blank changes nothing (an assumption: the documentation is silent)."""
    text = row.get("external_person_id", "")
    if text == CLEAR:
        return None
    if len(text) > _MAX_EXTERNAL_ID:
        # The documentation names no class for this; the database's own is an assumption.
        raise RowRefusedError(
            "PG::StringDataRightTruncation", "value too long for type character varying(128)"
        )
    return text or OMITTED


def _find(
    platform: Platform,
    row: Mapping[str, str],
    external: str | Omitted | None,
    mdn: str | Omitted,
) -> Person | None:
    """The person whom the row's first identifier names; `None` when the row is to create one."""
    if person_id := row.get("person_id"):
        if not (person_id.isascii() and person_id.isdecimal()):
            raise RowRefusedError("PersonErrors::InvalidPersonID", "Invalid person_id")
        return _known(platform.find(person_id=person_id))
    if person_key := row.get("person_key"):
        return _known(platform.find(person_key=person_key))
    if isinstance(external, str):
        return platform.find(external_person_id=external)
    if isinstance(mdn, str):
        return platform.find(mdn=mdn)
    raise NoIdentifierError


def _known(person: Person | None) -> Person:
    if person is None:
        raise PersonNotFoundError("no person has this identifier")
    return person


def _read_custom(platform: Platform, row: Mapping[str, str], separator: str) -> dict[str, Value]:
    """Blank selects are cleared, other blanks change nothing (the latter is an assumption)."""
    custom: dict[str, Value] = {}
    for name, text in row.items():
        field = platform.field_by_name.get(name)
        if field is None:
            continue
        if text:
            try:
                custom[name] = read_text(field, text, separator)
            except CharsetError as error:
                raise _invalid_value(str(error)) from error
            except InvalidValueError as error:
                raise _invalid_value("Invalid custom field value") from error
        elif field.type in _SELECTS:
            custom[name] = None
    return custom


def _invalid_value(message: str) -> RowRefusedError:
    return RowRefusedError("PersonErrors::InvalidSelectCustomFieldValue", message)
