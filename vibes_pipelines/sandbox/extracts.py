"""The standard data extracts on the platform's SFTP: current_subscribers and subscriptions.

Tab separated, one row of field names, UTF-8, LF, nothing quoted; `person_id` holds the person key
(Vibes documentation, standard data extracts). A complete file ends with a newline and has a `.done`
sibling (an assumption: the documentation is silent on how a reader knows that a file is whole).
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path

import phonenumbers

from vibes_pipelines.sandbox.names import AREA_CODES
from vibes_pipelines.sandbox.platform import Person, Platform, Subscription

CURRENT_SUBSCRIBERS = "current_subscribers"
SUBSCRIPTIONS = "subscriptions"
KINDS: tuple[str, ...] = (CURRENT_SUBSCRIBERS, SUBSCRIPTIONS)

_COLUMNS: dict[str, tuple[str, ...]] = {
    CURRENT_SUBSCRIBERS: (
        "mdn",
        "person_id",
        "external_person_id",
        "carrier_code",
        "mdn_e164_format",
        "country_code",
        "subscription_list_id",
    ),
    SUBSCRIPTIONS: (
        "person_id",
        "external_person_id",
        "mdn",
        "company_id",
        "carrier_code",
        "subscription_list_id",
        "subscription_list_name",
        "opt_in_date",
        "opt_out_date",
        "subscription_event",
        "opt_out_reason",
        "activity_description",
        "activity_id",
    ),
}

_ZONE = timezone(timedelta(hours=-6))
"""The documentation's samples carry -0600."""

_LF = "\n"
_US_AREA_CODES = frozenset(AREA_CODES)
_BEGINNING = datetime.min.replace(tzinfo=UTC)

_Row = tuple[str | None, ...]


@dataclass
class ExtractDrop:
    """Drops each day's extracts into a folder of the SFTP.

    An event belongs to the extract of the first morning after it: `subscriptions` covers the
    half-open span from the previous drop's instant to this one's, so that none is lost and none is
    told twice. The first drop tells all history.
    """

    folder: Path
    since: datetime = _BEGINNING
    _cut: dict[str, str] = field(default_factory=dict)

    def drop(
        self, platform: Platform, day: date, until: datetime, cut: Collection[str] = ()
    ) -> None:
        """Write the day's extracts; kinds in `cut` end in the middle, without `.done`."""
        with platform.lock:
            rows = {
                CURRENT_SUBSCRIBERS: list(_current_subscribers(platform)),
                SUBSCRIPTIONS: list(_events(platform, self.since, until)),
            }
        self.since = until
        for kind in KINDS:
            name = f"{kind}_{platform.company_key}_{day.isoformat()}.txt"
            text = _text(kind, rows[kind])
            if kind in cut:
                self._cut[name] = text
                self._put(name, _half(text.encode()))
            else:
                self._put_whole(name, text)

    def complete(self) -> list[str]:
        """Write every extract that was cut once more, whole this time; returns their names."""
        completed = sorted(self._cut)
        for name in completed:
            self._put_whole(name, self._cut.pop(name))
        return completed

    def _put_whole(self, name: str, text: str) -> None:
        content = text.encode()
        self._put(name, content)
        self._put(f"{name}.done", f"rows={text.count(_LF) - 1} bytes={len(content)}\n".encode())

    def _put(self, name: str, content: bytes) -> None:
        """Nobody sees a file that is still being written."""
        partial = self.folder / f".{name}.part"
        partial.write_bytes(content)
        partial.replace(self.folder / name)


def _half(content: bytes) -> bytes:
    """The first half, ended in the middle of a line."""
    return content[: len(content) // 2].removesuffix(_LF.encode())


def _text(kind: str, rows: Iterable[_Row]) -> str:
    lines = ["\t".join(_COLUMNS[kind])]
    lines += ["\t".join(map(_cell, row)) for row in rows]
    return _LF.join(lines) + _LF


def _cell(value: str | None) -> str:
    """Nothing is quoted in these extracts, so that blanks replace what would break a row."""
    return "" if value is None else " ".join(value.split()) if not value.isprintable() else value


def _current_subscribers(platform: Platform) -> Iterator[_Row]:
    for row in _in_order(platform.subscriptions):
        person = platform.persons[row.person_key]
        if row.opt_out_date is not None or person.mdn is None:
            continue
        yield (
            person.mdn.removeprefix("+1"),
            person.person_key,
            person.external_person_id,
            person.carrier_code,
            person.mdn,
            _country(person.mdn),
            row.list_id,
        )


def _events(platform: Platform, since: datetime, until: datetime) -> Iterator[_Row]:
    """One row for each opt-in and each opt-out of the span, as things stood at that event."""
    events: list[tuple[datetime, str, Subscription]] = []
    for row in platform.subscriptions:
        if since <= row.opt_in_date < until:
            events.append((row.opt_in_date, "OPT_IN", row))
        if row.opt_out_date is not None and since <= row.opt_out_date < until:
            events.append((row.opt_out_date, "OPT_OUT", row))
    events.sort(key=lambda event: (event[0], event[1], event[2].person_key, event[2].list_id))
    for _, event, row in events:
        yield _event_row(platform, event, row)


def _event_row(platform: Platform, event: str, row: Subscription) -> _Row:
    person: Person = platform.persons[row.person_key]
    has_ended = event == "OPT_OUT" and row.opt_out_date is not None
    return (
        person.person_key,
        person.external_person_id,
        person.mdn,
        platform.company_key,
        person.carrier_code,
        row.list_id,
        platform.lists[row.list_id].name,
        _stamp(row.opt_in_date),
        _stamp(row.opt_out_date) if has_ended and row.opt_out_date else None,
        event,
        row.opt_out_reason.upper() if has_ended and row.opt_out_reason else None,
        None,
        None,
    )


def _country(mdn: str) -> str | None:
    """The region of a number; the synthetic population's area codes need no look-up."""
    if mdn.startswith("+1") and mdn[2:5] in _US_AREA_CODES:
        return "US"
    return phonenumbers.region_code_for_number(phonenumbers.parse(mdn))


def _in_order(subscriptions: Iterable[Subscription]) -> list[Subscription]:
    return sorted(subscriptions, key=lambda row: (row.person_key, row.list_id, row.opt_in_date))


def _stamp(instant: datetime) -> str:
    return f"{instant.astimezone(_ZONE):%Y-%m-%d %H:%M:%S %z}"
