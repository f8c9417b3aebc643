"""Faults on the way out: refusals, storms, silence and lost answers, over real HTTP and SFTP.

The sandbox's audit counts changes of state per person: every change happens once, none is lost.
"""

from collections import Counter
from collections.abc import Iterator
from functools import partialmethod
from pathlib import Path

import pytest

from vibes_pipelines.reconcile.summary import CONTACT_STATUSES
from vibes_pipelines.report.account import DayAccount
from vibes_pipelines.sandbox import pickup
from vibes_pipelines.sandbox.imports import ImportOutcome, process_import
from vibes_pipelines.sandbox.platform import Platform
from vibes_pipelines.sandbox.population import build_world
from vibes_pipelines.sandbox.switches import Switches
from vibes_pipelines.stages import delivering
from vibes_pipelines.stages.delivering import NoAnswerError
from vibes_pipelines.vibes.person_api import PersonApi, VibesAuthError
from vibes_pipelines_tests.support.loop import SEND, Loop, agreed_keys
from vibes_pipelines_tests.support.second_morning import running_second_morning

POPULATION = (300, 31)  # people and seed
AGREED = agreed_keys(build_world(*POPULATION))
EDITED = AGREED[:12]
LIST = "1234"
NO_ANSWER = 0


@pytest.fixture
def loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Loop]:
    """The second morning: twelve contacts edited, three opted out at the CRM, an impatient client.

    A request that would wait for half a minute is given up after two seconds.
    """
    impatient = partialmethod(PersonApi.__init__, timeout_s=2, backoff_s=0.02)
    monkeypatch.setattr(PersonApi, "__init__", impatient)
    with running_second_morning(tmp_path, POPULATION) as running:
        running.edit_contacts("last_name = 'Second Day'", EDITED)
        opt_out(running, AGREED[100:], 3)
        yield running


def opt_out(loop: Loop, among: list[str], count: int) -> None:
    opted_in = {r["contact_id"] for r in loop.sandbox.crm.rows() if r["sms_opt_in"] == "true"}
    leavers = [key for key in among if key in opted_in][:count]
    loop.edit_contacts("sms_opt_in = 'false', sms_opt_in_at = '2026-01-01 20:00:00'", leavers)


def faulty(action: str, path_regex: str = "", **more: object) -> dict[str, object]:
    return {"match": {"path_regex": path_regex}, "action": action, **more}


def of(*keys: str) -> str:
    """A pattern of paths of the API about the persons with these external ids."""
    return f"external/({'|'.join(keys)})$"


def effects(loop: Loop) -> Counter[str]:
    by_kind: dict[str, int] = loop.sandbox.audit()["effects"]  # type: ignore[assignment]
    return Counter(by_kind)


def repeats(loop: Loop) -> int:
    return sum(loop.sandbox.audit()["repeats"].values())  # type: ignore[attr-defined]


def troubles(loop: Loop) -> Counter[int]:
    """Answers of the API that were faults, by status."""
    counts: Counter[int] = Counter()
    for request in loop.sandbox.audit()["requests"]:  # type: ignore[attr-defined]
        if request["status"] in {NO_ANSWER, 429} or request["status"] >= 500:
            counts[request["status"]] += request["count"]
    return counts


def assert_each_once(loop: Loop, **kinds: int) -> None:
    """These effects happened, each for another person, and no other."""
    assert effects(loop) == kinds
    by_person: dict[str, dict[str, int]] = loop.sandbox.audit()["effects_by_person"]  # type: ignore[assignment]
    assert {count for counts in by_person.values() for count in counts.values()} == {1}


def statuses(loop: Loop, diff_set: str) -> dict[tuple[str, str], int]:
    counts = loop.project.ledger.status_counts(diff_set)
    return {(lane, status): rows for (lane, _, status), rows in counts.items()}


