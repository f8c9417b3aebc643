"""What `--resume` may send: only what sync.yaml, and Tribe, still say when it is taken up."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest

from vibes_pipelines.crm.database import CrmError
from vibes_pipelines.stages import apsis_last_look, tribe_messages
from vibes_pipelines.stages import full_sync as full_sync_module
from vibes_pipelines.stages.apsis_known import Known
from vibes_pipelines.stages.apsis_landing import read_now
from vibes_pipelines.stages.apsis_sync import ApsisSync
from vibes_pipelines.stages.consents_now import Consent
from vibes_pipelines.stages.full_sync import (
    Ended,
    MappedOtherwise,
    cancel,
    full_sync,
    full_syncs,
)
from vibes_pipelines.stages.full_sync_need import full_sync_need
from vibes_pipelines.stages.tribe_messages import apply_messages
from vibes_pipelines.tribe.client import TribeClient
from vibes_pipelines.tribe.labels import Label
from vibes_pipelines_tests.full_sync.sync_parts import (
    FIRST_NAME,
    NEWS,
    NEWS_LABEL,
    World,
    deliver_message,
    world_at,
)


def stopped_at(world: World, phase: str) -> Ended:
    """A full sync that somebody cancels when it comes to a phase."""

    def stop(line: str) -> None:
        if line.endswith(f": {phase}"):
            with world.open() as other:
                cancel(other, "wrong mapping")

    with world.open() as sync:
        return full_sync(sync, tell=stop)


@pytest.mark.parametrize(
    ("what", "changes"),
    [
        ("fields", {"fields": [{"from": "LastName", "to": FIRST_NAME}]}),
        pytest.param(
            "consents",
            {"consents": [{"from": "label:VIP", "topic": NEWS, "channel": "email"}]},
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "conditions",
            {"conditions": [{"column": "LastName", "equals": "x"}]},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_what_another_mapping_wanted_is_not_taken_up(
    tmp_path: Path, what: str, changes: dict[str, Any]
) -> None:
    with world_at(tmp_path / "home") as world:
        ada = world.person("Ada", NEWS_LABEL)
        assert stopped_at(world, "reconcile").state == "cancelled"
        world.configure(**changes)
        writes = world.writes()
        with world.open() as sync:
            with pytest.raises(MappedOtherwise, match=f"{what} of .*new full sync"):
                full_sync(sync, resume=True)
            assert full_sync_need(sync).is_needed, "what was not sent is still to come"
        assert (world.writes(), world.profile(ada)) == (writes, None)


@pytest.mark.parametrize(
    "is_told",
    [
        pytest.param(False, id="untold"),
        pytest.param(True, id="told by a message", marks=pytest.mark.slow),
    ],
)
def test_who_took_the_label_off_while_it_was_held_is_not_opted_in(
    tmp_path: Path, is_told: bool
) -> None:
    with world_at(tmp_path / "home") as world:
        ada, bo = world.person("Ada", NEWS_LABEL), world.person("Bo", NEWS_LABEL)
        with world.open() as sync:
            assert full_sync(sync).state == "held"
            world.unlabel(ada)
            if is_told:
                deliver_message(world, ada)
                apply_messages(sync)
            world.approve(sync)
            results = full_sync(sync, resume=True).results
        assert (results.opted_in, results.withdrawn) == (1, 1)
        assert (world.consent(ada), world.consent(bo)) == (None, "opt-in")
        assert world.sync().state == "finished"
        assert world.consent(ada) is None


@pytest.mark.slow
def test_who_takes_the_label_off_while_it_is_written_is_not_opted_in(tmp_path: Path) -> None:
    """Over an opt-out of before, too."""
    with world_at(tmp_path / "home") as world:
        ada, bo = world.person("Ada"), world.person("Bo", NEWS_LABEL)
        world.sync()
        world.unlabel(bo)
        world.sync()
        assert world.consent(bo) == "opt-out"
        for person in (ada, bo):
            world.label(person)

        def meanwhile(line: str) -> None:
            if line.endswith(": write"):
                for person in (ada, bo):
                    world.unlabel(person)

        with world.open() as sync:
            assert full_sync(sync, tell=meanwhile).results.opted_in == 0
        assert (world.consent(ada), world.consent(bo)) == (None, "opt-out")


def test_who_takes_the_label_off_while_a_message_is_applied_is_not_opted_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with world_at(tmp_path / "home") as world:
        ada, _ = world.person("Ada"), world.person("Bo")
        world.sync()
        world.label(ada)
        deliver_message(world, ada)

        async def read_late(sync: ApsisSync, keys: Collection[str]) -> list[Known]:
            world.unlabel(ada)
            return await read_now(sync, keys)

        monkeypatch.setattr(tribe_messages, "read_now", read_late)
        with world.open() as sync:
            assert apply_messages(sync).accepted == 0
        assert world.consent(ada) is None


def test_without_a_look_at_the_crm_nobody_is_opted_in_and_it_stays_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> list[Consent]:
        raise CrmError("Tribe: no answer")

    with world_at(tmp_path / "home") as world:
        ada, _ = world.person("Ada"), world.person("Bo")
        world.sync()
        world.label(ada)
        with world.open() as sync:
            with monkeypatch.context() as patch:
                patch.setattr(apsis_last_look, "consents_in", away)
                with pytest.raises(CrmError):
                    full_sync(sync)
            assert world.consent(ada) is None
            assert full_syncs(sync)[0].state == "failed"
            assert full_sync(sync, resume=True).results.opted_in == 1
        assert world.consent(ada) == "opt-in"


def test_a_wish_to_cancel_is_heard_while_the_persons_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with world_at(tmp_path / "home") as world:
        world.person("Ada")
        real = TribeClient.labels

        async def labels(client: TribeClient) -> list[Label]:
            with world.open() as other:
                cancel(other, "wrong mapping")
            return await real(client)

        monkeypatch.setattr(TribeClient, "labels", labels)
        monkeypatch.setattr(full_sync_module, "CHECK_S", 0)
        with world.open() as sync:
            assert full_sync(sync).state == "cancelled"
            assert full_syncs(sync)[0].phase == "download"


@pytest.mark.slow
def test_after_the_refusal_a_new_full_sync_sends_what_the_new_mapping_wants(
    tmp_path: Path,
) -> None:
    with world_at(tmp_path / "home") as world:
        ada = world.person("Ada", LastName="Right")
        world.sync()
        world.edit(ada, FirstName="Wrong")
        assert stopped_at(world, "write").state == "cancelled"
        world.configure(fields=[{"from": "LastName", "to": FIRST_NAME}])
        with world.open() as sync, pytest.raises(MappedOtherwise, match="fields"):
            full_sync(sync, resume=True)
        assert (world.profile(ada) or {})[FIRST_NAME] == "Ada"
        assert world.sync().state == "finished"
        assert (world.profile(ada) or {})[FIRST_NAME] == "Right"
        with world.open() as sync:
            assert not full_sync_need(sync).is_needed
