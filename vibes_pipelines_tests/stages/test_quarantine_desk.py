"""The quarantine desk: decisions over ten days with churn, as inputs of each day's reconcile."""

import json
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from click.testing import CliRunner, Result

from vibes_pipelines.cli.main import main
from vibes_pipelines.report.explain import explain
from vibes_pipelines.report.explain_render import render
from vibes_pipelines.stages.project import Project
from vibes_pipelines.stages.quarantine_desk import (
    Case,
    DeskError,
    find_case,
    list_cases,
    resolve,
    undo,
)
from vibes_pipelines.stages.reconciling import reconcile_day
from vibes_pipelines_tests.support.landed_days import (
    Row,
    content_of,
    landed_project,
    reconciled,
    rows_of,
)

DAYS = [f"2026-01-{number:02}" for number in range(1, 13)]
SPLIT, SHARED, OTHER, TWIN, SECOND, BAD = "S1", "A1", "B1", "N1", "N2", "I1"


def number(n: int) -> str:
    return f"+1312555{n:04}"


class World:
    """Both sides of some people, with people in doubt among them; the platform merges nobody."""

    def __init__(self) -> None:
        self.rng = Random(7)
        self.contacts = {
            SPLIT: contact(SPLIT, 2),
            SHARED: contact(SHARED, 3),
            OTHER: contact(OTHER, 3),
            TWIN: contact(TWIN, 4),
            SECOND: contact(SECOND, 4),
            BAD: contact(BAD, None) | {"phone": "12"},
        }
        self.persons = {
            "p-s1": person("p-s1", SPLIT, 1),
            "p-s2": person("p-s2", None, 2),
            "p-a": person("p-a", None, 3),
        }
        for n in range(10, 30):
            self.contacts[f"C{n}"] = contact(f"C{n}", n)
            self.persons[f"p-{n}"] = person(f"p-{n}", f"C{n}", n)

    def churn(self, day: int) -> None:
        """People come, go and change, and every row stands elsewhere than the day before."""
        self.contacts[f"D{day}"] = contact(f"D{day}", 100 + day)
        self.contacts.pop(f"C{10 + day}", None)
        self.persons.pop(f"p-{20 + day}", None)
        for key in (SPLIT, SHARED, TWIN, f"C{18 + day % 2}"):
            if key in self.contacts:
                self.contacts[key]["name"] = f"name {day}"
        for side in (self.contacts, self.persons):
            rows = list(side.items())
            self.rng.shuffle(rows)
            side.clear()
            side.update(rows)

    def apply(self, changes: list[Row]) -> None:
        """What the platform makes of a diff set; anything like a merge is refused."""
        for row in changes:
            key, given = row["external_person_id"], {c["field"]: c for c in row["changes"]}
            if row["operation"] == "add":
                taken = {p["external_person_id"] for p in self.persons.values()}
                numbers = {p["mdn"] for p in self.persons.values()} - {None}
                assert key not in taken
                assert row["mdn"] not in numbers
                self.persons[f"p-{key.lower()}"] = person(f"p-{key.lower()}", key, None) | {
                    "mdn": row["mdn"]
                }
            there = self.persons[row["person_key"] or f"p-{key.lower()}"]
            assert there["external_person_id"] in {None, key}
            there["external_person_id"] = key
            for field in ("first_name", "tier"):
                if field in given:
                    there[field] = given[field]["after"]
            if "mdn" in given:
                assert there["mdn"] is None
                there["mdn"] = given["mdn"]["after"]


def contact(key: str, n: int | None) -> Row:
    return {"id": key, "phone": number(n) if n else None, "name": "x", "level": "Gold"}


def person(key: str, external: str | None, n: int | None) -> Row:
    mdn = number(n) if n else None
    return {"person_key": key, "external_person_id": external, "mdn": mdn, "tier": "gold"}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    with landed_project(tmp_path, monkeypatch) as opened:
        yield opened


def case_of(project: Project, key: str, kind: str) -> Case:
    [found] = [
        case
        for case in list_cases(project, kind)
        if case.source == "contact" and case.external_person_id == key
    ]
    return found


def doubtful(project: Project, day: str) -> set[str]:
    return {
        row["external_person_id"]
        for row in rows_of(project, day, "quarantine")
        if row["source"] == "contact"
    }


def details(project: Project, day: str, key: str) -> str:
    rows = rows_of(project, day, "quarantine")
    return " | ".join(row["detail"] for row in rows if row["external_person_id"] == key)


