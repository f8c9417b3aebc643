"""A real `dagster dev`: a backfill rebuilds the past and sends nothing; the lineage reads."""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from playwright.sync_api import Locator, Page, sync_playwright

from vibes_pipelines.sandbox.population import build_world
from vibes_pipelines.stages.reconciling import read_summary
from vibes_pipelines.store.models import operations
from vibes_pipelines_tests.support.loop import Loop, running_loop
from vibes_pipelines_tests.support.real_parts import free_port

ROOT = Path(__file__).parents[2]
START_S, BACKFILL_S, STOP_S = 180, 240, 20

pytestmark = pytest.mark.slow

MADE = {
    "share": ("persons", "subscriptions"),
    "extract": ("current_subscribers", "subscriptions"),
    "crm": ("contacts",),
    "convergence": ("certificate",),
    "reconcile": ("person_changes", "subscription_changes", "crm_changes", "quarantine"),
    "delivery": (
        *("opt_outs", "crm_write_back", "person_import", "api_push", "invites", "rejected"),
    ),
    "report": ("draft", "day"),
}
OUTSIDE = (
    "share_persons",
    "share_subscriptions",
    "sftp_current_subscribers",
    "sftp_subscriptions",
    "crm_contacts",
)
LEFT_TO_RIGHT = [
    ("outside",),
    ("share", "extract", "crm"),
    ("reconcile",),
    ("delivery",),
    ("report",),
]


@dataclass
class Dagster:
    """A served Dagster and the loop whose days it shows."""

    url: str
    loop: Loop
    days: list[str]
    log: Path

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        """Ask the GraphQL API."""
        request = urllib.request.Request(
            f"{self.url}/graphql",
            json.dumps({"query": query, "variables": variables}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=120) as answer:
            document = json.loads(answer.read())
        assert "errors" not in document, document
        found: dict[str, Any] = document["data"]
        return found


@pytest.fixture(scope="module")
def dagster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dagster]:
    """Three delivered days, and `dagster dev` in front of them."""
    home = tmp_path_factory.mktemp("dagster-dev")
    with running_loop(home, build_world(200, seed=7)) as loop:
        days = [loop.today]
        loop.day(approve=True)
        for _ in range(2):
            days.append(loop.sandbox.next_day().isoformat())
            loop.day(approve=True)
        storage = home / "dagster"
        storage.mkdir()
        shutil.copy(ROOT / "dagster.yaml", storage)
        with _served(storage, home / "dagster.log") as url:
            yield Dagster(url, loop, days, home / "dagster.log")


class _served:  # noqa: N801 - reads as a statement
    """`dagster dev` in a session of its own, ended as a whole."""

    def __init__(self, storage: Path, log: Path) -> None:
        self._storage, self._log = storage, log

    def __enter__(self) -> str:
        port = free_port()
        command = [sys.executable, "-m", "dagster", "dev", "-h", "127.0.0.1", "-p", str(port)]
        environment = {
            **os.environ,
            "DAGSTER_HOME": str(self._storage),
            "VIBES_DAGSTER_STORAGE": str(self._storage),
        }
        # A shell that runs the tests in the background lets its children ignore the interrupt.
        former = signal.signal(signal.SIGINT, signal.default_int_handler)
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(
                [*command, "-w", str(ROOT / "workspace.yaml")],
                cwd=ROOT,
                env=environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        signal.signal(signal.SIGINT, former)
        url = f"http://127.0.0.1:{port}"
        try:
            self._wait(url)
        except BaseException:
            self.__exit__()
            raise
        return url

    def _wait(self, url: str) -> None:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self._process.poll() is None:
            with suppress(OSError, HTTPException):  # also one that is too slow yet
                urllib.request.urlopen(f"{url}/server_info", timeout=20).close()
                return
            time.sleep(0.3)
        raise RuntimeError(f"dagster dev did not start:\n{self._log.read_text()}")

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_S)
        with suppress(ProcessLookupError):  # its code server waits for a missed heartbeat
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


LAUNCH = """
mutation Launch($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on PythonError { message }
  }
}"""
BACKFILL = """
query Backfill($id: String!) {
  partitionBackfillOrError(backfillId: $id) {
    ... on PartitionBackfill { status error { message } }
  }
}"""
RUNS = "{ runsOrError { ... on Runs { results { status tags { key value } } } } }"
MATERIALIZED = """
query Materialized($key: AssetKeyInput!) {
  assetNodeOrError(assetKey: $key) {
    ... on AssetNode { assetMaterializations {
      partition
      metadataEntries { label ... on TextMetadataEntry { text } }
    } }
  }
}"""


@dataclass(frozen=True)
class State:
    """What a backfill must leave as it is."""

    hashes: dict[str, str]
    files: dict[str, bytes]
    ledger: list[tuple[Any, ...]]
    audit: dict[str, object]


@dataclass(frozen=True)
class Backfill:
    """A launched backfill and the state before it."""

    backfill_id: str
    before: State


