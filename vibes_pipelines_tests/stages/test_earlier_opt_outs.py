"""Opt-outs that were planned and are not effective outlast the record that they came from."""

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vibes_pipelines.delivery.plan import plan
from vibes_pipelines.reconcile.errors import ReconcileError
from vibes_pipelines.reconcile.run import Inputs, reconcile
from vibes_pipelines.stages.earlier_opt_outs import NAME
from vibes_pipelines.stages.opt_outs_under_way import open_opt_outs
from vibes_pipelines.stages.project import Project
from vibes_pipelines.stages.reconciling import reconcile_day
from vibes_pipelines.store.records import Receipt
from vibes_pipelines.sync_config.conditions import Condition
from vibes_pipelines_tests.support.landed_days import (
    SYNC,
    content_of,
    land,
    landed_project,
    reconciled,
    rows_of,
)

FIRST, SECOND, THIRD = "2026-01-05", "2026-01-06", "2026-01-07"
JOINED, SAID_NO, LATER = "2025-10-05 08:00:00", "2026-01-04 09:00:00", "2026-01-05 20:00:00"
NO, YES, NEW_YES = ("n", SAID_NO), ("y", JOINED), ("y", LATER)

Row = dict[str, Any]
Word = tuple[str, str | None]
OTHER = {"id": "C0", "phone": "3125550199"}


def contact(number: int, word: Word, key: str | None = None) -> Row:
    said = {"sms": word[0], "sms_at": word[1]}
    return {"id": key or f"C{number}", "phone": f"312555{number:04}"} | said


def person(number: int, key: str | None = None, contact: str | None = None) -> Row:
    names = {"person_key": key or f"p{number}", "external_person_id": contact or f"C{number}"}
    return names | {"mdn": f"+1312555{number:04}"}


def stay(number: int, opt_in: str = JOINED, opt_out: str | None = None, key: str = "") -> Row:
    listed = {"person_key": key or f"p{number}", "subscription_list_id": "1234"}
    return listed | {"opt_in_date": opt_in, "opt_out_date": opt_out}


def stopped(number: int) -> Row:
    return stay(number, opt_out=SAID_NO)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    with landed_project(tmp_path, monkeypatch) as opened:
        yield opened


def opt_outs(project: Project, day: str, side: str) -> set[str]:
    rows = rows_of(project, day, "subscription_changes")
    assert {row["action"] for row in rows} <= {"opt_out"}
    keys = [row["external_person_id"] for row in rows if row["side"] == side]
    assert len(keys) == len(set(keys))
    return set(keys)


def answer(project: Project, answers: Mapping[str, tuple[Any, str | None]]) -> None:
    """Plans the newest diff set, and has these contacts' opt-outs answered on its day."""
    newest = project.ledger.newest_diff_set()
    assert newest is not None
    plan(newest.diff_set, project.diff_set_folder(newest.day), project.config, project.ledger)
    for route in ("api", "crm"):
        planned = project.ledger.open_operations(newest.diff_set, "opt_outs", route)
        sent = [one for one in planned if one.external_person_id in answers]
        project.ledger.mark_sent([one.operation_id for one in sent])
        receipts = [Receipt(o.operation_id, *answers[o.external_person_id or ""]) for o in sent]
        project.ledger.record(receipts, newest.day)


def test_an_opt_out_to_the_platform_outlasts_its_contact(project: Project) -> None:
    numbers = range(1, 12)
    no = [contact(n, ("n", None) if n in {10, 11} else NO) for n in numbers]
    reconciled(project, FIRST, no, [person(n) for n in numbers], [stay(n) for n in numbers])
    nobody = ("rejected", "HTTP 404")
    answers = {"C5": nobody, "C6": ("accepted", None), "C7": ("unknown", None)}
    answer(project, answers | {"C1": ("unknown", None)})
    contacts = [
        OTHER,  # and not that of 1, whose no is carried on
        contact(2, NEW_YES),
        # of 3 the platform shows the end, 4 joined after the no
        # of 5, 6 and 7 the platform shows nothing; it has nobody like 5, and took the opt-out of 6
        contact(8, YES, key="D8"),  # the one that is left of two that were merged
        contact(9, NEW_YES, key="D9"),
        # 10 and 11 said no without a time, and 11 joined after that day
    ]
    persons = [person(n) for n in (1, 2, 3, 4, 10, 11)]
    persons += [person(8, contact="D8"), person(9, contact="D9")]
    stays = [stay(1), stay(2), stopped(3), stay(4, LATER), stay(8), stay(9)]
    stays += [stay(10, "2026-01-05 05:00:00"), stay(11, LATER)]
    reconciled(project, SECOND, contacts, persons, stays)
    assert opt_outs(project, SECOND, "platform") == {"C1", "C7", "C8", "C10"}
    assert opt_outs(project, SECOND, "crm") == set()


