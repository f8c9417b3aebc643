"""Canary people between Tribe and APSIS One: none of their values is seen either."""

import logging
from pathlib import Path

import pytest

from vibes_pipelines_tests.full_sync.sync_parts import (
    MEMBER,
    NEWS_LABEL,
    World,
    deliver_message,
    world_at,
)
from vibes_pipelines_tests.privacy.canaries import TRIBE_COMMANDS, Watch

PEOPLE = [8, pytest.param(200, marks=[pytest.mark.slow, pytest.mark.timeout(900)])]
FAULTS = [
    {"match": {"path_regex": "profiles"}, "action": "status", "status": 500, "times": 3},
    {"match": {"path_regex": "profiles"}, "action": "reset", "times": 2},
    {"match": {"path_regex": "consents"}, "action": "status", "status": 400, "times": 1},
]
OVERVIEW = {"name": "VIP", "members": "label:VIP", "tag": MEMBER}


@pytest.mark.parametrize("people", PEOPLE)
def test_no_value_of_a_canary_is_seen_on_the_way_to_apsis_one(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    people: int,
) -> None:
    """Through failures, and through every command of `tribe`."""
    caplog.set_level(logging.INFO)
    watch = Watch()
    with world_at(tmp_path / "home") as world:
        world.configure(overviews=[OVERVIEW])
        keys = canaries(watch, world, people)
        world.write_config()
        for name, value in world.environment.items():
            monkeypatch.setenv(name, value)
        sync_with_failures(watch, world, monkeypatch)
        world.at_apsis(keys[0], "opt-out")
        world.edit(keys[1], FirstName="Zqcanary-new")
        deliver_message(world, *keys[:2], "nobody-like-this")
        world.apsis.control.set_faults({"faults": FAULTS})
        watch.command("tribe", "messages")
        world.apsis.control.set_faults({"faults": []})
        watch.command("tribe", "messages")
        watch.command("tribe", "overview", "VIP")
        watch.command("tribe", "overview", "Zq-no-such-overview")
        watch.command("tribe", "status")
        watch.command("tribe", "status", "--json")
        watch.command("tribe", "cancel", "--reason", "looked at")
        watch.command("erase", keys[2], "--reason", "asked for")
        assert [world.consent(key) for key in keys[:2]] == ["opt-out", "opt-in"]
        watch.note("log", caplog.text)
        watch.note("terminal", "\n".join(capfd.readouterr()))
        watch.note_files(tmp_path / "home")
    assert watch.leaks() == {}
    assert len(watch.values) >= people * 3
    assert watch.ran >= TRIBE_COMMANDS


def canaries(watch: Watch, world: World, people: int) -> list[str]:
    """People of Tribe, each with a name, an address and a number like no other."""
    keys = []
    for number in range(people):
        name, mobile = f"Zqcanary{number}", f"+3161234{number:04}"
        last = f"Zqlast{number}"
        key = world.person(name, NEWS_LABEL, "VIP", LastName=last, MobilePhoneNumber=mobile)
        watch.learn(key, name, last, mobile, f"{name}@example.org")
        keys.append(key)
    watch.learn("Zqcanary-new")
    return keys


def sync_with_failures(watch: Watch, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused logins, a hold, faults in the middle, and a resumed end."""
    for secret in ("TRIBE_CLIENT_SECRET", "APSIS_CLIENT_SECRET"):
        with monkeypatch.context() as patch:
            patch.setenv(secret, "wrong-secret")
            watch.command("tribe", "full-sync")
    watch.command("tribe", "full-sync", "--dry-run")
    watch.command("tribe", "full-sync", "--json")
    with world.open() as sync:
        world.approve(sync)
    world.apsis.control.set_faults({"faults": FAULTS})
    watch.command("tribe", "full-sync", "--resume")
    world.apsis.control.set_faults({"faults": []})
    watch.command("tribe", "full-sync", "--resume")
    watch.command("tribe", "full-sync")
