"""Import files from typed rows: opt-outs, subscriptions, recipients, passes, incentive codes.

Rules: the Vibes documentation, the page of each kind. A row that cannot be read as exactly what it
means is refused here. Person files, whose rows come from a diff set, are `person_import`.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from vibes_pipelines.vibes.import_errors import ImportFileError, MissingEvidence
from vibes_pipelines.vibes.import_kinds import PRECEDENCE, Identifier, ImportKind, import_name
from vibes_pipelines.vibes.import_writer import (
    BY_SFTP,
    Layout,
    PartLimits,
    Table,
    WrittenFile,
    split_rows,
    write_parts,
    write_table,
)

MAX_CODES = 2_000_000
MAX_LONG_CODES = 1_000_000
"""Fewer codes than this fit into one file; the second when any has more than `SHORT_CODE`."""
SHORT_CODE = 12

_FORMS: Mapping[Identifier, re.Pattern[str]] = {
    "person_id": re.compile(r"[0-9]+"),
    "person_key": re.compile(r"[^A-Z\s\x00]+"),
    "external_person_id": re.compile(r"(?!\[null\]$)(?=.*\S)[^\x00-\x1f]{1,128}"),
    "mdn": re.compile(r"\+[1-9][0-9]{6,14}"),
    "vibes_device_id": re.compile(r"[^\s\x00]+"),
}
_LIST_ID = re.compile(r"[0-9]+")
_POOL_ID = re.compile(r"[0-9A-Za-z_-]+")
_CODE = re.compile(r'[^\s",]+')


@dataclass(frozen=True, slots=True)
class Named:
    """One person by one identifier; numbers in E.164.

    Raises:
        ImportFileError: the value does not have the identifier's form.
    """

    identifier: Identifier
    value: str

    def __post_init__(self) -> None:
        form = _FORMS.get(self.identifier)
        if form is None or not form.fullmatch(self.value):
            msg = f"a value is no {self.identifier} that an import can name a person by; correct it"
            raise ImportFileError(msg)


@dataclass(frozen=True, slots=True)
class Member:
    """A person and one subscription list, by its number in the platform."""

    person: Named
    list_id: str

    def __post_init__(self) -> None:
        if not _LIST_ID.fullmatch(self.list_id):
            msg = f"list {self.list_id!r}: imports take the list's number, see its address in Vibes"
            raise ImportFileError(msg)


@dataclass(frozen=True, slots=True)
class OnboardingEvidence:
    """Proof that persons consented elsewhere before they are subscribed without being asked.

    Loading numbers without consent breaks the law (the Vibes documentation, Subscriber Import), so
    that a person has to answer for it: `reference` is where the consents are recorded,
    `collected_until` the day of the youngest, `approved_by` who answers, `lists` which lists the
    consents name, `members` how many there are.

    Raises:
        MissingEvidence: a part of it is blank.
    """

    reference: str
    approved_by: str
    collected_until: date
    lists: frozenset[str]
    members: int

    def __post_init__(self) -> None:
        said = {
            "reference": self.reference.strip(),
            "approved_by": self.approved_by.strip(),
            "lists": self.lists,
            "members": self.members > 0,
        }
        blank = [name for name, value in said.items() if not value]
        if blank:
            msg = f"onboarding evidence without {', '.join(blank)}; subscribe nobody without it"
            raise MissingEvidence(msg)


@dataclass(frozen=True, slots=True)
class Recipient:
    """One receiver of one broadcast. `variables` fill its message and are not stored.

    A person can be reached by any channel, a bare `mdn` by SMS and MMS only, a device by push only.
    """

    person: Named
    variables: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WalletUpdate:
    """New contents of one pass. An `expiration_date` in the past redeems it."""

    uuid: str
    tokens: Mapping[str, str] = field(default_factory=dict)
    campaign_token: str | None = None
    expiration_date: str | None = None


def write_opt_outs(
    folder: Path, stem: str, members: Iterable[Member], limits: PartLimits = BY_SFTP
) -> list[WrittenFile]:
    """Writes `.opt_outs` files: they end SMS subscriptions and send no goodbye text.

    Raises:
        ImportFileError: somebody is named twice for one list.
    """
    return _write_members(folder, stem, "opt_outs", list(members), limits)


def write_subscriptions(
    folder: Path,
    stem: str,
    members: Iterable[Member],
    evidence: OnboardingEvidence | None,
    limits: PartLimits = BY_SFTP,
) -> list[WrittenFile]:
    """Writes `.subscriptions` files, for a first load of persons who consented before.

    Raises:
        MissingEvidence: there is no evidence, or it does not cover a list or that many members.
        ImportFileError: somebody is named twice for one list.
    """
    rows = list(members)
    if evidence is None:
        msg = "subscriptions need the evidence of consent; invite the persons instead"
        raise MissingEvidence(msg)
    uncovered = sorted({member.list_id for member in rows} - evidence.lists)
    if uncovered or len(rows) > evidence.members:
        what = f"list {', '.join(uncovered)}" if uncovered else f"{len(rows)} members"
        msg = f"the evidence {evidence.reference!r} does not cover {what}"
        raise MissingEvidence(msg)
    return _write_members(folder, stem, "subscriptions", rows, limits)


def write_recipients(
    folder: Path,
    stem: str,
    recipients: Iterable[Recipient],
    name: str | None = None,
    limits: PartLimits = BY_SFTP,
) -> list[WrittenFile]:
    """Writes `.recipient_list` files; `name` is the list's, else the platform takes the file's.

    A broadcast waits for files whose names hold its pattern: put the pattern into `stem`.

    Raises:
        ImportFileError: recipients with different variables.
    """
    rows = list(recipients)
    if not rows:
        return []
    variables = _same_keys("recipient", [row.variables for row in rows])
    columns = _identifiers(row.person for row in rows)
    headers = {"List-Name": name} if name is not None else {}
    clash = set(columns) & set(variables)
    if clash:
        msg = f"a variable cannot be called {min(clash)}: that column names the person"
        raise ImportFileError(msg)
    table = _table("recipient_list", (*columns, *variables), headers)
    cells = (
        (*_cells(row.person, columns), *(row.variables[name] for name in variables)) for row in rows
    )
    return write_parts(folder, stem, table, cells, limits)


def write_wallet_updates(
    folder: Path,
    stem: str,
    updates: Iterable[WalletUpdate],
    campaign_tokens: Sequence[str] = (),
    limits: PartLimits = BY_SFTP,
) -> list[WrittenFile]:
    """Writes `.wallet_update` files, which go by SFTP only.

    `campaign_tokens` are for all rows; without them each row names its own. What a blank cell does
    is not documented, so that all updates of a file change the same.

    Raises:
        ImportFileError: a pass without uuid or campaign, or updates of different things.
    """
    rows = list(updates)
    if not rows:
        return []
    cells = [_wallet_cells(update, has_campaign=bool(campaign_tokens)) for update in rows]
    columns = _same_keys("update", cells)
    headers = {"Campaign-Token": ",".join(campaign_tokens)} if campaign_tokens else {}
    table = _table("wallet_update", columns, headers)
    ordered = ([row[column] for column in columns] for row in cells)
    return write_parts(folder, stem, table, ordered, limits)


def write_incentives(folder: Path, pool_id: str, codes: Iterable[str]) -> list[WrittenFile]:
    """Writes `<pool_id>.incentives`: codes alone, one a line.

    The name must be the pool's, so that a second file of the same pool stands in another folder,
    `002`; upload it when the first was taken.

    Raises:
        ImportFileError: a code that needs quotes, or stands twice; a pool id no name can hold.
    """
    if not _POOL_ID.fullmatch(pool_id):
        msg = f"incentive pool {pool_id!r}: use its id"
        raise ImportFileError(msg)
    rows = list(codes)
    _check_codes(rows)
    most = MAX_CODES if all(len(code) <= SHORT_CODE for code in rows) else MAX_LONG_CODES
    table = Table("incentives", ("code",))
    parts = []
    limits = PartLimits(max_rows=most - 1)
    for number, part in enumerate(split_rows(table, ((code,) for code in rows), limits), start=1):
        place = folder / f"{number:03d}"
        place.mkdir(parents=True, exist_ok=True)
        path = place / import_name(pool_id, "incentives")
        parts.append(WrittenFile(path, write_table(path, table, part)))
    return parts


def _write_members(
    folder: Path, stem: str, kind: ImportKind, members: Sequence[Member], limits: PartLimits
) -> list[WrittenFile]:
    if not members:
        return []
    if len(set(members)) != len(members):
        twice = len(members) - len(set(members))
        msg = f"{kind} file: {twice} rows name a person twice for one list; take them out"
        raise ImportFileError(msg)
    columns = _identifiers(member.person for member in members)
    lists = {member.list_id for member in members}
    if len(lists) == 1:
        table = _table(kind, columns, {"Subscription-List-ID": min(lists)})
        rows = [_cells(member.person, columns) for member in members]
    else:
        table = _table(kind, (*columns, "subscription_list_id"), {})
        rows = [(*_cells(member.person, columns), member.list_id) for member in members]
    return write_parts(folder, stem, table, rows, limits)


def _table(kind: ImportKind, columns: Sequence[str], headers: Mapping[str, str]) -> Table:
    """A table of these columns, in the `Fields` header as the documentation's samples have them."""
    return Table(kind, tuple(columns), Layout(fields_in_header=True, headers=headers))


