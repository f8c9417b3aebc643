"""The synthetic population: who exists on which side at the beginning, and how the sides differ.

Most people exist on both sides and agree once spelling is seen through. The rest play a part each:
new at the CRM, changed, opted out on one side, or one of the troubles that a synchronisation meets.
Same size and seed, same world.
"""

from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from random import Random

from vibes_pipelines.sandbox.clock import midnight
from vibes_pipelines.sandbox.numbers import landline_number, mobile_number, spelled
from vibes_pipelines.sandbox.platform import Person, Subscription, person_key_of
from vibes_pipelines.sandbox.platform_mdn import look_up_carrier
from vibes_pipelines.sandbox.profiles import (
    CRM_COLUMNS,
    Profile,
    crm_cell,
    crm_cells,
    draw_other,
    draw_profile,
)
from vibes_pipelines.sandbox.world import (
    CONTACTS_SCHEMA,
    CUSTOM_FIELDS,
    OFFERS,
    ContactRow,
    World,
)

START = date(2026, 1, 1)
"""The sandbox's first day, unless another is asked for."""

_SHARES: dict[str, float] = {
    "crm_only": 0.03,
    "platform_only": 0.015,
    "changed": 0.03,
    "mdn_only": 0.005,
    "crm_opt_out": 0.003,
    "platform_opt_out": 0.003,
    "duplicate_contact": 0.0005,
    "shared_mobile": 0.0005,
    "invalid_mobile": 0.0005,
    "moved_number": 0.0005,
    "unknown_tier": 0.0005,
    "landline": 0.0005,
    "cleared_tier": 0.0005,
}
"""Share of people by the part they play; all others agree on both sides."""

_OTHER_CUSTOMERS = 0.044
"""Share of agreeing and new contacts who are of customer type B: about 4 % of all contacts."""

INVALID_MOBILES: tuple[str, ...] = ("n/a", "12345", "(312) 555-01", "unknown", "+1 999 000 0000")

_SECOND_NUMBERS = 10_000_000
"""Indices from here on are numbers that the platform has never seen."""


def build_world(n: int, seed: int, start: date = START) -> World:
    """A world of n people whose every stamp lies before `start`."""
    rng = Random(f"world:{seed}")  # noqa: S311 — repeatable, not secret
    builder = _Builder(rng, seed, start)
    for index, kind in enumerate(_parts(n, rng)):
        builder.add(index, kind)
    return World(
        custom_fields=CUSTOM_FIELDS,
        lists=(OFFERS,),
        persons=builder.persons,
        subscriptions=builder.subscriptions,
        contacts=builder.contacts,
        contacts_schema=CONTACTS_SCHEMA,
        kinds={kind: tuple(keys) for kind, keys in builder.kinds.items()},
    )


def crm_stamp(instant: datetime) -> str:
    """An instant as the CRM holds it: UTC, whole seconds, without a zone."""
    return f"{instant.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def _parts(n: int, rng: Random) -> list[str]:
    """One part for each person; rare parts at least twice from 1,000 people on, once from 200."""
    floor = 2 if n >= 1000 else 1 if n >= 200 else 0
    parts = [kind for kind, share in _SHARES.items() for _ in range(max(floor, round(n * share)))][
        :n
    ]
    parts += ["agreed"] * (n - len(parts))
    rng.shuffle(parts)
    return parts


