"""Tribe and APSIS One beside the platform: their switches, and their state at the next start."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from http.client import HTTPConnection
from pathlib import Path

import pytest

from vibes_pipelines.sandbox.all_switches import AllSwitches
from vibes_pipelines.sandbox.apsis_records import (
    CRM_KEYSPACE,
    EMAIL_CHANNEL,
    SECTION,
    ProblemError,
)
from vibes_pipelines.sandbox.apsis_saved import SavedApsis
from vibes_pipelines.sandbox.apsis_service import ApsisSandbox
from vibes_pipelines.sandbox.beside import start_beside
from vibes_pipelines.sandbox.home import SandboxHomeError
from vibes_pipelines.sandbox.kept_accounts import KeptAccounts
from vibes_pipelines.sandbox.tribe_sandbox import TribeSandbox
from vibes_pipelines.sandbox.tribe_saved import SavedTribe

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NEWS = "usercreated.topics.newsletter-m2k7"


@contextmanager
def kept(folder: Path, *, resume: bool) -> Iterator[tuple[TribeSandbox, ApsisSandbox]]:
    """Both, of three people, without their servers."""
    tribe, apsis = TribeSandbox.of_people(3), ApsisSandbox()
    accounts = KeptAccounts(
        folder, {"tribe": SavedTribe(tribe), "apsis": SavedApsis(apsis.account)}
    )
    if resume:
        accounts.restore()
    accounts.start()
    yield tribe, apsis
    accounts.stop()


def told(tribe: TribeSandbox, apsis: ApsisSandbox) -> str:
    return json.dumps([SavedTribe(tribe).saved(), SavedApsis(apsis.account).saved()])


def test_what_happened_at_both_is_there_at_the_next_start(tmp_path: Path) -> None:
    with kept(tmp_path, resume=False) as (tribe, apsis):
        world = tribe.world
        ada = world.create("Relation_Person", {"FirstName": "Ada", "LastName": "-"})["ID"]
        world.attach(ada, world.label_id("VIP"))
        world.relate(ada)
        gone = next(one["ID"] for one in world.persons() if one["ID"] != ada)
        world.delete("Relation_Person", gone)
        hook = {"url": "http://127.0.0.1:9/", "entityType": "Relation.Person", "secret": "s"}
        tribe.webhooks.register(hook)
        keyspace = apsis.account.catalogue.keyspace(CRM_KEYSPACE)
        for key in ("C-1", "C-2"):
            apsis.account.create(keyspace, key, SECTION)
        apsis.control.consent(
            {
                "profile_key": "C-1",
                "topic_discriminator": NEWS,
                "channel_discriminator": EMAIL_CHANNEL,
            }
        )
        apsis.control.lock({"profile_key": "C-2"})
        before = told(tribe, apsis)
    with kept(tmp_path, resume=True) as (tribe, apsis):
        assert told(tribe, apsis) == before
        record = tribe.world.find("Relation_Person", ada)
        assert record is not None
        assert [label["Name"] for label in record["Labels"]] == ["VIP"]
        label = tribe.world.find("Label", tribe.world.label_id("VIP"))
        assert record["Labels"][0] is label
        [related] = tribe.world.rows("Relationship_Person_Contact_Standard")
        assert related["Person"] is record
        assert len(tribe.webhooks.registered) == 1
        found = apsis.account.find(CRM_KEYSPACE, "C-1")
        assert found.consents[SECTION, NEWS, EMAIL_CHANNEL].type == "opt-out"
        with pytest.raises(ProblemError, match="Gone"):
            apsis.account.peek(CRM_KEYSPACE, "C-2")
        assert apsis.account.create(keyspace, "C-3", SECTION).uid not in {"P000001", "P000002"}


def test_a_state_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "tribe.json").write_text("{}", encoding="utf-8")
    with (
        pytest.raises(SandboxHomeError, match=r"tribe\.json is no state of this sandbox"),
        kept(tmp_path, resume=True),
    ):
        pass


def test_both_are_served_with_their_switches(tmp_path: Path) -> None:
    switches = AllSwitches.from_mapping({"tribe.signature_header": "X-Sig"})
    with ExitStack() as running:
        environment = start_beside(running, tmp_path / "a", [], lambda: NOW, 1, switches)
        assert environment["TRIBE_WEBHOOK_HEADER"] == "X-Sig"
        connection = HTTPConnection(environment["APSIS_API_URL"].removeprefix("http://"))
        connection.request("GET", "/sandbox/audit")
        assert connection.getresponse().status == 200
        connection.close()
    assert (tmp_path / "a" / "apsis.json").exists()


def test_switches_of_every_stand_in_go_by_name() -> None:
    found = AllSwitches.from_mapping(
        {
            "delete_status": 200,
            "tribe.next_link": True,
            "tribe.page_rows": 7,
            "tribe.organization_id": "o",
            "apsis.expired_token": 403,
        }
    )
    assert found.platform.delete_status == 200
    assert (found.tribe.next_link, found.tribe.page_rows) == (True, 7)
    assert (found.tribe.organization_id, found.apsis.expired_token) == ("o", 403)


@pytest.mark.parametrize(
    ("name", "reading", "told"),
    [
        ("tribe.next_lnk", True, "unknown switch 'tribe.next_lnk'; known: .*tribe.next_link"),
        ("tribe.page_rows", "many", "'tribe.page_rows' takes int"),
        ("tribe.next_link", 1, "takes one of"),
        ("apsis.repeated_consent", "oh", "'apsis.repeated_consent' takes one of"),
        ("other.thing", 1, "unknown switch 'other.thing'"),
    ],
)
def test_a_wrong_switch_is_told_with_the_right_ones(name: str, reading: object, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        AllSwitches.from_mapping({name: reading})
