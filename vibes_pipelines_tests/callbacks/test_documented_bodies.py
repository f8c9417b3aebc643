"""The callbacks that the Vibes documentation shows, from the road to their effect in the CRM.

The examples of its page on syncing with a CRM stand here as they are printed there: placeholders
for the company, comments that are no JSON, one first key without its colon, and two events of two
types under one `event_id`.
"""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from vibes_pipelines.store.inbox import Inbox
from vibes_pipelines.sync_config.realtime import Callbacks
from vibes_pipelines_tests.stages.test_callback_inbox import Desk, opened_desk
from vibes_pipelines_tests.support.callbacks import RunningReceiver, running_receiver

ADDED = b"""{
  "callback:id","DEF123",
  "event_id":"AB234SDFD234",
  "callback_type":"subscription_added",
  "event_type":"subscription_added", //deprecated
  "event_date":"2017-02-15T15:42:23Z",
  "delivery_attempt":"1",
  "subscription":{
    "person":{
      "id":"ABC123",
      "external_id":"ex1234",
      "url":"/companies/:company_key/mobiledb/persons/ABC123"
    },
    "subscription_list":{
      "id":"1234",
      "url":"/companies/:company_key/mobiledb/subscription_lists/1234"
    },
    "opt_in_date":"2017-01-15T15:34:52Z",
    "acquisition_campaign":{
      "id":"2342312",
      "url":"/companies/:company_key/campaigns/acquisition/2342312"
    },
    "url":"/companies/:company_key/mobiledb/persons/ABC123/subscriptions/1234"
  }
}"""
REMOVED = b"""{
  "callback_id":"DEF124",
  "event_id":"AB234SDFD234",
  "callback_type":"subscription_removed",
  "event_type":"subscription_removed", //deprecated
  "event_date":"2017-03-15T15:42:23Z",
  "delivery_attempt":"1",
  "subscription":{
    "person":{
      "id":"ABC123",
      "external_id":"ex1234",
      "url":"/companies/:company_key/mobiledb/persons/ABC123"
    },
    "subscription_list":{
      "id":"1234",
      "url":"/companies/:company_key/mobiledb/subscription_lists/1234"
    },
    "opt_in_date":"2017-01-15T15:34:52Z",
    "opt_out_date":"2017-02-18T15:34:52+0000",
    "opt_out_reason":"user_opt_out",
    "acquisition_campaign":{
      "id":"2342312",
      "url":"/companies/:company_key/campaigns/acquisition/2342312"
    },
    "url":"/companies/:company_key/mobiledb/persons/ABC123/subscriptions/1234"
  }
}"""

JOINED, LEFT = "2017-01-15T15:34:52Z", "2017-02-18T15:34:52Z"


@dataclass(frozen=True)
class Road:
    """A receiver on the loopback before the inbox of a project whose CRM has the contact."""

    desk: Desk
    served: RunningReceiver

    def post(self, *bodies: bytes) -> None:
        assert [self.served.post(body) for body in bodies] == [200] * len(bodies)

    @property
    def contact(self) -> tuple[str, str]:
        return self.desk.contacts()["ex1234"]

    @property
    def facts(self) -> list[tuple[str, str, str, str]]:
        query = "SELECT contact_id, kind, subject, state FROM vibes_facts"
        return [tuple(row) for row in self.desk.crm(query)]


@pytest.fixture
def road(tmp_path: Path) -> Iterator[Road]:
    with opened_desk(tmp_path) as desk:
        desk.crm(f"INSERT INTO contacts VALUES ('ex1234', 'Y', '{JOINED}')")
        desk.crm(
            "CREATE TABLE vibes_facts"
            " (contact_id TEXT, kind TEXT, subject TEXT, state TEXT, changed_at TEXT)"
        )
        section = Callbacks(url="https://x.example/callbacks", facts_table="vibes_facts")
        object.__setattr__(desk.project.config, "callbacks", section)
        with closing(Inbox(desk.ledger_url)) as inbox, running_receiver(inbox) as served:
            yield Road(desk, served)


@pytest.mark.parametrize("body", [ADDED, ADDED.replace(b"\n", b" ")], ids=["lines", "one line"])
def test_the_malformed_opt_in_is_noted_as_a_fact_and_changes_no_consent(
    road: Road, body: bytes
) -> None:
    road.post(body)
    road.desk.drain()
    assert road.desk.ends() == [("applied", "noted")]
    assert road.facts == [("ex1234", "subscription", "1234", "subscribed")]
    assert road.contact == ("Y", JOINED)


def test_the_opt_out_is_in_the_crm_with_its_own_date(road: Road) -> None:
    road.post(REMOVED)
    road.desk.drain()
    assert road.desk.ends() == [("applied", "opted_out")]
    assert road.facts == [("ex1234", "subscription", "1234", "unsubscribed")]
    assert road.contact == ("N", LEFT)


@pytest.mark.parametrize("bodies", [(ADDED, REMOVED), (REMOVED, ADDED)], ids=["in order", "not"])
def test_both_under_their_one_event_id_count_and_the_opt_out_is_the_later(
    road: Road, bodies: tuple[bytes, ...]
) -> None:
    road.post(*bodies)
    road.desk.drain()
    assert {status for status, _ in road.desk.ends()} <= {"applied", "ignored"}
    assert road.facts == [("ex1234", "subscription", "1234", "unsubscribed")]
    assert road.contact == ("N", LEFT)


@pytest.mark.parametrize("body", [ADDED, REMOVED], ids=["added", "removed"])
def test_a_further_attempt_is_the_same_event(road: Road, body: bytes) -> None:
    further = body.replace(b'"delivery_attempt":"1"', b'"delivery_attempt":"2"')
    further = further.replace(b"DEF12", b"DEF13")
    assert further != body
    road.post(body, further)
    road.desk.drain()
    assert [status for status, _ in road.desk.ends()] == ["applied"]


def test_an_opt_out_of_somebody_whom_the_crm_does_not_have_is_parked(road: Road) -> None:
    road.desk.crm("DELETE FROM contacts WHERE contact_id = 'ex1234'")
    road.post(REMOVED)
    road.desk.drain()
    assert road.desk.ends() == [("parked", "unknown_person")]
    assert road.facts == []
