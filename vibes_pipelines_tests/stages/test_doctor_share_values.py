"""What the doctor shows of the platform's values: option keys, and of anything else the shape."""

import pytest

from vibes_pipelines.stages.doctor import share
from vibes_pipelines.sync_config import MappedField


@pytest.mark.parametrize(
    ("seen", "told", "hidden"),
    [
        ({"Jansen", "De Vries"}, "xx xxxxx", "Jansen"),
        ({"silver", "Ann-Kathrin B."}, "silver", "Ann"),
    ],
)
def test_only_what_looks_like_a_key_is_shown_of_a_select(
    seen: set[str], told: str, hidden: str
) -> None:
    """A field with names that is mapped as a select shows shapes."""
    mapped = {"G": "gold", "S": "silver"}
    field = MappedField.model_validate(
        {"from": "name", "to": "last_name", "type": "single_select", "options": mapped}
    )
    shown = " ".join(str(one) for one in share._of_keys(field, mapped.values(), seen))
    assert told in shown
    assert hidden not in shown
