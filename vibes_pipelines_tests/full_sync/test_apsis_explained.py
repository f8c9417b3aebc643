"""`explain --destination apsis`: why a profile has what it has, and what became of each change."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from vibes_pipelines.cli.main import main
from vibes_pipelines_tests.full_sync.sync_parts import FIRST_NAME, NEWS, NEWS_LABEL, world_at


def test_a_profile_is_explained_from_what_is_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with world_at(tmp_path / "home") as world:
        person = world.person("Ada", NEWS_LABEL)
        world.sync()
        world.at_apsis(person, "opt-out")
        world.edit(person, FirstName="Adah")
        world.clock.next_day()
        world.sync()
        for name, value in world.environment.items():
            monkeypatch.setenv(name, value)
    asked = ["explain", person, "--destination", "apsis"]
    told = CliRunner().invoke(main, [*asked, "--json"])
    assert told.exit_code == 0, told.output
    newest, first = json.loads(told.stdout)["days"]
    text = CliRunner().invoke(main, asked).stdout
    assert f"updated: matched by external_person_id; changes {FIRST_NAME}" in text
    assert f"{first['day']}  added: new at the platform" in text
    assert f"opt_in of list {NEWS}|com.apsis1.channels.email, by api" in text
    assert "crm_opt_out of list" in text
    narrowed = CliRunner().invoke(main, [*asked, "--field", FIRST_NAME, "--day", newest["day"]])
    assert "'Ada' → 'Adah'" in narrowed.stdout
    assert "opt_in of" not in narrowed.stdout
