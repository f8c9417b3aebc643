"""Faults of the contacts: bad rows are quarantined, mass changes held, past days harmless."""

import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from vibes_pipelines.cli.main import main
from vibes_pipelines.delivery.release import ApprovalError
from vibes_pipelines.reconcile.summary import CONTACT_STATUSES
from vibes_pipelines.sandbox.population import build_world
from vibes_pipelines.stages import delivering
from vibes_pipelines.stages.certifying import certify_day
from vibes_pipelines.stages.delivering import NotReleasedError, Options
from vibes_pipelines.stages.reconciling import reconcile_day
from vibes_pipelines_tests.support.loop import SEND, Loop, agreed_keys
from vibes_pipelines_tests.support.second_morning import running_second_morning

POPULATION = (300, 21)  # people and seed
AGREED = agreed_keys(build_world(*POPULATION))
MASS = AGREED[:100]
STAGES = (
    delivering.deliver_opt_outs,
    delivering.write_back,
    delivering.import_persons,
    delivering.push_persons,
)


@pytest.fixture
def second_day(tmp_path: Path) -> Iterator[Loop]:
    """The second morning, after a first day that was approved, delivered and a quiet night."""
    with running_second_morning(tmp_path, POPULATION) as loop:
        yield loop


def rows_of(loop: Loop, name: str) -> list[dict[str, object]]:
    path = loop.project.diff_set_folder(loop.today) / f"{name}.parquet"
    rows: list[dict[str, object]] = pq.read_table(path).to_pylist()
    return rows


def effects(loop: Loop) -> dict[str, int]:
    """Changes of state at the platform so far, by kind."""
    by_kind: dict[str, int] = loop.sandbox.audit()["effects"]  # type: ignore[assignment]
    return by_kind


def opt_out_in_crm(loop: Loop) -> None:
    """Lets one contact, subscribed on both sides, leave at the CRM."""
    rows = {str(row["contact_id"]): row for row in loop.sandbox.crm.rows()}
    key = next(key for key in AGREED[150:] if rows[key]["sms_opt_in"] == "true")
    change = "sms_opt_in = 'false', sms_opt_in_at = '2026-01-01 20:00:00'"
    loop.edit_contacts(change, [key])


def test_bad_contacts_go_to_quarantine_and_come_back_when_mended(second_day: Loop) -> None:
    loop = second_day
    doubled, invalid, unknown = AGREED[:3]
    before = {str(row["contact_id"]): row for row in loop.sandbox.crm.rows()}
    with loop.sandbox.crm.edit() as editor:
        editor.insert([before[doubled] | {"last_name": "Somebody Else"}])
    loop.edit_contacts("mobile = 'n/a', last_name = 'Never Sent'", [invalid])
    loop.edit_contacts("tier = 'Platinum', last_name = 'Never Sent'", [unknown])
    done = effects(loop)

    account = loop.day()
    kinds = {
        (row["external_person_id"], row["kind"])
        for row in rows_of(loop, "quarantine")
        if row["external_person_id"] in {doubled, invalid, unknown}
    }
    assert kinds >= {
        (doubled, "duplicate_contact_key"),
        (invalid, "invalid_mdn"),
        (unknown, "unknown_option"),
    }
    changed = {row["external_person_id"] for row in rows_of(loop, "person_changes")}
    assert not changed & {doubled, invalid, unknown}
    assert effects(loop) == done
    counts = sum(getattr(account, status) for status in CONTACT_STATUSES)
    assert counts == len(loop.sandbox.crm.rows()) == account.landed["crm/contacts"]

    with loop.sandbox.crm.edit() as editor:
        editor.delete(editor.repeated()[-1])
        for key in (invalid, unknown):
            rowid = editor.connection.execute(
                "SELECT rowid FROM contacts WHERE contact_id = ?", (key,)
            ).fetchone()[0]
            editor.update(rowid, before[key] | {"last_name": "Sent Now"})
    loop.sandbox.next_day(edits=False)
    mended = loop.day()
    assert (mended.updated, mended.quarantined) == (2, account.quarantined - 4)
    assert Counter(effects(loop)) - Counter(done) == {"api_update": 2}


def test_half_a_crm_is_held_in_every_lane(second_day: Loop) -> None:
    loop = second_day
    rows = loop.sandbox.crm.rows()
    opt_out_in_crm(loop)
    with loop.sandbox.crm.edit() as editor:
        for rowid in editor.rowids()[::2]:
            editor.delete(rowid)
    done = effects(loop)

    summary = loop.reconcile()
    assert summary.status == "held"
    assert set(delivering.held_lanes(loop.project, loop.today)) == {
        "persons",
        "opt_outs",
        "invites",
    }
    for stage in STAGES:
        with pytest.raises(NotReleasedError, match=r"contacts: .* last accepted; look for a part"):
            stage(loop.project, loop.today, SEND)
    assert effects(loop) == done

    with loop.sandbox.crm.edit() as editor:
        editor.connection.execute("DELETE FROM contacts")
        editor.insert(rows)
    loop.sandbox.next_day(edits=False)
    whole = loop.day()
    assert (whole.landed["crm/contacts"], whole.unexplained) == (len(rows), 0)


