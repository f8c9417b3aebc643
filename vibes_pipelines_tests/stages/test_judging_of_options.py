"""The summary of a day tells of option keys at the platform that nothing maps."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from vibes_pipelines.reconcile.destinations import VIBES, Destination
from vibes_pipelines.reconcile.run import Inputs, reconcile
from vibes_pipelines.stages.judging import judge
from vibes_pipelines.store.snapshots import SnapshotStore, Source
from vibes_pipelines.sync_config import SyncConfig
from vibes_pipelines_tests.reconcile.conftest import PERSON, build_config, write_parquet

DAY = "2026-01-05"
TIER = {"from": "tier", "to": "tier", "type": "single_select", "options": {"Gold": "gold"}}


class NothingDelivered:
    """A ledger before the first delivery."""

    def last_delivered(self, *, before: str) -> None:
        assert before == DAY


@dataclass
class FirstDay:
    """What judging asks of a project."""

    config: SyncConfig
    snapshots: SnapshotStore
    ledger: NothingDelivered
    destination: Destination = VIBES


def test_unknown_option_keys_are_counted_and_break_no_guard(tmp_path: Path) -> None:
    config = build_config(fields=[TIER])
    store = SnapshotStore(tmp_path / "landing")
    rows = [
        {"person_key": "k1", "external_person_id": "C1", "tier": "platinum"},
        {"person_key": "k2", "external_person_id": "C2", "tier": "gold"},
    ]

    def write(place: Path) -> Source:
        write_parquet(place / "data.parquet", rows, [*PERSON, "tier"])
        return Source("persons", datetime(2026, 1, 5, tzinfo=UTC))

    persons = store.land("share/persons", DAY, write)[0].folder
    contacts = write_parquet(
        tmp_path / "contacts.parquet", [{"id": "C2", "tier": "Gold"}], ["id", "phone", "tier"]
    )
    found = reconcile(config, Inputs(contacts, persons, relative_guards=False), tmp_path / "out")
    project = FirstDay(config, store, NothingDelivered())
    judged = judge(project, DAY, found, tmp_path / "out")  # type: ignore[arg-type]
    assert judged.unknown_options == {"tier": 1}
    assert judged.breaches == ()
    written = json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))
    assert written["unknown_options"] == {"tier": 1}
    assert written["diff_set"] == found.diff_set
