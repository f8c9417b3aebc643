"""Guards: the caps and floors that hold a diff set until a person has looked at it.

Pure arithmetic on the counts. Shares: adds of all contacts; updates, clears, opt-outs and
invitations of all persons. The caps of updates and clears are judged for each side that is written
to, persons and CRM; the cap of opt-outs for each direction. One direction never uses up the
other's.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from vibes_pipelines.sync_config import Cap, Guards

Lane = Literal["persons", "opt_outs", "invites"]
LANES: tuple[Lane, ...] = ("persons", "opt_outs")
"""The lanes that a broken source holds by name; the invitations wait with any of them."""

SMALL = 20
"""What happens to no more rows than these is never called a broken source: chance does that."""

# What a cap is about: its name, the cap, the lane it holds, and the side its share is of.
_Capped = tuple[str, Cap, Lane, str, int]


@dataclass(frozen=True)
class Breach:
    """One guard that does not hold, and the lane it stops."""

    guard: str
    lane: Lane
    value: float
    limit: float
    message: str


@dataclass(frozen=True)
class Workload:
    """The counts that guards judge."""

    contacts: int
    persons: int
    adds: int
    updates: int
    clears: int
    crm_updates: int
    crm_clears: int
    opt_outs_to_platform: int
    opt_outs_to_crm: int
    invites: int = 0


def held_lanes(breaches: Iterable[Breach]) -> frozenset[Lane]:
    """The lanes that these breaches hold.

    Any breach holds the invitations too: a message cannot be taken back, and nothing is lost by
    asking a day later.
    """
    lanes: set[Lane] = {breach.lane for breach in breaches}
    return frozenset(lanes | {"invites"}) if lanes else frozenset()


def check_guards(
    guards: Guards,
    work: Workload,
    accepted_rows: Mapping[str, int] | None,
    *,
    relative: bool,
) -> tuple[Breach, ...]:
    """Every breach. Without `relative`, shares and the least input are not judged (first run)."""
    adds: _Capped = ("adds", guards.adds, "persons", "contacts", work.contacts)
    updates: _Capped = ("updates", guards.updates, "persons", "persons", work.persons)
    clears: _Capped = ("clears", guards.clears, "persons", "persons", work.persons)
    opt_outs: _Capped = ("opt_outs", guards.opt_outs, "opt_outs", "persons", work.persons)
    invites: _Capped = ("invites", guards.invites, "invites", "persons", work.persons)
    caps: tuple[tuple[_Capped, int], ...] = (
        (adds, work.adds),
        (updates, work.updates),
        (updates, work.crm_updates),
        (clears, work.clears),
        (clears, work.crm_clears),
        (opt_outs, work.opt_outs_to_platform),
        (opt_outs, work.opt_outs_to_crm),
        (invites, work.invites),
    )
    breaches = list(_check_inputs(guards, work, accepted_rows or {}, relative=relative))
    for (operation, cap, lane, side, size), rows in caps:
        breaches += _check_rows(operation, cap, rows, lane)
        if relative:
            breaches += _check_share(operation, cap, rows, lane, (side, size))
    return tuple(breaches)


def check_quarantine(
    guards: Guards, contacts: int, risen: int, risen_in_identity: int
) -> Iterator[Breach]:
    """Contacts newly in quarantine since the last accepted day; `risen_in_identity`: findings.

    Many at once mean a broken source, not many broken contacts. Doubt about who is who holds the
    opt-outs too, which go to whom a key names.
    """
    limit = guards.max_quarantine_rise
    if limit is None or not contacts:
        return
    by_lane: tuple[tuple[Lane, int], ...] = (
        ("persons", risen),
        ("opt_outs", risen_in_identity),
    )
    for lane, rows in by_lane:
        if rows > SMALL and rows > limit * contacts:
            message = (
                f"quarantine: {rows} more than on the last accepted day, of {contacts} contacts,"
                f" more than guards.max_quarantine_rise ({limit:.0%}); look at their kinds"
            )
            yield Breach("quarantine.rise", lane, rows / contacts, limit, message)


def _check_inputs(
    guards: Guards, work: Workload, accepted_rows: Mapping[str, int], *, relative: bool
) -> Iterator[Breach]:
    for side, rows in (("contacts", work.contacts), ("persons", work.persons)):
        accepted = accepted_rows.get(side, 0)
        if rows == 0 and (side == "contacts" or accepted > 0):
            message = f"{side}: the input is empty; land it again or correct its source"
            yield from _in_every_lane(f"{side}.not_empty", 0, 1, message)
        elif relative and rows < guards.min_input_share * accepted:
            message = (
                f"{side}: {rows} rows are fewer than {guards.min_input_share:.0%} of the"
                f" {accepted} last accepted; look for a partial source"
            )
            limit = guards.min_input_share
            yield from _in_every_lane(f"{side}.min_input_share", rows / accepted, limit, message)


def _in_every_lane(guard: str, value: float, limit: float, message: str) -> Iterator[Breach]:
    for lane in LANES:
        yield Breach(guard, lane, value, limit, message)


def _check_rows(operation: str, cap: Cap, rows: int, lane: Lane) -> Iterator[Breach]:
    if cap.max_rows is not None and rows > cap.max_rows:
        message = f"{operation}: {rows} rows are more than guards.{operation}.max_rows"
        yield Breach(f"{operation}.max_rows", lane, rows, cap.max_rows, message)


def _check_share(
    operation: str, cap: Cap, rows: int, lane: Lane, whole: tuple[str, int]
) -> Iterator[Breach]:
    side, size = whole
    if cap.max_share is not None and rows > cap.max_share * size:
        share = rows / size if size else 1.0
        message = (
            f"{operation}: {rows} rows are {share:.2%} of {size} {side}, more than"
            f" guards.{operation}.max_share"
        )
        yield Breach(f"{operation}.max_share", lane, share, cap.max_share, message)
