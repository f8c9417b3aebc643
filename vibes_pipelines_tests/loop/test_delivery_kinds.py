"""Invitations, numbers in place of others, opt-outs in bulk and hostile text, the whole way round.

Real HTTP and SFTP; the sandbox's audit counts what reached it.
"""

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest

from vibes_pipelines.delivery.consent_watch import OPTED_OUT_SINCE
from vibes_pipelines.sandbox.population import build_world
from vibes_pipelines.stages import delivering
from vibes_pipelines.stages.failures import WITHDRAWN, write_failures
from vibes_pipelines.store.inbox import Arrival, Inbox
from vibes_pipelines.vibes.callbacks import SUBSCRIPTION_REMOVED
from vibes_pipelines_tests.support.loop import (
    SEND,
    Loop,
    agreed_keys,
    edited_sync_config,
)
from vibes_pipelines_tests.support.second_morning import running_second_morning

POPULATION = (300, 57)  # people and seed
AGREED = agreed_keys(build_world(*POPULATION))
LIST = "1234"
CAMPAIGN = "777"
SLOW_API = {"VIBES_API_RATE_PER_S": "5", "VIBES_SFTP_GAP_S": "0"}

# Everything that a file format, a spreadsheet or a terminal has ever stumbled over.
HOSTILE = (
    'O"Brien',
    '"',
    '""quoted""',
    "comma, comma",
    "line\nbreak",
    "carriage\r\nreturn",
    "tab\tstop",
    "pipe|pipe",
    "semi;colon",
    "=1+1",
    "+12",
    "-3",
    "@SUM(A1)",
    "007",
    "1e5",
    "NULL",
    "null",
    "[Null]",
    "مرحبا",
    "שלום",
    "\u202etxt.exe",
    "👩‍👩‍👧",
    "Zoe\u0308",
    "back\\slash",
    "'; DROP TABLE contacts; --",
    "<b>bold</b>",
    "Fields: a",
    "#comment",
    "true",
)


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Loop]:
    """The second morning; opt-ins invite, and a changed number replaces the person's."""
    config = edited_sync_config(
        tmp_path,
        (
            "changed_at: sms_opt_in_at}",
            'changed_at: sms_opt_in_at, campaign: "777", invites: true}',
        ),
        ("mdn_change: quarantine", "mdn_change: replace"),
        (
            "opt_outs: {max_rows: 5000,  max_share: 0.05}",
            "opt_outs: {max_rows: 5000, max_share: null}",
        ),
        (
            "invites:  {max_rows: 500,   max_share: 0.01}",
            "invites:  {max_rows: 500, max_share: null}",
        ),
    )
    with running_second_morning(tmp_path, POPULATION, config) as running:
        yield running


def effects(loop: Loop) -> dict[str, int]:
    return loop.sandbox.audit()["effects"]  # type: ignore[return-value]


def statuses(loop: Loop, lane: str, diff_set: str) -> dict[tuple[str, str], int]:
    counts = loop.project.ledger.status_counts(diff_set)
    return {(route, status): n for (one, route, status), n in counts.items() if one == lane}


def persons(loop: Loop) -> dict[str, Any]:
    found = loop.sandbox.platform.persons.values()
    return {str(person.external_person_id): person for person in found}


def subscribed(loop: Loop, key: str, *, ever: bool = False) -> bool:
    stays = loop.sandbox.platform.subscriptions_of(
        persons(loop)[key].person_key, active_only=not ever
    )
    return any(stay.list_id == LIST for stay in stays)


def strangers(loop: Loop, count: int) -> list[str]:
    """Agreed contacts that never were on the list."""
    known = persons(loop)
    keys = [key for key in AGREED if key in known and known[key].mdn]
    return [key for key in keys if not subscribed(loop, key, ever=True)][:count]


def opt_in(loop: Loop, keys: list[str], day: int) -> None:
    at = f"2026-01-{day:02} 00:30:00"
    loop.edit_contacts(f"sms_opt_in = 'true', sms_opt_in_at = '{at}'", keys)


def invited(loop: Loop) -> Counter[str]:
    """How many texts each person got that ask for a confirmation, by external id."""
    messages = loop.sandbox.account.activity.messages.values()
    return Counter(m.external_person_id or "" for m in messages if "Reply Y" in m.text)


def next_day(loop: Loop) -> Any:
    loop.sandbox.next_day(edits=False)
    return loop.day()


def test_an_opt_in_asks_once_and_a_yes_subscribes(loop: Loop) -> None:
    one, other = keys = strangers(loop, 2)
    opt_in(loop, keys, day=2)
    summary = loop.reconcile()
    loop.deliver()
    assert invited(loop) == {one: 1, other: 1}
    assert statuses(loop, "invites", summary.diff_set) == {("api", "accepted"): 2}
    assert not subscribed(loop, one)

    assert loop.sandbox.account.acquisition.reply(CAMPAIGN, persons(loop)[one], "Y") == "CONFIRMED"
    after = next_day(loop)
    assert (after.confirmed, after.unexplained) == (2, 0)
    assert [subscribed(loop, key) for key in keys] == [True, False]
    next_day(loop)  # the other one's invitation has expired: it is not repeated either
    assert [subscribed(loop, key) for key in keys] == [True, False]
    assert invited(loop) == {one: 1, other: 1}