def test_a_mass_update_is_held_until_approved_but_opt_outs_go_out(second_day: Loop) -> None:
    loop = second_day
    opt_out_in_crm(loop)
    loop.edit_contacts("last_name = 'Acquired'", MASS)
    done = effects(loop)

    summary = loop.reconcile()
    assert {breach.guard for breach in summary.breaches} == {
        "updates.max_share",
        "contacts.last_name.rewritten",
    }
    opt_outs = delivering.deliver_opt_outs(loop.project, loop.today, SEND)
    assert opt_outs.counts["accepted"] == 1
    assert Counter(effects(loop)) - Counter(done) == {"api_unsubscribe": 1}
    for stage in (delivering.import_persons, delivering.push_persons):
        with pytest.raises(NotReleasedError, match=r"updates.max_share.*; vibes-pipelines approve"):
            stage(loop.project, loop.today, SEND)
    assert Counter(effects(loop)) - Counter(done) == {"api_unsubscribe": 1}

    approved = CliRunner().invoke(
        main, ["approve", summary.diff_set[:12], "--reason", "a company was acquired"]
    )
    assert approved.exit_code == 0, approved.output
    account = loop.day()
    assert account.approved == "a company was acquired"
    assert account.delivered == {"file": len(MASS), "api": 0}
    assert Counter(effects(loop)) - Counter(done) == {
        "api_unsubscribe": 1,
        "import_update": len(MASS),
    }
    loop.sandbox.next_day(edits=False)
    certificate = loop.day()
    assert (certificate.confirmed, certificate.unexplained) == (len(MASS) + 1, 0)


@pytest.mark.slow
def test_a_newer_diff_set_carries_the_held_rows_on(second_day: Loop) -> None:
    loop = second_day
    loop.edit_contacts("last_name = 'Acquired'", MASS)
    held = loop.reconcile()
    for stage in (delivering.deliver_opt_outs, delivering.write_back):
        stage(loop.project, loop.today, SEND)
    held_day, done = loop.today, effects(loop)

    loop.edit_contacts("last_name = 'Acquired Twice'", MASS[:10])
    loop.sandbox.next_day(edits=False)
    newer = loop.reconcile()
    assert (newer.status, newer.updated) == ("held", held.updated)
    told = f"not the newest diff set, which is {newer.diff_set[:12]}"
    with pytest.raises(ApprovalError, match=told):
        delivering.approve(loop.project, held.diff_set, "too late")
    with pytest.raises(NotReleasedError, match="a newer diff set is there"):
        delivering.import_persons(loop.project, held_day, SEND)
    assert effects(loop) == done

    loop.approve(newer)
    loop.deliver()
    assert Counter(effects(loop)) - Counter(done) == {"import_update": len(MASS)}
    loop.sandbox.next_day(edits=False)
    after = loop.day()
    assert (after.updated, after.confirmed, after.unexplained) == (0, len(MASS), 0)


def test_a_dry_run_is_the_default_and_changes_nothing(second_day: Loop) -> None:
    loop = second_day
    opt_out_in_crm(loop)
    loop.edit_contacts("last_name = 'Renamed'", AGREED[:5])
    loop.reconcile()
    before = (ledger_dump(loop), loop.sandbox.audit(), loop.sandbox.crm.rows())
    told = [stage(loop.project, loop.today, Options()) for stage in STAGES]
    assert [answer.dry_run for answer in told] == [True] * len(STAGES)
    assert [sum(answer.counts.values()) for answer in told] == [1, 0, 0, 5]
    assert (ledger_dump(loop), loop.sandbox.audit(), loop.sandbox.crm.rows()) == before


def ledger_dump(loop: Loop) -> list[str]:
    with closing(sqlite3.connect(loop.project.settings.home / "ledger.db")) as connection:
        return list(connection.iterdump())


@pytest.mark.slow
def test_a_day_that_is_not_the_newest_goes_out_only_by_force_with_a_reason(
    second_day: Loop,
) -> None:
    loop = second_day
    loop.edit_contacts("last_name = 'Second Day'", AGREED[:3])
    loop.reconcile()  # and nobody delivers it
    second, done = loop.today, effects(loop)
    loop.edit_contacts("first_name = 'Third Day'", AGREED[3:5])
    loop.sandbox.next_day(edits=False)
    third = loop.reconcile()
    assert third.updated == 5
    with pytest.raises(NotReleasedError, match=r"a newer diff set is there.*force with a re"):
        delivering.push_persons(loop.project, second, SEND)
    assert effects(loop) == done

    forced = Options(dry_run=False, force_reason="the newer one waits for a colleague")
    assert delivering.push_persons(loop.project, second, forced).counts["accepted"] == 3
    loop.deliver()
    assert Counter(effects(loop)) - Counter(done) == {"api_update": 5}


@pytest.mark.slow
def test_a_past_day_rebuilt_later_gives_the_same_bytes(second_day: Loop) -> None:
    """Law: a past day depends on what was landed for it and on the ledger as of it, alone."""
    loop = second_day
    loop.edit_contacts("last_name = 'Second Day', tier = 'Bronze'", AGREED[:4])
    loop.day()
    loop.sandbox.next_day()
    loop.day()
    days = ["2026-01-01", "2026-01-02", "2026-01-03"]
    newest = loop.project.ledger.newest_diff_set()
    written = {day: day_bytes(loop, day) for day in days}
    accounts = loop.sandbox.audit()
    for day in (days[0], days[1]):
        certify_day(loop.project, day)
        reconcile_day(loop.project, day)
        assert day_bytes(loop, day) == written[day]
    assert loop.project.ledger.newest_diff_set() == newest
    assert loop.sandbox.audit() == accounts


def day_bytes(loop: Loop, day: str) -> dict[str, bytes]:
    """Every file of a day's diff set and certificate, but for the timings of the run."""
    folders = (loop.project.diff_set_folder(day), loop.project.certificate_folder(day))
    return {
        f"{folder.parent.name}/{path.name}": path.read_bytes()
        for folder in folders
        for path in sorted(folder.iterdir())
        if path.name != "run.json"
    }
