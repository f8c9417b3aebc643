"""The standard data extracts on the platform's SFTP, and the rows of those about subscribers.

Tab separated, one row of field names, UTF-8, LF, nothing quoted but what was sent; `person_id`
holds the person key (Vibes documentation, standard data extracts). A complete file ends with a
newline and has a `.done` sibling (an assumption: the documentation is silent on how a reader knows
that a file is whole).
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path

import phonenumbers

from vibes_pipelines.sandbox.account import Account
from vibes_pipelines.sandbox.extract_rows import (
    ACTIVITY_ROWS,
    COLUMNS,
    FORMER_NAMES,
    QUOTED,
    Row,
    stamp,
)
from vibes_pipelines.sandbox.names import AREA_CODES
from vibes_pipelines.sandbox.platform import Person, Platform, Subscription
from vibes_pipelines.sandbox.switches import Switches

CURRENT_SUBSCRIBERS = "current_subscribers"
SUBSCRIPTIONS = "subscriptions"


def kinds_of(switches: Switches) -> tuple[str, ...]:
    """The extracts of a morning; all seven only if the switches say so."""
    return (
        tuple(COLUMNS) if switches.extract_kinds == "all" else (CURRENT_SUBSCRIBERS, SUBSCRIPTIONS)
    )


_LF = "\n"
_US_AREA_CODES = frozenset(AREA_CODES)
_BEGINNING = datetime.min.replace(tzinfo=UTC)


@dataclass
class ExtractDrop:
    """Drops each day's extracts into a folder of the SFTP.

    An event belongs to the extract of the first morning after it: all but `current_subscribers`
    cover the half-open span from the previous drop's instant to this one's, so that none is lost
    and none is told twice. The first drop tells all history. Without an account there are only the
    extracts of subscribers.
    """

    folder: Path
    since: datetime = _BEGINNING
    account: Account | None = None
    switches: Switches = field(default_factory=Switches)
    _cut: dict[str, str] = field(default_factory=dict)

    def drop(
        self, platform: Platform, day: date, until: datetime, cut: Collection[str] = ()
    ) -> None:
        """Write the day's extracts; kinds in `cut` end in the middle, without `.done`."""
        with platform.lock:
            rows = self._rows(platform, until)
        self.since = until
        for kind, told in rows.items():
            name = self._name(kind, platform.company_key, day)
            text = _text(kind, told)
            if kind in cut:
                self._cut[name] = text
                self._put(name, _half(text.encode()))
            else:
                self._put_whole(name, text)

    def _rows(self, platform: Platform, until: datetime) -> dict[str, list[Row]]:
        since = self.since
        rows = {
            CURRENT_SUBSCRIBERS: list(_current_subscribers(platform)),
            SUBSCRIPTIONS: [self._cased(row) for row in self._events(platform, until)],
        }
        if self.account is not None and self.switches.extract_kinds == "all":
            for kind, tell in ACTIVITY_ROWS.items():
                rows[kind] = list(
                    tell(self.account, lambda at: at is not None and since <= at < until)
                )
        return rows

    def _events(self, platform: Platform, until: datetime) -> Iterator[Row]:
        descriptions = {
            campaign.id: campaign.description
            for campaign in (self.account.acquisition.campaigns.values() if self.account else ())
        }
        return _events(platform, self.since, until, descriptions)

    def _cased(self, row: Row) -> Row:
        if self.switches.extract_case == "upper":
            return row
        places = {COLUMNS[SUBSCRIPTIONS].index(c) for c in ("subscription_event", "opt_out_reason")}
        return tuple(
            cell.lower() if cell and place in places else cell for place, cell in enumerate(row)
        )

    def _name(self, kind: str, company_key: str, day: date) -> str:
        if self.switches.extract_names == "former":
            return FORMER_NAMES[kind].format(day=day.isoformat())
        return f"{kind}_{company_key}_{day.isoformat()}.txt"

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


def _text(kind: str, rows: Iterable[Row]) -> str:
    lines = ["\t".join(COLUMNS[kind])]
    quoted = [column in QUOTED.get(kind, ()) for column in COLUMNS[kind]]
    lines += [
        "\t".join(
            _quoted(cell) if is_quoted else _cell(cell)
            for cell, is_quoted in zip(row, quoted, strict=True)
        )
        for row in rows
    ]
    return _LF.join(lines) + _LF


def _cell(value: str | None) -> str:
    """Nothing is quoted in these extracts, so that blanks replace what would break a row."""
    return "" if value is None else " ".join(value.split()) if not value.isprintable() else value


def _quoted(value: str | None) -> str:
    return "" if value is None else '"' + value.replace('"', '""') + '"'


def _current_subscribers(platform: Platform) -> Iterator[Row]:
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


def _events(
    platform: Platform, since: datetime, until: datetime, descriptions: Mapping[str, str]
) -> Iterator[Row]:
    """One row for each opt-in and each opt-out of the span, as things stood at that event.

    `descriptions` are those of acquisition campaigns, by id.
    """
    events: list[tuple[datetime, str, Subscription]] = []
    for row in platform.subscriptions:
        if since <= row.opt_in_date < until:
            events.append((row.opt_in_date, "OPT_IN", row))
        if row.opt_out_date is not None and since <= row.opt_out_date < until:
            events.append((row.opt_out_date, "OPT_OUT", row))
    events.sort(key=lambda event: (event[0], event[1], event[2].person_key, event[2].list_id))
    for _, event, row in events:
        yield _event_row(platform, event, row, descriptions)


def _event_row(
    platform: Platform, event: str, row: Subscription, descriptions: Mapping[str, str]
) -> Row:
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
        stamp(row.opt_in_date),
        stamp(row.opt_out_date) if has_ended and row.opt_out_date else None,
        event,
        row.opt_out_reason.upper() if has_ended and row.opt_out_reason else None,
        descriptions.get(row.activity_id or ""),
        row.activity_id,
    )


def _country(mdn: str) -> str | None:
    """The region of a number; the synthetic population's area codes need no look-up."""
    if mdn.startswith("+1") and mdn[2:5] in _US_AREA_CODES:
        return "US"
    return phonenumbers.region_code_for_number(phonenumbers.parse(mdn))


def _in_order(subscriptions: Iterable[Subscription]) -> list[Subscription]:
    return sorted(subscriptions, key=lambda row: (row.person_key, row.list_id, row.opt_in_date))
