"""The base in the daily loop: who changed what, rebuilds, and who stops matching."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vibes_pipelines.reconcile.base import ORIGIN, landed_persons
from vibes_pipelines.report.account import DayAccount, account_of
from vibes_pipelines.report.explain import explain
from vibes_pipelines.sandbox.population import build_world
from vibes_pipelines.stages.bases import base_of, recorded_base
from vibes_pipelines.stages.certifying import certify_day
from vibes_pipelines.stages.reconciling import reconcile_day
from vibes_pipelines.store.snapshots import DATA, Source
from vibes_pipelines_tests.support.loop import Loop, agreed_keys, edited_sync_config
from vibes_pipelines_tests.support.second_morning import running_second_morning

POPULATION = (200, 77)  # people and seed
AGREED = agreed_keys(build_world(*POPULATION))
CRM_EDIT, PLATFORM_EDIT, BOTH = AGREED[:3]


def rows_of(loop: Loop, name: str, day: str | None = None) -> list[dict[str, Any]]:
    path = loop.project.diff_set_folder(day or loop.today) / f"{name}.parquet"
    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return rows


def reasons(loop: Loop) -> dict[tuple[str, str], str]:
    """Per contact and field why it is changed at the platform, of the named contacts."""
    return {
        (row["external_person_id"], change["field"]): change["reason"]
        for row in rows_of(loop, "person_changes")
        if row["external_person_id"] in AGREED
        for change in row["changes"]
    }


def written_back(loop: Loop) -> dict[tuple[str, str], tuple[str, str | None]]:
    return {
        (row["contact_id"], row["field"]): (row["reason"], row["after"])
        for row in rows_of(loop, "crm_changes")
        if row["contact_id"] in AGREED
    }


def edit_person(loop: Loop, key: str, **values: str) -> None:
    """A user of the platform's own pages changes fields, now."""
    person = loop.sandbox.platform.find(external_person_id=key)
    assert person is not None
    loop.sandbox.platform.edit(person.person_key, values, loop.sandbox.now())


def person_value(loop: Loop, key: str, field: str) -> Any:
    person = loop.sandbox.platform.find(external_person_id=key)
    assert person is not None
    return person.custom.get(field)


def crm_value(loop: Loop, key: str, column: str) -> Any:
    return next(row[column] for row in loop.sandbox.crm.rows() if row["contact_id"] == key)


def next_day(loop: Loop) -> DayAccount:
    loop.sandbox.next_day(edits=False)
    return loop.day(approve=True)


def files_of(folder: Path) -> dict[str, bytes]:
    """Everything in a folder but the timings."""
    return {f.name: f.read_bytes() for f in folder.iterdir() if f.name != "run.json"}


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Loop]:
    """The evening of a first day that was delivered."""
    with running_second_morning(tmp_path, POPULATION, next_day=False) as running:
        yield running


@pytest.fixture
def edited(loop: Loop) -> Loop:
    """Edits on one side, the other and both, of a field whose authority is the CRM."""
    loop.edit_contacts("last_name = 'Crm'", [CRM_EDIT, BOTH])
    edit_person(loop, PLATFORM_EDIT, last_name="Platform")
    edit_person(loop, BOTH, last_name="Platform")
    loop.sandbox.next_day(edits=False)
    return loop


def test_the_first_day_has_no_base_and_says_so(loop: Loop) -> None:
    assert recorded_base(loop.project, loop.today) is None
    origin = loop.project.base_folder(loop.today) / ORIGIN
    assert json.loads(origin.read_text())["last_reconciled"] is None
    reasons_of_updates = {
        change["reason"]
        for row in rows_of(loop, "person_changes")
        if row["operation"] == "update"
        for change in row["changes"]
    }
    assert reasons_of_updates <= {"no_base", "adopt", "mdn_added", "clear", "fill"}


def test_from_the_second_day_on_every_change_says_who_made_it(edited: Loop) -> None:
    summary = edited.reconcile()
    assert reasons(edited) == {
        (CRM_EDIT, "last_name"): "crm_changed",
        (PLATFORM_EDIT, "last_name"): "platform_changed",
        (BOTH, "last_name"): "both_changed",
    }
    assert summary.drift == {"last_name": {"platform_changed": 1, "both_changed": 1}}


@pytest.mark.slow
def test_what_converged_is_the_new_base(edited: Loop) -> None:
    edited.day()
    assert next_day(edited).unexplained == 0
    edited.edit_contacts("last_name = 'Again'", [CRM_EDIT])
    edited.sandbox.next_day(edits=False)
    edited.reconcile()
    assert reasons(edited) == {(CRM_EDIT, "last_name"): "crm_changed"}
    persons = landed_persons(edited.project.base_folder(edited.today))
    assert persons is not None
    held = {row["external_person_id"]: row for row in pq.read_table(persons / DATA).to_pylist()}
    assert held[CRM_EDIT]["last_name"] == "Crm"


@pytest.mark.slow
def test_a_rebuilt_day_is_the_same_bytes_whatever_happened_since(edited: Loop) -> None:
    second = edited.today
    edited.day()
    folder = edited.project.diff_set_folder(second)
    before, base = files_of(folder), files_of(edited.project.base_folder(second))
    next_day(edited)
    certify_day(edited.project, second)
    reconcile_day(edited.project, second)
    assert files_of(folder) == before
    assert files_of(edited.project.base_folder(second)) == base


