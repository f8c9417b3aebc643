"""Every case of base, CRM, platform, authority, when_null and type, as docs/three-way.md has it.

The expected answers are the words of that page's table, written by hand from the rules.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vibes_pipelines.reconcile.base import (
    EXCEPTIONS,
    FIELDS,
    ORIGIN,
    content_hash,
    current_meanings,
)
from vibes_pipelines.reconcile.engine import Limits
from vibes_pipelines.reconcile.run import Inputs, reconcile
from vibes_pipelines.sync_config import SyncConfig
from vibes_pipelines_tests.reconcile.conftest import build_config, contact_columns, write_parquet
from vibes_pipelines_tests.reconcile.test_reconcile_next_base import land

PAGE = Path(__file__).parents[2] / "docs" / "three-way.md"
COLUMNS = ("crm", "fill", "platform", "newest, platform", "newest, CRM")

# Per type and letter: as the CRM spells it, as the platform and a base do, and canonical.
SPELLINGS: dict[str, dict[str, tuple[str, str, str]]] = {
    "string": {"a": (" Ann", "Ann", "Ann"), "b": ("Bo", "Bo", "Bo"), "c": ("bo", "bo", "bo")},
    "number": {"a": ("1.0", "1", "1"), "b": ("-2.5", "-2.50", "-2.5"), "c": ("1e2", "100", "100")},
    "date": {
        "a": ("2017-01-15T00:00Z", "2017-01-15", "2017-01-15"),
        "b": ("2018-02-03 10:00:00 -0600", "2018-02-03T16:00:00Z", "2018-02-03T16:00:00Z"),
        "c": ("2018-02-03", "2018-02-03", "2018-02-03"),
    },
    "single_select": {"a": ("Gold", "g", "g"), "b": ("Tin", "t", "t"), "c": ("tin", "T", "T")},
    "multi_select": {
        "a": ("y; x", "x|y", "x|y"),
        "b": ("x", "x", "x"),
        "c": ("z;x;y", "z|y|x", "x|y|z"),
    },
    "postal_code": {
        "a": ("01234", "01234", "01234"),
        "b": ("1234", "1234", "1234"),
        "c": ("K1A", "K1A", "K1A"),
    },
}
OPTIONS = {"Gold": "g", "Tin": "t", "tin": "T"}
CRM, PLATFORM, CANONICAL = 0, 1, 2

OLD, NEW = "2026-01-05 10:00:00", "2026-01-05 10:00:01"
TIMES = {  # the contact's and the person's
    "newest, platform": [(OLD, NEW), ("2026-01-04", NEW)],
    "newest, CRM": [(NEW, OLD), (OLD, OLD), ("2026-01-05", NEW), (None, NEW), (OLD, None)],
}


@dataclass(frozen=True)
class Case:
    """One row of the table. `answers` are words by column, for keep and for clear."""

    base: str
    crm: str
    platform: str
    changed: str
    answers: dict[str, tuple[str, str]]


def read_table() -> list[Case]:
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith("| base | CRM |"))
    header, _, *rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in lines[start:]
        if line.startswith("|")
    ]
    assert tuple(header[4:]) == COLUMNS
    cases = []
    for base, crm, platform, changed, *answers in rows:
        words = [tuple(answer.split()) for answer in answers]
        assert all(len(pair) == 2 for pair in words)
        by_column = dict(zip(COLUMNS, words, strict=True))
        cases.append(Case(base, crm, platform, changed, by_column))  # type: ignore[arg-type]
    return cases


CASES = read_table()


def test_the_table_has_every_case() -> None:
    told = [(case.base, case.crm, case.platform) for case in CASES]
    every = {
        named(base, crm, platform)
        for base in ("none", "blank", "a")
        for crm in ("blank", "a", "b")
        for platform in ("blank", "a", "b", "c")
    }
    assert set(told) == every
    assert len(told) == len(every)


def named(base: str, crm: str, platform: str) -> tuple[str, str, str]:
    """The same case by the names of the table: each side's own value is the next free letter."""
    mine, theirs = ("b", "c") if base == "a" else ("a", "b")
    crm_name = crm if crm in {base, "blank"} else mine
    if platform == crm:
        return base, crm_name, crm_name
    return base, crm_name, platform if platform in {base, "blank"} else theirs


def spelt(kind: str, letter: str, side: int) -> str | None:
    return None if letter in {"blank", "none"} else SPELLINGS[kind][letter][side]


def runs() -> list[Any]:
    return [
        pytest.param(column, when_null, times, id=f"{column} {when_null} {times or ''}")
        for column in COLUMNS
        for when_null in ("keep", "clear")
        for times in TIMES.get(column, [None])
    ]