class _Builder:
    """Collects both sides' records while people are added one by one."""

    def __init__(self, rng: Random, seed: int, start: date) -> None:
        self.rng = rng
        self.seed = seed
        self.start = midnight(start)
        self.persons: list[Person] = []
        self.subscriptions: list[Subscription] = []
        self.contacts: list[ContactRow] = []
        self.kinds: dict[str, list[str]] = defaultdict(list)

    def add(self, index: int, kind: str) -> None:
        """Add one person who plays the part."""
        _PARTS[kind](self, index)
        if kind != "agreed":
            last = self.contacts[-1] if kind != "platform_only" else None
            key = last["contact_id"] if last else self.persons[-1].person_key
            self.kinds[kind].append(str(key))

    def instant(self, oldest_days: int, newest_days: int) -> datetime:
        """A whole second between two distances from the start."""
        return self.start - timedelta(
            seconds=self.rng.randint(newest_days * 86_400 + 1, oldest_days * 86_400)
        )

    def person(
        self, index: int, external_id: str | None, mdn: str | None, custom: Profile
    ) -> Person:
        """Put a person on the platform."""
        created = self.instant(1500, 1200)
        person = Person(
            person_key=person_key_of(self.seed, index + 1),
            person_id=str(index + 1),
            external_person_id=external_id,
            mdn=mdn,
            carrier_code=None if mdn is None else look_up_carrier(mdn),
            custom=dict(custom),
            created_at=created,
            updated_at=self.instant(1000, 30),
        )
        self.persons.append(person)
        return person

    def contact(self, contact_id: str, mdn: str | None, custom: Profile) -> ContactRow:
        """Put a contact into the CRM, spelled the CRM's way and without a word on consent."""
        row: ContactRow = {
            "contact_id": contact_id,
            "mobile": None if mdn is None else spelled(mdn, self.rng.randrange(7)),
            **crm_cells(custom, self.rng),
            "customer_type": "A",
            "sms_opt_in": None,
            "sms_opt_in_at": None,
            "updated_at": crm_stamp(self.instant(1000, 30)),
        }
        self.contacts.append(row)
        return row

    def both(self, index: int, *, external: bool = True) -> tuple[Person, ContactRow, Profile]:
        """One person on both sides, in agreement."""
        contact_id, mdn, custom = contact_key(index), mobile_number(index), draw_profile(self.rng)
        person = self.person(index, contact_id if external else None, mdn, custom)
        return person, self.contact(contact_id, mdn, custom), custom

    def opted_in(self, person: Person, row: ContactRow) -> datetime:
        """Both sides know that the person is subscribed, since the same instant."""
        since = self.instant(1100, 400)
        self.subscribe(person, since, None)
        row["sms_opt_in"], row["sms_opt_in_at"] = "true", crm_stamp(since)
        return since

    def subscribe(self, person: Person, since: datetime, until: datetime | None) -> None:
        """Subscribe the person to the offers; the stay has ended when `until` is given."""
        reason = None if until is None else "user_opt_out"
        self.subscriptions.append(Subscription(person.person_key, OFFERS.id, since, until, reason))

    def consent(self, person: Person, row: ContactRow) -> None:
        """Some consent on which both sides agree: subscribed, left, came back, or never asked."""
        habit = self.rng.random()
        if habit < 0.60:
            self.opted_in(person, row)
        elif habit < 0.70:
            since, until = self.instant(1100, 400), self.instant(390, 60)
            self.subscribe(person, since, until)
            row["sms_opt_in"], row["sms_opt_in_at"] = "false", crm_stamp(until)
        elif habit < 0.73:
            self.subscribe(person, self.instant(1190, 1150), self.instant(1140, 1110))
            self.opted_in(person, row)


def contact_key(index: int) -> str:
    """The CRM key of the person with this index."""
    return f"C{100_000 + index}"


def _agreed(builder: _Builder, index: int) -> None:
    person, row, _ = builder.both(index)
    if builder.rng.random() < 0.02:
        person.mdn = person.carrier_code = row["mobile"] = None
    else:
        builder.consent(person, row)
    _perhaps_other_customer(builder, row)


def _crm_only(builder: _Builder, index: int) -> None:
    row = builder.contact(contact_key(index), mobile_number(index), draw_profile(builder.rng))
    _perhaps_other_customer(builder, row)


def _perhaps_other_customer(builder: _Builder, row: ContactRow) -> None:
    if builder.rng.random() < _OTHER_CUSTOMERS:
        row["customer_type"] = "B"
        builder.kinds["other_customer"].append(str(row["contact_id"]))


