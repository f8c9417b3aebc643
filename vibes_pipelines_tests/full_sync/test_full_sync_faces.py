"""The full sync through its two faces: the command line, and Dagster."""

import json

import dagster as dg
import pytest
from click.testing import CliRunner, Result

from vibes_pipelines.cli.main import main
from vibes_pipelines.orchestration.build import build_defs
from vibes_pipelines.orchestration.tribe import (
    ApsisResource,
    MessagesConfig,
    apply_tribe_messages,
    carry_recurring_overviews,
    no_full_sync_needed,
)
from vibes_pipelines.orchestration.tribe_sensor import tribe_message_sensor
from vibes_pipelines.stages.full_sync_need import FIRST
from vibes_pipelines.tribe.errors import TribeFieldError
from vibes_pipelines_tests.full_sync.sync_parts import (
    MEMBER,
    NEWS_LABEL,
    World,
    deliver_message,
)


@pytest.fixture
def environment(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.write_config()
    for name, value in world.environment.items():
        monkeypatch.setenv(name, value)


def run(*words: str) -> Result:
    return CliRunner().invoke(main, list(words))


@pytest.mark.usefixtures("environment")
def test_by_hand_a_first_sync_is_held_approved_and_taken_up(world: World) -> None:
    ada = world.person("Ada", NEWS_LABEL)
    held = run("tribe", "full-sync", "--json")
    assert held.exit_code == 3, held.output
    shown = json.loads(held.stdout)
    assert "--destination apsis" in shown["reason"]
    assert world.profile(ada) is None
    words = ("approve", shown["diff_set"][:12], "--reason", "looked", "--destination", "apsis")
    approved = run(*words)
    assert "tribe full-sync --resume" in approved.output
    finished = run("tribe", "full-sync", "--resume", "--json")
    assert json.loads(finished.stdout)["created"] == 1, finished.output
    assert world.consent(ada) == "opt-in"
    status = json.loads(run("tribe", "status", "--json").stdout)
    assert (status["is_running"], status["needs_full_sync"]) == (False, False)
    assert [one["state"] for one in status["full_syncs"]] == ["finished"]
    assert run("tribe", "cancel", "--reason", "x").exit_code == 1
    assert run("tribe", "full-sync", "--resume").exit_code == 1, "nothing waits"


@pytest.mark.usefixtures("environment")
def test_in_dagster_the_job_holds_and_the_push_sends_with_its_results(world: World) -> None:
    ada = world.person("Ada", NEWS_LABEL)
    defs = build_defs()
    config = {"ops": {"tribe_to_apsis": {"config": {"dry_run": False}}}}
    with dg.DagsterInstance.ephemeral() as instance:
        job = defs.resolve_job_def("tribe_full_sync")
        held = job.execute_in_process(run_config=config, instance=instance, raise_on_error=False)
        assert not held.success
        assert world.profile(ada) is None
        with world.open() as sync:
            world.approve(sync)
        pushed = defs.resolve_job_def("apsis_push").execute_in_process(instance=instance)
        assert pushed.success
        event = instance.get_latest_materialization_event(dg.AssetKey(["apsis", "delivery"]))
        assert event is not None
        assert event.asset_materialization is not None
        metadata = event.asset_materialization.metadata
        assert (metadata["state"].value, metadata["created"].value) == ("finished", 1)
        assert world.consent(ada) == "opt-in"
        deliver_message(world, ada)
        context = dg.build_sensor_context(
            instance=instance, definitions=defs, resources={"apsis": ApsisResource()}
        )
        asked = tribe_message_sensor(context)
        assert isinstance(asked, dg.SensorResult)
        [request] = asked.run_requests or ()
        assert (request.run_key or "").startswith("tribe_messages:1:0:")


@pytest.mark.usefixtures("environment")
def test_the_ops_and_the_check_do_what_they_say_and_a_dry_run_nothing(world: World) -> None:
    overview = {"name": "VIP", "members": "label:VIP", "tag": MEMBER, "recurring": True}
    world.configure(overviews=[overview])
    ada, apsis = world.person("Ada", "VIP"), ApsisResource()
    first = no_full_sync_needed(apsis=apsis)
    assert isinstance(first, dg.AssetCheckResult)
    assert (first.passed, first.metadata["why"].value) == (False, FIRST)
    world.sync()
    world.label(ada)
    deliver_message(world, ada)
    for dry_run in (True, False):
        config = MessagesConfig(dry_run=dry_run)
        apply_tribe_messages(dg.build_op_context(), config=config, apsis=apsis)
        carry_recurring_overviews(dg.build_op_context(), config=config, apsis=apsis)
        is_done = (None, set()) if dry_run else ("opt-in", {MEMBER})
        assert (world.consent(ada), world.tags(ada)) == is_done
    second = no_full_sync_needed(apsis=apsis)
    assert isinstance(second, dg.AssetCheckResult)
    assert second.passed, second.metadata


@pytest.mark.usefixtures("environment")
def test_an_overview_that_cannot_be_carried_holds_up_no_other(world: World) -> None:
    member = {"tag": MEMBER, "recurring": True}
    broken = {"name": "Broken", "members": "label:Nobody made it", **member}
    world.configure(overviews=[broken, {"name": "VIP", "members": "label:VIP", **member}])
    ada = world.person("Ada", "VIP")
    world.sync()
    config = MessagesConfig(dry_run=False)
    with pytest.raises(TribeFieldError, match="Nobody made it"):
        carry_recurring_overviews(dg.build_op_context(), config=config, apsis=ApsisResource())
    assert world.tags(ada) == {MEMBER}
