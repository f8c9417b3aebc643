"""Commands that only look at what is recorded create nothing where nothing is."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from vibes_pipelines.cli.main import main
from vibes_pipelines_tests.support.loop import EXAMPLE


@pytest.mark.parametrize(
    "command",
    [
        ("approve", "abcdef", "--reason", "x"),
        ("explain", "C1"),
        ("report",),
        ("report", "--day", "2026-01-05"),
        ("events", "status"),
        ("callbacks", "parked", "list"),
        ("callbacks", "parked", "retry", "1", "--reason", "x"),
        ("callbacks", "parked", "drop", "1", "--reason", "x"),
    ],
)
def test_a_folder_without_a_ledger_stays_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    home = tmp_path / "nowhere"
    environment = {"VIBES_HOME": str(home), "VIBES_SYNC_CONFIG": str(EXAMPLE)}
    result = CliRunner().invoke(main, command, env=environment | {"VIBES_LEDGER_URL": ""})
    assert result.exit_code == 1
    assert f"no ledger at {home}" in result.output
    assert "set VIBES_HOME" in result.output
    assert not home.exists()
