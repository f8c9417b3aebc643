"""Caps of `sync.yaml`: what a cap that is written in part leaves out."""

from typing import Any

import pytest
from pydantic import ValidationError

from vibes_pipelines.sync_config.apsis import ProfileGuards
from vibes_pipelines.sync_config.guards import Guards


@pytest.mark.parametrize("section", [Guards, ProfileGuards])
@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ({}, (5_000, 0.05)),
        ({"max_rows": 7}, (7, 0.05)),
        ({"max_share": 0.5}, (5_000, 0.5)),
        ({"max_rows": 7, "max_share": None}, (7, None)),
    ],
)
def test_a_limit_left_out_is_the_default_of_its_operation_and_only_null_is_none(
    section: type[Guards | ProfileGuards], written: dict[str, Any], meant: tuple[Any, Any]
) -> None:
    cap = section.model_validate({"opt_outs": written}).opt_outs
    assert (cap.max_rows, cap.max_share) == meant
    assert section.model_validate({"opt_outs": cap}).opt_outs == cap


@pytest.mark.parametrize(
    "written", [{"clears": {"max_rows": True}}, {"clears": {"max_share": True}}]
)
def test_a_boolean_is_no_limit(written: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="'true' is no number"):
        Guards.model_validate(written)
