"""Whom a subscription's callback means, when the share shows the person and when it does not."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from vibes_pipelines.callbacks.intake import posted, read_arrival
from vibes_pipelines.stages.heard import Heard, KnownPerson, Whose, heard_subscriptions
from vibes_pipelines.store.inbox import Inbox
from vibes_pipelines_tests.support.callbacks import (
    ADDED,
    REMOVED,
    as_bytes,
    stored_rows,
    subscription_body,
)

LIST, COMPANY = "1234", "A1b2C3"
SHARE = datetime(2026, 1, 2, tzinfo=UTC)
ONE, OTHER = "+13125550142", "+13125550143"
C1, BY_NUMBER = KnownPerson("k1", "C1", ONE), KnownPerson("k2", None, ONE)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'ledger.db'}"


class Told:
    """What was told of contact C1 and the number ONE, since a share with some persons."""

    def __init__(self, url: str, *landed: KnownPerson) -> None:
        policies = SimpleNamespace(visibility_lag_h=24)
        self._project: Any = SimpleNamespace(
            settings=SimpleNamespace(ledger_url=url),
            config=SimpleNamespace(policies=policies, company_key=COMPANY),
        )
        self._url, self._landed, self._events = url, landed, 0

    def by(
        self,
        named: dict[str, str | None],
        kind: str = ADDED,
        at: datetime = SHARE,
        company: str = COMPANY,
        event_date: str | None = None,
        **dates: str | None,
    ) -> None:
        self._events += 1
        body = subscription_body(kind, f"E{self._events}", at.isoformat(), list_id=LIST, **named)
        body["subscription"] |= dates
        body["event_date"] = event_date or body["event_date"]
        body["subscription"]["subscription_list"]["url"] = f"/companies/{company}/lists/{LIST}"
        with Inbox(self._url) as inbox:
            inbox.store([read_arrival(posted("127.0.0.1", "/callbacks", as_bytes(body)))])

    def heard(self) -> Heard:
        return heard_subscriptions(self._project, SHARE, Whose(["C1"], [ONE]), self._landed)

    def keys(self) -> list[str | None]:
        return [stay["person_key"] for stay in self.heard().stays]

    def dates(self) -> list[tuple[str | None, str | None]]:
        return [(stay["opt_in_date"], stay["opt_out_date"]) for stay in self.heard().stays]

    def arrived(self, number: int) -> str:
        """When a callback arrived, as a date of a stay; they are numbered from 1."""
        return f"{stored_rows(self._url)[number - 1]['received_at']:%Y-%m-%dT%H:%M:%SZ}"


@pytest.mark.parametrize(
    "named",
    [
        {"person_key": "K1", "external_person_id": "C1"},
        {"person_key": "k1"},
        {"external_person_id": "C1", "mdn": OTHER},
        {"mdn": ONE},
    ],
    ids="+".join,
)
def test_any_name_leads_to_the_landed_person(url: str, named: dict[str, str | None]) -> None:
    told = Told(url, C1)
    told.by(named)
    heard = told.heard()
    assert (told.keys(), heard.persons, heard.unsure_keys) == (["k1"], [], set())


def test_an_external_id_with_another_key_than_the_landed_one_stays_the_name(url: str) -> None:
    told = Told(url, C1)
    told.by({"external_person_id": "C1", "person_key": "k9"})
    assert told.keys() == ["k1"]
    assert told.heard().unsure_keys == {"k1"}


def test_a_number_of_two_persons_names_nobody(url: str) -> None:
    told = Told(url, C1, BY_NUMBER)
    told.by({"mdn": ONE})
    assert told.heard() == Heard()


def test_a_number_that_somebody_else_has_by_now_does_not_name_its_last_holder(url: str) -> None:
    told = Told(url, C1)
    told.by({"external_person_id": "C2", "mdn": ONE})
    assert told.heard() == Heard()


def test_who_is_not_landed_becomes_one_person_however_often_told(url: str) -> None:
    told = Told(url)
    told.by({"external_person_id": "C1", "mdn": ONE})
    told.by({"external_person_id": "C1", "person_key": "k5"}, REMOVED)
    told.by({"external_person_id": "C1"})
    heard = told.heard()
    assert heard.persons == [KnownPerson("k5", "C1", None)]
    assert (set(told.keys()), heard.unsure_keys) == ({"k5"}, set())


def test_a_key_that_nobody_told_is_made_up_and_said_to_be(url: str) -> None:
    told = Told(url)
    told.by({"external_person_id": "C1"})
    heard = told.heard()
    assert [person.external_person_id for person in heard.persons] == ["C1"]
    assert heard.unsure_keys == {heard.persons[0].person_key}


def test_what_the_share_may_not_show_yet_is_heard_too(url: str) -> None:
    told = Told(url, C1)
    told.by({"external_person_id": "C1"}, at=SHARE - timedelta(hours=23))
    told.by({"external_person_id": "C1"}, at=SHARE - timedelta(hours=25))
    assert len(told.heard().stays) == 1


def test_what_another_company_tells_is_not_heard(url: str) -> None:
    told = Told(url, C1)
    told.by({"external_person_id": "C1"}, REMOVED, company="OTHER99")
    assert told.heard() == Heard()


UNREADABLE = [
    "2026-01-02T00:00:00z",
    "2026-13-01T00:00:00Z",
    "2026-01-02T00:00:60Z",
    "01/02/2026 10:00",
    "yesterday",
]
NAMED: dict[str, str | None] = {"external_person_id": "C1"}
SHARED = "2026-01-02T00:00:00Z"


@pytest.mark.parametrize("date", UNREADABLE)
def test_a_date_that_no_reconcile_reads_gives_way_to_the_one_of_the_event(
    url: str, date: str
) -> None:
    told = Told(url, C1)
    told.by(NAMED, opt_in_date=date)
    told.by(NAMED, REMOVED, opt_in_date=date, opt_out_date=date)
    assert told.dates() == [(SHARED, None), (None, SHARED)]


@pytest.mark.parametrize("date", UNREADABLE[1:])
def test_without_any_time_a_removal_counts_as_of_its_arrival_and_an_addition_of_none(
    url: str, date: str
) -> None:
    told = Told(url, C1)
    told.by(NAMED, opt_in_date=date, event_date=date)
    told.by(NAMED, REMOVED, opt_out_date=date, event_date=date)
    assert told.dates() == [(None, None), (None, told.arrived(2))]


@pytest.mark.parametrize(
    ("date", "first"), [("2026-01-02", "00:00"), ("2026-01-02T05:00Z", "05:00")]
)
def test_a_coarse_date_makes_no_join_newer_and_no_end_older_than_it_may_be(
    url: str, date: str, first: str
) -> None:
    told = Told(url, C1)
    told.by(NAMED, opt_in_date=date, event_date=date)
    told.by(NAMED, REMOVED, opt_out_date=date, event_date=date)
    assert told.dates() == [(f"2026-01-02T{first}:00Z", None), (None, told.arrived(2))]


@pytest.mark.parametrize("kind", [ADDED, REMOVED])
def test_a_time_that_is_still_to_come_counts_as_of_the_arrival(url: str, kind: str) -> None:
    told = Told(url, C1)
    told.by(NAMED, kind, at=datetime.now(UTC) + timedelta(days=3650))
    [dates] = told.dates()
    assert dates == ((told.arrived(1), None) if kind == ADDED else (None, told.arrived(1)))


def test_an_addition_that_shows_the_end_of_the_stay_does_not_hide_it(url: str) -> None:
    told = Told(url, C1)
    told.by(NAMED, opt_out_date="2026-01-03T00:00:00.5Z")
    told.by(NAMED, opt_out_date="yesterday")
    assert told.dates() == [(SHARED, "2026-01-03T00:00:00Z"), (SHARED, None)]


def test_the_newest_join_of_a_person_is_known_by_its_arrival(url: str) -> None:
    told = Told(url, KnownPerson("K1", "C1", ONE))
    told.by({"person_key": "k1"})
    told.by({"external_person_id": "C1"})
    told.by({"person_key": "k1"}, REMOVED)
    assert told.heard().joined_by == {("k1", LIST): stored_rows(url)[1]["received_at"]}
