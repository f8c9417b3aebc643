"""The rows of an import of the APSIS One stand-in: what each one does to which profile.

A bad row fails by itself; a file that cannot be read, or lacks a mapped column, fails whole.
"""

import csv
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from io import StringIO
from typing import Literal

from vibes_pipelines.sandbox.apsis_account import ApsisAccount
from vibes_pipelines.sandbox.apsis_records import (
    Attribute,
    ConsentKey,
    ConsentState,
    Keyspace,
    ProblemError,
    Profile,
    Value,
)
from vibes_pipelines.sandbox.apsis_values import is_address, read_cell

Outcome = Literal["new", "updated", "not_changed", "failed"]


class MalformedFileError(ValueError):
    """An import's file as a whole cannot be taken."""


@dataclass(frozen=True)
class ConsentRule:
    """A column of flags and the consent that it means."""

    column: str
    address_column: str
    at: ConsentKey
    type: Literal["opt-in", "opt-out"]
    resubscribe: bool


@dataclass(frozen=True)
class ImportPlan:
    """What the columns of a file mean."""

    keyspace: Keyspace
    key_column: str
    attributes: Mapping[str, Attribute]
    consents: tuple[ConsentRule, ...]
    update: bool
    clear: bool

    def columns(self) -> set[str]:
        """Every column that the file has to have."""
        consents = {name for rule in self.consents for name in (rule.column, rule.address_column)}
        return {self.key_column, *self.attributes, *consents}


def bring_in(
    account: ApsisAccount, section: str, plan: ImportPlan, content: bytes
) -> dict[str, int]:
    """Apply a file's rows and count what became of them; raises MalformedFileError."""
    try:
        reader = csv.DictReader(StringIO(content.decode("utf-8"), newline=""), strict=True)
        names = reader.fieldnames or []
        rows = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise MalformedFileError("the file is not CSV in UTF-8") from error
    if len(set(names)) != len(names) or plan.columns() - set(names):
        raise MalformedFileError("a column is missing, or there twice")
    counts: Counter[Outcome] = Counter()
    for row in rows:
        try:
            counts[_row(account, section, plan, row)] += 1
        except ProblemError:
            counts["failed"] += 1
    return {outcome: counts[outcome] for outcome in ("new", "updated", "not_changed", "failed")}


def _row(
    account: ApsisAccount, section: str, plan: ImportPlan, row: Mapping[str | None, str | None]
) -> Outcome:
    """What one row does; raises ProblemError when it fails, before anything is changed."""
    if None in row or None in row.values():
        raise ProblemError(400, "Bad Request", "the row has another number of cells")
    cells = {str(name): cell or "" for name, cell in row.items()}
    key = cells[plan.key_column]
    if not key:
        raise ProblemError(400, "Bad Request", "the row has no key")
    values = _values(plan, cells)
    rules = [rule for rule in plan.consents if _is_flagged(account, rule, cells)]
    profile = account.peek(plan.keyspace.discriminator, key)
    is_new = profile is None
    if profile is None:
        profile = account.create(plan.keyspace, key, section)
    if is_new or plan.update:
        is_changed = account.set_values(profile, section, values, "import_attributes")
    else:
        is_changed = False
    for rule in rules:
        is_changed = _consent(account, profile, rule) or is_changed
    if is_new:
        return "new"
    return "updated" if is_changed else "not_changed"


def _values(plan: ImportPlan, cells: Mapping[str, str]) -> dict[str, Value | None]:
    """Values by discriminator; a blank cell erases or says nothing, by the option."""
    values: dict[str, Value | None] = {}
    for column, attribute in plan.attributes.items():
        cell = cells[column]
        if cell:
            values[attribute.discriminator] = read_cell(attribute, cell)
        elif plan.clear:
            values[attribute.discriminator] = None
    return values


def _is_flagged(account: ApsisAccount, rule: ConsentRule, cells: Mapping[str, str]) -> bool:
    flag = cells[rule.column]
    if flag not in {"0", "1"}:
        raise ProblemError(400, "Bad Request", "a consent column takes 0 or 1")
    is_meant = flag == "1" or account.switches.import_zero == "taken"
    if is_meant and not is_address(cells[rule.address_column]):
        raise ProblemError(400, "Bad Request", "the address is none")
    return is_meant


def _consent(account: ApsisAccount, profile: Profile, rule: ConsentRule) -> bool:
    """Set a consent unless it would resubscribe somebody; True when it changed."""
    state = profile.consents.get(rule.at)
    present = state.type if state else None
    is_barred = rule.type == "opt-in" and (
        present in {"pending-opt-in", "confirmed-opt-in"}
        or (present == "opt-out" and not rule.resubscribe)
    )
    is_changed = present != rule.type and not is_barred
    if is_changed:
        now = account.clock.now()
        profile.consents[rule.at] = ConsentState(rule.type, "import", "import", now)
    account.count("import_consent", profile, is_changed=is_changed)
    return is_changed
