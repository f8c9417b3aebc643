"""What the platform's refusals mean, and what of their words may be kept."""

import pytest

from vibes_pipelines.vibes.error_classes import (
    DEFAULT,
    ERROR_CLASSES,
    api_error_class,
    lookup,
    without_personal_data,
)

DOCUMENTED_IMPORT_CLASSES = [
    "MobilePhoneErrors::InvalidMDNFormat",
    "PersonErrors::CustomFieldNotFound",
    "PersonErrors::InvalidSelectCustomFieldValue",
    "PersonErrors::PersonNotFound",
    "PersonErrors::MobilePhoneAlreadyAssigned",
    "PersonErrors::InvalidPersonID",
    "PersonErrors::MdnChangeNotAllowed",
    "PersonErrors::PersonCreateRequiresDeviceOrExternalPersonId",
    "PG::UniqueViolation",
    "CarrierLookupService::TransientLookupFailureError",
    "CarrierLookupService::PermanentLookupFailureError",
    "PersonErrors::InvalidImportFileFormat",
    "FileEngine::EncodingDetection::Unknown8BitEncodingDetected",
]


@pytest.mark.parametrize("name", DOCUMENTED_IMPORT_CLASSES)
def test_every_documented_import_class_is_registered(name: str) -> None:
    assert name in ERROR_CLASSES
    assert lookup(name).advice.endswith(".")


@pytest.mark.parametrize(
    ("name", "category"),
    [
        ("CarrierLookupService::TransientLookupFailureError", "retry_later"),
        ("CarrierLookupService::PermanentLookupFailureError", "give_up"),
        ("PersonErrors::MdnChangeNotAllowed", "identity"),
        ("MobilePhoneErrors::InvalidMDNFormat", "fix_data"),
        ("HTTP 400", "retry_later"),
        ("HTTP 404", "retry_later"),
        ("HTTP 429", "retry_later"),
        ("HTTP 500", "retry_later"),
        ("HTTP 504", "retry_later"),
        ("Timeout", "retry_later"),
        ("HTTP 409", "identity"),
        ("ContactNotFound", "identity"),
    ],
)
def test_category(name: str, category: str) -> None:
    assert lookup(name).category == category


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
