"""A night on both sides: what CRM users, subscribers and platform users change before a morning.

About 1.5 % of people are touched a night, each by one edit at most. CRM edits fall on even minutes
and platform edits on odd ones, so that no two edits on different sides ever tie. Same seed and day
on the same state, same edits.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import partial
from itertools import count
from random import Random
from typing import Literal, TypeVar

from vibes_pipelines.sandbox.clock import SandboxClock, midnight
from vibes_pipelines.sandbox.crm import Crm, CrmEditor
from vibes_pipelines.sandbox.numbers import mobile_number, spelled
from vibes_pipelines.sandbox.platform import Platform
from vibes_pipelines.sandbox.population import INVALID_MOBILES, crm_stamp
from vibes_pipelines.sandbox.profiles import (
    CRM_COLUMNS,
    crm_cell,
    crm_cells,
    draw_other,
    draw_profile,
    draw_value,
    meaning,
)
from vibes_pipelines.sandbox.world import OFFERS, ContactRow

SHARES: dict[str, float] = {
    "crm_edit": 0.006,
    "new_contact": 0.0025,
    "crm_opt_out": 0.001,
    "platform_opt_out": 0.001,
    "platform_edit": 0.0025,
    "moved_number": 0.0005,
    "fixed_data": 0.0005,
}
"""Share of people touched a night, by what happens to them."""

_FIRST_MINUTE, _LAST_MINUTE = 10, 350
"""Edits happen from 00:10 to 05:50; the morning is at 06:00."""

_FRESH_NUMBERS, _NUMBERS_A_DAY, _DAYS = 20_000_000, 100_000, 4_000
"""Indices of numbers nobody had before: a range of its own for every day of eleven years."""


_T = TypeVar("_T")


@dataclass(frozen=True)
class _Edit:
    kind: str
    side: Literal["crm", "platform"]
    apply: Callable[[datetime], None]


def drift(
    platform: Platform, crm: Crm, clock: SandboxClock, day: date, seed: int
) -> dict[str, int]:
    """Let the night before `day`'s morning happen on both sides; returns the edits by kind.

    Moves the clock through 00:10 to 05:50 of the day; it must not stand later than that day's
    beginning.
    """
    rng = Random(f"drift:{seed}:{day.isoformat()}")  # noqa: S311 — repeatable, not secret
    with crm.edit() as editor, platform.lock:
        edits = _Night(platform, editor, day, rng).edits()
        for instant, edit in _timed(edits, day, rng):
            clock.reach(instant)
            edit.apply(instant)
    done = dict.fromkeys(SHARES, 0)
    for edit in edits:
        done[edit.kind] += 1
    return done


def _timed(edits: list[_Edit], day: date, rng: Random) -> list[tuple[datetime, _Edit]]:
    """A minute for each edit, in order: even minutes for the CRM, odd ones for the platform."""
    timed = []
    for edit in edits:
        minute = rng.randrange(_FIRST_MINUTE, _LAST_MINUTE, 2) + (edit.side == "platform")
        timed.append((midnight(day) + timedelta(minutes=minute), edit))
    return sorted(timed, key=lambda pair: pair[0])


class _Night:
    """Chooses who does what; nobody is chosen twice in a night."""

    def __init__(self, platform: Platform, crm: CrmEditor, day: date, rng: Random) -> None:
        self.platform = platform
        self.crm = crm
        self.day = day
        self.rng = rng
        self.rowids = crm.rowids()
        self.taken: set[str] = set()
        first = _FRESH_NUMBERS + day.toordinal() % _DAYS * _NUMBERS_A_DAY
        self.fresh_numbers = map(mobile_number, count(first))

    def edits(self) -> list[_Edit]:
        """The night's edits, without their times."""
        makers: dict[str, Callable[[int], Iterator[_Edit]]] = {
            "fixed_data": self.fixed_data,
            "crm_opt_out": self.crm_opt_outs,
            "platform_opt_out": self.platform_opt_outs,
            "crm_edit": self.crm_edits,
            "platform_edit": self.platform_edits,
            "moved_number": self.moved_numbers,
            "new_contact": self.new_contacts,
        }
        return [edit for kind, maker in makers.items() for edit in maker(self.how_many(kind))]

    def how_many(self, kind: str) -> int:
        """The kind's share of all people; at least one where there are 100 or more."""
        people = len(self.rowids)
        return max(1 if people >= 100 else 0, round(people * SHARES[kind]))

    def fixed_data(self, n: int) -> Iterator[_Edit]:
        """Somebody tidies the CRM: unknown tiers, unusable numbers, the later of two equal rows."""
        for rowid, _ in self.rows(self.crm.with_tier("Platinum"), n):
            yield self.crm_edit("fixed_data", rowid, {"tier": "Gold"})
        for rowid, row in self.rows(self.crm.with_mobile(INVALID_MOBILES), n):
            yield self.crm_edit("fixed_data", rowid, {"mobile": self.right_mobile(row)})
        for rowid, _ in self.rows(self.crm.repeated(), n):
            yield _Edit("fixed_data", "crm", partial(self.remove, rowid))

    def remove(self, rowid: int, _: datetime) -> None:
        """Delete a row of the CRM."""
        self.crm.delete(rowid)

    def right_mobile(self, row: ContactRow) -> str:
        """The number that the platform has for the contact, or a fresh one."""
        person = self.platform.find(external_person_id=str(row["contact_id"]))
        mdn = person.mdn if person and person.mdn else next(self.fresh_numbers)
        return spelled(mdn, self.rng.randrange(7))

    def crm_opt_outs(self, n: int) -> Iterator[_Edit]:
        """A CRM user notes that somebody wants no more messages."""
        for rowid, _ in self.rows(self.crm.opted_in(), n):
            yield _Edit("crm_opt_out", "crm", partial(self.opt_out_at_crm, rowid))

    def opt_out_at_crm(self, rowid: int, at: datetime) -> None:
        """Note the refusal and its time."""
        stamp = crm_stamp(at)
        values: ContactRow = {"sms_opt_in": "false", "sms_opt_in_at": stamp, "updated_at": stamp}
        self.crm.update(rowid, values)

    def platform_opt_outs(self, n: int) -> Iterator[_Edit]:
        """A subscriber answers STOP."""
        active = sorted(row.person_key for row in self.platform.subscriptions if row.is_active)
        for key in self.people(active, n):
            yield _Edit("platform_opt_out", "platform", partial(self.stop, key))

    def stop(self, person_key: str, at: datetime) -> None:
        """End the person's subscription to the offers."""
        self.platform.opt_out(person_key, OFFERS.id, at, "user_opt_out")

    def crm_edits(self, n: int) -> Iterator[_Edit]:
        """A CRM user changes one or two fields."""
        for rowid, row in self.rows(self.rowids, n):
            values: ContactRow = {}
            for field in self.rng.sample(list(CRM_COLUMNS), self.rng.randint(1, 2)):
                column = CRM_COLUMNS[field]
                values[column] = self.other_cell(field, row[column])
            yield self.crm_edit("crm_edit", rowid, values)

    def other_cell(self, field: str, present: str | float | None) -> str | float | None:
        """Another value, spelled the CRM's way."""
        cell = crm_cell(field, draw_value(field, self.rng), self.rng)
        while meaning(cell) == meaning(present):
            cell = crm_cell(field, draw_value(field, self.rng), self.rng)
        return cell

    def platform_edits(self, n: int) -> Iterator[_Edit]:
        """Somebody edits a field on the platform's own pages."""
        for key in self.people(sorted(self.platform.persons), n):
            field = self.rng.choice(list(CRM_COLUMNS))
            present = self.platform.persons[key].custom.get(field)
            changed = {field: draw_other(field, present, self.rng)}
            yield _Edit("platform_edit", "platform", partial(self.platform.edit, key, changed))

    def moved_numbers(self, n: int) -> Iterator[_Edit]:
        """A contact has a new number, which the CRM learns first."""
        for rowid, _ in self.rows(self.rowids, n):
            mobile = spelled(next(self.fresh_numbers), self.rng.randrange(7))
            yield self.crm_edit("moved_number", rowid, {"mobile": mobile})

    def new_contacts(self, n: int) -> Iterator[_Edit]:
        """Somebody becomes a customer."""
        for number in range(n):
            row: ContactRow = {
                "contact_id": f"C{self.day:%Y%m%d}-{number + 1}",
                "mobile": spelled(next(self.fresh_numbers), self.rng.randrange(7)),
                **crm_cells(draw_profile(self.rng), self.rng),
                "customer_type": "B" if self.rng.random() < 0.04 else "A",
                "sms_opt_in": None,
                "sms_opt_in_at": None,
            }
            yield _Edit("new_contact", "crm", partial(self.enter, row))

    def enter(self, row: ContactRow, at: datetime) -> None:
        """Enter a new contact."""
        self.crm.insert([row | {"updated_at": crm_stamp(at)}])

    def crm_edit(self, kind: str, rowid: int, values: ContactRow) -> _Edit:
        """An edit of one CRM row."""
        return _Edit(
            kind,
            "crm",
            lambda at: self.crm.update(rowid, values | {"updated_at": crm_stamp(at)}),
        )

    def rows(self, candidates: list[int], n: int) -> Iterator[tuple[int, ContactRow]]:
        """Up to n rows of contacts whom nobody has touched this night."""
        found = 0
        for rowid in self.shuffled(candidates, n):
            row = self.crm.row(rowid)
            if found < n and self.claim(str(row["contact_id"])):
                found += 1
                yield rowid, row

    def people(self, candidates: list[str], n: int) -> Iterator[str]:
        """Up to n person keys of people whom nobody has touched this night."""
        found = 0
        for key in self.shuffled(candidates, n):
            if found < n and self.claim(self.platform.persons[key].external_person_id or key):
                found += 1
                yield key

    def shuffled(self, candidates: list[_T], n: int) -> list[_T]:
        """Enough candidates in random order to find n who are free."""
        return self.rng.sample(candidates, min(len(candidates), 2 * n + 100))

    def claim(self, name: str) -> bool:
        """Take somebody for this night; False when already taken."""
        is_free = name not in self.taken
        self.taken.add(name)
        return is_free