def _identifiers(persons: Iterable[Named]) -> tuple[Identifier, ...]:
    used = {person.identifier for person in persons}
    return tuple(identifier for identifier in PRECEDENCE if identifier in used)


def _cells(person: Named, columns: Sequence[Identifier]) -> tuple[str, ...]:
    return tuple(person.value if column == person.identifier else "" for column in columns)


def _same_keys(what: str, mappings: Sequence[Mapping[str, str]]) -> tuple[str, ...]:
    """The keys that all of them have, in the order of the first."""
    first = tuple(mappings[0]) if mappings else ()
    for number, mapping in enumerate(mappings, start=1):
        if mapping.keys() != set(first):
            names = ", ".join(sorted(mapping.keys() ^ set(first)))
            msg = f"{what} {number} differs from the first in {names}; write it to another file"
            raise ImportFileError(msg)
    return first


def _wallet_cells(update: WalletUpdate, *, has_campaign: bool) -> dict[str, str]:
    named = {
        "uuid": update.uuid,
        "campaign_token": update.campaign_token,
        "expiration_date": update.expiration_date,
    }
    cells = {name: value for name, value in named.items() if value is not None}
    if not update.uuid.strip() or not (has_campaign or update.campaign_token):
        missing = "campaign" if update.uuid.strip() else "uuid"
        msg = f"a pass without {missing}: the platform could not find it"
        raise ImportFileError(msg)
    clash = set(named) & set(update.tokens)
    if clash:
        msg = f"a token cannot be called {min(clash)}: that column has a meaning of its own"
        raise ImportFileError(msg)
    return cells | dict(update.tokens)


def _check_codes(codes: Sequence[str]) -> None:
    for number, code in enumerate(codes, start=1):
        if not _CODE.fullmatch(code) or not code.isprintable():
            msg = f"incentive code {number} is blank, or holds a quote, a comma or a space"
            raise ImportFileError(msg)
    twice = [code for code, count in Counter(codes).items() if count > 1]
    if twice:
        msg = f"{len(twice)} incentive codes stand twice; the platform would refuse the second"
        raise ImportFileError(msg)