@pytest.fixture(scope="module")
def backfill(dagster: Dagster) -> Backfill:
    """A backfill of every asset over the three days; the daemon needs a minute for it."""
    before = _state(dagster)
    keys = [{"path": [group, name]} for group, names in MADE.items() for name in names]
    params = {"partitionNames": dagster.days, "assetSelection": keys}
    launched = dagster.ask(LAUNCH, params=params)["launchPartitionBackfill"]
    assert launched["__typename"] == "LaunchBackfillSuccess", launched
    return Backfill(launched["backfillId"], before)


def _state(dagster: Dagster) -> State:
    loop = dagster.loop
    return State(
        {day: read_summary(loop.project, day).diff_set for day in dagster.days},
        _files(loop),
        _ledger(loop),
        loop.sandbox.audit(),
    )


def _ledger(loop: Loop) -> list[tuple[Any, ...]]:
    """Every operation with all that became of it."""
    engine = sa.create_engine(loop.project.settings.ledger_url)
    with engine.connect() as connection:
        rows = connection.execute(sa.select(operations).order_by(operations.c.operation_id)).all()
    engine.dispose()
    return [tuple(row) for row in rows]


def _files(loop: Loop) -> dict[str, bytes]:
    """The files of all diff sets; `run.json` holds timings."""
    folder = loop.project.settings.home / "diff_sets"
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != "run.json"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def page(chromium_path: str) -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path, args=CHROMIUM_FLAGS)
        # Only what is in view is drawn, and only cards of full size have their whole name.
        yield browser.new_page(viewport={"width": 3000, "height": 6000})
        browser.close()


def _on_canvas(page: Page, text: str) -> Locator:
    # The side bar lists the groups too; what stands in the canvas comes later in the document.
    return page.get_by_text(text, exact=True).locator("visible=true").last


def _left_edge(page: Page, text: str) -> float:
    box = _on_canvas(page, text).bounding_box()
    assert box is not None
    return box["x"]


@pytest.mark.chromium
@pytest.mark.usefixtures("backfill")  # looked at while it runs, which takes the longer
def test_the_lineage_reads_from_left_to_right(dagster: Dagster, page: Page, tmp_path: Path) -> None:
    page.goto(f"{dagster.url}/asset-groups/")
    page.get_by_text("Materialize all").first.wait_for(timeout=30_000)
    page.wait_for_timeout(2000)
    page.screenshot(path=tmp_path / "groups.png")
    edges = [[_left_edge(page, group) for group in groups] for groups in LEFT_TO_RIGHT]
    assert all(max(left) < min(right) for left, right in itertools.pairwise(edges))
    assert max(edges[1]) < _left_edge(page, "convergence") < min(edges[-1])

    page.mouse.click(2000, 5500)  # the canvas, where nothing is
    page.keyboard.press("Alt+e")
    _on_canvas(page, "person_changes").wait_for(timeout=30_000)
    page.wait_for_timeout(1000)
    page.screenshot(path=tmp_path / "assets.png")
    for group, names in {**MADE, "outside": OUTSIDE}.items():
        for name in (group, *names):
            assert _on_canvas(page, name).is_visible(), name


@pytest.mark.chromium
def test_a_delivery_opens_into_its_steps(dagster: Dagster, page: Page, tmp_path: Path) -> None:
    page.goto(f"{dagster.url}/locations/vibes_pipelines/jobs/api_push/")
    page.get_by_text("View as Asset Graph").click()
    page.get_by_text("Explode graphs").click()
    for step in ("plan", "send", "account"):
        _on_canvas(page, f"delivery__api_push.{step}").wait_for(timeout=30_000)
    page.screenshot(path=tmp_path / "steps.png")


def test_a_backfill_of_three_delivered_days_is_one_run_and_sends_nothing(
    dagster: Dagster, backfill: Backfill
) -> None:
    done = _await(dagster, backfill)
    assert done["status"] == "COMPLETED_SUCCESS", done

    [run] = dagster.ask(RUNS)["runsOrError"]["results"]
    tags = {tag["key"]: tag["value"] for tag in run["tags"]}
    assert run["status"] == "SUCCESS"
    assert tags["dagster/asset_partition_range_start"] == dagster.days[0]
    assert tags["dagster/asset_partition_range_end"] == dagster.days[-1]

    assert _shown(dagster, "reconcile", "person_changes", "diff_set") == backfill.before.hashes
    assert backfill.before.ledger
    assert dagster.loop.sandbox.platform.audit.effects() > 0
    assert _state(dagster) == backfill.before


def _await(dagster: Dagster, backfill: Backfill) -> dict[str, Any]:
    deadline = time.monotonic() + BACKFILL_S
    while time.monotonic() < deadline:
        found = dagster.ask(BACKFILL, id=backfill.backfill_id)["partitionBackfillOrError"]
        if found["status"].startswith("COMPLETED") or found["status"] == "FAILED":
            return dict(found)
        time.sleep(0.5)
    raise TimeoutError(dagster.log.read_text()[-4000:])


def _shown(dagster: Dagster, group: str, name: str, label: str) -> dict[str, str]:
    """One text of the metadata, by day."""
    node = dagster.ask(MATERIALIZED, key={"path": [group, name]})["assetNodeOrError"]
    return {
        made["partition"]: entry["text"]
        for made in node["assetMaterializations"]
        for entry in made["metadataEntries"]
        if entry["label"] == label
    }
