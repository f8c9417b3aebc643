"""What the platform's refusals mean: one registry for imports, the API and write-backs.

Names and causes of the import classes are from the Vibes documentation, Person Import, Incentive
File Import and File-Based Data Imports; of the API tokens from Participant API, Technical Details
and Versions and Compatibility. The documentation gives no table of codes for the API, so that HTTP
statuses stand in as classes; names without `::` that are no status or token are our own.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Category = Literal["fix_data", "identity", "retry_later", "give_up"]


@dataclass(frozen=True)
class ErrorClass:
    """What to do about one refusal.

    `fix_data`: the value is at fault, correct it at its source. `identity`: two records claim one
    identifier, a person must decide. `retry_later`: nothing is wrong with the row. `give_up`:
    sending it again cannot help.
    """

    category: Category
    advice: str


ERROR_CLASSES: Mapping[str, ErrorClass] = {
    "MobilePhoneErrors::InvalidMDNFormat": ErrorClass(
        "fix_data", "The mobile number is not E.164; correct it in the CRM."
    ),
    "PersonErrors::CustomFieldNotFound": ErrorClass(
        "fix_data", "Create the custom field in the platform, or correct fields[].to in sync.yaml."
    ),
    "PersonErrors::InvalidSelectCustomFieldValue": ErrorClass(
        "fix_data",
        "The option key is unknown (keys are case-sensitive) or the text holds characters outside "
        "the field's character set; correct the value, or fields[].options in sync.yaml.",
    ),
    "PersonErrors::PersonNotFound": ErrorClass(
        "identity", "No person has this identifier any more; the next reconcile will decide anew."
    ),
    "PersonErrors::MobilePhoneAlreadyAssigned": ErrorClass(
        "identity", "Another person has this number; decide which record owns it."
    ),
    "PersonErrors::InvalidPersonID": ErrorClass(
        "fix_data", "person_id is malformed; identify the row by external_person_id."
    ),
    "PersonErrors::MdnChangeNotAllowed": ErrorClass(
        "identity", "The person has another number, and an import cannot change it; decide by hand."
    ),
    "PersonErrors::PersonCreateRequiresDeviceOrExternalPersonId": ErrorClass(
        "fix_data", "The row names nothing to create a person from; give it an external id."
    ),
    "PG::UniqueViolation": ErrorClass(
        "identity", "Another person has this external_person_id; decide which record owns it."
    ),
    "CarrierLookupService::TransientLookupFailureError": ErrorClass(
        "retry_later", "The carrier look-up was down; the row will be sent again."
    ),
    "CarrierLookupService::PermanentLookupFailureError": ErrorClass(
        "give_up", "Not a mobile number of a known carrier (a landline?); correct it in the CRM."
    ),
    "PersonErrors::InvalidImportFileFormat": ErrorClass(
        "give_up", "The file has no identifying column; nothing of it was applied."
    ),
    "FileEngine::EncodingDetection::Unknown8BitEncodingDetected": ErrorClass(
        "give_up", "The file is not UTF-8; nothing of it was applied."
    ),
    "IncentiveCodesImportErrors::CodeAlreadyExists": ErrorClass(
        "fix_data", "The code is in the pool already; take it out of the file."
    ),
    "EXTERNALPERSONIDMISMATCH": ErrorClass(
        "identity", "Another person has this external_person_id; decide which record owns it."
    ),
    "MDNHASCONFIRMATIONBLOCK": ErrorClass(
        "give_up", "The person answered No to this campaign; only a keyword text lifts that."
    ),
    "UNPROCESSABLE ENTITY": ErrorClass(
        "fix_data", "The platform cannot process the values; read the message."
    ),
    "countrynotsupported": ErrorClass(
        "fix_data", "The number is not E.164, or its country is not enabled for the account."
    ),
    "CarrierNotProvisioned": ErrorClass(
        "give_up", "No carrier serves the number (a landline?); correct it in the CRM."
    ),
    "et127_no_incentive_codes": ErrorClass(
        "retry_later", "The incentive pool is empty; import codes, then send the event anew."
    ),
    "HTTP 400": ErrorClass(
        "retry_later",
        "The request is malformed: check company_key and the API URL, and read the message.",
    ),
    "HTTP 401": ErrorClass(
        "retry_later",
        "The login was refused; check VIBES_API_USER and VIBES_API_PASSWORD (the US and EU "
        "instances have their own).",
    ),
    "HTTP 403": ErrorClass(
        "retry_later",
        "The login is right, but may not do this; ask your Vibes representative for the right to "
        "it, or set VIBES_API_USER to a login that has it.",
    ),
    "HTTP 404": ErrorClass(
        "retry_later",
        "The person is unknown, or the address is wrong; the two look the same. Check company_key "
        "and the API URL.",
    ),
    "HTTP 409": ErrorClass(
        "identity", "The number belongs to another person, or the person has another number."
    ),
    "HTTP 413": ErrorClass("give_up", "The request is too large; send less data in it."),
    "HTTP 415": ErrorClass(
        "give_up", "The platform does not take this content type; update this software."
    ),
    "HTTP 422": ErrorClass("fix_data", "The platform cannot process the values; read the message."),
    "HTTP 429": ErrorClass("retry_later", "The rate limit was exceeded; it will be sent again."),
    "Timeout": ErrorClass("retry_later", "No answer in time; whether it was applied is unknown."),
    "ConnectionLost": ErrorClass(
        "retry_later", "The connection broke; whether it was applied is unknown."
    ),
    "NotYetVisible": ErrorClass(
        "retry_later", "The write was answered but cannot be read back yet; run it again."
    ),
    "Unreadable": ErrorClass(
        "retry_later", "The record could not be read back to check the write; run it again."
    ),
    "UnreadableAnswer": ErrorClass(
        "retry_later",
        "The answer is none of the API, e.g. the page of a proxy, so that nobody knows whether it "
        "was applied; check VIBES_API_URL when it goes on.",
    ),
    "NoActiveCallback": ErrorClass(
        "fix_data", "No callback of this type is registered; register it before testing it."
    ),
    "ReportMissing": ErrorClass(
        "retry_later", "The import file was never reported on; what it did not do is sent again."
    ),
    "HandedOver": ErrorClass(
        "retry_later",
        "The import file was handed over: upload it on the platform's page. What the platform does "
        "not show after the visibility lag is sent again.",
    ),
    "KeptDifferently": ErrorClass(
        "fix_data",
        "The platform accepted the value on three days and went on showing the same other one, or "
        "none: it may round, cut or rewrite it. Write it in the CRM as the platform keeps it; it "
        "is sent again when either side changes.",
    ),
    "ContactNotFound": ErrorClass(
        "identity", "The CRM has no contact with this key any more; the next reconcile decides."
    ),
    "ChangedMeanwhile": ErrorClass(
        "retry_later", "The record changed after it was landed; the next reconcile decides."
    ),
    "ValueDoesNotFit": ErrorClass(
        "fix_data", "The CRM's column cannot hold the value; correct it, or options in sync.yaml."
    ),
    "RefusedByCrm": ErrorClass(
        "fix_data",
        "The CRM refuses to change this contact, e.g. by a check or a trigger; its "
        "own log says why.",
    ),
    "LockedInCrm": ErrorClass(
        "retry_later",
        "Another session of the CRM's database kept the contact locked; end that session when it "
        "goes on.",
    ),
}

DEFAULT = ErrorClass(
    "fix_data", "Not a documented error class; read the message, or ask Vibes what it means."
)

_SERVER_FAULT = ErrorClass("retry_later", "The platform failed; it will be sent again.")
_NOT_PROCESSED = ErrorClass("retry_later", "The request was not processed; it will be sent again.")
_NOT_ABOUT_THE_VALUE = ErrorClass(
    "retry_later",
    "This says nothing about the value, which will be sent again; check company_key and the API "
    "URL when it goes on.",
)
_REDIRECT = ErrorClass(
    "retry_later", "The address leads elsewhere, where no login is sent; check VIBES_API_URL."
)
_FAMILIES: tuple[tuple[re.Pattern[str], ErrorClass], ...] = (
    (re.compile(r"HTTP (?:408|425)"), _NOT_PROCESSED),
    (re.compile(r"HTTP (?:405|406|410|423)"), _NOT_ABOUT_THE_VALUE),
    (re.compile(r"HTTP 5\d\d"), _SERVER_FAULT),
    (re.compile(r"HTTP 3\d\d"), _REDIRECT),
)
"""Statuses that the documentation does not name, by what HTTP has them for."""
_GENERIC = "UNPROCESSABLE ENTITY"
_API_TOKENS = (
    "MDNHASCONFIRMATIONBLOCK",
    "EXTERNALPERSONIDMISMATCH",
    "countrynotsupported",
    _GENERIC,
)
_NO_CARRIER = re.compile(r"\b(?:carrier|landline)\b", re.IGNORECASE)
_NUMBER_OR_ADDRESS = re.compile(r"\+?\d[\d ().-]{5,}\d|\S+@\S+")


def lookup(name: str) -> ErrorClass:
    """The meaning of an error class; `DEFAULT` (fix_data) for one nobody has documented.

    An unknown class is not retried: sending the same row for ever helps nobody.
    """
    family = next((meaning for named, meaning in _FAMILIES if named.fullmatch(name)), DEFAULT)
    return ERROR_CLASSES.get(name, family)


def api_error_class(status: int, message: str | None) -> str:
    """The token named in the message of a refusal when it is a known one, else the status.

    A number without a carrier has no token in the documentation, only words.
    """
    lowered = (message or "").lower()
    named = next((token for token in _API_TOKENS if token.lower() in lowered), None)
    if named != _GENERIC and named is not None:
        return named
    if status == 422 and _NO_CARRIER.search(lowered):
        return "CarrierNotProvisioned"
    return named or f"HTTP {status}"


def without_personal_data(message: str) -> str:
    """The message with phone numbers and e-mail addresses struck out, fit for logs and ledgers.

    What no database takes, half a character and NUL, does not stay either.
    """
    return storable(_NUMBER_OR_ADDRESS.sub("[removed]", message))


def storable(text: str) -> str:
    """The text without NUL, and with a question mark for half a character (a lone surrogate)."""
    return text.replace("\0", "").encode("utf-8", "replace").decode("utf-8")
