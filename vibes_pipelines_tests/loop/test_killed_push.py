"""SIGKILL at any point of a day, then the same again: nothing lost, nothing repeated, nothing half.

A process of its own runs the real stages against the sandbox and is killed, from outside while the
API is pushed, or by its own hand at a chosen line. The sandbox counts the effects.
"""

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from vibes_pipelines.sandbox.population import build_world
from vibes_pipelines.stages import landing
from vibes_pipelines.sync_config import EXTRACT_FEEDS
from vibes_pipelines_tests.support.dying import (
    DELIVER,
    PUSH_API,
    PUSH_FILE,
    WAIT_S,
    Point,
    run_to_death,
    run_to_the_end,
    start,
)
from vibes_pipelines_tests.support.loop import Loop, agreed_keys, running_loop

POPULATION = (450, 41)  # people and seed
EDITED = agreed_keys(build_world(*POPULATION))[:400]
SLOW_API = {**PUSH_FILE, "VIBES_API_RATE_PER_S": "20"}  # so that two files are worth their while
LAND = """
import sys
from vibes_pipelines.stages import landing
from vibes_pipelines.stages.project import open_project

day = sys.argv[1]
with open_project() as project:
    landing.land_contacts(project, day)
    landing.land_extracts(project, day)
    from vibes_pipelines.orchestration.resources import ShareResource
    for feed in landing.LANDED_SHARE_FEEDS:
        landing.land_share(project, day, feed, ShareResource().connector())
"""


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Loop]:
    """A first day, reconciled and approved: 400 contacts were edited, nothing is sent."""
    with running_loop(tmp_path, build_world(*POPULATION)) as running:
        running.edit_contacts("last_name = 'Edited'", EDITED)
        yield running


def effects(loop: Loop) -> int:
    return loop.sandbox.platform.audit.effects()


def approved(loop: Loop) -> str:
    summary = loop.reconcile()
    loop.approve(summary)
    return summary.diff_set


def assert_exactly_once(loop: Loop, diff_set: str) -> None:
    """One effect for each operation that the platform accepted, whatever was repeated."""
    counts = loop.project.ledger.status_counts(diff_set)
    finished = {status for _, _, status in counts}
    assert finished <= {"accepted", "rejected"}
    accepted = sum(
        rows
        for (_, route, status), rows in counts.items()
        if route != "crm" and status == "accepted"
    )
    assert effects(loop) == accepted >= len(EDITED)
    by_person: dict[str, dict[str, int]] = loop.sandbox.audit()["effects_by_person"]  # type: ignore[assignment]
    assert {count for kinds in by_person.values() for count in kinds.values()} == {1}
    persons = {p.external_person_id: p for p in loop.sandbox.platform.persons.values()}
    assert {persons[key].custom["last_name"] for key in EDITED} == {"Edited"}


def assert_next_day_is_quiet(loop: Loop) -> None:
    loop.sandbox.next_day(edits=False)
    account = loop.day()
    assert (account.added, account.updated, account.unexplained) == (0, 0, 0)
    assert account.confirmed >= len(EDITED)


def test_an_api_push_killed_twice_has_every_effect_exactly_once(loop: Loop) -> None:
    diff_set = approved(loop)
    for reached in (100, 250):
        pushing = start(loop, DELIVER, PUSH_API)
        deadline = time.monotonic() + WAIT_S
        while effects(loop) < reached and time.monotonic() < deadline:
            time.sleep(0.02)
        pushing.send_signal(signal.SIGKILL)
        assert pushing.wait(WAIT_S) == -signal.SIGKILL
        assert reached <= effects(loop) < len(EDITED)
    run_to_the_end(loop, DELIVER, PUSH_API)
    assert_exactly_once(loop, diff_set)
    assert 0 < loop.sandbox.platform.audit.repeats() < 2 * 232  # receipts unwritten at each kill
    assert_next_day_is_quiet(loop)


LEDGER = "vibes_pipelines.store.ledger"
SESSION = "vibes_pipelines.vibes.sftp_session"
UPLOAD_POINTS = {
    "recorded as sent, not uploaded": Point(SESSION, "SftpSession.upload", 1, "before"),
    "whole under its temporary name": Point("paramiko", "SFTPClient.posix_rename", 1, "before"),
    "uploaded, no report looked for": Point(SESSION, "SftpSession.upload", 1, "after"),
    "report read, not recorded": Point(LEDGER, "Ledger.finish_batch", 1, "before"),
    "some reports recorded": Point(LEDGER, "Ledger.finish_batch", 1, "after"),
}


@pytest.mark.slow
def test_an_upload_killed_at_every_point_has_every_effect_exactly_once(loop: Loop) -> None:
    """One delivery that dies at each point in turn, and is started again each time."""
    loop.edit_contacts("zip = '60601'", EDITED[:150])  # a second set of columns: a second file
    diff_set = approved(loop)
    for point in UPLOAD_POINTS.values():
        run_to_death(loop, DELIVER, point, SLOW_API)
    assert {batch.status for batch in loop.project.ledger.batches()} == {"sent", "done"}
    run_to_the_end(loop, DELIVER, SLOW_API)
    assert {batch.status for batch in loop.project.ledger.batches()} == {"done"}
    assert_exactly_once(loop, diff_set)
    assert_next_day_is_quiet(loop)


STORE = "vibes_pipelines.store.snapshots"
TRANSFER = "vibes_pipelines.vibes.sftp_transfer"
LANDING_POINTS = {
    "contacts written, no manifest": (Point(STORE, "_complete", 1, "before"), set()),
    "second extract fetched in part": (
        Point(TRANSFER, "_Download._write", 2, "after"),
        {landing.CONTACTS, EXTRACT_FEEDS[0]},
    ),
    "persons whole, not in place": (
        Point(STORE, "_keep_only", 2, "after"),
        {landing.CONTACTS, *EXTRACT_FEEDS},
    ),
}


@pytest.mark.slow
def test_a_landing_killed_at_any_point_leaves_nothing_half_landed(loop: Loop) -> None:
    """What was landed before the kill stays; what was being landed is not there at all."""
    store, root = loop.project.snapshots, loop.project.settings.home / "landing"
    feeds = {landing.CONTACTS, *EXTRACT_FEEDS, *landing.LANDED_SHARE_FEEDS}
    for point, whole in LANDING_POINTS.values():
        run_to_death(loop, LAND, point)
        assert {feed for feed in feeds if store.find(feed, loop.today)} == whole
        assert list(root.rglob(".unfinished-*")) != []
    hashes = {feed: content_hash(loop, feed) for feed in whole}
    assert loop.reconcile().contacts == len(loop.sandbox.crm.rows())
    assert {feed: content_hash(loop, feed) for feed in whole} == hashes
    assert list(root.rglob(".unfinished-*")) == []


def content_hash(loop: Loop, feed: str) -> str:
    snapshot = loop.project.snapshots.find(feed, loop.today)
    assert snapshot is not None
    return snapshot.manifest.content_hash
