"""A Tribe and an APSIS One over real HTTP, a project between them, and a clock that tests move."""

import hashlib
import json
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from vibes_pipelines.apsis.clock import SystemClock
from vibes_pipelines.callbacks.tribe import tribe_arrival
from vibes_pipelines.delivery import release
from vibes_pipelines.sandbox.apsis_clock import RunningClock
from vibes_pipelines.sandbox.apsis_records import CRM_KEYSPACE, EMAIL_CHANNEL, SECTION, SMS_CHANNEL
from vibes_pipelines.sandbox.apsis_service import ApsisSandbox
from vibes_pipelines.sandbox.tribe_sandbox import TribeSandbox
from vibes_pipelines.settings import Settings
from vibes_pipelines.stages.apsis_sync import ApsisSync, ApsisSystems, open_apsis
from vibes_pipelines.stages.full_sync import Ended, full_sync
from vibes_pipelines.store.inbox import Inbox

SPEED = 200.0
NEWS = "usercreated.topics.newsletter-m2k7"
OFFERS = "usercreated.topics.offers-x5p3"
FIRST_NAME = "com.apsis1.attributes.firstname"
EMAIL = "com.apsis1.attributes.email"
MEMBER = "usercreated.tags.member-d4s6"
COUNTRY = "usercreated.attributes.country-z9d2"
NEWS_LABEL, NEWS_SMS_LABEL = "Newsletter by e-mail", "Newsletter by SMS"

UNCAPPED: Mapping[str, float | None] = {"max_rows": None, "max_share": None}

APSIS_SECTION: dict[str, Any] = {
    "section": SECTION,
    "fields": [{"from": "FirstName", "to": FIRST_NAME}],
    "consents": [
        {"from": f"label:{NEWS_LABEL}", "topic": NEWS, "channel": "email"},
        {"from": f"label:{NEWS_SMS_LABEL}", "topic": NEWS, "channel": "sms"},
    ],
    # Populations of a test are so small that one person is a large share.
    "guards": {
        **dict.fromkeys(("updates", "adds", "clears", "opt_outs", "opt_ins"), UNCAPPED),
        "min_input_share": 0,
        "max_rewritten_share": None,
        "max_quarantine_rise": None,
    },
}


class Clock:
    """The machine's time, set on by tests; every instant is a new one.

    A day of it lasts an hour at least, so that none ends in the middle of a test by itself.
    """

    def __init__(self, ahead: timedelta = timedelta()) -> None:
        now = datetime.now(UTC)
        self._ahead = ahead + (timedelta(hours=2) if now.hour == 23 else timedelta())
        self._last = now + self._ahead
        self._lock = threading.Lock()

    def __call__(self) -> datetime:
        with self._lock:
            self._last = max(
                datetime.now(UTC) + self._ahead, self._last + timedelta(microseconds=10)
            )
            return self._last

    def next_day(self) -> None:
        self._ahead += timedelta(days=1)

    def pass_minutes(self, minutes: int) -> None:
        self._ahead += timedelta(minutes=minutes)


