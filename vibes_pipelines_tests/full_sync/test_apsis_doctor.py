"""The doctor's account of APSIS One: what is well, and what is wrong with its cure."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from vibes_pipelines.sandbox.apsis_service import ApsisSandbox
from vibes_pipelines.stages.doctor import apsis, crm, files, tribe
from vibes_pipelines.stages.doctor.bench import Bench
from vibes_pipelines.stages.doctor.run import examine
from vibes_pipelines_tests.apsis.apsis_parts import fault
from vibes_pipelines_tests.full_sync.sync_parts import (
    APSIS_SECTION,
    FIRST_NAME,
    MEMBER,
    NEWS,
    NEWS_LABEL,
    World,
    world_at,
)

CHECKS = (
    *(check for check in files.CHECKS if check.name in {"files/sync.yaml", "settings/crm"}),
    *crm.CHECKS[:1],
    *tribe.CHECKS,
    *apsis.CHECKS,
)
FIRST = {"from": "first", "to": "first_name", "type": "string"}
VIP = {"name": "VIP", "members": "label:VIP", "tag": MEMBER}
Found = Mapping[tuple[str, str], str]
"""Check and status → what is told, and the cure."""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world_at(tmp_path_factory.mktemp("doctored") / "home") as world:
        yield world


def account(world: World, section: Mapping[str, Any], **environment: str) -> Found:
    def no_share() -> None:
        raise AssertionError

    world.section = {**APSIS_SECTION, **section}
    world.write_config()
    found: dict[tuple[str, str], str] = {}
    with Bench({**world.environment, **environment}, no_share) as bench:  # type: ignore[arg-type]
        for line in examine(bench, CHECKS):
            if line.check.startswith("apsis/"):
                key = (line.check.removeprefix("apsis/"), line.status)
                found[key] = f"{found.get(key, '')} {line.told} -> {line.cure}"
                assert line.cure or line.status in {"ok", "not checked"}, line
    return found


def test_an_account_as_sync_yaml_maps_it_is_well(running: World) -> None:
    tokens = running.apsis.tokens.issued
    found = account(running, {"overviews": [VIP]})
    names = {"columns", "account", "token", "place", "attributes", "consents", "tags"}
    assert set(found) == {(name, "ok") for name in names}
    assert running.apsis.tokens.issued == tokens + 1


def test_names_the_account_lacks_are_told_all_at_once_with_near_ones(running: World) -> None:
    found = account(
        running,
        {
            "fields": [{"from": "FirstName", "to": FIRST_NAME[:-1]}],
            "consents": [{"from": f"label:{NEWS_LABEL}", "topic": NEWS[:-1], "channel": "fax"}],
            "overviews": [{**VIP, "tag": MEMBER[:-1]}],
        },
    )
    assert f"did you mean {FIRST_NAME}" in found["attributes", "fail"]
    assert f"did you mean {NEWS}" in found["consents", "fail"]
    assert "no channel 'fax'" in found["consents", "fail"]
    assert f"did you mean {MEMBER}" in found["tags", "fail"]


def test_another_section_stops_only_what_lies_in_it(running: World) -> None:
    found = account(running, {"section": "usercreated.sections.mian-k3v9x2m7qa"})
    assert "did you mean usercreated.sections.main-k3v9x2m7qa" in found["place", "fail"]
    waiting = {name for name, status in found if status == "not checked"}
    assert waiting == {"attributes", "consents", "tags"}


def test_a_keyspace_without_rights_cannot_set_consents(running: World) -> None:
    found = account(running, {"keyspace": "usercreated.keyspaces.shop-b5y8"})
    assert "have it granted in APSIS One" in found["consents", "fail"]


def test_columns_that_tribe_lacks_are_told_all_at_once(running: World) -> None:
    found = account(
        running,
        {
            "email": "EmailAdress",
            "consents": [{"from": "label:Newsletter by e-mal", "topic": NEWS}],
            "overviews": [{**VIP, "members": "label:VIPs"}],
        },
    )
    told = found["columns", "fail"]
    for named in ("destinations.apsis.email", f"destinations.apsis.consents: topic: {NEWS}"):
        assert f"correct {named} in sync.yaml" in told
    assert "destinations.apsis.overviews: VIP" in told


def test_a_wrong_key_is_said_and_the_rest_waits(running: World) -> None:
    found = account(running, {}, APSIS_CLIENT_SECRET="wrong")
    assert "APSIS_CLIENT_SECRET" in found["account", "fail"]
    assert {name for name, status in found if status == "not checked"} == {
        *("token", "place", "attributes", "consents", "tags"),
    }


def test_an_address_that_shows_the_key_is_refused(running: World) -> None:
    found = account(running, {}, APSIS_API_URL="http://api.apsis.one")
    assert "begin it with https://" in found["account", "fail"]


def test_used_up_limits_have_a_cure(running: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vibes_pipelines.apsis.token._BACKOFF_S", 0.01)
    fault(running.apsis, "oauth/token", status=429)
    try:
        found = account(running, {})
    finally:
        running.apsis.control.set_faults({"faults": []})
    assert "10 tokens a minute" in found["account", "fail"]


@pytest.mark.parametrize(
    ("lasts_s", "status", "told"),
    [
        (30, "fail", "set this machine's clock"),
        (600, "warn", "few processes"),
        (100_000, "warn", "24 h are documented"),
    ],
)
def test_tokens_that_end_too_soon_or_late_by_this_clock_are_told(
    running: World, lasts_s: float, status: str, told: str
) -> None:
    with ApsisSandbox(token_ttl_s=lasts_s) as box:
        assert told in account(running, {}, **box.environment())["token", status]


def test_deletion_for_ever_is_told_beforehand(running: World) -> None:
    assert "for ever" in account(running, {"when_unmatched": "delete"})["deletion", "warn"]


def test_a_database_as_the_source_has_its_columns_looked_at(running: World, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/crm.db"
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE contacts (id TEXT, mail TEXT, first TEXT)")
    engine.dispose()
    running.extra = {"contacts": {"key": "id"}, "fields": [FIRST]}
    section = {
        "email": "email",
        "fields": [{"from": "first", "to": FIRST_NAME}],
        "consents": [{"from": "news", "topic": NEWS}],
    }
    try:
        found = account(running, section, CRM_URL=url)
        assert "has no column 'news'" in found["columns", "fail"]
        assert (
            "destinations.apsis.email: contacts has no column 'email'" in found["columns", "fail"]
        )
        away = account(running, section, CRM_URL=f"sqlite:///{tmp_path}/none.db")
        assert "crm/connection" in away["columns", "not checked"]
    finally:
        running.extra = {}


def test_without_the_section_there_is_no_line(running: World) -> None:
    running.extra = {"destinations": {}}
    try:
        assert account(running, {}) == {}
    finally:
        running.extra = {}