def _platform_only(builder: _Builder, index: int) -> None:
    person = builder.person(index, None, mobile_number(index), draw_profile(builder.rng))
    if builder.rng.random() < 0.5:
        builder.subscribe(person, builder.instant(1100, 400), None)


def _changed(builder: _Builder, index: int) -> None:
    """One to three fields were edited at the CRM; a score alone may be the platform's to keep."""
    person, row, custom = builder.both(index)
    builder.consent(person, row)
    fields = [field for field in CRM_COLUMNS if field != "score"]
    edited = builder.rng.sample(fields, builder.rng.randint(1, 2))
    if builder.rng.random() < 0.3:
        edited.append("score")
    for field in edited:
        value = draw_other(field, custom[field], builder.rng)
        row[CRM_COLUMNS[field]] = crm_cell(field, value, builder.rng)
    row["updated_at"] = crm_stamp(builder.instant(20, 4))


def _mdn_only(builder: _Builder, index: int) -> None:
    person, row, _ = builder.both(index, external=False)
    builder.consent(person, row)


def _crm_opt_out(builder: _Builder, index: int) -> None:
    person, row, _ = builder.both(index)
    builder.opted_in(person, row)
    row["sms_opt_in"], row["sms_opt_in_at"] = "false", crm_stamp(builder.instant(20, 4))


def _platform_opt_out(builder: _Builder, index: int) -> None:
    person, row, _ = builder.both(index)
    since = builder.instant(1100, 400)
    builder.subscribe(person, since, builder.instant(20, 4))
    row["sms_opt_in"], row["sms_opt_in_at"] = "true", crm_stamp(since)


def _duplicate_contact(builder: _Builder, index: int) -> None:
    _, row, custom = builder.both(index)
    builder.contacts.append(
        row | {"last_name": str(draw_other("last_name", custom["last_name"], builder.rng))}
    )


def _shared_mobile(builder: _Builder, index: int) -> None:
    person, _, _ = builder.both(index)
    builder.contact(f"{contact_key(index)}-2", person.mdn, draw_profile(builder.rng))


def _invalid_mobile(builder: _Builder, index: int) -> None:
    """Every other one is a person of the platform, with a good number there."""
    if len(builder.kinds["invalid_mobile"]) % 2:
        _, row, _ = builder.both(index)
    else:
        row = builder.contact(contact_key(index), None, draw_profile(builder.rng))
    row["mobile"] = builder.rng.choice(INVALID_MOBILES)


def _moved_number(builder: _Builder, index: int) -> None:
    _, row, _ = builder.both(index)
    row["mobile"] = spelled(mobile_number(_SECOND_NUMBERS + index), builder.rng.randrange(7))


def _unknown_tier(builder: _Builder, index: int) -> None:
    _, row, _ = builder.both(index)
    row["tier"] = "Platinum"


def _landline(builder: _Builder, index: int) -> None:
    builder.contact(contact_key(index), landline_number(index), draw_profile(builder.rng))


def _cleared_tier(builder: _Builder, index: int) -> None:
    person, row, _ = builder.both(index)
    person.custom["tier"], row["tier"] = "bronze", None


_PARTS: dict[str, Callable[[_Builder, int], None]] = {
    "agreed": _agreed,
    "crm_only": _crm_only,
    "platform_only": _platform_only,
    "changed": _changed,
    "mdn_only": _mdn_only,
    "crm_opt_out": _crm_opt_out,
    "platform_opt_out": _platform_opt_out,
    "duplicate_contact": _duplicate_contact,
    "shared_mobile": _shared_mobile,
    "invalid_mobile": _invalid_mobile,
    "moved_number": _moved_number,
    "unknown_tier": _unknown_tier,
    "landline": _landline,
    "cleared_tier": _cleared_tier,
}
