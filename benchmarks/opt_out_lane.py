"""The lane of opt-outs: from a callback to the CRM's row, with profile updates queued before it.

A sandbox whose both sides agree, a receiver over HTTP, and the drain in a process of its own, as
the job runs it: again and again, the sensor's interval apart when nothing waits. Opt-outs arrive
one by one while the drain is busy with the queue; each is timed from its answer to the row.

    python -m benchmarks.opt_out_lane [--queued 100000] [--opt-outs 60] [--every 1.0]
"""

import json
import multiprocessing
import sqlite3
import sys
import tempfile
import time
from argparse import ArgumentParser
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from vibes_pipelines.callbacks.intake import posted, read_arrival
from vibes_pipelines.sandbox.population import build_world
from vibes_pipelines.settings import Settings
from vibes_pipelines.stages.inbox import drain
from vibes_pipelines.stages.project import open_project
from vibes_pipelines.store.inbox import Inbox
from vibes_pipelines_tests.support.callbacks import (
    REMOVED,
    RunningReceiver,
    as_bytes,
    running_receiver,
    subscription_body,
)
from vibes_pipelines_tests.support.loop import Loop, agreed_keys, process_environment, running_loop

P99_BUDGET_S = 60.0
SENSOR_S = 30.0
"""How far ticks of the inbox's sensor are apart: what an opt-out waits when no drain is running."""

_AT_ONCE = 5_000
_PATIENCE_S = 300.0


@dataclass(frozen=True)
class Load:
    """How much is queued, and how the opt-outs arrive."""

    queued: int = 100_000
    opt_outs: int = 60
    every_s: float = 1.0
    people: int = 2_000


@dataclass
class Outcome:
    """Seconds from each callback's answer to the CRM's row, and updates drained meanwhile."""

    load: Load
    seconds: list[float] = field(default_factory=list)
    drained: int = 0

    def percentile_s(self, percent: float) -> float:
        """Of the opt-outs."""
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]

    def report(self) -> dict[str, object]:
        """The figures as they are printed."""
        return {
            "queued": self.load.queued,
            "opt_outs": self.load.opt_outs,
            "arrived": len(self.seconds),
            "drained_meanwhile": self.drained,
            **{f"p{p}_s": round(self.percentile_s(p), 2) for p in (50, 99)},
            "max_s": round(max(self.seconds), 2),
        }


def run(load: Load) -> Outcome:
    """Drives a new sandbox and a new inbox."""
    world = build_world(load.people, seed=3)
    with tempfile.TemporaryDirectory() as home, running_loop(Path(home), world) as loop:
        loop.day(approve=True)
        keys = agreed_keys(world)
        url = loop.project.settings.ledger_url
        with Inbox(url) as inbox, running_receiver(inbox) as receiver:
            _queue(inbox, keys, load.queued)
            before = inbox.backlog()["stored"]
            with _draining(loop.environment):
                _wait_until_busy(inbox, before)
                outcome = _time_opt_outs(loop, receiver, keys, load)
            left = inbox.backlog().get("stored", 0)
            outcome.drained = before - left
            return outcome


def _queue(inbox: Inbox, keys: Sequence[str], count: int) -> None:
    """Updates of profiles that change nothing in the CRM: each is read and compared."""
    at = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    for start in range(0, count, _AT_ONCE):
        numbers = range(start, min(start + _AT_ONCE, count))
        bodies = (_update(number, keys[number % len(keys)], at) for number in numbers)
        inbox.store([read_arrival(posted("127.0.0.1", "/callbacks", body)) for body in bodies])


def _update(number: int, key: str, at: str) -> bytes:
    person = {"external_person_id": key, "custom_fields": {"first_name": f"Name{number}"}}
    body = {"callback_type": "person_updated", "event_id": f"U{number}", "event_date": at}
    return as_bytes({**body, "person": person})


@contextmanager
def _draining(environment: Mapping[str, str]) -> "Iterator[None]":
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_drain_for_ever, args=(dict(environment),), daemon=True)
    process.start()
    try:
        yield
    finally:
        process.kill()
        process.join()


def _wait_until_busy(inbox: Inbox, queued: int) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while inbox.backlog().get("stored", 0) >= queued:
        if time.monotonic() > deadline:
            sys.exit(f"the drain did not begin within {_PATIENCE_S:.0f} s")
        time.sleep(0.2)


def _drain_for_ever(environment: dict[str, str]) -> None:
    with process_environment(environment), open_project(Settings(environment)) as project:
        while True:
            drain(project, dry_run=False)
            time.sleep(SENSOR_S)


def _time_opt_outs(
    loop: Loop, receiver: RunningReceiver, keys: Sequence[str], load: Load
) -> Outcome:
    outcome = Outcome(load)
    sent: dict[str, float] = {}
    waiting = list(_opted_in(loop, keys)[: load.opt_outs])
    with closing(sqlite3.connect(loop.sandbox.crm.path)) as crm:
        deadline = time.monotonic() + load.opt_outs * load.every_s + _PATIENCE_S
        begin = time.monotonic()
        while (waiting or sent) and time.monotonic() < deadline:
            due = begin + (load.opt_outs - len(waiting)) * load.every_s
            if waiting and time.monotonic() >= due:
                key = waiting.pop()
                _post(receiver, key)
                sent[key] = time.monotonic()
            for key in _out(crm, sent):
                outcome.seconds.append(time.monotonic() - sent.pop(key))
            time.sleep(0.05)
    if waiting or sent:
        sys.exit(f"{len(waiting) + len(sent)} opt-outs did not arrive within {_PATIENCE_S:.0f} s")
    return outcome


def _opted_in(loop: Loop, keys: Sequence[str]) -> list[str]:
    rows = {
        str(row["contact_id"]): str(row["sms_opt_in"]).lower() for row in loop.sandbox.crm.rows()
    }
    return [key for key in keys if rows.get(key) in {"true", "1", "y", "yes"}]


def _post(receiver: RunningReceiver, key: str) -> None:
    at = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    body = subscription_body(REMOVED, f"R{key}", at, external_person_id=key)
    status = receiver.post(as_bytes(body))
    if status != 200:
        sys.exit(f"the receiver answered {status}")


def _out(crm: sqlite3.Connection, keys: Mapping[str, float]) -> list[str]:
    marks = ", ".join("?" for _ in keys)
    query = f"SELECT contact_id, sms_opt_in FROM contacts WHERE contact_id IN ({marks})"
    with closing(crm.execute(query, list(keys))) as found:
        return [
            key
            for key, state in found.fetchall()
            if str(state).lower() in {"false", "0", "n", "no"}
        ]


def main() -> None:
    """Runs one load and prints its figures; ends with 1 above the budget."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--queued", type=int, default=100_000, help="profile updates before")
    parser.add_argument("--opt-outs", type=int, default=60)
    parser.add_argument("--every", type=float, default=1.0, help="seconds between opt-outs")
    given = parser.parse_args()
    outcome = run(Load(given.queued, given.opt_outs, given.every))
    print(json.dumps(outcome.report(), indent=2))
    if outcome.percentile_s(99) > P99_BUDGET_S:
        sys.exit(f"p99 is above {P99_BUDGET_S:.0f} s")


if __name__ == "__main__":
    main()