def next_day(loop: Loop) -> DayAccount:
    loop.sandbox.next_day(edits=False)
    account = loop.day()
    everyone = sum(getattr(account, status) for status in CONTACT_STATUSES)
    assert everyone == len(loop.sandbox.crm.rows())
    return account


def test_a_refused_login_stops_the_push_and_leaves_all_planned(loop: Loop) -> None:
    summary = loop.reconcile()
    with loop.changed(VIBES_API_PASSWORD="not the password") as broken:
        for stage in (delivering.deliver_opt_outs, delivering.push_persons):
            with pytest.raises(VibesAuthError, match=r"HTTP 401.*check VIBES_API_USER"):
                stage(broken.project, broken.today, SEND)
    planned = {("opt_outs", "planned"): 3, ("persons", "planned"): 12}
    assert statuses(loop, summary.diff_set) == planned
    assert effects(loop) == {}

    loop.sandbox.set_faults([faulty("status", of(EDITED[5]), status=401, times=1)])
    with pytest.raises(VibesAuthError, match="HTTP 401"):
        loop.deliver()  # refused again, now in the middle
    loop.deliver()
    assert_each_once(loop, api_update=12, api_unsubscribe=3)
    after = next_day(loop)
    assert (after.confirmed, after.updated, after.unexplained) == (15, 0, 0)


@pytest.mark.slow
def test_refused_operations_are_blocked_until_their_contact_changes(loop: Loop) -> None:
    conflicting, unprocessable, forbidden = EDITED[:3]
    loop.sandbox.set_faults(
        [
            faulty("status", of(conflicting), status=409),
            faulty("status", of(unprocessable), status=422),
            faulty("status", of(forbidden), status=403),
        ]
    )
    already_blocked = 1  # the world's one landline
    account = loop.day()
    assert account.rejections == {"HTTP 409": 1, "UNPROCESSABLE ENTITY": 1, "HTTP 403": 1}
    assert_each_once(loop, api_update=9, api_unsubscribe=3)

    loop.sandbox.set_faults(None)
    blocked = next_day(loop)
    assert (blocked.blocked, blocked.updated) == (already_blocked + 2, 1), "a right may be given"
    assert (blocked.confirmed, blocked.unexplained) == (12, 0)
    assert_each_once(loop, api_update=10, api_unsubscribe=3)

    loop.edit_contacts("last_name = 'Third Day'", [conflicting])
    edited = next_day(loop)
    assert (edited.blocked, edited.updated, edited.rejected) == (already_blocked + 1, 1, 0)
    assert effects(loop)["api_update"] == 11
    assert next_day(loop).unexplained == 0


@pytest.mark.slow
def test_storms_resets_and_silence_are_outlasted(loop: Loop) -> None:
    loop.sandbox.set_faults(
        [
            faulty("status", of(*EDITED[:4]), status=429, times=12),
            faulty("status", of(*EDITED[4:6]), status=500, times=6),
            faulty("reset", of(EDITED[6]), times=2),
            faulty("hang", of(EDITED[7]), times=1),
            faulty("delay", of(EDITED[8]), delay_s=0.3, times=1),
            faulty("status", f"subscriptions/{LIST}$", status=503, times=3),
        ]
    )
    account = loop.day()
    assert account.rejected == 0
    assert troubles(loop) == {429: 12, 500: 6, 503: 3, NO_ANSWER: 3}
    assert_each_once(loop, api_update=12, api_unsubscribe=3)
    assert repeats(loop) == 0
    after = next_day(loop)
    assert (after.confirmed, after.updated, after.unexplained) == (15, 0, 0)


