"""Imports of every kind but persons: what their rows do, and why rows and files are refused."""

import csv
from pathlib import Path

import pytest

from vibes_pipelines.sandbox.account import Account
from vibes_pipelines.sandbox.acts import act
from vibes_pipelines.sandbox.imports import process_kind
from vibes_pipelines.sandbox.pickup import ImportPickup
from vibes_pipelines.sandbox.switches import Switches
from vibes_pipelines_tests.sandbox.stand_in import (
    ADA_KEY,
    ADA_MDN,
    BEA_KEY,
    BEA_MDN,
    LANDLINE,
    NEW_MDN,
    build_platform,
)

FORMAT = "PersonErrors::InvalidImportFileFormat"
ENCODING = "FileEngine::EncodingDetection::Unknown8BitEncodingDetected"
ADD = "a.subscriptions"
END = "a.opt_outs"
TO = "subscription_list_id"


@pytest.fixture
def account() -> Account:
    return Account(build_platform())


def imported(account: Account, name: str, text: str) -> tuple[dict[str, int], list[object]]:
    """The summary's counts that are not zero; of each error its row and class."""
    outcome = process_kind(account, name, text.encode())
    (summary,) = csv.DictReader(outcome.summary_csv.splitlines())
    report = csv.DictReader(outcome.report_csv.splitlines())
    errors: list[object] = [(int(row["row_number"]), row["error_class"]) for row in report]
    return {what: int(count) for what, count in summary.items() if int(count)}, errors


def offers(account: Account, person_key: str) -> list[str | None]:
    """How the person's stays on the offers list ended; None for one that has not."""
    stays = account.platform.subscriptions_of(person_key, active_only=False)
    return [stay.opt_out_reason for stay in stays if stay.list_id == "1234"]


def install(account: Account, uuid: str = "card-1") -> None:
    act(account, "wallet/install", {"token": "r3zhm8", "uuid": uuid, "provider": "passbook"})


def test_subscriptions_begin_stays_and_make_persons(account: Account) -> None:
    text = (
        "Content-Type: TEXT\nSubscription-List-ID: 1234\nFields: mdn\n\n"
        f"{BEA_MDN}\n{NEW_MDN}\n{ADA_MDN}\n"
    )
    counts = {"rows": 3, "created": 2, "unchanged": 1}
    assert imported(account, ADD, text) == (counts, [])
    assert offers(account, BEA_KEY) == [None]
    new = account.platform.find(mdn=NEW_MDN)
    assert new is not None
    assert offers(account, new.person_key) == [None]
    assert account.platform.audit.effects("import_subscribe") == 2
    assert not account.activity.messages, "imports send no texts"


def test_headerless_files_name_the_list_in_each_row(account: Account) -> None:
    text = f"person_key,{TO}\n{BEA_KEY},1235\n{BEA_KEY},1234\n"
    assert imported(account, ADD, text) == ({"rows": 2, "created": 2}, [])


def test_the_rows_list_wins_over_the_headers(account: Account) -> None:
    text = f"Content-Type: TEXT\nSubscription-List-ID: 1234\n\nmdn,{TO}\n{BEA_MDN},1235\n"
    imported(account, ADD, text)
    assert offers(account, BEA_KEY) == []
    assert len(account.platform.subscriptions_of(BEA_KEY)) == 1


def test_opt_outs_end_stays_in_bulk(account: Account) -> None:
    text = f"external_person_id,{TO}\nCRM-1,1234\nCRM-3,1234\nCRM-9,1234\n"
    counts = {"rows": 3, "updated": 1, "unchanged": 1, "rejected": 1}
    assert imported(account, END, text) == (counts, [(3, "PersonErrors::PersonNotFound")])
    assert offers(account, ADA_KEY) == ["user_opt_out", "bulk_opt_out"]
    assert imported(account, END, text)[0] == {"rows": 3, "unchanged": 2, "rejected": 1}


