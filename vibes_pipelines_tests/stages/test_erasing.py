"""Erasing a person: nothing readable is left anywhere, every count stays, rebuilds still work."""

import gzip
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from vibes_pipelines.callbacks.intake import posted, read_arrival
from vibes_pipelines.cli.main import main
from vibes_pipelines.delivery.plan import plan
from vibes_pipelines.stages import erasing
from vibes_pipelines.stages.certifying import certify_day
from vibes_pipelines.stages.erasing import erase
from vibes_pipelines.stages.erasing_subject import ErasureError
from vibes_pipelines.stages.masking import hash_key
from vibes_pipelines.stages.project import Project
from vibes_pipelines.stages.pseudonyms import pseudonym
from vibes_pipelines.stages.quarantine_desk import list_cases, resolve, undo
from vibes_pipelines.stages.reconciling import reconcile_day
from vibes_pipelines.store.inbox import Inbox
from vibes_pipelines.store.records import Receipt
from vibes_pipelines.store.snapshots import Manifest
from vibes_pipelines_tests.support.deliveries import BY_API
from vibes_pipelines_tests.support.landed_days import (
    SYNC,
    Row,
    landed_project,
    reconciled,
    rows_of,
)

DAYS = [f"2026-01-{number:02}" for number in range(1, 6)]
KEY, PERSON_KEY, NAME = "Quentin-42", "0c0ffee0-aaaa-4bbb-8ccc-123456789abc", "Quentinius"
READABLE = [KEY, PERSON_KEY, PERSON_KEY.upper(), NAME, "Quentinella", "5550042", "555-0042"]
CONTACTS: list[Row] = [
    {"id": "B1", "phone": "+13125550001", "name": "Bea", "level": "Gold", "sms": "true"},
    {"id": KEY, "phone": "(312) 555-0042", "name": NAME, "level": "Gold", "sms": "false"},
    {"id": "B2", "phone": "+13125550002", "name": "Ben", "level": "Gold", "sms": "true"},
]
DOUBTED = [row | {"level": "Lead"} if row["id"] == KEY else row for row in CONTACTS]
PERSONS: list[Row] = [
    {"person_key": "p1", "external_person_id": "B1", "mdn": "+13125550001", "first_name": "Bee"},
    {
        "person_key": PERSON_KEY,
        "external_person_id": KEY,
        "mdn": "+13125550042",
        "first_name": "Quentinella",
    },
    {"person_key": "p2", "external_person_id": "B2", "mdn": "+13125550002", "first_name": "Ben"},
]
STAYS: list[Row] = [
    {"person_key": p["person_key"], "subscription_list_id": "1234", "opt_in_date": "2025-01-01"}
    for p in PERSONS
]
ALONE = SYNC.replace("max_age_h: 300", "max_age_h: 300, erasure: none")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    with landed_project(tmp_path, monkeypatch, ALONE) as opened:
        yield opened


def live(project: Project, day: str, contacts: list[Row] = CONTACTS) -> None:
    """A day with operations in the ledger, answered, and a callback about the person."""
    summary = reconciled(project, day, contacts, PERSONS, STAYS)
    certify_day(project, day)
    folder = project.diff_set_folder(day)
    plan(summary.diff_set, folder, project.config, project.ledger, BY_API)
    for lane in ("opt_outs", "persons"):
        for operation in project.ledger.open_operations(summary.diff_set, lane, "api"):
            project.ledger.mark_sent([operation.operation_id])
            said = f"{NAME} is fine" if operation.external_person_id == KEY else None
            receipt = Receipt(operation.operation_id, "accepted", message=said)
            project.ledger.record([receipt], day)
    body = {"event_type": "person_updated", "event_id": f"e-{day}", "event_date": f"{day}T10:00Z"}
    body |= {"person": {"external_person_id": KEY, "person_key": PERSON_KEY, "first": NAME}}  # type: ignore[dict-item]
    with closing(Inbox(project.settings.ledger_url)) as inbox:
        inbox.store([read_arrival(posted("127.0.0.1", "/callbacks", json.dumps(body).encode()))])
    work = project.work_folder(day)
    work.mkdir(parents=True, exist_ok=True)
    (work / f"a_{day}.persons").write_text(
        f'external_person_id,mdn,first_name\nB1,+13125550001,"Bea, the first"\n'
        f'{KEY},+13125550042,"{NAME}\nSecond"\nB2,+13125550002,Ben\n',
        encoding="utf-8",
    )


def readable(home: Path, words: list[str]) -> dict[str, set[str]]:
    """Files in which, or in whose names, a word can be read; Parquet, SQLite, gzip decoded."""
    found: dict[str, set[str]] = {}
    for path in sorted(home.rglob("*")):
        texts = [path.name]
        if path.is_file():
            raw = path.read_bytes()
            texts.append(raw.decode("utf-8", "replace"))
            if path.suffix == ".parquet":
                texts.append(str(pq.read_table(path).to_pylist()))
                texts.append(str(pq.read_metadata(path)))
            elif path.suffix == ".gz":
                texts.append(gzip.decompress(raw).decode("utf-8", "replace"))
            elif raw.startswith(b"SQLite format 3"):
                with closing(sqlite3.connect(path)) as connection:
                    texts.append("\n".join(connection.iterdump()))
        hits = {word for word in words if any(word in text for text in texts)}
        if hits:
            found[str(path.relative_to(home))] = hits
    return found


def totals(project: Project) -> dict[str, int]:
    """Rows of every Parquet file and table, and lines of import files."""
    home, counts = project.settings.home, {}
    for path in sorted(home.rglob("*.parquet")):
        if path.name != "hashes.parquet":
            counts[str(path.relative_to(home))] = pq.read_metadata(path).num_rows
    for path in home.rglob("*.persons"):
        counts[path.name] = len(path.read_text(encoding="utf-8").splitlines())
    with closing(sqlite3.connect(home / "ledger.db")) as connection:
        names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        for (name,) in names:
            query = f"SELECT count(*) FROM {name}"
            counts[name] = connection.execute(query).fetchone()[0]
    return counts


