"""Guesses: what each column of the CRM is, and which field of the platform it belongs to.

Pure: from what was seen to a proposal in which everything says why. A person decides.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from vibes_pipelines.reconcile.phone import to_e164
from vibes_pipelines.stages.init.kinds import (
    DATE,
    are_all,
    keys_of,
    options_of,
    parts_of,
    type_of,
)
from vibes_pipelines.stages.init.look import Column, CrmSeen, PlatformField, PlatformSeen
from vibes_pipelines.stages.init.names import (
    CONSENT_WORDS,
    DEFAULT_SPELLINGS,
    IN,
    MOBILE_WORDS,
    OTHER_CHANNELS,
    OUT,
    PHONE_WORDS,
    TIME_WORDS,
    has_word,
    key_of,
    mean_the_same,
    words,
)
from vibes_pipelines.sync_config.config import FieldType
from vibes_pipelines.sync_config.feeds import IDENTIFIERS

REGIONS = ("US", "GB", "NL", "DE", "BE", "FR", "ES", "IT", "AU", "CA", "SE", "NO", "DK", "PL")
_NUMBERS_LOOKED_AT = 60
_ENOUGH = 0.6


@dataclass(frozen=True)
class FieldGuess:
    """One line of `fields`; `why` is the guess in words."""

    column: str
    to: str
    type: FieldType
    why: str
    options: Mapping[str, str] = field(default_factory=dict)
    separator: str = ";"


@dataclass(frozen=True)
class ConsentGuess:
    """One line of `consents`; without a list it is commented out."""

    column: str
    list: str | None
    why: str
    changed_at: str | None = None
    campaign: str | None = None
    opted_in: tuple[str, ...] = ()
    opted_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class MdnGuess:
    """The column of mobile numbers, and the region that numbers without a country are of."""

    column: str
    region: str
    why: str


@dataclass(frozen=True)
class Guessed:
    """The whole proposal. `left_out`: each column that is not mapped, and why."""

    key: str
    key_why: str
    mdn: MdnGuess | None
    fields: tuple[FieldGuess, ...]
    consents: tuple[ConsentGuess, ...]
    left_out: Mapping[str, str]


def guess(crm: CrmSeen, platform: PlatformSeen) -> Guessed:
    """A proposal for this table and this platform; it always has a key and at least one field."""
    key, key_why = _key(crm)
    mdn = _mdn([column for column in crm.columns if column.name != key])
    taken = {key, mdn.column if mdn else key}
    rest = [column for column in crm.columns if column.name not in taken]
    consents, of_consents = _consents(rest, platform)
    fields, left_out = _fields([c for c in rest if c.name not in of_consents], platform)
    if not fields:
        fields = (_last_resort(crm, left_out),)
        left_out.pop(fields[0].column, None)
    return Guessed(key, key_why, mdn, fields, consents, left_out)


def _key(crm: CrmSeen) -> tuple[str, str]:
    named = {column.name for column in crm.columns}
    for name in crm.keys:
        if name in named:
            return name, "the database keeps it unique"
    unique = [column for column in crm.columns if column.is_unique]
    like_an_id = [c for c in unique if has_word(c.name, ("id", "key", "no", "nr", "number"))]
    for column in like_an_id or unique:
        return column.name, "it is filled and different in every row that was looked at"
    named_so = [c for c in crm.columns if has_word(c.name, ("id", "key")) and c.values]
    if named_so:
        best = max(named_so, key=lambda c: len(c.different) / c.rows)
        return best.name, f"its name; {best.rows - len(best.different)} rows have none of their own"
    return crm.columns[0].name, "nothing better: no column is filled and unique; look twice"


def _mdn(columns: list[Column]) -> MdnGuess | None:
    judged = [(_numbers(column), column) for column in columns if column.kind in {"text", "number"}]
    fitting = [
        (share + 0.3 * has_word(c.name, MOBILE_WORDS), region, c)
        for (share, region), c in judged
        if share >= _ENOUGH and (has_word(c.name, PHONE_WORDS) or share > 0.9)
    ]
    if not fitting:
        return None
    _, region, column = max(fitting, key=lambda one: one[0])
    written = [value.strip() for value in column.values[:_NUMBERS_LOOKED_AT]]
    whole = sum(value.startswith(("+", "00")) for value in written)
    why = f"its values are mobile numbers of {region}"
    if whole == len(written):
        why = "all its numbers name their country; the region is for those that will not"
    return MdnGuess(column.name, region, why)


def _numbers(column: Column) -> tuple[float, str]:
    """The share of values that are numbers, in the region in which most are."""
    sample = column.values[:_NUMBERS_LOOKED_AT]
    if not sample or sum(sum(c.isdigit() for c in v) >= 7 for v in sample) < _ENOUGH * len(sample):
        return 0.0, REGIONS[0]
    counted = [
        (sum(to_e164(value, region) is not None for value in sample) / len(sample), region)
        for region in REGIONS
    ]
    best = max(share for share, _ in counted)
    return next(one for one in counted if one[0] == best)


def _consents(
    columns: list[Column], platform: PlatformSeen
) -> tuple[tuple[ConsentGuess, ...], set[str]]:
    """Consent columns of the channel SMS, and every column that belongs to one."""
    found: list[ConsentGuess] = []
    used: set[str] = set()
    for column in columns:
        if not has_word(column.name, CONSENT_WORDS) or not _says_yes_or_no(column):
            continue
        if has_word(column.name, OTHER_CHANNELS):
            continue
        time = _time_of(column, columns)
        found.append(_consent(column, time, platform, is_first=not found))
        used |= {column.name, time or column.name}
    return tuple(found), used


def _says_yes_or_no(column: Column) -> bool:
    spelled = {value.strip().lower() for value in column.different}
    return column.kind == "truth" or (bool(spelled) and spelled <= IN | OUT)


def _time_of(consent: Column, columns: list[Column]) -> str | None:
    """The column that tells when a consent changed: all its words, and one of time."""
    wanted = set(words(consent.name))
    for column in columns:
        has = set(words(column.name))
        is_time = column.kind in {"time", "date"} or are_all(column, DATE)
        if column.name != consent.name and is_time and wanted <= has and has & TIME_WORDS:
            return column.name
    return None


def _consent(
    column: Column, time: str | None, platform: PlatformSeen, *, is_first: bool
) -> ConsentGuess:
    spelled = sorted({value.strip().lower() for value in column.different})
    usual = column.kind == "truth" or set(spelled) <= DEFAULT_SPELLINGS
    opted_in = () if usual else tuple(one for one in spelled if one in IN)
    opted_out = () if usual else tuple(one for one in spelled if one in OUT)
    name, why = _list_of(column, platform, is_first=is_first)
    feeding = platform.lists[name][1] if name else ()
    campaign = feeding[0] if len(feeding) == 1 else None
    return ConsentGuess(column.name, name, why, time, campaign, opted_in, opted_out)


def _list_of(column: Column, platform: PlatformSeen, *, is_first: bool) -> tuple[str | None, str]:
    if not platform.has_lists:
        return None, "the platform's lists are not known: set VIBES_API_* and the company key"
    if len(platform.lists) == 1 and is_first:
        name, (called, _) = next(iter(platform.lists.items()))
        return name, f"the company has one list, {called!r}"
    shared = [
        name
        for name, (called, _) in platform.lists.items()
        if set(words(called)) & (set(words(column.name)) - CONSENT_WORDS - {"sms", "in"})
    ]
    if len(shared) == 1 and is_first:
        return shared[0], f"the list {platform.lists[shared[0]][0]!r} has a word of it"
    known = ", ".join(f"{name} {called!r}" for name, (called, _) in platform.lists.items())
    return None, f"which list it is about is not clear; the company has {known or 'none'}"


def _fields(
    columns: list[Column], platform: PlatformSeen
) -> tuple[tuple[FieldGuess, ...], dict[str, str]]:
    found: list[FieldGuess] = []
    left_out: dict[str, str] = {}
    free = [one for one in platform.fields if key_of(one.name) not in IDENTIFIERS]
    for column in columns:
        if platform.has_share:
            match = _match(column, free)
            if match is None:
                left_out[column.name] = "no field of the platform is like it"
                continue
            free.remove(match[0])
            found.append(_field(column, match[0].name, match[1], match[0].values))
            continue
        to = key_of(column.name)
        if not to or to in IDENTIFIERS or to in {one.to for one in found}:
            left_out[column.name] = "its name gives no key for a custom field of its own"
        elif has_word(column.name, CONSENT_WORDS):
            left_out[column.name] = "it looks like a consent, and not of SMS"
        else:
            why = "the platform was not looked at; is the custom field called so?"
            found.append(_field(column, to, why, frozenset()))
    return tuple(found), left_out


def _match(column: Column, free: list[PlatformField]) -> tuple[PlatformField, str] | None:
    for one in free:
        if mean_the_same(column.name, one.name):
            return one, f"means the same as {one.name}"
    if column.kind != "text" or len(column.different) < 2:
        return None
    mine = parts_of(column)
    best = max(free, key=lambda one: _overlap(mine, one), default=None)
    if best is not None and _overlap(mine, best) >= _ENOUGH:
        return best, f"its values are those of {best.name}"
    return None


def _overlap(mine: set[str], platform: PlatformField) -> float:
    theirs = {p.strip().lower() for value in platform.values for p in value.split("|")}
    return len(mine & theirs) / len(mine) if len(theirs) >= 2 else 0.0


def _field(column: Column, to: str, why: str, platform_values: frozenset[str]) -> FieldGuess:
    kind, separator = type_of(column, to, platform_values)
    if kind not in {"single_select", "multi_select"}:
        return FieldGuess(column.name, to, kind, why)
    options = options_of(column, separator if kind == "multi_select" else "", platform_values)
    known = {value: key for value, key in options.items() if key in keys_of(platform_values)}
    if not known:
        return FieldGuess(
            column.name, to, kind, f"{why}; its option keys are guesses too", options, separator
        )
    if len(known) < len(options):
        why += f"; {len(options) - len(known)} values have no key in use at the platform"
    return FieldGuess(column.name, to, kind, why, known, separator)


def _last_resort(crm: CrmSeen, left_out: Mapping[str, str]) -> FieldGuess:
    """sync.yaml needs one field: any will do until somebody writes the right one."""
    column = next(iter(left_out), crm.columns[0].name)
    to = key_of(column)
    if not to or to in IDENTIFIERS:
        to = "first_name"
    return FieldGuess(column, to, "string", "nothing better: sync.yaml needs one; REPLACE it")