def test_opting_out_who_is_not_on_the_list_may_be_an_error() -> None:
    account = Account(build_platform(), switches=Switches(opt_out_of_nobody="rejected"))
    text = f"mdn,{TO}\n{BEA_MDN},1234\n"
    errors = [(1, "SubscriptionErrors::NotSubscribed")]
    assert imported(account, END, text) == ({"rows": 1, "rejected": 1}, errors)


@pytest.mark.parametrize(
    ("columns", "cells", "error"),
    [
        ("mdn", "123", "MobilePhoneErrors::InvalidMDNFormat"),
        ("mdn", LANDLINE, "CarrierLookupService::PermanentLookupFailureError"),
        ("person_id", "x", "PersonErrors::InvalidPersonID"),
        ("person_id", "99", "PersonErrors::PersonNotFound"),
        ("person_key", "none", "PersonErrors::PersonNotFound"),
        ("vibes_device_id", "none", "PersonErrors::PersonNotFound"),
        ("mdn", "", "PersonErrors::PersonCreateRequiresDeviceOrExternalPersonId"),
        ("external_person_id", "CRM-3", "PersonErrors::MobilePhoneNotFound"),
        ("external_person_id,mdn", f"CRM-1,{BEA_MDN}", "PersonErrors::MdnChangeNotAllowed"),
        ("external_person_id,mdn", f"CRM-3,{BEA_MDN}", "PersonErrors::MobilePhoneAlreadyAssigned"),
        ("mdn,shoe", f"{BEA_MDN},9", "PersonErrors::CustomFieldNotFound"),
    ],
)
def test_refused_rows_of_subscriptions(
    account: Account, columns: str, cells: str, error: str
) -> None:
    text = f"{columns},{TO}\n{cells},1234\n"
    before = repr(account.platform.subscriptions)
    assert imported(account, ADD, text) == ({"rows": 1, "rejected": 1}, [(1, error)])
    assert repr(account.platform.subscriptions) == before


def test_a_look_up_that_fails_for_the_moment_is_an_error_of_its_own(account: Account) -> None:
    act(account, "numbers/fail-lookups", {"times": 1})
    text = f"mdn,{TO}\n{NEW_MDN},1234\n"
    error = "CarrierLookupService::TransientLookupFailureError"
    assert imported(account, ADD, text)[1] == [(1, error)]
    assert imported(account, ADD, text)[1] == []


@pytest.mark.parametrize("list_id", ["9999", "Offers", ""])
def test_unknown_lists_are_refused_row_by_row(account: Account, list_id: str) -> None:
    for name in (ADD, END):
        errors = imported(account, name, f"mdn,{TO}\n{ADA_MDN},{list_id}\n")[1]
        assert errors == [(1, "SubscriptionErrors::SubscriptionListNotFound")]


@pytest.mark.parametrize(
    ("name", "text", "error"),
    [
        (ADD, f"mdn\n{BEA_MDN}\n", FORMAT),
        (ADD, f"first_name,{TO}\nBea,1234\n", FORMAT),
        (ADD, f"Content-Type: CSV\nFields: mdn,{TO}\n\n{BEA_MDN},1234\n", FORMAT),
        (END, f"Fields: mdn,{TO}\n\n{BEA_MDN},1234\n", FORMAT),
        (END, f"Content-Type: TEXT\nMulti-Select-Delimiter: |\n\nmdn,{TO}\n", FORMAT),
        (END, f"mdn,{TO}\n{BEA_MDN}\n", FORMAT),
        ("a.recipient_list", "first_name\nBea\n", FORMAT),
        ("a.wallet_update", "campaign_token\nr3zhm8\n", FORMAT),
        ("a.wallet_update", "uuid\ncard-1\n", FORMAT),
        ("1.incentives", "one,two\n", FORMAT),
        ("9.incentives", "one\n", "IncentiveCodesImportErrors::PoolNotFound"),
    ],
)
def test_files_refused_whole(account: Account, name: str, text: str, error: str) -> None:
    assert imported(account, name, text) == ({}, [(0, error)])


