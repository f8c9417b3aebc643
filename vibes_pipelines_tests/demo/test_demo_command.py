"""`vibes-pipelines demo --json`: the object that others rely on, from a process of its own."""

import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
KEYS = {
    "date",
    "landed",
    "added",
    "updated",
    "unchanged",
    "filtered",
    "quarantined",
    "pending",
    "blocked",
    "delivered",
    "rejected",
    "opt_outs_to_platform",
    "opt_outs_to_crm",
    "approved",
    "certificate_for",
    "confirmed",
    "unexplained",
}


def _demo(home: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vibes_pipelines.cli", "demo", "--home", str(home), *options]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=500, check=False
    )


@pytest.fixture(scope="module")
def days(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    home = tmp_path_factory.mktemp("demo") / "home"
    done = _demo(home, "--persons", "300", "--days", "4", "--json")
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)["days"]
    assert json.loads((home / "account.json").read_text(encoding="utf-8"))["days"] == found
    return found


def test_the_object_has_exactly_the_keys_that_others_rely_on(days: list[dict[str, Any]]) -> None:
    assert [day["date"] for day in days] == [f"2026-01-0{n}" for n in range(1, 5)]
    assert all(day.keys() == KEYS for day in days)
    assert all(set(day["delivered"]) == {"file", "api"} for day in days)


def test_every_landed_contact_is_accounted_for(days: list[dict[str, Any]]) -> None:
    ends = ("added", "updated", "unchanged", "filtered", "quarantined", "pending", "blocked")
    for day in days:
        assert sum(day[end] for end in ends) == day["landed"]["crm/contacts"]


def test_what_is_planned_is_delivered_and_confirmed_the_next_day(
    days: list[dict[str, Any]],
) -> None:
    for day, next_day in pairwise(days):
        sent = sum(day["delivered"].values())
        assert sent == day["added"] + day["updated"] > 0
        assert next_day["certificate_for"] == day["date"]
        assert next_day["unexplained"] == 0
        opt_outs = day["opt_outs_to_platform"] + day["opt_outs_to_crm"]
        assert next_day["confirmed"] >= 0.9 * (sent + opt_outs - day["rejected"])


def test_only_the_first_day_needs_an_approval(days: list[dict[str, Any]]) -> None:
    assert days[0]["approved"]
    assert [day["approved"] for day in days[1:]] == [None, None, None]


def test_a_day_without_edits_sends_nothing_and_what_was_refused_is_blocked(
    days: list[dict[str, Any]],
) -> None:
    quiet = days[3]
    assert quiet["added"] + quiet["updated"] == 0
    assert quiet["opt_outs_to_platform"] + quiet["opt_outs_to_crm"] == 0
    assert quiet["blocked"] == sum(day["rejected"] for day in days) > 0


def test_a_folder_that_the_demo_did_not_make_is_not_removed(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep", encoding="utf-8")
    done = _demo(tmp_path, "--days", "1")
    assert done.returncode == 1
    assert "was not made by the demo" in done.stderr
    assert (tmp_path / "mine.txt").read_text(encoding="utf-8") == "keep"


def test_the_demo_says_where_it_must_be_run(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "vibes_pipelines.cli", "demo", "--persons", "50"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 1
    assert "run the demo in the project's folder" in done.stderr
