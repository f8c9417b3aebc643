"""Every kind of import but persons: what it is made of, and what one of its rows does.

Kinds are recognised by extension (Vibes documentation, File-Based Data Imports and the page of each
kind). Those pages name no error classes but `CodeAlreadyExists`; the person import's are taken, and
others of the same form where none fits, which is an assumption.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from vibes_pipelines.sandbox.account import Account
from vibes_pipelines.sandbox.import_format import (
    FORMAT_ERROR,
    ImportFileError,
    ImportText,
    decode,
    parse_import,
)
from vibes_pipelines.sandbox.import_rows import RowRefusedError, row_refusal
from vibes_pipelines.sandbox.imports_records import RecipientList
from vibes_pipelines.sandbox.platform import Person, PersonPatch
from vibes_pipelines.sandbox.platform_mdn import parse_import_mdn
from vibes_pipelines.sandbox.platform_records import OMITTED
from vibes_pipelines.sandbox.platform_refusals import (
    NoIdentifierError,
    NotFoundError,
    NotSubscribedError,
    PersonNotFoundError,
    RefusalError,
)
from vibes_pipelines.sandbox.wallet import FIRST_CLASS_FIELDS, ItemPatch

IDENTIFIERS = ("person_id", "person_key", "external_person_id", "mdn", "vibes_device_id")
"""Identifying columns by precedence; that of these kinds is an assumption: as for persons."""

_LIST_COLUMN: Final = "subscription_list_id"
_LIST_HEADER: Final = "subscription-list-id"
_INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:Z|[+-]\d\d?:?\d\d)", re.ASCII)

_Row = Mapping[str, str]


@dataclass(frozen=True)
class ImportKind:
    """How a kind is read, checked as a whole, and applied row by row.

    `check` and `apply` are given the file's name without its extension. `check` raises
    ImportFileError, `apply` RowRefusedError.
    """

    parse: Callable[[bytes], ImportText]
    check: Callable[[Account, str, ImportText], None]
    apply: Callable[[Account, str, ImportText, _Row], str]


def _with_headers(*headers: str, is_text: bool = False) -> Callable[[bytes], ImportText]:
    """A reader of files whose header section may hold these, `is_text` also the Content-Type."""
    known = frozenset({"fields", "delimiter", *headers, *(["content-type"] if is_text else [])})

    def parse(data: bytes) -> ImportText:
        parsed = parse_import(data, known)
        headers = {"content-type": "TEXT"} if parsed.headers is None else parsed.headers
        if is_text and headers.get("content-type", "").strip() != "TEXT":
            raise ImportFileError(FORMAT_ERROR, "the header Content-Type must be TEXT")
        return parsed

    return parse


def _parse_codes(data: bytes) -> ImportText:
    """One code a line, neither headers nor field names (Vibes documentation, Incentive Import)."""
    lines = [line.removesuffix("\r") for line in decode(data).split("\n")]
    if lines and not lines[-1]:
        lines.pop()
    for number, line in enumerate(lines, 1):
        if not line or "," in line or '"' in line:
            raise ImportFileError(FORMAT_ERROR, f"row {number} is not one code")
    return ImportText(("code",), "|", ",", "".join(f"{line}\n" for line in lines))


def _check_identified(account: Account, stem: str, parsed: ImportText) -> None:  # noqa: ARG001
    if not set(IDENTIFIERS) & set(parsed.columns):
        message = "Couldn't find an external_person_id, mdn, or vibes_device_id field"
        raise ImportFileError(FORMAT_ERROR, message)


def _check_stays(account: Account, stem: str, parsed: ImportText) -> None:
    _check_identified(account, stem, parsed)
    if _LIST_COLUMN not in parsed.columns and _LIST_HEADER not in (parsed.headers or {}):
        raise ImportFileError(
            FORMAT_ERROR,
            "Couldn't find a Subscription-List-ID header or subscription_list_id field",
        )


def _check_wallet(account: Account, stem: str, parsed: ImportText) -> None:  # noqa: ARG001
    if "uuid" not in parsed.columns:
        raise ImportFileError(FORMAT_ERROR, "Couldn't find a uuid field")
    if "campaign_token" not in parsed.columns and not _tokens(parsed):
        raise ImportFileError(
            FORMAT_ERROR, "Couldn't find a Campaign-Token header or campaign_token field"
        )


def _check_pool(account: Account, stem: str, parsed: ImportText) -> None:  # noqa: ARG001
    if stem not in account.imports.incentive_pools:
        raise ImportFileError(
            "IncentiveCodesImportErrors::PoolNotFound", "the file's name is no incentive pool's id"
        )


def _find(account: Account, row: _Row) -> Person | None:
    """The person whom the row's first identifier names; None when external id or MDN is unknown."""
    platform = account.platform
    if person_id := row.get("person_id"):
        if not (person_id.isascii() and person_id.isdecimal()):
            raise RowRefusedError("PersonErrors::InvalidPersonID", "Invalid person_id")
        return _known(platform.find(person_id=person_id))
    if person_key := row.get("person_key"):
        return _known(platform.find(person_key=person_key))
    if external := row.get("external_person_id"):
        return platform.find(external_person_id=external)
    if mdn := row.get("mdn"):
        return platform.find(mdn=parse_import_mdn(mdn))
    if device_id := row.get("vibes_device_id"):
        return platform.persons[account.devices.get(device_id).person_key]
    raise NoIdentifierError