@pytest.mark.slow
def test_decisions_live_through_ten_days_of_churn(  # noqa: C901 - one life, day by day
    project: Project,
) -> None:
    """Linked, new, ignored, lapsed and undone, and a rebuild of each day is the same in bytes."""
    world = World()
    ids: dict[str, str] = {}
    as_written: dict[str, dict[str, str]] = {}

    def decide(key: str, kind: str, action: Any, target: str | None = None) -> None:
        case = case_of(project, key, kind)
        assert ids.setdefault(f"{key} {kind}", case.case_id) == case.case_id
        resolve(project, case.case_id, action, "looked it up", "ann", target)

    for position, day in enumerate(DAYS[:10]):
        world.churn(position)
        reconciled(project, day, list(world.contacts.values()), list(world.persons.values()))
        as_written[day] = content_of(project.diff_set_folder(day))
        world.apply(rows_of(project, day, "person_changes"))
        in_doubt = doubtful(project, day)
        match position:
            case 0:
                assert in_doubt == {SPLIT, SHARED, OTHER, TWIN, SECOND, BAD}
                first = {case.case_id for case in list_cases(project)}
                decide(SPLIT, "identity_split", "link", "p-s1")
                decide(SHARED, "shared_mdn", "link", "P-A")
                decide(TWIN, "shared_mdn", "new-person")
                decide(BAD, "invalid_mdn", "ignore")
            case 1 | 2 | 3:
                assert in_doubt == {OTHER, SECOND, BAD}
                assert "ignored since 2026-01-01: looked it up" in details(project, day, BAD)
                assert case_of(project, BAD, "invalid_mdn").case_id in first
            case 4:
                world.contacts[BAD]["phone"] = "13"  # other evidence
                undo(project, ids[f"{SPLIT} identity_split"], "it was another", "bob")
            case 5:
                assert in_doubt == {OTHER, SECOND, BAD, SPLIT}
                assert "which lapsed: the evidence changed" in details(project, day, BAD)
                again = case_of(project, SPLIT, "identity_split")
                assert again.case_id == ids[f"{SPLIT} identity_split"]
                del world.contacts[SHARED]  # goes, and comes back
            case 6:
                world.contacts[SHARED] = contact(SHARED, 3)
            case 7:
                assert in_doubt == {OTHER, SECOND, BAD, SPLIT}
                world.contacts[SHARED]["phone"] = number(77)
            case 8:
                assert "the link of 2026-01-01 does not hold: an identifier of the contact" in (
                    details(project, day, SHARED)
                )
    assert world.persons["p-s1"]["first_name"] == "name 4"
    assert world.persons["p-n1"]["mdn"] == number(4)
    assert world.persons["p-a"]["external_person_id"] == SHARED
    for day in (DAYS[0], DAYS[3], DAYS[9]):
        reconcile_day(project, day)
        assert content_of(project.diff_set_folder(day)) == as_written[day]


@pytest.fixture
def desk(project: Project) -> Project:
    """The first day of the world."""
    world = World()
    reconciled(project, DAYS[0], list(world.contacts.values()), list(world.persons.values()))
    return project


FORBIDDEN: list[tuple[str, str, Any, str | None, str]] = [
    (SPLIT, "identity_split", "link", "p-s2", "another person has the contact's key"),
    (SPLIT, "identity_split", "link", "p-10", "that person has another external_person_id"),
    (SPLIT, "identity_split", "link", "p-99", "no person has this person_key"),
    (SPLIT, "identity_split", "link", None, "give it with --person-key"),
    (SPLIT, "identity_split", "new-person", None, "an identifier of the contact is at"),
    (SHARED, "shared_mdn", "new-person", None, "link it to that person"),
    (BAD, "invalid_mdn", "ignore", "p-10", "a link, and nothing else, names a person"),
    (BAD, "invalid_mdn", "ignore", None, "say why with --reason"),
]


def test_a_decision_that_the_evidence_forbids_is_refused(desk: Project) -> None:
    for key, kind, action, target, why in FORBIDDEN:
        case, reason = case_of(desk, key, kind), "  " if "--reason" in why else "because"
        with pytest.raises(DeskError, match=why):
            resolve(desk, case.case_id, action, reason, "ann", target)
        with pytest.raises(DeskError, match="nothing was decided"):
            undo(desk, case.case_id, "because", "ann")
    with pytest.raises(DeskError, match="no case of the newest day"):
        find_case(desk, "ffffffffffff")
    # Two contacts are never linked to one person.
    resolve(desk, case_of(desk, SHARED, "shared_mdn").case_id, "link", "x", "ann", "p-a")
    with pytest.raises(DeskError, match="two contacts are never one person"):
        resolve(desk, case_of(desk, OTHER, "shared_mdn").case_id, "link", "x", "ann", "p-a")


def test_before_the_first_day_the_desk_says_what_is_missing(project: Project) -> None:
    with pytest.raises(DeskError, match="run the daily job first"):
        list_cases(project)


def invoke(*arguments: str) -> Result:
    result = CliRunner().invoke(main, ["quarantine", *arguments])
    assert result.exit_code == 0, result.output
    return result


def test_the_command_masks_unless_told(desk: Project) -> None:
    case = case_of(desk, SHARED, "shared_mdn")
    for arguments in (["list"], ["list", "--json"], ["show", case.case_id]):
        masked = invoke(*arguments).output
        assert case.case_id in masked
        assert SHARED not in masked
        assert number(3) not in masked
        assert "p-a" not in masked
        shown = invoke(*arguments, "--reveal").output
        assert SHARED in shown
    resolved = invoke(
        *("resolve", case.case_id[:8], "--as", "link"),
        *("--person-key", "p-a", "--reason", "same signature", "--by", "ann"),
    )
    assert "counts from the first day after 2026-01-01" in resolved.output
    [told] = [c for c in json.loads(invoke("list", "--json").output) if c["decision"]]
    assert told["state"] == "decided"
    assert told["decision"]["reason"] == "same signature"
    assert told["decision"]["decided_by"] == "ann"
    explained = render(explain(desk, SHARED))
    assert "link to p-a by ann" in explained
    assert "same signature" in explained
    invoke("undo", case.case_id, "--reason", "wrong one")
    assert all(c["decision"] is None for c in json.loads(invoke("list", "--json").output))