def test_what_another_contact_of_the_person_says_is_said_once(project: Project) -> None:
    reconciled(project, FIRST, [contact(1, NO)], [person(1)], [stay(1)])
    folder = project.diff_set_folder(FIRST)
    draft = shutil.copytree(folder, folder.with_name(f"{FIRST}.draft"))  # of a process that died
    (draft / "summary.json").unlink()
    left = contact(1, NO, key="D1")
    reconciled(project, SECOND, [left], [person(1, contact="D1")], [stay(1)])
    assert opt_outs(project, SECOND, "platform") == {"D1"}


def test_an_opt_out_to_the_crm_outlasts_its_person(project: Project) -> None:
    numbers = range(1, 10)
    yes = [contact(n, YES) for n in numbers]
    reconciled(project, FIRST, yes, [person(n) for n in numbers], [stopped(n) for n in numbers])
    answer(project, {"C7": ("rejected", "ContactNotFound"), "C8": ("rejected", "RefusedByCrm")})
    contacts = [
        *(contact(n, YES) for n in (1, 2, 3, 4)),
        contact(5, NO),
        contact(6, NEW_YES),
        OTHER,  # and not those of 7, 8 and 9
    ]
    persons = [person(2), person(3, key="q3"), person(4, key="q4")]
    stays = [stopped(2), stay(4, LATER, key="q4")]
    reconciled(project, SECOND, contacts, persons, stays)
    assert opt_outs(project, SECOND, "crm") == {"C1", "C2", "C3", "C8", "C9"}
    assert opt_outs(project, SECOND, "platform") == set()


def test_who_is_opted_out_so_is_not_invited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the person who came in the place of another no opt-out is known."""
    inviting = SYNC.replace("sms_at}", 'sms_at, campaign: "7", invites: true}')
    with landed_project(tmp_path, monkeypatch, inviting) as project:
        reconciled(project, FIRST, [contact(1, YES)], [person(1)], [stopped(1)])
        reconciled(project, SECOND, [contact(1, YES)], [person(1, key="q1")])
        names = ("crm/contacts", "share/persons", "share/subscriptions")
        contacts, persons, stays = (project.snapshots.find(one, SECOND) for one in names)
        assert contacts
        assert persons
        assert stays
        asked: list[list[Any]] = []
        for earlier in (None, project.diff_set_folder(SECOND) / NAME):
            inputs = Inputs(
                contacts.folder,
                persons.folder,
                (stays.folder,),
                relative_guards=False,
                earlier_opt_outs=earlier,
            )
            reconcile(project.config, inputs, tmp_path / "out")
            rows = pq.read_table(tmp_path / "out" / "subscription_changes.parquet").to_pylist()
            asked.append([(row["side"], row["action"]) for row in rows])
    assert asked == [[("platform", "invite")], [("crm", "opt_out")]]


@pytest.mark.parametrize("answered", [("rejected", "HTTP400"), None])
def test_it_stays_under_way_day_after_day_until_it_is_effective(
    project: Project, answered: tuple[str, str] | None
) -> None:
    reconciled(project, FIRST, [contact(1, NO)], [person(1)], [stay(1)])
    for day in (SECOND, THIRD):
        if answered:
            answer(project, {"C1": answered})
        reconciled(project, day, [OTHER], [person(1)], [stay(1)])
        [one] = open_opt_outs(project)
        assert (one.way, one.contact) == ("to_platform", "C1")
        assert f"{one.since:%Y-%m-%d %H:%M:%S}" == SAID_NO
    reconciled(project, "2026-01-08", [OTHER], [person(1)], [stopped(1)])
    assert list(open_opt_outs(project)) == []


def test_a_day_landed_anew_keeps_what_its_first_diff_set_asked_for(project: Project) -> None:
    reconciled(project, FIRST, [contact(1, NO)], [person(1)], [stay(1)])
    landed = project.snapshots.find("crm/contacts", FIRST)
    assert landed is not None
    shutil.rmtree(landed.folder)
    land(project, FIRST, "crm/contacts", [OTHER])
    for _ in range(2):  # a rebuild finds its own diff set there
        reconcile_day(project, FIRST)
        assert opt_outs(project, FIRST, "platform") == {"C1"}


def test_nobody_else_invites_a_person_who_is_opted_out_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The contact that is left of two has an older yes."""
    inviting = SYNC.replace("sms_at}", 'sms_at, campaign: "7", invites: true}')
    with landed_project(tmp_path, monkeypatch, inviting) as project:
        reconciled(project, FIRST, [contact(1, NO)], [person(1)], [stay(1)])
        left = contact(1, YES, key="D1")
        reconciled(project, SECOND, [left], [person(1, contact="D1")])
        assert opt_outs(project, SECOND, "platform") == {"C1"}


