"""What the platform's refusals mean, and what of their words may be kept."""

import pytest

from vibes_pipelines.vibes.error_classes import (
    DEFAULT,
    ERROR_CLASSES,
    Category,
    api_error_class,
    lookup,
    without_personal_data,
)

DOCUMENTED: dict[str, Category] = {
    # Person import, rows
    "MobilePhoneErrors::InvalidMDNFormat": "fix_data",
    "PersonErrors::CustomFieldNotFound": "fix_data",
    "PersonErrors::InvalidSelectCustomFieldValue": "fix_data",
    "PersonErrors::PersonNotFound": "identity",
    "PersonErrors::MobilePhoneAlreadyAssigned": "identity",
    "PersonErrors::InvalidPersonID": "fix_data",
    "PersonErrors::MdnChangeNotAllowed": "identity",
    "PersonErrors::PersonCreateRequiresDeviceOrExternalPersonId": "fix_data",
    "PG::UniqueViolation": "identity",
    "CarrierLookupService::TransientLookupFailureError": "retry_later",
    "CarrierLookupService::PermanentLookupFailureError": "give_up",
    # Imports, whole files
    "PersonErrors::InvalidImportFileFormat": "give_up",
    "FileEngine::EncodingDetection::Unknown8BitEncodingDetected": "give_up",
    # Incentive import, rows
    "IncentiveCodesImportErrors::CodeAlreadyExists": "fix_data",
    # API, tokens in messages
    "MDNHASCONFIRMATIONBLOCK": "give_up",
    "EXTERNALPERSONIDMISMATCH": "identity",
    "UNPROCESSABLE ENTITY": "fix_data",
    "countrynotsupported": "fix_data",
    # API, statuses: those of the documentation, and those that HTTP has for its rules
    "HTTP 301": "retry_later",
    "HTTP 400": "retry_later",
    "HTTP 401": "retry_later",
    "HTTP 403": "retry_later",
    "HTTP 404": "retry_later",
    "HTTP 405": "retry_later",
    "HTTP 406": "retry_later",
    "HTTP 408": "retry_later",
    "HTTP 409": "identity",
    "HTTP 410": "retry_later",
    "HTTP 413": "give_up",
    "HTTP 415": "give_up",
    "HTTP 422": "fix_data",
    "HTTP 423": "retry_later",
    "HTTP 425": "retry_later",
    "HTTP 429": "retry_later",
    "HTTP 500": "retry_later",
    "HTTP 504": "retry_later",
    # Events, in `event_processed` callbacks
    "et127_no_incentive_codes": "retry_later",
}
OWN: dict[str, Category] = {
    "CarrierNotProvisioned": "give_up",
    "Timeout": "retry_later",
    "ConnectionLost": "retry_later",
    "NotYetVisible": "retry_later",
    "Unreadable": "retry_later",
    "UnreadableAnswer": "retry_later",
    "NoActiveCallback": "fix_data",
    "ReportMissing": "retry_later",
    "HandedOver": "retry_later",
    "KeptDifferently": "fix_data",
    "ContactNotFound": "identity",
    "ChangedMeanwhile": "retry_later",
    "ValueDoesNotFit": "fix_data",
    "RefusedByCrm": "fix_data",
    "LockedInCrm": "retry_later",
}


@pytest.mark.parametrize(("name", "category"), [*DOCUMENTED.items(), *OWN.items()])
def test_every_class_has_a_category_and_says_what_to_do(name: str, category: Category) -> None:
    found = lookup(name)
    assert found is not DEFAULT
    assert found.category == category
    assert found.advice.endswith(".")


def test_the_registry_has_no_class_that_is_not_listed_here() -> None:
    assert set(ERROR_CLASSES) <= DOCUMENTED.keys() | OWN.keys()


def test_an_unknown_class_is_not_tried_again() -> None:
    assert lookup("PersonErrors::BrandNew") is DEFAULT
    assert DEFAULT.category == "fix_data"


@pytest.mark.parametrize(
    ("status", "message", "expected"),
    [
        (422, "EXTERNALPERSONIDMISMATCH", "EXTERNALPERSONIDMISMATCH"),
        (422, "Error: ExternalPersonIdMismatch for this person", "EXTERNALPERSONIDMISMATCH"),
        (422, "MDNHASCONFIRMATIONBLOCK", "MDNHASCONFIRMATIONBLOCK"),
        (400, "CountryNotSupported", "countrynotsupported"),
        (409, None, "HTTP 409"),
        (404, "", "HTTP 404"),
        (422, "The zip code must be numeric", "HTTP 422"),
        (422, "UNPROCESSABLE ENTITY: field carriers", "UNPROCESSABLE ENTITY"),
        (422, "UNPROCESSABLE ENTITY: no provisioned carrier", "CarrierNotProvisioned"),
        (422, "This is a landline", "CarrierNotProvisioned"),
        (409, "other carrier", "HTTP 409"),
    ],
)
def test_a_known_token_names_the_class_of_an_api_refusal(
    status: int, message: str | None, expected: str
) -> None:
    assert api_error_class(status, message) == expected


@pytest.mark.parametrize(
    "message",
    ["mdn +13125550142 is taken", "call (312) 555-0142 now", "ada@example.com exists"],
)
def test_numbers_and_addresses_are_struck_out(message: str) -> None:
    safe = without_personal_data(message)
    assert "[removed]" in safe
    assert "0142" not in safe
    assert "ada" not in safe


def test_plain_words_and_short_numbers_stay() -> None:
    assert without_personal_data("field 12 must be numeric") == "field 12 must be numeric"
