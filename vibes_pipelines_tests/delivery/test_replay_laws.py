"""Law: nothing unintended is cleared. Whatever a file may carry, the platform reads as planned."""

import unicodedata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from vibes_pipelines.delivery.file_import import Folders, deliver_files
from vibes_pipelines.store.ledger import Ledger
from vibes_pipelines_tests.support.deliveries import (
    BY_FILE,
    DIFF_SET,
    TYPES,
    FakeServer,
    add,
    change,
    planned,
    update,
)
from vibes_pipelines_tests.support.examples import examples


def canonical(text: str) -> str:
    return unicodedata.normalize("NFC", text).strip()


texts = st.text(st.characters(codec="utf-8") | st.sampled_from('",|\r\n\t:[]\0'))
values = texts.map(canonical).filter(bool)
keys = st.from_regex(r"[a-z0-9_]{1,8}", fullmatch=True)
field_changes = st.fixed_dictionaries(
    {},
    optional={
        "first_name": values | st.none(),
        "birthdate": st.dates().map(lambda day: day.isoformat()) | st.none(),
        "tier": keys | st.none(),
        "interests": st.sets(keys, min_size=1).map(lambda k: "|".join(sorted(k))) | st.none(),
    },
).filter(bool)
rows = st.dictionaries(
    values, st.tuples(st.sampled_from(["add", "update"]), field_changes), min_size=1, max_size=5
)


def as_row(external: str, kind: str, fields: dict[str, str | None]) -> dict[str, Any]:
    before = "before"
    if kind == "update":
        return update(external, *(change(name, after, before) for name, after in fields.items()))
    return add(external, *(change(name, after) for name, after in fields.items() if after))


@settings(max_examples=examples(60), deadline=None)
@given(rows)
def test_every_change_leaves_by_exactly_one_road_and_every_file_replays(
    people: dict[str, tuple[str, dict[str, str | None]]],
) -> None:
    with TemporaryDirectory() as home, Ledger(f"sqlite:///{home}/ledger.db") as ledger:
        persons = [as_row(external, *person) for external, person in sorted(people.items())]
        plan = planned(ledger, Path(home) / "out", persons=persons, estimates=BY_FILE)
        server = FakeServer()
        delivered = deliver_files(
            plan.batches,
            server.session,
            Folders("/in", "/reports"),
            ledger,
            TYPES,
            Path(home) / "work",
            dry_run=False,
        )
        by_api = list(ledger.open_operations(DIFF_SET, "persons", "api"))
    assert delivered.rows + len(by_api) == len(people)