@pytest.mark.parametrize(("column", "when_null", "times"), runs())
def test_every_type_follows_the_table(
    tmp_path: Path, column: str, when_null: str, times: tuple[str | None, str | None] | None
) -> None:
    config = build_config(
        contacts={"key": "id"},
        fields=[mapped(kind, column, when_null) for kind in SPELLINGS],
    )
    contacts, persons, bases = [], [], []
    crm_time, platform_time = times or (None, None)
    for number, case in enumerate(CASES):
        key = f"C{number}"
        identity = {"external_person_id": key, "person_key": f"k{number}"}
        cells = {kind: spelt(kind, case.crm, CRM) for kind in SPELLINGS}
        contacts.append({"id": key, "at": crm_time, **cells})
        held = {kind: spelt(kind, case.platform, PLATFORM) for kind in SPELLINGS}
        persons.append({**identity, "updated_at": platform_time, **held})
        agreed = {kind: spelt(kind, case.base, PLATFORM) for kind in SPELLINGS}
        # No base is no row for half of them, and fields without a known value for the others.
        if case.base != "none" or number % 2:
            unknown = list(SPELLINGS) if case.base == "none" else []
            bases.append({**identity, **agreed, "unknown": unknown})
    columns = ["person_key", "external_person_id", "updated_at", *SPELLINGS]
    base = recorded_base(tmp_path, config, bases)
    inputs = Inputs(
        write_parquet(tmp_path / "c.parquet", contacts, contact_columns(config)),
        write_parquet(tmp_path / "persons.parquet", persons, columns),
        base=base,
        relative_guards=False,
    )
    reconcile(config, inputs, tmp_path / "out", Limits(threads=1))

    done = outcomes(tmp_path / "out")
    for number, case in enumerate(CASES):
        answer = case.answers[column][when_null == "clear"]
        for kind in SPELLINGS:
            expected = expected_outcome(case, kind, answer, column, times)
            assert done.get((f"C{number}", kind), ("-",)) == expected, (case, kind)


def recorded_base(folder: Path, config: SyncConfig, rows: list[dict[str, Any]]) -> Path:
    """A base of the daily job in which every row is an exception."""
    landed = land(folder / "landed", [], ["person_key", "external_person_id", *SPELLINGS])
    base = folder / "base"
    base.mkdir()
    texts = ["person_key", "external_person_id", *SPELLINGS]
    schema = pa.schema(
        [
            ("person_row", pa.int64()),
            ("unknown", pa.list_(pa.string())),
            ("has_matched", pa.bool_()),
        ]
        + [(name, pa.string()) for name in texts],
        metadata={FIELDS: json.dumps(current_meanings(config))},
    )
    rows = [row | {"has_matched": True} for row in rows]
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), base / EXCEPTIONS)
    origin = {"persons": "../landed", "content_hash": content_hash(landed)}
    (base / ORIGIN).write_text(json.dumps(origin))
    return base


def mapped(kind: str, column: str, when_null: str) -> dict[str, Any]:
    more: dict[str, Any] = {"authority": column.partition(",")[0], "when_null": when_null}
    if more["authority"] == "newest":
        more["changed_at"] = "at"
    if kind == "single_select":
        more["options"] = OPTIONS
    return {"from": kind, "to": kind, "type": kind} | more


def outcomes(out: Path) -> dict[tuple[str, str], tuple[str | None, ...]]:
    """Per contact and field what is done, the new value, and why."""
    done: dict[tuple[str, str], tuple[str | None, ...]] = {}
    for row in pq.read_table(out / "person_changes.parquet").to_pylist():
        for change in row["changes"]:
            key = row["external_person_id"], change["field"]
            done[key] = (change["action"], change["after"], change["reason"])
    for row in pq.read_table(out / "crm_changes.parquet").to_pylist():
        key = row["contact_id"], row["field"]
        assert key not in done, "both sides were changed"
        done[key] = ("empty" if row["after"] is None else "back", row["after"], row["reason"])
    return done


def expected_outcome(
    case: Case,
    kind: str,
    answer: str,
    column: str,
    times: tuple[str | None, str | None] | None,
) -> tuple[str | None, ...]:
    """The answer of the table with the value and the reason that the page names for it."""
    if answer == "-":
        return ("-",)
    letter = {"set": case.crm, "back": case.platform}.get(answer, "blank")
    reason = case.changed
    if answer == "clear":
        reason = "clear"
    elif column == "fill":
        reason = "fill"
    elif times and None in times and case.changed in {"no_base", "both_changed"}:
        reason = "no_time"
    return (answer, spelt(kind, letter, CANONICAL), reason)