@pytest.mark.parametrize("name", [ADD, END, "a.recipient_list", "a.wallet_update", "1.incentives"])
def test_every_kind_wants_utf_8(account: Account, name: str) -> None:
    outcome = process_kind(account, name, "mdn\n".encode("utf-16"))
    assert ENCODING in outcome.report_csv


def test_a_recipient_list_stores_the_audience_and_nothing_of_its_variables(
    account: Account,
) -> None:
    text = (
        "Content-Type: TEXT\nList-Name: Spring\nFields: mdn,first_name,gift\n\n"
        f"{ADA_MDN},Changed,cup\n{BEA_MDN},Changed,hat\n{NEW_MDN},New,hat\n"
    )
    counts = {"rows": 3, "created": 2, "rejected": 1}
    assert imported(account, "a.recipient_list", text) == (
        counts,
        [(3, "PersonErrors::PersonNotFound")],
    )
    assert account.imports.recipient_lists["Spring"].person_keys == (ADA_KEY, BEA_KEY)
    assert account.platform.persons[ADA_KEY].custom["first_name"] == "Ada"


def test_a_recipient_list_is_called_as_its_file_unless_told_otherwise(account: Account) -> None:
    imported(account, "autumn.recipient_list", f"mdn\n{ADA_MDN}\n{ADA_MDN}\n")
    assert account.imports.recipient_lists["autumn"].person_keys == (ADA_KEY,)


def test_a_wallet_update_changes_passes(account: Account) -> None:
    install(account)
    text = (
        "Campaign-Token: r3zhm8, other\n\nuuid,tier,expiration_date\n"
        "card-1,gold,2026-12-31T00:00:00+0:00\ncard-9,gold,\ncard-1,,31.12.2026\n"
    )
    counts = {"rows": 3, "updated": 1, "rejected": 2}
    errors = [
        (2, "WalletErrors::WalletItemNotFound"),
        (3, "WalletErrors::InvalidExpirationDate"),
    ]
    assert imported(account, "a.wallet_update", text) == (counts, errors)
    item = account.wallet.item("r3zhm8", "card-1")
    assert item.tokens == {"tier": "gold"}
    assert item.expiration_date is not None
    assert item.expiration_date.year == 2026
    again = "uuid,campaign_token,tier\ncard-1,r3zhm8,gold\n"
    assert imported(account, "a.wallet_update", again)[0] == {"rows": 1, "unchanged": 1}


def test_a_pass_has_first_class_fields_only(account: Account) -> None:
    install(account)
    text = "uuid,campaign_token,shoe\ncard-1,r3zhm8,9\n"
    assert imported(account, "a.wallet_update", text)[1] == [(1, "WalletErrors::FieldNotFound")]


def test_incentive_codes_are_unique(account: Account) -> None:
    exists = "IncentiveCodesImportErrors::CodeAlreadyExists"
    assert imported(account, "1.incentives", "AB1\nAB2\nAB1\n") == (
        {"rows": 3, "created": 2, "rejected": 1},
        [(3, exists)],
    )
    assert imported(account, "1.incentives", "AB1\n")[1] == [(1, exists)]


def test_the_pickup_takes_every_kind_of_an_account(account: Account, tmp_path: Path) -> None:
    in_dir, report_dir = tmp_path / "in", tmp_path / "reports"
    for folder in (in_dir, report_dir):
        folder.mkdir()
    for name in ("a.persons", ADD, END, "a.recipient_list", "a.wallet_update", "1.incentives"):
        (in_dir / name).write_text("mdn\n", encoding="utf-8")
    (in_dir / "a.txt").touch()
    outcomes = ImportPickup(account.platform, in_dir, report_dir, account=account).scan()
    assert len(outcomes) == 6
    assert [path.name for path in in_dir.iterdir()] == ["a.txt"]
    assert (report_dir / "a.opt_outs.report.csv").exists()
    assert (report_dir / "1.incentives.summary.csv").exists()
