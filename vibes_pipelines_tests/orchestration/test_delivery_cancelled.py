"""A push by API that a person cancels in Dagster: it ends there, and the next run goes on."""

import platform
from pathlib import Path

import dagster as dg
import pytest

from vibes_pipelines.delivery.lane_lease import lease_name
from vibes_pipelines.sandbox.population import build_world
from vibes_pipelines.stages import delivering
from vibes_pipelines.store.ledger import Ledger
from vibes_pipelines.store.records import Lane, Route, Status
from vibes_pipelines_tests.support.dying import PUSH_API, run_to_the_end
from vibes_pipelines_tests.support.loop import SEND, Loop, agreed_keys

EDITED = agreed_keys(build_world(150, seed=3))[:90]
ANSWERS = 20  # with all that may be in flight then, fewer than what is to be sent

Stands = tuple[Lane, Route, Status]
ACCEPTED: Stands = ("persons", "api", "accepted")
SENT: Stands = ("persons", "api", "sent")
PLANNED: Stands = ("persons", "api", "planned")

# The process of a run. After so many answers it does to itself what ends a run of Dagster: the run
# is marked, and its process is interrupted. The interrupt comes to whoever is at work: a
# `callback` of the event loop, the coroutine that takes an `answer`, or the `wait` for the network.
CANCELLED_RUN = """
import asyncio, selectors, signal, sys
import dagster as dg
from dagster._core.definitions.reconstruct import ReconstructableJob, ReconstructableRepository
from vibes_pipelines.orchestration.jobs import delivery_run_config
from vibes_pipelines.orchestration.keys import API_PUSH
from vibes_pipelines.vibes.person_api import PersonApi

upsert, select = PersonApi.upsert, selectors.DefaultSelector.select
answers, cancelled = [], []

def cancel_if_due(at_work):
    if at_work == {at_work!r} and len(answers) >= {answers!r} and not cancelled:
        cancelled.append(at_work)
        [run] = instance.get_runs(limit=1)
        instance.report_run_canceling(run)
        signal.raise_signal(signal.SIGINT)

async def counted_upsert(*args, **kwargs):
    answers.append(await upsert(*args, **kwargs))
    cancel_if_due("answer")
    asyncio.get_running_loop().call_soon(cancel_if_due, "callback")
    return answers[-1]

def watched_select(*args):
    cancel_if_due("wait")
    return select(*args)

PersonApi.upsert, selectors.DefaultSelector.select = counted_upsert, watched_select
definitions = ReconstructableRepository.for_module("vibes_pipelines.definitions", "defs")
config = {{
    "ops": delivery_run_config(dry_run=False, deliveries=(API_PUSH,)).ops,
    "loggers": {{"console": {{"config": {{"log_level": "CRITICAL"}}}}}},
}}
day = {{"dagster/partition": sys.argv[1]}}
with dg.DagsterInstance.get() as instance:
    dg.execute_job(ReconstructableJob(definitions, "api_push"), instance, config, tags=day)
"""


@pytest.mark.parametrize(
    "at_work",
    ["callback", *(pytest.param(place, marks=pytest.mark.slow) for place in ("answer", "wait"))],
)
def test_a_cancelled_delivery_keeps_its_diff_set_open_and_the_next_run_sends_the_rest(
    loop: Loop, at_work: str, tmp_path: Path
) -> None:
    """Law: cancelled at any point and run again, a delivery has each of its effects once."""
    ledger, audit = loop.project.ledger, loop.sandbox.platform.audit
    loop.edit_contacts("last_name = 'Edited'", EDITED)
    diff_set = loop.reconcile().diff_set
    delivering.approve(loop.project, diff_set, "looked at in a test")

    with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
        script = CANCELLED_RUN.format(at_work=at_work, answers=ANSWERS)
        run_to_the_end(loop, script, PUSH_API)
        assert [run.status for run in instance.get_runs()] == [dg.DagsterRunStatus.CANCELED]
    assert _status(ledger, diff_set) == "open"
    assert _leases_seen_by_another_machine(ledger) == set()
    left = ledger.status_counts(diff_set)
    accepted = left.pop(ACCEPTED)
    assert accepted >= ANSWERS - 1  # the receipts of all answers, but for one that was cut off
    assert left.keys() <= {SENT, PLANNED}
    assert sum(left.values()) > 0

    with loop.changed(**PUSH_API) as again:
        delivering.push_persons(again.project, again.today, SEND)
    rows = accepted + sum(left.values())
    assert _status(ledger, diff_set) == "delivered"
    assert ledger.status_counts(diff_set) == {ACCEPTED: rows}
    assert audit.effects() == rows
    assert audit.repeats() <= left.get(SENT, 0)


def _status(ledger: Ledger, diff_set: str) -> str:
    newest = ledger.newest_diff_set()
    assert newest is not None
    assert newest.diff_set == diff_set
    return newest.status


def _leases_seen_by_another_machine(ledger: Ledger) -> set[str]:
    """It cannot tell that the holder's process has ended: only what was given back is free."""
    with pytest.MonkeyPatch.context() as elsewhere:
        elsewhere.setattr(platform, "node", lambda: "elsewhere")
        return ledger.live_leases([lease_name("persons")])
