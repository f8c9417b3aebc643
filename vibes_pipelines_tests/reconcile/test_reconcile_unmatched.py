"""Contacts that stop meeting the conditions: kept, cleared, or opted out."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from vibes_pipelines.reconcile.summary import CONTACT_STATUSES
from vibes_pipelines_tests.reconcile.conftest import Row, build_config
from vibes_pipelines_tests.reconcile.test_reconcile_next_base import Days, sent

FIELDS = [
    {"from": "name", "to": "name", "type": "string"},
    {"from": "city", "to": "city", "type": "string", "when_null": "clear"},
    {"from": "club", "to": "club", "type": "string", "authority": "platform"},
    {"from": "score", "to": "score", "type": "string", "authority": "fill"},
    {"from": "mood", "to": "mood", "type": "string", "authority": "newest", "changed_at": "at"},
]
VALUES = {"name": "a", "city": "b", "club": "c", "score": "5", "mood": "e"}
BLANK = {"name": None, "city": None, "mood": None}
SUBSCRIBED = {"person_key": "K1", "subscription_list_id": "77", "opt_in_date": "2025-01-01"}


def person(**more: Any) -> Row:
    return {"person_key": "K1", "external_person_id": "C1", **VALUES, **more}


def contact(kind: str, **more: Any) -> Row:
    return {"id": "C1", "type": kind, **VALUES, **more}


def start(folder: Path, policy: str, **more: Any) -> Days:
    contacts = {
        "key": "id",
        "mdn": {"column": "phone", "default_region": "US"},
        "conditions": [{"column": "type", "equals": "A"}],
        "when_unmatched": policy,
    }
    consents = [{"from": "sms", "list": "77"}]
    return Days(folder, build_config(contacts=contacts, fields=FIELDS, consents=consents, **more))


def cleared(out: Path) -> dict[str, tuple[str, str | None, str | None, str]]:
    """Per field of C1: action, before, after, reason."""
    return {
        c["field"]: (c["action"], c["before"], c["after"], c["reason"])
        for row in pq.read_table(out / "person_changes.parquet").to_pylist()
        for c in row["changes"]
    }


def opted_out(out: Path) -> list[tuple[str, str, str]]:
    rows = pq.read_table(out / "subscription_changes.parquet").to_pylist()
    return [(row["side"], row["subscription_list_id"], row["reason"]) for row in rows]


CLEARS = {
    "city": ("clear", "b", None, "unmatched"),
    "mood": ("clear", "e", None, "unmatched"),
    "name": ("clear", "a", None, "unmatched"),
}


@pytest.mark.parametrize("policy", ["keep", "clear", "opt_out"])
def test_who_stops_matching_is_treated_by_the_policy(tmp_path: Path, policy: str) -> None:
    days = start(tmp_path, policy)
    days.day([contact("A")], [person()], subscriptions=[SUBSCRIBED])
    out = days.day([contact("B")], [person()], subscriptions=[SUBSCRIBED])
    assert cleared(out) == (CLEARS if policy == "clear" else {})
    assert opted_out(out) == ([("platform", "77", "unmatched")] if policy == "opt_out" else [])
    assert pq.read_table(out / "crm_changes.parquet").num_rows == 0


@pytest.mark.parametrize("policy", ["clear", "opt_out"])
def test_who_cannot_be_compared_has_not_stopped_matching(tmp_path: Path, policy: str) -> None:
    contacts = {
        "key": "id",
        "conditions": [{"column": "type", "at_least": "2026-01-01"}],
        "when_unmatched": policy,
    }
    consents = [{"from": "sms", "list": "77"}]
    days = Days(tmp_path, build_config(contacts=contacts, fields=FIELDS, consents=consents))
    days.day([contact("2026-02-01")], [person()], subscriptions=[SUBSCRIBED])
    out = days.day([contact("01/02/2026")], [person()], subscriptions=[SUBSCRIBED])
    assert cleared(out) == {}
    assert opted_out(out) == []
    assert days.summary.filtered == 1


@pytest.mark.parametrize("policy", ["clear", "opt_out"])
def test_such_a_contact_stays_filtered_and_its_changes_are_counted_apart(
    tmp_path: Path, policy: str
) -> None:
    days = start(tmp_path, policy)
    days.day([contact("A")], [person()], subscriptions=[SUBSCRIBED])
    days.day([contact("B")], [person()], subscriptions=[SUBSCRIBED])
    summary = days.summary
    assert {s: getattr(summary, s) for s in CONTACT_STATUSES if getattr(summary, s)} == {
        "filtered": 1
    }
    expected = (1, 1, 0) if policy == "clear" else (0, 0, 1)
    assert (summary.filtered_updated, summary.clears, summary.opt_outs_to_platform) == expected


@pytest.mark.parametrize("policy", ["clear", "opt_out"])
def test_who_never_matched_is_left_alone(tmp_path: Path, policy: str) -> None:
    days = start(tmp_path, policy)
    for _ in range(2):
        out = days.day([contact("B")], [person()], subscriptions=[SUBSCRIBED])
        assert (cleared(out), opted_out(out)) == ({}, [])


def test_a_contact_that_is_gone_has_not_stopped_matching(tmp_path: Path) -> None:
    days = start(tmp_path, "clear")
    days.day([contact("A")], [person()])
    other = {"id": "C2", "type": "B"}
    out = days.day([other], [person()])
    assert cleared(out) == {}
    assert days.summary.persons_only == 1


def test_a_contact_in_doubt_is_quarantined_not_cleared(tmp_path: Path) -> None:
    days = start(tmp_path, "clear")
    days.day([contact("A")], [person()])
    out = days.day([contact("B", phone="12")], [person()])
    assert (days.summary.quarantined, days.summary.filtered, cleared(out)) == (1, 0, {})
    assert cleared(days.day([contact("B")], [person()])) == CLEARS


def test_a_key_that_now_means_another_contact_is_left_alone(tmp_path: Path) -> None:
    days = start(tmp_path, "clear")
    days.day([contact("A")], [person()])
    out = days.day([contact("B", id="C9")], [person(external_person_id="C9")])
    assert cleared(out) == {}


@pytest.mark.parametrize("policy", ["keep", "clear", "opt_out"])
def test_what_was_agreed_with_a_filtered_contact_is_no_base_of_another(
    tmp_path: Path, policy: str
) -> None:
    days = start(tmp_path, policy)
    phone = "+13125550100"
    people = [person(external_person_id=None, mdn=phone)]
    days.day([contact("A", phone=phone)], people, subscriptions=[SUBSCRIBED])
    days.day([contact("B", phone=phone)], people, subscriptions=[SUBSCRIBED])  # not adopted yet
    other = contact("B", id="C2", phone=phone, club="x")
    out = days.day([contact("B"), other], people, subscriptions=[SUBSCRIBED])
    assert (cleared(out), opted_out(out)) == ({}, [])
    out = days.day([contact("B"), {**other, "type": "A"}], people, subscriptions=[SUBSCRIBED])
    assert [r["reason"] for r in pq.read_table(out / "crm_changes.parquet").to_pylist()] == [
        "no_base"
    ]


def test_a_clear_under_way_is_not_sent_again_and_still_filtered(tmp_path: Path) -> None:
    days = start(tmp_path, "clear")
    days.day([contact("A")], [person()])
    under_way = [sent(None, "name"), sent(None, "city"), sent(None, "mood")]
    out = days.day([contact("B")], [person()], pending=under_way)
    assert (cleared(out), days.summary.filtered, days.summary.pending) == ({}, 1, 0)
    out = days.day([contact("B")], [person(name=None)], pending=under_way[:1])
    assert set(cleared(out)) == {"city", "mood"}


def test_once_cleared_the_person_is_free(tmp_path: Path) -> None:
    days = start(tmp_path, "clear")
    days.day([contact("A")], [person()])
    days.day([contact("B")], [person()])
    assert cleared(days.day([contact("B")], [person(**BLANK)])) == {}
    assert cleared(days.day([contact("B")], [person(**BLANK | {"name": "other"})])) == {}


@pytest.mark.slow
def test_who_matches_again_gets_the_values_again(tmp_path: Path) -> None:
    days = start(tmp_path, "clear")
    days.day([contact("A")], [person()])
    days.day([contact("B")], [person()])
    days.day([contact("B")], [person(**BLANK)])
    out = days.day([contact("A")], [person(**BLANK)])
    assert cleared(out) == {name: ("set", None, VALUES[name], "crm_changed") for name in BLANK}
    days.day([contact("A")], [person()])
    assert cleared(days.day([contact("B")], [person()])) == CLEARS


def ended(at: str) -> Row:
    return SUBSCRIBED | {"opt_out_date": at}


def test_an_opt_out_is_repeated_until_it_is_seen_and_a_later_opt_in_stands(tmp_path: Path) -> None:
    days = start(tmp_path, "opt_out")
    days.day([contact("A")], [person()], subscriptions=[SUBSCRIBED])

    def next_day(*rows: Row) -> Sequence[tuple[str, str, str]]:
        return opted_out(days.day([contact("B", sms="no")], [person()], subscriptions=rows))

    assert next_day(SUBSCRIBED) == [("platform", "77", "crm_opted_out")]
    days.day([contact("B")], [person()], subscriptions=[SUBSCRIBED])
    assert days.summary.opt_outs_to_platform == 1
    days.day([contact("B")], [person()], subscriptions=[ended("2026-01-01")])
    again = [ended("2026-01-01"), SUBSCRIBED | {"opt_in_date": "2026-01-20"}]
    days.day([contact("B")], [person()], subscriptions=again)
    assert days.summary.opt_outs_to_platform == 0


@pytest.mark.parametrize(
    ("policy", "guard"), [("clear", "clears"), ("clear", "updates"), ("opt_out", "opt_outs")]
)
def test_the_caps_hold_a_mass_of_them(tmp_path: Path, policy: str, guard: str) -> None:
    days = start(tmp_path, policy, guards={guard: {"max_rows": 0}})
    days.day([contact("A")], [person()], subscriptions=[SUBSCRIBED])
    assert days.summary.status == "ok"
    days.day([contact("B")], [person()], subscriptions=[SUBSCRIBED])
    assert [breach.guard for breach in days.summary.breaches] == [f"{guard}.max_rows"]