def _known(person: Person | None) -> Person:
    if person is None:
        raise PersonNotFoundError("no person has this identifier")
    return person


def _refuse_unknown(row: _Row, known: frozenset[str]) -> None:
    if any(name not in known for name in row):
        raise RowRefusedError("PersonErrors::CustomFieldNotFound", "Custom field not found")


def _list_of(account: Account, parsed: ImportText, row: _Row) -> str:
    """The list that a row is about; its own column wins over the header."""
    list_id = row.get(_LIST_COLUMN) or (parsed.headers or {}).get(_LIST_HEADER, "").strip()
    if list_id not in account.platform.lists:
        raise RowRefusedError(
            "SubscriptionErrors::SubscriptionListNotFound", "Subscription list not found"
        )
    return list_id


_STAY_COLUMNS = frozenset({*IDENTIFIERS, _LIST_COLUMN})


def _subscribe(account: Account, _stem: str, parsed: ImportText, row: _Row) -> str:
    """Begin a stay without any text; callbacks tell of it (Vibes documentation)."""
    _refuse_unknown(row, _STAY_COLUMNS)
    list_id, platform = _list_of(account, parsed, row), account.platform
    try:
        mdn = parse_import_mdn(row["mdn"]) if row.get("mdn") else OMITTED
        person = _find(account, row)
        if person is None:
            external = row.get("external_person_id") or OMITTED
            person = platform.create(PersonPatch(external, mdn), source="import").person
        elif mdn not in {OMITTED, person.mdn}:
            platform.update(person.person_key, PersonPatch(mdn=mdn), source="import")
        if person.mdn is not None:
            platform.carrier_lookup(person.mdn)
    except RefusalError as refusal:
        raise _refused(refusal) from refusal
    if person.mdn is None:
        raise RowRefusedError("PersonErrors::MobilePhoneNotFound", "the person has no mobile phone")
    if any(stay.list_id == list_id for stay in platform.subscriptions_of(person.person_key)):
        platform.audit.repeat("import_subscribe", person.person_key)
        return "unchanged"
    platform.subscribe(person.person_key, list_id, platform.clock())
    platform.audit.effect("import_subscribe", person.person_key)
    return "created"


def _opt_out(account: Account, _stem: str, parsed: ImportText, row: _Row) -> str:
    """End a stay without any text, with the reason `bulk_opt_out`."""
    _refuse_unknown(row, _STAY_COLUMNS)
    list_id = _list_of(account, parsed, row)
    try:
        person = _known(_find(account, row))
        account.platform.unsubscribe(
            person.person_key, list_id, reason="bulk_opt_out", source="import"
        )
    except NotSubscribedError as refusal:
        if account.switches.opt_out_of_nobody == "unchanged":
            return "unchanged"
        raise RowRefusedError(
            "SubscriptionErrors::NotSubscribed", "the person is not subscribed"
        ) from refusal
    except RefusalError as refusal:
        raise _refused(refusal) from refusal
    return "updated"


