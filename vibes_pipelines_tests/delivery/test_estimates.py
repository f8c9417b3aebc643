"""The estimates prove right: of a delivery by file too, and the road chosen is the faster one.

Time is a number here: sessions wait for the gap, and the platform takes as long as the estimates
assume. When a file is picked up nobody can know but that it is within one gap: the estimate is the
mean of all moments, and no single one makes it wrong by more than half of it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean

import pytest

from vibes_pipelines.delivery.file_import import collect_reports, deliver_files
from vibes_pipelines.delivery.routes import Estimates
from vibes_pipelines.store.ledger import Ledger
from vibes_pipelines_tests.support.deliveries import (
    DAY,
    DIFF_SET,
    FOLDERS,
    TYPES,
    FakeRemoteFile,
    FakeServer,
    change,
    planned,
    update,
)

FACTOR = 1.5
"""What an estimate may be wrong by, in either direction, whenever a file is picked up."""

# The proportions of an account of 100 calls a second and 1,000 rows a second, for few rows.
SECONDS = Estimates(rate_per_s=0.02, gap_s=300, pickup_s=300, rows_per_s=0.1, file_cost_s=0)
BREAK_EVEN_ROWS = 15
PICKUPS_S = (30, 90, 150, 210, 270)
"""All moments of a gap, evenly."""


@dataclass
class TimedServer(FakeServer):
    """A file server whose sessions keep the gap, and a platform that takes its time.

    A session ended right before, as the landing's of the extracts does.
    """

    pickup_s: float = 0
    now_s: float = 0
    uploaded_s: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def session(self) -> Iterator[FakeServer]:
        self.now_s += SECONDS.gap_s  # nothing takes any time between two sessions
        with super().session() as opened:
            yield opened

    def upload(self, local: Path, remote_dir: str, name: str) -> None:
        super().upload(local, remote_dir, name)
        self.uploaded_s[name] = self.now_s

    def list(self, directory: str) -> list[FakeRemoteFile]:
        waiting = self.files["/in"]
        self.files["/in"] = {name: text for name, text in waiting.items() if self.is_through(name)}
        done = set(self.files["/in"])
        self.process()
        self.files["/in"] = {name: text for name, text in waiting.items() if name not in done}
        return super().list(directory)

    def is_through(self, name: str) -> bool:
        """Files are imported one after the other, in the order of their names."""
        before = [text for other, text in self.files["/in"].items() if other <= name]
        rows = sum(len(text.splitlines()) - 1 for text in before)
        return self.now_s >= self.uploaded_s[name] + self.pickup_s + rows / SECONDS.rows_per_s


def people(rows: int) -> list[dict[str, object]]:
    return [update(f"C{number}", change("first_name", "Ada")) for number in range(rows)]


def seconds_by_file(folder: Path, rows: int, pickup_s: float) -> float:
    """How long it takes from the end of the session before until the last report is read."""
    server = TimedServer(pickup_s=pickup_s)
    with Ledger(f"sqlite:///{folder / f'{rows}-{pickup_s}.db'}") as ledger:
        by_file = replace(SECONDS, rate_per_s=1e-6)
        plan = planned(ledger, folder / "out", persons=people(rows), estimates=by_file)
        arguments = (plan.batches, server.session, FOLDERS, ledger, TYPES, folder / "work")
        assert deliver_files(*arguments, dry_run=False).rows == rows
        while collect_reports(ledger, server.session, FOLDERS, DAY).waiting:
            pass
        assert ledger.status_counts(DIFF_SET) == {("persons", "file", "accepted"): rows}
    return server.now_s


@pytest.mark.parametrize("rows", [12, 45])
def test_the_estimate_by_file_is_the_mean_of_what_it_takes(tmp_path: Path, rows: int) -> None:
    took_s = [seconds_by_file(tmp_path, rows, pickup_s) for pickup_s in PICKUPS_S]
    estimated_s = SECONDS.file_s(rows)
    assert mean(took_s) == pytest.approx(estimated_s, rel=0.03)
    assert all(estimated_s / FACTOR <= seconds <= FACTOR * estimated_s for seconds in took_s)


@pytest.mark.parametrize("rows", [BREAK_EVEN_ROWS - 1, BREAK_EVEN_ROWS + 1])
def test_the_road_that_is_chosen_is_the_faster_one(
    ledger: Ledger, tmp_path: Path, rows: int
) -> None:
    plan = planned(ledger, tmp_path / "out", persons=people(rows), estimates=SECONDS)
    (chosen,) = plan.seconds
    took_s = {
        "persons/file": mean(seconds_by_file(tmp_path, rows, one) for one in PICKUPS_S),
        "persons/api": rows / SECONDS.rate_per_s,
    }
    assert chosen == min(took_s, key=lambda road: took_s[road])
    assert plan.seconds[chosen] == pytest.approx(took_s[chosen], rel=0.03)
