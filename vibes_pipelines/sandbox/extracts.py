"""The standard data extracts on the platform's SFTP: current_subscribers and subscriptions.

Tab separated, one row of field names, UTF-8, LF, nothing quoted; `person_id` holds the person key
(Vibes documentation, standard data extracts). A complete file ends with a newline and has a `.done`
sibling (an assumption: the documentation is silent on how a reader knows that a file is whole).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path

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

    def drop(
        self, platform: Platform, day: date, until: datetime, cut: Iterable[str] = ()
    ) -> list[Path]:
        """Write the day's extracts; kinds in `cut` end in the middle, without `.done`."""
        with platform.lock:
            texts = {
                CURRENT_SUBSCRIBERS: _text(CURRENT_SUBSCRIBERS, _current_subscribers(platform)),
                SUBSCRIPTIONS: _text(SUBSCRIPTIONS, _events(platform, self.since, until)),
            }
        self.since = until
        halves = frozenset(cut)
        return [
            self._write(
                f"{kind}_{platform.company_key}_{day.isoformat()}.txt", text, kind in halves
            )
            for kind, text in texts.items()
        ]

    def _write(self, name: str, text: str, is_cut: bool) -> Path:  # noqa: FBT001 — told by the caller's set
        target = self.folder / name
        content = text.encode()
        partial = target.with_name(f".{name}.part")
        partial.write_bytes(content[: len(content) // 2] if is_cut else content)
        partial.replace(target)
        if not is_cut:
            done = target.with_name(f"{name}.done")
            done.write_text(
                f"rows={text.count(chr(10)) - 1} bytes={len(content)}\n", encoding="utf-8"
            )
        return target


def _text(kind: str, rows: Iterable[_Row]) -> str:
    lines = ["\t".join(_COLUMNS[kind])]
    lines += ["\t".join(map(_cell, row)) for row in rows]
    return "\n".join(lines) + "\n"


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
            "US",
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


def _in_order(subscriptions: Iterable[Subscription]) -> list[Subscription]:
    return sorted(subscriptions, key=lambda row: (row.person_key, row.list_id, row.opt_in_date))


def _stamp(instant: datetime) -> str:
    return f"{instant.astimezone(_ZONE):%Y-%m-%d %H:%M:%S %z}"