def _refused(refusal: RefusalError) -> RowRefusedError:
    """An unknown device counts as an unknown person."""
    if type(refusal) is NotFoundError:
        return row_refusal(PersonNotFoundError(*refusal.messages))
    return row_refusal(refusal)


def _address(account: Account, stem: str, parsed: ImportText, row: _Row) -> str:
    """Put a person on a one-off audience; other columns are variables, never stored."""
    name = (parsed.headers or {}).get("list-name", "").strip() or stem
    try:
        person = _known(_find(account, row))
    except RefusalError as refusal:
        raise _refused(refusal) from refusal
    lists = account.imports.recipient_lists
    former = lists[name].person_keys if name in lists else ()
    if person.person_key in former:
        return "unchanged"
    lists[name] = RecipientList(name, (*former, person.person_key))
    return "created"


def _tokens(parsed: ImportText) -> list[str]:
    """The campaigns of the header, which may name several."""
    header = (parsed.headers or {}).get("campaign-token", "")
    return [token.strip() for token in header.split(",") if token.strip()]


_WALLET_COLUMNS = FIRST_CLASS_FIELDS | {"campaign_token"}


def _change_pass(account: Account, _stem: str, parsed: ImportText, row: _Row) -> str:
    """Change a pass in every campaign named that has it; a blank changes nothing."""
    if any(name not in _WALLET_COLUMNS for name in row):
        raise RowRefusedError("WalletErrors::FieldNotFound", "Field not found")
    wallet = account.wallet
    tokens = [row["campaign_token"]] if row.get("campaign_token") else _tokens(parsed)
    found = [token for token in tokens if f"{token}/{row['uuid']}" in wallet.items]
    if not found:
        raise RowRefusedError("WalletErrors::WalletItemNotFound", "Wallet item not found")
    expires = _read_expiration(row.get("expiration_date", ""))
    named = {"uuid", "campaign_token", "expiration_date"}
    fields = {name: text for name, text in row.items() if text and name not in named}
    patch = ItemPatch(fields, expires)
    changed = [wallet.update(token, row["uuid"], patch, source="import") for token in found]
    return "updated" if any(changed) else "unchanged"


def _read_expiration(text: str) -> datetime | None:
    """An instant with `Z` or an offset, also in the page's own form `+0:00`; blank is none."""
    if not text:
        return None
    if not _INSTANT.fullmatch(text):
        raise RowRefusedError(
            "WalletErrors::InvalidExpirationDate", "takes YYYY-MM-DDTHH:MM:SS with Z or an offset"
        )
    padded = re.sub(r"([+-])(\d):", r"\g<1>0\2:", text)
    try:
        return datetime.fromisoformat(padded).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise RowRefusedError(
            "WalletErrors::InvalidExpirationDate", "takes a date that exists"
        ) from error


def _add_code(account: Account, stem: str, _parsed: ImportText, row: _Row) -> str:
    codes = account.imports.incentive_codes
    if row["code"] in codes:
        raise RowRefusedError(
            "IncentiveCodesImportErrors::CodeAlreadyExists", "Code already exists"
        )
    codes[row["code"]] = stem
    return "created"


KINDS: Mapping[str, ImportKind] = {
    "subscriptions": ImportKind(
        _with_headers(_LIST_HEADER, is_text=True), _check_stays, _subscribe
    ),
    "opt_outs": ImportKind(_with_headers(_LIST_HEADER, is_text=True), _check_stays, _opt_out),
    "recipient_list": ImportKind(
        _with_headers("list-name", is_text=True), _check_identified, _address
    ),
    "wallet_update": ImportKind(_with_headers("campaign-token"), _check_wallet, _change_pass),
    "incentives": ImportKind(_parse_codes, _check_pool, _add_code),
}
"""Every kind beside persons, by the extension of its files."""