def test_nothing_readable_is_left_and_every_count_stays(project: Project) -> None:
    """And past days are rebuilt from what is left, and say what was erased."""
    for day in DAYS[:3]:
        live(project, day, DOUBTED if day == DAYS[0] else CONTACTS)
        if day == DAYS[0]:
            [case] = [c for c in list_cases(project, "unknown_option") if c.mdn]
            resolve(project, case.case_id, "ignore", "known", "ann")
    before = readable(project.settings.home, READABLE)
    assert {Path(name).parts[0] for name in before} >= {
        *("landing", "diff_sets", "bases", "deliveries", "ledger.db"),
    }
    counts = totals(project)
    dry = erase(project, KEY, "asked for", "ann", dry_run=True)
    assert readable(project.settings.home, READABLE) == before
    done = erase(project, KEY, "asked for", "ann")
    assert readable(project.settings.home, READABLE) == {}
    assert done.left == ()
    assert dry.ledger == done.ledger
    after = totals(project)
    assert after.pop("erasures") == 1
    assert after.pop("erased_numbers") == 2  # the number, and the list it is opted out of
    split_in_two = {f"a_{day}.persons" for day in DAYS[:3]}  # the person's row had a line break
    assert {name for name, rows in after.items() if counts[name] != rows} == split_in_two
    manifest = project.snapshots.find("crm/contacts", DAYS[0])
    assert manifest is not None
    assert (manifest.manifest.rows, manifest.manifest.erased) == (3, 1)
    import_file = (project.work_folder(DAYS[0]) / f"a_{DAYS[0]}.persons").read_text("utf-8")
    assert '\nB1,+13125550001,"Bea, the first"\n' in import_file
    for day in DAYS[1:3]:
        summary = reconcile_day(project, day)
        assert (summary.contacts, summary.persons) == (3, 3)
        assert summary.quarantine_kinds == {"erased": 2}
        assert summary.quarantined == summary.quarantined_persons == 1
    assert readable(project.settings.home, READABLE) == {}


@pytest.mark.slow
def test_who_was_erased_does_not_come_back_until_it_is_undone(project: Project) -> None:
    live(project, DAYS[0])
    erase(project, PERSON_KEY.upper(), "asked for", "ann")
    for position in (1, 2):
        summary = reconciled(project, DAYS[position], CONTACTS, PERSONS, STAYS)
        assert summary.contacts == 3
        assert summary.quarantine_kinds == {"erased": 2}
        landed = project.snapshots.find("crm/contacts", DAYS[position])
        assert landed is not None
        assert landed.manifest.erased == 1
        assert readable(project.settings.home, READABLE) == {}
    cases = list_cases(project, "erased")
    assert {case.external_person_id for case in cases} == {
        pseudonym(KEY, hash_key(project.settings.home))
    }
    with pytest.raises(Exception, match="by `quarantine undo` only"):
        resolve(project, cases[0].case_id, "ignore", "because", "ann")
    undo(project, cases[0].case_id, "came back by herself", "bob")
    reconciled(project, DAYS[3], CONTACTS, PERSONS, STAYS)
    assert "erased" not in {row["kind"] for row in rows_of(project, DAYS[3], "quarantine")}
    assert set(readable(project.settings.home, [NAME])) >= {
        f"landing/crm/contacts/{DAYS[3]}/data.parquet"
    }


@pytest.mark.parametrize(
    "step",
    [
        "blank_parquet",
        "blank_ledger",
        pytest.param("_blank_files", marks=pytest.mark.slow),
        pytest.param("leftovers", marks=pytest.mark.slow),
    ],
)
def test_an_erasure_that_dies_is_taken_up_again(
    project: Project, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """It dies before the step; of the files, after the first three."""
    live(project, DAYS[0])
    real, calls = getattr(erasing, step), []

    def die(*arguments: object, **options: object) -> object:
        calls.append(1)
        if step != "blank_parquet" or len(calls) > 3:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(erasing, step, die)
        with pytest.raises(KeyboardInterrupt):
            erase(project, KEY, "asked for", "ann")
    unfinished = project.settings.home / "erasing"
    [kept] = list(unfinished.iterdir())
    assert kept.stat().st_mode & 0o077 == 0
    erase(project, KEY, "asked for", "ann")
    assert readable(project.settings.home, READABLE) == {}
    assert list(unfinished.iterdir()) == []


def test_the_command_needs_somebody_and_a_reason(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And tells of a file that is not ours to change: Dagster's storage never holds anybody."""
    live(project, DAYS[0])
    log = tmp_path / "dagster" / "compute.log"
    log.parent.mkdir()
    log.write_text(f"somebody printed {KEY}\n", encoding="utf-8")
    monkeypatch.setenv("DAGSTER_HOME", str(log.parent))
    with pytest.raises(ErasureError, match="say why with --reason"):
        erase(project, KEY, " ", "ann")
    with pytest.raises(ErasureError, match="nobody has this contact key"):
        erase(project, "nobody", "because", "ann")
    result = CliRunner().invoke(main, ["erase", KEY, "--reason", "asked for", "--by", "ann"])
    assert result.exit_code == 1
    assert "rows are blank" in result.output
    assert f"left: {log} still holds an identifier" in result.stderr
    assert readable(project.settings.home, READABLE) == {}
    assert Manifest.from_json(
        (project.settings.home / f"landing/crm/contacts/{DAYS[0]}/manifest.json").read_text("utf-8")
    )
