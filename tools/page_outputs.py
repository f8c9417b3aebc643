"""What the pages show of commands: each is run while the documentation is built, in one story.

The first hour, a set-up that is broken and mended again, three days in which a misspelt tier is
corrected, a look at the quarantine, and an erasure at the end.
"""

import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from tools.first_hour import FirstHour, first_hour
from tools.page_blocks import Block, Place, parts, shown_parts
from vibes_pipelines.sandbox.population import build_world
from vibes_pipelines.sandbox.service import Sandbox

PEOPLE, SEED = 500, 6
MISSPELT = "C100079"
"""The contact whose tier is misspelt on the first day; docs/explain.md asks for it."""

BREAKS = (
    ("from: post_code,", "from: postcode,"),
    ("Gold: gold", "Gold: golden"),
    ('list: "1234"', 'list: "4321"'),
)
"""What docs/doctor.md has somebody get wrong in sync.yaml."""

SET_UP, DOCTOR, EXPLAIN = "set-up.md", "doctor.md", "explain.md"
QUARANTINE, PRIVACY = "quarantine.md", "privacy.md"


def page_outputs(docs: Path) -> dict[str, list[str]]:
    """The outputs of every page that has places for them, in the order of the places.

    Raises:
        FirstHourError: a command did not end as its page says.
    """
    texts = {page.name: page.read_text(encoding="utf-8") for page in docs.glob("*.md")}
    with tempfile.TemporaryDirectory(prefix="first-hour-") as scratch:
        root = Path(scratch)
        world = build_world(PEOPLE, seed=SEED)
        with Sandbox(root / "sandbox", world) as sandbox, first_hour(root, sandbox) as hour:
            _spell(hour, "Platinum")
            shown = {SET_UP: _follow(hour, parts(texts[SET_UP]))}
            shown[DOCTOR] = _broken(hour, texts[DOCTOR])
            hour.next_day()
            _spell(hour, "Gold")
            hour.next_day()
            hour.next_day()
            for page in (EXPLAIN, QUARANTINE, PRIVACY):
                shown[page] = _follow(hour, shown_parts(texts[page]))
    return shown


def _follow(hour: FirstHour, steps: Iterable[Block | Place], ends: int = 0) -> list[str]:
    done = [hour.do(step, ends) for step in steps]
    return [text for text in done if text is not None]


def _spell(hour: FirstHour, tier: str) -> None:
    hour.edit_crm("UPDATE customers SET loyalty_level = ? WHERE customer_no = ?", tier, MISSPELT)


def _broken(hour: FirstHour, page: str) -> list[str]:
    """What doctor says of three slips of the finger, which are mended again afterwards."""
    config, kept = Path("sync.yaml"), Path("sync.yaml.whole")
    shutil.copy(config, kept)
    text = config.read_text(encoding="utf-8")
    for right, wrong in BREAKS:
        if right not in text:
            msg = f"init wrote no {right!r}, which docs/doctor.md breaks"
            raise ValueError(msg)
        text = text.replace(right, wrong)
    config.write_text(text, encoding="utf-8")
    try:
        return _follow(hour, shown_parts(page), ends=1)
    finally:
        kept.replace(config)
