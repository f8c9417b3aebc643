"""The page about the sandbox names every switch, reading, fault and act there is."""

from dataclasses import fields
from pathlib import Path
from typing import get_args

import pytest

from vibes_pipelines.sandbox.acts import ACTS
from vibes_pipelines.sandbox.faults import Action, Faults, Place
from vibes_pipelines.sandbox.import_kinds import KINDS
from vibes_pipelines.sandbox.switches import Switches

PAGE = (Path(__file__).parents[2] / "docs" / "sandbox.md").read_text("utf-8")


@pytest.mark.parametrize("field", fields(Switches), ids=lambda field: field.name)
def test_every_switch_has_its_row_with_its_readings(field: object) -> None:
    name, kind = field.name, field.type  # type: ignore[attr-defined]
    (row,) = (line for line in PAGE.splitlines() if line.startswith(f"| `{name}` |"))
    for reading in get_args(kind):
        assert str(reading) in row


@pytest.mark.parametrize("word", [*get_args(Action), *get_args(Place), *ACTS])
def test_every_fault_and_act_is_named(word: str) -> None:
    assert f"`{word}`" in PAGE


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_import_is_named(kind: str) -> None:
    assert f".{kind}`" in PAGE


def test_the_fault_script_of_the_page_is_taken_as_it_stands(tmp_path: Path) -> None:
    file = tmp_path / "faults.yaml"
    file.write_text(PAGE.partition("```yaml\n")[2].partition("```")[0], "utf-8")

    faults = Faults.load(file)

    refused, late = faults.take("", "/", on="sftp"), faults.take("", "/", on="reports")
    assert (refused and refused.action, late and late.action) == ("refuse", "late")
