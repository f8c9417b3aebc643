"""What a full sync tells before it writes: one name for the same changes, and all that is wrong."""

from pathlib import Path

import pytest

from vibes_pipelines.apsis.errors import ApsisSetupError
from vibes_pipelines.stages.full_sync import full_sync
from vibes_pipelines_tests.full_sync.sync_parts import FIRST_NAME, NEWS_LABEL, world_at


@pytest.mark.slow
def test_the_same_changes_are_the_same_diff_set_however_often_they_are_looked_at(
    tmp_path: Path,
) -> None:
    """An approval of a dry run is one of what a full sync then sends; another change is another."""
    with world_at(tmp_path / "home") as world:
        ada = world.person("Ada", NEWS_LABEL)
        with world.open() as sync:
            dry = full_sync(sync, dry_run=True).results
            again = full_sync(sync, dry_run=True).results
            assert dry.diff_set == again.diff_set
            world.edit(ada, FirstName="Adah")
            other = full_sync(sync, dry_run=True).results
            assert other.diff_set != dry.diff_set
            world.approve(sync)
            sent = full_sync(sync)
        assert (sent.state, sent.results.diff_set) == ("finished", other.diff_set)
        assert world.consent(ada) == "opt-in"


@pytest.mark.slow
def test_what_is_wanted_says_how_many_are_to_be_deleted(tmp_path: Path) -> None:
    with world_at(tmp_path / "home") as world:
        world.extra = {"fields": [{"from": "LastName", "to": "last_name", "type": "string"}]}
        world.configure(
            conditions=[{"column": "LastName", "equals": "-"}],
            when_unmatched="delete",
            guards={**world.section["guards"], "deletes": {"max_rows": 9, "max_share": 1.0}},
        )
        ada, _ = world.person("Ada"), world.person("Bo")
        world.sync()
        world.clock.next_day()
        world.sync()
        world.clock.next_day()
        world.edit(ada, LastName="Other")
        with world.open() as sync:
            held = full_sync(sync)
        assert held.state == "held"
        assert held.results.wanted["delete"] == 1
        assert "delete 1" in held.sentence


def test_wrong_names_of_both_sides_are_told_at_once(tmp_path: Path) -> None:
    with world_at(tmp_path / "home") as world:
        world.person("Ada")
        world.configure(
            email="EmailAdress",
            fields=[{"from": "FirstName", "to": FIRST_NAME[:-1]}],
            consents=[{"from": "label:Newsletter by e-mal", "topic": "usercreated.topics.none"}],
        )
        with world.open() as sync, pytest.raises(ApsisSetupError) as refused:
            full_sync(sync)
    told = str(refused.value)
    for near in ("EmailAddress", "Newsletter by e-mail", FIRST_NAME, "usercreated.topics.none"):
        assert near in told
