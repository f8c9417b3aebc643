"""The doctor's account of Tribe: what is well, and what is wrong with its cure."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from vibes_pipelines.sandbox.tribe_population import OFFERS
from vibes_pipelines.sandbox.tribe_sandbox import TribeSandbox
from vibes_pipelines.stages.doctor import files, tribe
from vibes_pipelines.stages.doctor.bench import Bench
from vibes_pipelines.stages.doctor.findings import Line
from vibes_pipelines.stages.doctor.run import examine
from vibes_pipelines_tests.support.loop import EXAMPLE
from vibes_pipelines_tests.support.tribe import tribe_sync_config

CHECKS = (*(check for check in files.CHECKS if check.name == "files/sync.yaml"), *tribe.CHECKS)


@pytest.fixture(scope="module")
def running() -> Iterator[TribeSandbox]:
    with TribeSandbox.of_people(5) as tribe_sandbox:
        yield tribe_sandbox


def account(sandbox: TribeSandbox, config: Path, **environment: str) -> Sequence[Line]:
    def no_share() -> None:
        raise AssertionError

    told = {**sandbox.environment(), "VIBES_SYNC_CONFIG": str(config), **environment}
    with Bench(told, no_share) as bench:  # type: ignore[arg-type]
        return [line for line in examine(bench, CHECKS) if line.check.startswith("tribe/")]


def test_a_tribe_as_sync_yaml_maps_it_is_well(running: TribeSandbox, tmp_path: Path) -> None:
    lines = account(running, tribe_sync_config(tmp_path))
    assert {line.status for line in lines} == {"ok"}
    assert {line.check for line in lines} == {check.name for check in tribe.CHECKS}


def test_missing_fields_and_labels_are_named_with_near_ones(
    running: TribeSandbox, tmp_path: Path
) -> None:
    config = tribe_sync_config(tmp_path)
    text = config.read_text(encoding="utf-8")
    wrong = text.replace("FirstName", "FirstNam").replace(OFFERS, "Offer by SMS")
    config.write_text(wrong.replace("[VIP]", "[Fair of an earlier year]"), encoding="utf-8")
    lines = account(running, config)
    told = {(line.check, line.status): line.told for line in lines}
    assert "did you mean FirstName" in told["tribe/fields", "fail"]
    assert "did you mean Offers by SMS" in told["tribe/labels", "fail"]
    assert "switched off" in told["tribe/labels", "warn"]
    assert all(line.cure for line in lines if line.status != "ok")


def test_a_wrong_secret_is_said_and_the_rest_waits(running: TribeSandbox, tmp_path: Path) -> None:
    config = tribe_sync_config(tmp_path)
    first, *others = account(running, config, TRIBE_CLIENT_SECRET="wrong")
    assert first.status == "fail"
    assert "TRIBE_CLIENT_SECRET" in (first.cure or "")
    assert {line.status for line in others} == {"not checked"}


def test_a_database_as_the_source_has_no_line_about_tribe(running: TribeSandbox) -> None:
    assert account(running, EXAMPLE) == []