@pytest.mark.slow
def test_whoever_opted_out_after_the_diff_set_was_made_is_not_asked(loop: Loop) -> None:
    one, other = keys = strangers(loop, 2)
    opt_in(loop, keys, day=2)
    loop.edit_contacts("last_name = 'Opted Out'", [one])
    summary = loop.reconcile()
    with Inbox(loop.project.settings.ledger_url) as inbox:
        body = b"{}"
        said = Arrival(
            source_address="127.0.0.1",
            path="/",
            body=body,
            body_bytes=len(body),
            content_hash="stop",
            event_type=SUBSCRIPTION_REMOVED,
            event_at=datetime(2026, 1, 2, 7, tzinfo=UTC),
            subscription_list_id=LIST,
            external_person_id=one,
        )
        inbox.store([said])
    loop.deliver()
    assert invited(loop) == {other: 1}
    assert persons(loop)[one].custom["last_name"] == "Opted Out"  # the profile goes all the same
    assert statuses(loop, "invites", summary.diff_set) == {
        ("api", "accepted"): 1,
        ("api", "superseded"): 1,
    }
    failures = write_failures(loop.project, loop.today)
    assert failures.by_class == {WITHDRAWN: 1}
    with duckdb.connect() as engine:
        found = engine.execute(
            "SELECT kind, message FROM read_parquet(?)", [str(failures.path)]
        ).fetchall()
    assert found == [("invite", OPTED_OUT_SINCE)]


@pytest.mark.slow
def test_held_invitations_stop_nothing_else(loop: Loop, tmp_path: Path) -> None:
    text = loop.project.settings.sync_config.read_text(encoding="utf-8")
    strict = tmp_path / "strict.yaml"
    strict.write_text(text.replace("invites:  {max_rows: 500,", "invites: {max_rows: 1,"))
    keys = strangers(loop, 3)
    opt_in(loop, keys, day=2)
    loop.edit_contacts("last_name = 'Third'", keys)
    with loop.changed(VIBES_SYNC_CONFIG=strict) as held:
        summary = held.reconcile()
        held.deliver()
        assert invited(held) == {}
        assert effects(held)["api_update"] == 3
        counts = delivering.deliver_invites(held.project, held.today, SEND).counts
        assert counts == {"held": 3}
        held.approve(summary)
        held.deliver()
        assert invited(held) == dict.fromkeys(keys, 1)


def test_numbers_opt_outs_in_bulk_and_hostile_text_leave_and_the_next_day_is_quiet(
    loop: Loop,
) -> None:
    """By file what a file can carry: one of names, one of opt-outs, which sends no text."""
    known = persons(loop)
    keys = [key for key in AGREED if key in known and known[key].mdn]
    moved, named = keys[0], keys[1 : len(HOSTILE) + 1]
    leavers = [key for key in keys if subscribed(loop, key)][:15]
    at = "2026-01-02 00:30:00"
    loop.edit_contacts("mobile = '+13125559876'", [moved])
    loop.edit_contacts(f"sms_opt_in = 'false', sms_opt_in_at = '{at}'", leavers)
    for key, text in zip(named, HOSTILE, strict=True):
        with loop.sandbox.crm.edit() as editor:
            editor.connection.execute(
                "UPDATE contacts SET last_name = ? WHERE contact_id = ?", (text, key)
            )
    texts = len(loop.sandbox.account.activity.messages)
    with loop.changed(**SLOW_API) as slow:
        summary = slow.reconcile()
        slow.approve(summary)  # so many names at once look like another encoding
        slow.deliver()
    assert statuses(loop, "opt_outs", summary.diff_set) == {("file", "accepted"): len(leavers)}
    assert statuses(loop, "persons", summary.diff_set) == {
        ("file", "accepted"): len(HOSTILE),
        ("api", "accepted"): 1,
    }
    assert persons(loop)[moved].mdn == "+13125559876"
    assert not any(subscribed(loop, key) for key in leavers)
    assert len(loop.sandbox.account.activity.messages) == texts
    by_kind = effects(loop)
    assert (by_kind["api_update"], by_kind["import_update"]) == (2, len(HOSTILE))  # null, then set
    assert sum(by_kind.values()) == 2 + len(HOSTILE) + len(leavers)
    after = next_day(loop)
    assert (after.updated, after.unexplained) == (0, 0)
    assert after.confirmed == 1 + len(HOSTILE) + len(leavers)


@pytest.mark.slow
def test_who_was_asked_today_is_not_asked_again_when_the_day_is_landed_anew(
    loop: Loop, tmp_path: Path
) -> None:
    """A person who said Y, and then STOP, is not on the list: only our own ledger tells it."""
    one, other = strangers(loop, 2)
    opt_in(loop, [one], day=2)
    loop.reconcile()
    loop.deliver()
    key = persons(loop)[one].person_key
    assert loop.sandbox.account.acquisition.reply(CAMPAIGN, persons(loop)[one], "Y")
    loop.sandbox.platform.opt_out(key, LIST, loop.sandbox.now())
    opt_in(loop, [other], day=2)
    landed = loop.project.snapshots.find("crm/contacts", loop.today)
    assert landed
    landed.folder.rename(tmp_path / "away")
    anew = loop.reconcile()
    assert anew.invites == 2
    loop.deliver()
    assert invited(loop) == {one: 1, other: 1}
    assert not subscribed(loop, one)
    assert statuses(loop, "invites", anew.diff_set) == {
        ("api", "accepted"): 1,
        ("api", "superseded"): 1,
    }


def test_who_opts_out_in_the_crm_before_the_delivery_is_not_asked(loop: Loop) -> None:
    one, other = keys = strangers(loop, 2)
    opt_in(loop, keys, day=2)
    summary = loop.reconcile()
    loop.edit_contacts("sms_opt_in = 'false', sms_opt_in_at = '2026-01-02 08:00:00'", [one])
    loop.deliver()
    assert invited(loop) == {other: 1}
    assert statuses(loop, "invites", summary.diff_set) == {
        ("api", "accepted"): 1,
        ("api", "superseded"): 1,
    }
