"""Guards: what holds a diff set, and which lane."""

from pathlib import Path

import pytest

from vibes_pipelines.reconcile.errors import ReconcileError
from vibes_pipelines.reconcile.guards import Workload, check_guards
from vibes_pipelines.reconcile.run import Inputs, reconcile
from vibes_pipelines.sync_config import Guards

OPERATIONS = (
    "adds",
    "updates",
    "clears",
    "crm_updates",
    "crm_clears",
    "opt_outs_to_platform",
    "opt_outs_to_crm",
)
LOOSE = {"max_rows": None, "max_share": None}


def guards(**more):
    quiet = dict.fromkeys(("updates", "adds", "clears", "opt_outs"), LOOSE)
    return Guards.model_validate(quiet | {name: LOOSE | cap for name, cap in more.items()})


def work(**more):
    zero = dict.fromkeys(OPERATIONS, 0)
    return Workload(**({"contacts": 100, "persons": 200} | zero | more))


def breached(some_guards, some_work, accepted=None, *, relative=True):
    found = check_guards(some_guards, some_work, accepted, relative=relative)
    return {(breach.guard, breach.lane) for breach in found}


@pytest.mark.parametrize(
    ("guard", "operation", "lane", "whole"),
    [
        ("adds", "adds", "persons", 100),
        ("updates", "updates", "persons", 200),
        ("updates", "crm_updates", "persons", 200),
        ("clears", "clears", "persons", 200),
        ("clears", "crm_clears", "persons", 200),
        ("opt_outs", "opt_outs_to_platform", "opt_outs", 200),
        ("opt_outs", "opt_outs_to_crm", "opt_outs", 200),
    ],
)
def test_each_cap_holds_its_own_lane(guard, operation, lane, whole):
    by_rows = guards(**{guard: {"max_rows": 10}})
    assert breached(by_rows, work(**{operation: 10})) == set()
    assert breached(by_rows, work(**{operation: 11})) == {(f"{guard}.max_rows", lane)}
    by_share = guards(**{guard: {"max_share": 0.1}})
    assert breached(by_share, work(**{operation: whole // 10})) == set()
    assert breached(by_share, work(**{operation: whole // 10 + 1})) == {
        (f"{guard}.max_share", lane)
    }


def test_opt_outs_of_one_direction_leave_room_for_the_other():
    ten = guards(opt_outs={"max_rows": 10})
    assert breached(ten, work(opt_outs_to_platform=10, opt_outs_to_crm=10)) == set()


def test_a_shrunken_input_holds_every_lane():
    found = breached(guards(), work(), {"contacts": 126, "persons": 250})
    assert found == {
        ("contacts.min_input_share", "persons"),
        ("contacts.min_input_share", "opt_outs"),
    }


def test_empty_inputs_hold_every_lane_even_on_a_first_run():
    empty = work(contacts=0, persons=0)
    assert {g for g, _ in breached(guards(), empty, relative=False)} == {"contacts.not_empty"}
    found = breached(guards(), empty, {"persons": 5}, relative=False)
    assert found == {
        (f"{side}.not_empty", lane)
        for side in ("contacts", "persons")
        for lane in ("persons", "opt_outs")
    }


def test_relative_guards_do_not_judge_a_first_run():
    tight = guards(adds={"max_share": 0}, updates={"max_rows": 1})
    busy = work(adds=5, updates=5)
    assert breached(tight, busy, {"contacts": 999}, relative=False) == {
        ("updates.max_rows", "persons")
    }


def test_the_share_of_nobody_is_breached_by_anything():
    assert breached(guards(updates={"max_share": 0.5}), work(persons=0, updates=1))


def test_a_breach_holds_the_diff_set_and_all_files_are_written(run, make_config):
    config = make_config(guards={"adds": LOOSE | {"max_rows": 0}})
    done = run(config, [{"id": "C1"}], [])
    assert done.summary.status == "held"
    assert done.summary.breaches[0].guard == "adds.max_rows"
    assert len(done.person_changes) == 1
    assert '"status": "held"' in (done.folder / "summary.json").read_text()
    assert (done.folder / "run.json").exists()


def test_a_missing_column_is_named_with_its_file_and_its_entry(tmp_path, make_config):
    (tmp_path / "c.csv").write_text("id,phone\nC1,\n")
    (tmp_path / "p.csv").write_text("person_key,external_person_id,mdn,name\n")
    inputs = Inputs(tmp_path / "c.csv", tmp_path / "p.csv")
    with pytest.raises(ReconcileError, match=r"contacts .*c\.csv: no column 'name'.*fields\.from"):
        reconcile(make_config(), inputs, tmp_path / "out")


@pytest.mark.parametrize(("name", "message"), [("none.csv", "no such file"), ("x.txt", "suffix")])
def test_an_unusable_path_is_named(tmp_path: Path, make_config, name, message):
    (tmp_path / "x.txt").write_text("")
    inputs = Inputs(tmp_path / name, tmp_path / name)
    with pytest.raises(ReconcileError, match=message):
        reconcile(make_config(), inputs, tmp_path / "out")
