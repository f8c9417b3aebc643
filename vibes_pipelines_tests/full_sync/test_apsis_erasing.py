"""Erasing a person of APSIS One: there where allowed, and from all that is kept here for it."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from vibes_pipelines.cli.main import main
from vibes_pipelines.sandbox.apsis_records import CRM_KEYSPACE, EMAIL_KEYSPACE
from vibes_pipelines.settings import Settings
from vibes_pipelines.stages.apsis_erasing import ABSENT, BY_ADDRESS, DELETED, KEPT, LOCKED
from vibes_pipelines.stages.apsis_landing import known_of, newest_reads
from vibes_pipelines.stages.apsis_overviews import carry_overview
from vibes_pipelines.stages.erasing import Erased, erase
from vibes_pipelines.stages.erasing_subject import ErasureError
from vibes_pipelines.stages.full_sync import full_sync
from vibes_pipelines.stages.project import open_project
from vibes_pipelines.stages.tribe_messages import apply_messages
from vibes_pipelines.store.erasures import Erasures
from vibes_pipelines_tests.apsis.apsis_parts import fault
from vibes_pipelines_tests.full_sync.sync_parts import (
    EMAIL,
    MEMBER,
    NEWS_LABEL,
    World,
    deliver_message,
    world_at,
)
from vibes_pipelines_tests.stages.test_erasing import readable

VIP = {"name": "VIP", "members": "label:VIP", "tag": MEMBER}
ALONE = {"policies": {"max_age_h": 24 * 14, "erasure": "none"}}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with synced(tmp_path_factory.mktemp("erased") / "home") as world:
        yield world


@contextmanager
def synced(home: Path) -> Iterator[World]:
    with world_at(home) as world:
        world.extra = ALONE
        world.configure(overviews=[VIP])
        world.person("Ada", NEWS_LABEL)
        world.sync()
        yield world


def erased(world: World, person: str, **switches: str) -> Erased:
    section = dict(world.section)
    world.configure(**switches)
    world.write_config()
    try:
        with open_project(Settings(world.environment)) as project:
            return erase(project, person, "asked for", "ann")
    finally:
        world.section = section


def known(world: World, person: str) -> Any:
    with world.open() as sync:
        return known_of(sync, newest_reads(sync), [person]).get(person)


@pytest.mark.slow
def test_nobody_is_deleted_unless_sync_yaml_allows_it_and_what_stays_is_said(
    running: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    person = running.person("Quentin", NEWS_LABEL)
    running.sync()
    assert erased(running, person).platform == {KEPT: 1}
    assert running.profile(person)
    running.write_config()
    for name, value in running.environment.items():
        monkeypatch.setenv(name, value)
    result = CliRunner().invoke(main, ["erase", person, "--reason", "asked for", "--by", "ann"])
    assert result.exit_code == 1
    assert "the profile stays" in result.stderr
    assert "when_erased: delete" in result.stderr
    assert erased(running, person, when_erased="delete").platform == {DELETED: 1}
    assert running.profile(person) is None
    assert erased(running, person, when_erased="delete").platform == {ABSENT: 1}


def test_nothing_readable_is_left_and_the_next_syncs_do_not_bring_the_person_back(
    running: World,
) -> None:
    """Of every file, replaced ones and journals too; and counts stay."""
    person = running.person("Quentinella", NEWS_LABEL, "VIP")
    running.sync()
    with running.open() as sync:
        carry_overview(sync, "VIP")
    running.edit(person, FirstName="Quentinius")
    deliver_message(running, person)
    with running.open() as sync:
        apply_messages(sync)
    running.sync()
    words = [person, "Quentinella", "Quentinius"]
    before = readable(running.home, words)
    assert any("replaced" in path for path in before)
    assert any("apsis/reads" in path for path in before)
    done = erased(running, person, when_erased="delete")
    assert (done.platform, done.left) == ({DELETED: 1}, ())
    assert readable(running.home, words) == {}
    assert running.tags(person) == set()

    deliver_message(running, person)
    with running.open() as sync:
        assert apply_messages(sync).ignored == 1
        assert carry_overview(sync, "VIP").members == 0
        ended = full_sync(sync)
    assert ended.state == "finished"
    assert running.profile(person) is None
    assert known(running, person).is_found is False


@pytest.mark.slow
def test_an_opt_out_nobody_has_read_yet_is_read_before_it_is_deleted(running: World) -> None:
    person = running.person("Quirin", NEWS_LABEL)
    running.sync()
    running.at_apsis(person, "opt-out")
    with pytest.raises(ErasureError, match="opted out at APSIS One since the last full sync"):
        erased(running, person, when_erased="delete")
    running.sync()
    assert running.labels(person) == set()
    assert erased(running, person, when_erased="delete").platform == {DELETED: 1}


def test_an_opt_out_outlives_the_erasure_and_its_undo(tmp_path: Path) -> None:
    with synced(tmp_path / "home") as world:
        person = world.person("Quirin", NEWS_LABEL)
        world.sync()
        world.at_apsis(person, "opt-out")
        world.sync()
        done = erased(world, person, when_erased="delete")
        states = known(world, person).consents
        assert [state["type"] for state in states.values()] == ["opt-out"]
        world.sync()
        with closing(Erasures(Settings(world.environment).inbox_url)) as book:
            book.undo(done.erasure_id, "asked again", "ann")
        world.clock.next_day()
        world.label(person)
        world.sync()
        assert world.profile(person)
        assert world.consent(person) != "opt-in"


def test_a_locked_profile_is_erased_there_already(running: World) -> None:
    person = running.person("Quill")
    running.sync()
    running.apsis.account.lock_profile(CRM_KEYSPACE, person)
    assert erased(running, person, when_erased="delete").platform == {LOCKED: 1}


def test_a_profile_of_the_same_address_is_told_and_left(running: World) -> None:
    person = running.person("Quade")
    running.sync()
    address = str((running.profile(person) or {})[EMAIL])
    running.apsis.control.sign_up({"email": address})
    done = erased(running, person, when_erased="delete")
    assert done.platform == {DELETED: 1, BY_ADDRESS: 1}
    assert running.apsis.account.peek(EMAIL_KEYSPACE, address)


def test_what_apsis_one_refuses_is_gone_on_with_by_the_same_command(running: World) -> None:
    person = running.person("Quest")
    running.sync()
    fault(running.apsis, f"profiles/{person}$", status=400)
    with pytest.raises(ErasureError, match="run the same erase again"):
        erased(running, person, when_erased="delete")
    running.apsis.control.set_faults({"faults": []})
    assert erased(running, person, when_erased="delete").platform == {DELETED: 1}
    with closing(Erasures(Settings(running.environment).inbox_url)) as book:
        assert book.all()[-1].finished_at is not None


def test_a_dry_run_counts_and_changes_nothing(running: World) -> None:
    person = running.person("Quinn", NEWS_LABEL)
    running.sync()
    running.write_config()
    before = readable(running.home, [person])
    with open_project(Settings(running.environment)) as project:
        counted = erase(project, person, "asked for", "ann", dry_run=True)
    assert counted.files["apsis"] > 0
    assert readable(running.home, [person]) == before
    assert running.profile(person)
    assert running.consent(person) == "opt-in"
