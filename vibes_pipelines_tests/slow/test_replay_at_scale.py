"""Replay ≡ plan for very many rows: what the platform makes of each file is exactly the plan.

Two readers that know nothing of the writer: the project's own model, and the sandbox's importer.
"""

import unicodedata
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from random import Random

import pyarrow as pa
import pytest

from vibes_pipelines.delivery.file_import import Folders, deliver_files
from vibes_pipelines.delivery.replay import left_by
from vibes_pipelines.sandbox.imports import process_import
from vibes_pipelines.sandbox.platform import Platform
from vibes_pipelines.sandbox.population import build_world
from vibes_pipelines.sandbox.service import Sandbox
from vibes_pipelines.store.ledger import Ledger
from vibes_pipelines.sync_config import FieldType, SyncConfig
from vibes_pipelines.vibes.person_import import read_import
from vibes_pipelines_tests.support.deliveries import (
    BY_FILE,
    CONFIG,
    FakeServer,
    change,
    planned,
    update,
)

FIELDS: dict[str, FieldType] = {
    "first_name": "string",
    "birthdate": "date",
    "score": "number",
    "tier": "single_select",
    "interests": "multi_select",
    "zip_code": "postal_code",
}
CHARACTERS = "aZ é\"',|;\r\n\t=+-@0#:[]{}\\/<>%&مש👩\u202e\u0301"
State = dict[str, str | None]


def config() -> SyncConfig:
    document = CONFIG.model_dump(by_alias=True, exclude_unset=True)
    document["fields"] = [{"from": name, "to": name, "type": kind} for name, kind in FIELDS.items()]
    return SyncConfig.model_validate(document)


class Drawing:
    """Random canonical values of every field type; None is empty."""

    def __init__(self, seed: int, options: dict[str, list[str]]) -> None:
        self._random = Random(seed)
        self._options = options

    def state(self) -> State:
        return {name: self.value(name) for name in FIELDS}

    def changed(self, before: State) -> State:
        """Some fields changed, cleared or filled; always at least one."""
        names = [name for name in FIELDS if self._random.random() < 0.4] or ["first_name"]
        after = {name: self.value(name) for name in names}
        return {name: value for name, value in after.items() if value != before[name]}

    def value(self, name: str) -> str | None:
        if self._random.random() < 0.2:
            return None
        return {
            "number": lambda _: str(self._random.randrange(-10_000, 10_000)),
            "date": lambda _: str(date(1920, 1, 1) + timedelta(self._random.randrange(36_000))),
            "single_select": lambda name: self._random.choice(self._options[name]),
            "multi_select": self._several,
            "postal_code": lambda _: f"{self._random.randrange(100_000):05}",
            "string": self._text,
        }[FIELDS[name]](name)

    def _several(self, name: str) -> str:
        options = self._options[name]
        return "|".join(sorted(self._random.sample(options, self._random.randint(1, 3))))

    def _text(self, _: str) -> str:
        length = self._random.randint(1, 12)
        text = "".join(self._random.choice(CHARACTERS) for _ in range(length))
        return unicodedata.normalize("NFC", text).strip() or "Ada"


def options_of(platform: Platform) -> dict[str, list[str]]:
    fields = platform.field_by_name
    return {name: sorted(fields[name].options) for name in ("tier", "interests")}


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "rows", [1_500, pytest.param(100_000, marks=pytest.mark.slow, id="100000")]
)
def test_two_readers_leave_exactly_the_planned_values(tmp_path: Path, rows: int) -> None:
    platform = Sandbox(tmp_path / "sandbox", build_world(5, seed=1)).platform
    drawing = Drawing(rows, options_of(platform))
    states = {f"C{n}": drawing.state() for n in range(rows)}
    wanted = {key: drawing.changed(state) for key, state in states.items()}
    changed = {key: after for key, after in wanted.items() if after}
    persons = [
        update(key, *(change(name, value, states[key][name]) for name, value in after.items()))
        for key, after in changed.items()
    ]
    with Ledger(f"sqlite:///{tmp_path / 'ledger.db'}") as ledger:
        plan = planned(
            ledger, tmp_path / "out", persons=persons, estimates=BY_FILE, config=config()
        )
        folder = tmp_path / "work"
        server = FakeServer()
        deliver_files(
            plan.batches, server.session, Folders("/in", "/reports"), ledger, FIELDS, folder
        )
        by_file = {
            str(operation.external_person_id)
            for batch in plan.batches
            for operation in ledger.batch_operations(batch.batch_id)
        }
    assert len(by_file) > rows / 4
    after_files = {key: dict(state) for key, state in states.items()}
    for batch in plan.batches:
        written = read_import(folder / batch.name)
        keys = written.cells["external_person_id"].to_pylist()
        for name in FIELDS.keys() & set(written.columns):
            before = pa.chunked_array([[states[key][name] for key in keys]], pa.string())
            left = left_by(written.cells[name], before, FIELDS[name]).to_pylist()
            for key, value in zip(keys, left, strict=True):
                after_files[key][name] = value
    for key, state in states.items():
        planned_state = {**state, **(changed.get(key, {}) if key in by_file else {})}
        assert after_files[key] == planned_state
    for batch in plan.batches:
        outcome = process_import(platform, batch.name, (folder / batch.name).read_bytes())
        assert outcome.report_csv.count("\n") == 1  # its first row alone: none was refused
    landed = {str(p.external_person_id): p.custom for p in platform.persons.values()}
    for key in by_file:
        told = {name: as_text(landed[key].get(name)) for name in changed[key]}
        assert told == changed[key]


def as_text(value: object) -> str | None:
    """A value of the sandbox's platform as canonical text."""
    if value is None or value == []:
        return None
    if isinstance(value, list | tuple | set | frozenset):
        return "|".join(sorted(map(str, value)))
    if isinstance(value, Decimal):
        return f"{value:.0f}"
    return value.date().isoformat() if isinstance(value, datetime) else str(value)