@dataclass
class World:
    """Both stand-ins, and the environment that leads to them."""

    tribe: TribeSandbox
    apsis: ApsisSandbox
    home: Path
    clock: Clock = field(default_factory=Clock)
    section: dict[str, Any] = field(default_factory=lambda: dict(APSIS_SECTION))
    extra: dict[str, Any] = field(default_factory=dict)
    speed: float = SPEED
    overrides: Mapping[str, str] = field(default_factory=dict)
    _opened: ApsisSync | None = None

    @property
    def environment(self) -> dict[str, str]:
        return {
            **self.tribe.environment(),
            **self.apsis.environment(),
            "VIBES_HOME": str(self.home),
            "VIBES_SYNC_CONFIG": str(self.home / "sync.yaml"),
            "TRIBE_CALLS_PER_MIN": "100000",
            "VIBES_SIMULATED_DAYS": "1",
            **self.overrides,
        }

    def configure(self, **changes: Any) -> None:
        """Changes `destinations.apsis`; None takes an entry out."""
        self.section |= changes
        self.section = {name: value for name, value in self.section.items() if value is not None}

    def write_config(self) -> None:
        document = {
            "version": 1,
            "company_key": "A1b2C3",
            "contacts": {"key": "ID", "source": "tribe"},
            "fields": [{"from": "FirstName", "to": "first_name", "type": "string"}],
            "policies": {"max_age_h": 24 * 14},
            "destinations": {"apsis": self.section},
            **self.extra,
        }
        self.home.mkdir(parents=True, exist_ok=True)
        (self.home / "sync.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")

    @contextmanager
    def kept_open(self) -> Iterator[None]:
        """Everything inside happens in one opening of the project, as in one process."""
        with self.open() as self._opened:
            yield
        self._opened = None

    @contextmanager
    def open(self) -> Iterator[ApsisSync]:
        if self._opened is not None:
            yield self._opened
            return
        self.write_config()
        systems = ApsisSystems(self.clock, SystemClock(self.speed))
        with open_apsis(Settings(self.environment), systems) as sync:
            yield sync

    # Acts of people

    def person(self, name: str, *labels: str, **fields: Any) -> str:
        """A new person of Tribe; returns the id."""
        values = {"FirstName": name, "LastName": "-", "EmailAddress": f"{name}@example.org"}
        record = self.tribe.world.create("Relation_Person", values | fields)
        for label in labels:
            self.label(record["ID"], label)
        return str(record["ID"])

    def label(self, person: str, label: str = NEWS_LABEL) -> None:
        self.tribe.world.attach(person, self.tribe.world.label_id(label))

    def unlabel(self, person: str, label: str = NEWS_LABEL) -> None:
        self.tribe.world.detach(person, self.tribe.world.label_id(label))

    def edit(self, person: str, **fields: Any) -> None:
        self.tribe.world.update("Relation_Person", person, fields)

    def at_apsis(self, person: str, consent_type: str, channel: str = EMAIL_CHANNEL) -> None:
        """The recipient unsubscribes, or signs up."""
        self.apsis.control.consent(
            {
                "profile_key": person,
                "topic_discriminator": NEWS,
                "channel_discriminator": channel,
                "type": consent_type,
            }
        )

    # What is there

    def labels(self, person: str) -> set[str]:
        record = self.tribe.world.find("Relation_Person", person)
        return {label["Name"] for label in record["Labels"]} if record else set()

    def profile(self, person: str) -> dict[str, Any] | None:
        """The attributes of a profile; None without one."""
        found = self.apsis.account.peek(CRM_KEYSPACE, person)
        return dict(found.values(SECTION)) if found else None

    def consent(self, person: str, channel: str = EMAIL_CHANNEL) -> str | None:
        found = self.apsis.account.peek(CRM_KEYSPACE, person)
        state = found.consents.get((SECTION, NEWS, channel)) if found else None
        return state.type if state else None

    def tags(self, person: str) -> set[str]:
        found = self.apsis.account.peek(CRM_KEYSPACE, person)
        return set(found.tags.get(SECTION, ())) if found else set()

    def writes(self) -> Mapping[str, int]:
        """Effects and repeats at both sides so far."""
        return {
            **{f"apsis {name}": rows for name, rows in _counts(self.apsis.control.audit()).items()},
            **{f"tribe {name}": rows for name, rows in _counts(self.tribe.audit.as_dict()).items()},
        }

    # Full syncs

    def sync(self, *, resume: bool = False, reason: str = "looked at") -> Ended:
        """A full sync; what is held is approved and taken up, as an operator does."""
        with self.open() as sync:
            ended = full_sync(sync, resume=resume)
            if ended.state == "held":
                self.approve(sync, reason)
                ended = full_sync(sync, resume=True)
        return ended

    def approve(self, sync: ApsisSync, reason: str = "looked at") -> None:
        newest = sync.project.ledger.newest_diff_set()
        assert newest is not None
        release.approve(sync.project.ledger, newest.diff_set, reason)


@dataclass(frozen=True)
class Agreed:
    """A world after its first full sync, and who is in it by name.

    Flo and Gus alone have no consent, and Flo is a VIP.
    """

    world: World
    people: Mapping[str, str]


def _counts(audit: Mapping[str, Any]) -> dict[str, int]:
    counted: dict[str, int] = {}
    for name in ("effects", "repeats"):
        for kind, rows in audit.get(name, {}).items():
            counted[f"{name} {kind}"] = rows if isinstance(rows, int) else len(rows)
    return counted


def sms(world: World, person: str) -> str | None:
    """The consent on the other channel."""
    return world.consent(person, SMS_CHANNEL)


@contextmanager
def world_at(home: Path, **tribe: Any) -> Iterator[World]:
    """Both stand-ins, empty, while the block runs."""
    os.environ.setdefault("SNOWFLAKE_DISABLE_PLATFORM_DETECTION", "true")
    with (
        TribeSandbox([], speed=SPEED, calls_per_min=None, **tribe) as crm,
        ApsisSandbox(clock=RunningClock(SPEED)) as apsis,
    ):
        yield World(crm, apsis, home)


def deliver_message(world: World, *persons: str) -> None:
    """Puts a message of Tribe about each person into the inbox, as the receiver does."""
    with world.open() as sync, Inbox(sync.project.settings.inbox_url, world.clock) as inbox:
        for person in persons:
            body = json.dumps(
                {
                    "webhookId": "w",
                    "payload": {"type": "EntityUpdateMutation", "entityId": person},
                }
            ).encode()
            digest = hashlib.sha256(body).hexdigest()
            inbox.store([tribe_arrival("127.0.0.1", body, len(body), digest, "valid")])
