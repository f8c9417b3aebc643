"""The words of Tribe's OData: paths, query options, filters (Tribe documentation, OData)."""

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from urllib.parse import quote

from vibes_pipelines.tribe.errors import TribeFieldError

ROOT = "/v1/odata"
PERSONS = "Relation_Person"
LABELS = "Labels($select=ID,Name)"

MOST_TERMS = 20
"""Values in one filter, so that a URL keeps to a length that every server takes."""

PAGE_ROWS = 100
"""The most records of one GET (Tribe documentation, Rate limits)."""

_QUOTE = "'"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(/[A-Za-z_][A-Za-z0-9_]*)*")
_GUID = re.compile(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
_KEY = re.compile(rf"(\(|%28)?'?{_GUID.pattern}'?(\)|%29)?", re.IGNORECASE)


def is_guid(text: str) -> bool:
    """Whether a text has the form of Tribe's identifiers."""
    return _GUID.fullmatch(text) is not None


def shown_path(path: str) -> str:
    """A path as errors show it: its entity sets, and no identifier of anybody."""
    return _KEY.sub("", path)


def entity(name: str, identifier: str) -> str:
    """One record's path below its set; Tribe wants the GUID without quotes.

    Raises:
        TribeFieldError: the identifier is none.
    """
    if not is_guid(identifier):
        msg = f"Tribe {name}: an identifier is no GUID; contacts.key of sync.yaml must be ID"
        raise TribeFieldError(msg)
    return f"{name}({identifier})"


def changed_since(since: datetime) -> str:
    """The filter for what was created or changed since then.

    Both terms: LastMutationDate may be empty on a record that never changed.
    """
    moment = f"{since.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    return f"CreationDate ge {moment} or LastMutationDate ge {moment}"


def is_one_of(field: str, values: Sequence[str]) -> str:
    """The filter for a field with one of these values; Tribe knows no `in`.

    Identifiers stand as they are, text in single quotes with those within doubled.
    """
    shown = (
        values if field == "ID" else [f"'{value.replace(_QUOTE, _QUOTE * 2)}'" for value in values]
    )
    return " or ".join(f"{field} eq {value}" for value in shown)


def page_query(
    select: Sequence[str],
    where: str | None = None,
    order: str | None = None,
    window: tuple[int, int] | None = None,
    *,
    has_labels: bool = True,
    has_count: bool = False,
) -> str:
    """The query of a read. `window`: ($skip, $top). Blanks are sent as %20, never as +.

    Raises:
        TribeFieldError: a name that OData does not allow.
    """
    for name in select:
        if not _NAME.fullmatch(name):
            msg = f"Tribe: {name!r} is no field name; e.g. FirstName, or Address/City"
            raise TribeFieldError(msg)
    options: list[tuple[str, str]] = []
    own = [name for name in select if "/" not in name]
    if select:
        options.append(("$select", ",".join(dict.fromkeys(["ID", *own]))))
    expand = [*_expands(name for name in select if "/" in name), *([LABELS] if has_labels else [])]
    if expand:
        options.append(("$expand", ",".join(expand)))
    if where:
        options.append(("$filter", where))
    if order:
        options.append(("$orderby", order))
    if window is not None:
        options += [("$top", str(window[1])), ("$skip", str(window[0]))]
    if has_count:
        options.append(("$count", "true"))
    return "&".join(f"{name}={quote(value, safe='$(),=;:/')}" for name, value in options)


def _expands(paths: Iterable[str]) -> list[str]:
    """`Address/City` as `Address($select=City)`; one level deeper as a nested $expand."""
    below: dict[str, list[str]] = {}
    for path in paths:
        head, _, rest = path.partition("/")
        below.setdefault(head, []).append(rest)
    found = []
    for head, rests in below.items():
        own = [rest for rest in rests if "/" not in rest]
        deeper = _expands(rest for rest in rests if "/" in rest)
        options = [f"$select={','.join(own)}"] if own else []
        options += [f"$expand={','.join(deeper)}"] if deeper else []
        found.append(f"{head}({';'.join(options)})")
    return found