def test_an_effect_whose_answer_is_lost_is_not_repeated(loop: Loop) -> None:
    """Every answer of the first round is lost after its effect, adds and opt-outs among them."""
    new = [row | {"contact_id": "N1", "mobile": None} for row in loop.sandbox.crm.rows()[:1]]
    with loop.sandbox.crm.edit() as editor:
        editor.insert(new)
    loop.sandbox.set_faults(
        [
            faulty("reset", of("N1"), when="after", times=1),
            faulty("status", of(*EDITED[:6]), when="after", status=500, times=6),
            faulty("reset", of(*EDITED[6:9]), when="after", times=3),
            faulty("hang", of(*EDITED[9:12]), when="after", times=3),
            faulty("status", f"subscriptions/{LIST}$", when="after", status=502, times=3),
        ]
    )
    account = loop.day()
    assert account.rejected == 0
    assert_each_once(loop, api_add=1, api_update=12, api_unsubscribe=3)
    assert troubles(loop) == {500: 6, 502: 3, NO_ANSWER: 7}
    assert repeats(loop) == 16
    after = next_day(loop)
    assert (after.confirmed, after.added, after.updated, after.unexplained) == (16, 0, 0, 0)


def test_no_answer_at_all_stays_open_and_a_repush_sends_exactly_that(loop: Loop) -> None:
    summary = loop.reconcile()
    silent = EDITED[:2]
    loop.sandbox.set_faults([faulty("status", of(*silent), status=503)])
    delivering.deliver_opt_outs(loop.project, loop.today, SEND)
    with pytest.raises(NoAnswerError, match=r"2 of 12 got no answer \(HTTP 503\); run the job rep"):
        delivering.push_persons(loop.project, loop.today, SEND)
    assert statuses(loop, summary.diff_set)["persons", "unknown"] == 2
    assert_each_once(loop, api_update=10, api_unsubscribe=3)

    loop.sandbox.set_faults(None)
    repush = delivering.push_persons(loop.project, loop.today, SEND)
    assert (repush.counts["planned"], repush.counts["accepted"]) == (2, 2)
    assert_each_once(loop, api_update=12, api_unsubscribe=3)
    assert next_day(loop).unexplained == 0


@pytest.mark.slow
def test_what_never_got_an_answer_is_called_unexplained_and_sent_again(loop: Loop) -> None:
    """Without a repush it is pending for the visibility lag, then named, then planned anew."""
    loop.reconcile()
    loop.sandbox.set_faults([faulty("status", of(*EDITED[:2]), status=503)])
    delivering.deliver_opt_outs(loop.project, loop.today, SEND)
    with pytest.raises(NoAnswerError):
        delivering.push_persons(loop.project, loop.today, SEND)
    loop.sandbox.set_faults(None)

    waiting = next_day(loop)
    assert (waiting.pending, waiting.not_yet, waiting.updated) == (2, 2, 0)
    named = next_day(loop)
    assert (named.pending, named.unexplained, named.updated) == (0, 2, 2)
    assert_each_once(loop, api_update=12, api_unsubscribe=3)
    assert (next_day(loop).confirmed, next_day(loop).unexplained) == (2, 0)


@pytest.mark.slow
def test_the_rows_of_an_import_file_refused_whole_are_sent_again(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that arrived damaged: the platform's own answer to bytes that are not UTF-8."""
    mass = AGREED[:80]
    loop.edit_contacts("last_name = 'Mass'", mass)

    def damaged(platform: Platform, name: str, data: bytes, switches: Switches) -> ImportOutcome:
        return process_import(platform, name, data + b"\xff", switches)

    with monkeypatch.context() as patch:
        patch.setattr(pickup, "process_import", damaged)
        account = loop.day(approve=True)
    refused = "FileEngine::EncodingDetection::Unknown8BitEncodingDetected"
    assert account.rejections == {refused: 80}
    assert_each_once(loop, api_unsubscribe=3)

    loop.sandbox.next_day(edits=False)
    again = loop.day(approve=True)
    assert (again.updated, again.unexplained, again.rejected) == (80, 0, 0)
    assert again.delivered == {"file": 80, "api": 0}
    assert_each_once(loop, api_unsubscribe=3, import_update=80)
    assert next_day(loop).confirmed == 80
