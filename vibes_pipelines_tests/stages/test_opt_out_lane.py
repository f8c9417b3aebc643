"""An opt-out waits neither for profile updates that were there before it nor for the daily job."""

from collections import Counter
from collections.abc import Iterable

import pytest

from benchmarks import opt_out_daemon
from benchmarks.opt_out_lane import P99_BUDGET_S, Load, run
from vibes_pipelines.stages.inbox import drain
from vibes_pipelines.store import inbox as store_inbox
from vibes_pipelines.store.inbox import Finished, Inbox
from vibes_pipelines_tests.stages.test_callback_inbox import (
    LATER,
    Desk,
    desk,  # noqa: F401  (a fixture)
    removed,
)

PAGE = 20


def update(number: int) -> dict[str, object]:
    person = {"external_person_id": f"C{number}", "custom_fields": {"first_name": "Ada"}}
    event = {"callback_type": "person_updated", "event_id": f"U{number}", "event_date": LATER}
    return {**event, "person": person}


def test_opt_outs_overtake_what_was_queued_before_them(
    desk: Desk,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The small version of the load below: which page ends when, and that none is lost."""
    monkeypatch.setattr(store_inbox, "PAGE_ROWS", PAGE)
    desk.receive(*(update(number) for number in range(3 * PAGE)))
    desk.receive(*(removed(f"R{number}") for number in range(2)))
    pages: list[Counter[str]] = []
    finish = Inbox.finish

    def noted(inbox: Inbox, finished: Iterable[Finished]) -> None:
        ended = list(finished)
        finish(inbox, ended)
        pages.append(Counter(one.reason for one in ended))
        if len(pages) == 2:  # one more, in the middle of the queue
            desk.receive(removed("R9", external_person_id="C2"))

    monkeypatch.setattr(Inbox, "finish", noted)
    drain(desk.project, dry_run=False)
    updates = {"left_to_daily": PAGE}  # nothing is approved and delivered yet
    assert pages == [{"opted_out": 2}, updates, {"opted_out": 1}, updates, updates]
    assert {status for status, _ in desk.ends()} == {"applied", "ignored"}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_hundred_thousand_profile_updates_hold_up_no_opt_out() -> None:
    outcome = run(Load())
    print(outcome.report())  # noqa: T201 - the report of a long run
    assert len(outcome.seconds) == outcome.load.opt_outs
    assert outcome.percentile_s(99) < P99_BUDGET_S, outcome.report()


@pytest.mark.slow
@pytest.mark.postgresql
@pytest.mark.timeout(900)
@pytest.mark.parametrize("busy", [False, True], ids=["nothing else runs", "the daily job runs"])
def test_both_ways_through_the_services_of_production(busy: bool) -> None:
    outcome = opt_out_daemon.run(opt_out_daemon.Load(opt_outs=6, every_s=10, busy=busy))
    print(outcome.report())  # noqa: T201 - the report of a long run
    for seconds in (outcome.to_crm, outcome.to_platform):
        assert len(seconds) == outcome.load.opt_outs
        assert opt_out_daemon.percentile_s(seconds, 99) < P99_BUDGET_S, outcome.report()