@pytest.mark.slow
def test_lost_bases_are_made_again_from_what_is_landed(edited: Loop) -> None:
    edited.day()
    next_day(edited)
    third = edited.today
    before = files_of(edited.project.diff_set_folder(third))
    shutil.rmtree(edited.project.base_folder(third).parent)
    reconcile_day(edited.project, third)
    assert files_of(edited.project.diff_set_folder(third)) == before
    assert len(list(edited.project.base_folder(third).parent.iterdir())) == 3


def test_a_killed_recording_leaves_no_half_a_base(
    edited: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("vibes_pipelines.stages.bases.write_exceptions", killed)
        with pytest.raises(KeyboardInterrupt):
            base_of(edited.project, edited.today)
    assert recorded_base(edited.project, edited.today) is None
    assert base_of(edited.project, edited.today) is not None


def test_a_day_landed_anew_counts_only_when_it_is_reconciled_anew(edited: Loop) -> None:
    """Rows are told by their numbers, which mean nothing in another snapshot."""
    first = edited.project.snapshots.days("share/persons")[0]
    snapshot = edited.project.snapshots.find("share/persons", first)
    assert snapshot is not None
    reversed_rows = pq.read_table(snapshot.data).to_pylist()[::-1]
    shutil.rmtree(snapshot.folder)

    def land_reversed(folder: Path) -> Source:
        pq.write_table(pa.Table.from_pylist(reversed_rows), folder / DATA)
        return Source("again", snapshot.manifest.as_of)

    edited.project.snapshots.land("share/persons", first, land_reversed)
    assert base_of(edited.project, edited.today) is None


def test_a_platform_field_is_carried_in_both_directions(tmp_path: Path) -> None:
    mapping = ("to: last_name,  type: string", "to: last_name,  type: string, authority: platform")
    config = edited_sync_config(tmp_path, mapping)
    with running_second_morning(tmp_path, POPULATION, config, next_day=False) as loop:
        loop.edit_contacts("last_name = 'Crm'", [CRM_EDIT, BOTH])
        edit_person(loop, PLATFORM_EDIT, last_name="Platform")
        edit_person(loop, BOTH, last_name="Other")
        next_day(loop)
        assert reasons(loop) == {(CRM_EDIT, "last_name"): "crm_changed"}
        assert written_back(loop) == {
            (PLATFORM_EDIT, "last_name"): ("platform_changed", "Platform"),
            (BOTH, "last_name"): ("both_changed", "Other"),
        }
        assert person_value(loop, CRM_EDIT, "last_name") == "Crm"
        assert crm_value(loop, PLATFORM_EDIT, "last_name") == "Platform"
        assert crm_value(loop, BOTH, "last_name") == "Other"
        assert next_day(loop).unexplained == 0
        assert (reasons(loop), written_back(loop)) == ({}, {})


@pytest.mark.slow
def test_the_newest_side_wins_where_both_changed(tmp_path: Path) -> None:
    newest = "to: last_name,  type: string, authority: newest, changed_at: updated_at"
    config = edited_sync_config(
        tmp_path,
        ("to: last_name,  type: string", newest),
        ("mdn: MDN}", "mdn: MDN, updated_at: UPDATED_AT}"),
    )
    with running_second_morning(tmp_path, POPULATION, config, next_day=False) as loop:
        today = loop.today
        loop.edit_contacts(f"last_name = 'Crm', updated_at = '{today} 05:00:00'", [CRM_EDIT])
        for key in (PLATFORM_EDIT, CRM_EDIT, BOTH):
            edit_person(loop, key, last_name="Platform")  # after five
        loop.edit_contacts(f"last_name = 'Crm', updated_at = '{today} 23:00:00'", [BOTH])
        next_day(loop)
        assert reasons(loop) == {(BOTH, "last_name"): "both_changed"}
        assert written_back(loop) == {
            (PLATFORM_EDIT, "last_name"): ("platform_changed", "Platform"),
            (CRM_EDIT, "last_name"): ("both_changed", "Platform"),
        }
        assert next_day(loop).unexplained == 0
        assert (reasons(loop), written_back(loop)) == ({}, {})


@pytest.mark.parametrize("policy", [pytest.param("clear", marks=pytest.mark.slow), "opt_out"])
def test_who_stops_matching_is_cleared_or_opted_out_and_it_converges(
    tmp_path: Path, policy: str
) -> None:
    config = edited_sync_config(tmp_path, ("when_unmatched: keep", f"when_unmatched: {policy}"))
    with running_second_morning(tmp_path, POPULATION, config, next_day=False) as loop:
        first = account_of(loop.project, loop.today)
        persons = loop.sandbox.platform
        subscribed = {row.person_key for row in persons.subscriptions if row.is_active}
        key = next(
            key
            for key in AGREED
            if crm_value(loop, key, "customer_type") == "A"
            and persons.find(external_person_id=key).person_key in subscribed  # type: ignore[union-attr]
        )
        loop.edit_contacts("customer_type = 'B'", [key])
        second = next_day(loop)
        assert second.filtered == first.filtered + 1
        told = explain(loop.project, key, day=loop.today).days[0].end
        how = "recorded" if policy == "clear" else "derived"
        assert (told.status, told.how) == ("filtered", how)
        person = persons.find(external_person_id=key)
        assert person is not None
        is_blank = all(person_value(loop, key, name) is None for name in ("last_name", "tier"))
        assert is_blank == (policy == "clear")
        assert (person_value(loop, key, "score") is None) == (crm_value(loop, key, "score") is None)
        active = persons.subscriptions_of(person.person_key)
        assert bool(active) == (policy == "clear")
        for _ in range(2):
            account = next_day(loop)
            assert account.unexplained == 0
        assert sum(account.delivered.values()) == 0
        assert account.opt_outs_to_platform == 0