def test_a_no_that_is_still_to_come_is_as_old_as_its_diff_set(project: Project) -> None:
    reconciled(project, FIRST, [contact(1, ("n", "2099-01-01 09:00:00"))], [person(1)], [stay(1)])
    assert opt_outs(project, FIRST, "platform") == {"C1"}
    reconciled(project, SECOND, [OTHER], [person(1)], [stay(1, LATER)])
    assert opt_outs(project, SECOND, "platform") == set()


def test_a_person_made_anew_is_named_by_its_new_key(project: Project) -> None:
    numbers = (1, 2)
    reconciled(
        project,
        FIRST,
        [contact(n, NO) for n in numbers],
        [person(n) for n in numbers],
        [stay(n) for n in numbers],
    )
    answer(project, {"C1": ("rejected", "HTTP 404")})
    persons = [person(1, key="q1"), person(2)]
    reconciled(project, SECOND, [OTHER], persons, [stay(1, key="q1"), stay(2)])
    rows = rows_of(project, SECOND, "subscription_changes")
    assert {(row["external_person_id"], row["person_key"]) for row in rows} == {
        ("C1", "q1"),
        ("C2", "p2"),
    }


def test_what_was_asked_for_by_another_sync_config_on_the_same_day_is_not_kept(
    project: Project,
) -> None:
    """People who say yes were opted out by spellings the wrong way round, and another key."""
    right = project.config
    [consent] = right.consents
    wrong = consent.model_copy(update={"opted_out": ("y",), "opted_in": ("n",)})
    contacts = right.contacts.model_copy(update={"key": "name"})
    mistaken = right.model_copy(update={"consents": (wrong,), "contacts": contacts})
    object.__setattr__(project, "config", mistaken)
    rows = [contact(1, YES) | {"name": "N1"}]
    reconciled(project, FIRST, rows, [person(1, contact="N1")], [stay(1)])
    assert opt_outs(project, FIRST, "platform") == {"N1"}
    object.__setattr__(project, "config", right)
    reconcile_day(project, FIRST)
    assert opt_outs(project, FIRST, "platform") == set()


def test_an_opt_out_by_policy_is_nobodys_word(project: Project) -> None:
    condition = Condition(column="level", equals="Gold")
    contacts = project.config.contacts.model_copy(
        update={"conditions": (condition,), "when_unmatched": "opt_out"}
    )
    object.__setattr__(project, "config", project.config.model_copy(update={"contacts": contacts}))
    gold = contact(1, YES) | {"level": "Gold", "name": "Ann"}
    reconciled(project, FIRST, [gold], [person(1) | {"tier": "gold", "first_name": "Ann"}])
    base = person(1) | {"tier": "gold", "first_name": "Ann"}
    reconciled(project, SECOND, [gold | {"level": None}], [base], [stay(1)])
    assert opt_outs(project, SECOND, "platform") == {"C1"}
    merged = gold | {"id": "D1"}
    reconciled(project, THIRD, [merged], [base | {"external_person_id": "D1"}], [stay(1)])
    assert opt_outs(project, THIRD, "platform") == set()


@pytest.mark.parametrize("content", [b"", None])
@pytest.mark.parametrize("name", ["summary.json", "subscription_changes.parquet"])
def test_a_diff_set_that_cannot_be_read_is_named_and_its_day_can_be_made_anew(
    project: Project, name: str, content: bytes | None
) -> None:
    reconciled(project, FIRST, [contact(1, NO)], [person(1)], [stay(1)])
    file = project.diff_set_folder(FIRST) / name
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    with pytest.raises(ReconcileError, match=f"{name} cannot be read; reconcile {FIRST} again"):
        reconciled(project, SECOND, [OTHER], [person(1)], [stay(1)])
    for day in (FIRST, SECOND):
        reconcile_day(project, day)
        assert opt_outs(project, day, "platform") == {"C1"}


def test_rebuilt_the_same_a_past_day_registers_nothing_newer(project: Project) -> None:
    reconciled(project, FIRST, [contact(1, NO)], [person(1)], [stay(1)])
    reconciled(project, SECOND, [OTHER], [person(1)], [stay(1)])
    newest = reconciled(project, THIRD, [OTHER], [person(1)], [stopped(1)])
    before = content_of(project.diff_set_folder(SECOND))
    reconcile_day(project, SECOND)
    assert content_of(project.diff_set_folder(SECOND)) == before
    found = project.ledger.newest_diff_set()
    assert found is not None
    assert found.diff_set == newest.diff_set


def test_who_was_erased_is_not_carried_on(project: Project) -> None:
    reconciled(project, FIRST, [contact(1, NO)], [person(1)], [stay(1)])
    path = project.diff_set_folder(FIRST) / "subscription_changes.parquet"
    rows = pq.read_table(path)
    blank = [row | {"external_person_id": "erased-1"} for row in rows.to_pylist()]
    pq.write_table(pa.Table.from_pylist(blank, rows.schema), path)
    reconciled(project, SECOND, [OTHER], [person(1)], [stay(1)])
    assert opt_outs(project, SECOND, "platform") == set()
