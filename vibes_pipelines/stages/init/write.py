"""The text of a new sync.yaml: every guess says why, and what is no guess is commented out."""

import re
from collections.abc import Iterator, Mapping

import yaml

from vibes_pipelines.stages.doctor.files import PLACEHOLDER_COMPANY
from vibes_pipelines.stages.init.guess import ConsentGuess, FieldGuess, Guessed
from vibes_pipelines.stages.init.look import CrmSeen, PlatformSeen

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")
_WORDS_OF_YAML = frozenset({"true", "false", "null"})


def scalar(text: str) -> str:
    """A text as it stands in YAML, on one line: plain where that is safe, else in quotes."""
    if _PLAIN.fullmatch(text) and text not in _WORDS_OF_YAML:
        return text
    # A name of SQLAlchemy is a kind of text that PyYAML does not know.
    quoted = yaml.safe_dump(str(text), default_style='"', allow_unicode=True, width=1 << 30)
    return quoted.strip()


def sync_yaml(
    crm: CrmSeen, platform: PlatformSeen, guessed: Guessed, company_key: str | None
) -> str:
    """The whole file; `load_sync_config` reads it."""
    return "\n".join(_lines(crm, platform, guessed, company_key)) + "\n"


def _lines(
    crm: CrmSeen, platform: PlatformSeen, guessed: Guessed, company_key: str | None
) -> Iterator[str]:
    yield "# Written by `vibes-pipelines init`. Look at every line that says `guess`; what stands"
    yield "# behind a `#` is not in force. docs/reconcile.md says what each section does."
    yield "version: 1"
    if company_key:
        yield f"company_key: {scalar(company_key)}"
    else:
        yield f"company_key: {PLACEHOLDER_COMPANY}  # not known: the key of your account at Vibes"
    yield ""
    yield from _contacts(crm, guessed)
    yield ""
    yield "fields:"
    for one in guessed.fields:
        yield f"  - {_field(one)}  # guess: {one.why}"
    for column, why in guessed.left_out.items():
        yield f"  # - {{from: {scalar(column)}, to: ?, type: string}}  # left out: {why}"
    yield ""
    yield from _consents(guessed, platform)
    yield ""
    yield from _feeds(platform)
    yield ""
    yield "# guards, policies, callbacks: what is left out has the defaults of sync.example.yaml."


def _contacts(crm: CrmSeen, guessed: Guessed) -> Iterator[str]:
    yield "contacts:"
    others = ", ".join(scalar(name) for name in crm.other_tables[:8])
    why = f"  # guess: the others are {others}" if others else ""
    yield f"  table: {scalar(crm.table)}{why}"
    yield f"  key: {scalar(guessed.key)}  # guess: {guessed.key_why}"
    mdn = guessed.mdn
    if mdn is None:
        yield "  # mdn: {column: ?, default_region: US}  # no column holds mobile numbers"
    else:
        place = f"{{column: {scalar(mdn.column)}, default_region: {mdn.region}}}"
        yield f"  mdn: {place}  # guess: {mdn.why}"
    yield "  # conditions: [{column: customer_type, equals: A}]  # whom to sync; without, everybody"
    yield "  when_unmatched: keep  # what of those who stop meeting them: keep, clear or opt_out"


def _field(one: FieldGuess) -> str:
    parts = [f"from: {scalar(one.column)}", f"to: {scalar(one.to)}", f"type: {one.type}"]
    if one.type == "multi_select":
        parts.append(f"separator: {scalar(one.separator)}")
    if one.options:
        parts.append(f"options: {_mapping(one.options)}")
    return f"{{{', '.join(parts)}}}"


def _mapping(options: Mapping[str, str]) -> str:
    pairs = ", ".join(f"{scalar(value)}: {scalar(key)}" for value, key in options.items())
    return f"{{{pairs}}}"


def _consents(guessed: Guessed, platform: PlatformSeen) -> Iterator[str]:
    known = [one for one in guessed.consents if one.list is not None]
    yield "consents:" if known else "consents: []"
    for one in known:
        yield f"  - {_consent(one)}  # guess: {one.why}"
    for one in guessed.consents:
        if one.list is None:
            yield f"  # - {_consent(one)}  # not known: {one.why}"
    if not guessed.consents:
        yield "  # - {from: ?, list: ?, channel: sms}  # no column looks like a consent to SMS"
        yield from _lists(platform)


def _lists(platform: PlatformSeen) -> Iterator[str]:
    """What may stand for `list` and `campaign`; where a column was found, its reason has them."""
    if not platform.has_lists:
        yield "  # the platform's lists are not known: set VIBES_API_* and the company key"
    for name, (called, campaigns) in platform.lists.items():
        feeding = f"campaigns {', '.join(campaigns)}" if campaigns else "no campaign"
        yield f"  # list {scalar(name)} is {scalar(called)}: {feeding}"


def _consent(one: ConsentGuess) -> str:
    parts = [f"from: {scalar(one.column)}", f"list: {scalar(one.list or '?')}", "channel: sms"]
    if one.campaign is not None:
        parts.append(f"campaign: {scalar(one.campaign)}")
    if one.changed_at is not None:
        parts.append(f"changed_at: {scalar(one.changed_at)}")
    for name, spelled in (("opted_in", one.opted_in), ("opted_out", one.opted_out)):
        if spelled:
            parts.append(f"{name}: [{', '.join(scalar(value) for value in spelled)}]")
    return f"{{{', '.join(parts)}}}"


def _feeds(platform: PlatformSeen) -> Iterator[str]:
    if not platform.objects:
        yield "# feeds:  # not known: the share was not looked at; names differ between accounts"
        yield "#   share/persons: {object: VIBES_SHARE.PUBLIC.PERSONS}"
        return
    yield "feeds:  # what your account calls them"
    for feed, name in platform.objects.items():
        columns = ", columns: {as_of: AS_OF}" if feed == "share/refreshes" else ""
        yield f"  {feed}: {{object: {scalar(name)}{columns}}}  # guess: by its name"
