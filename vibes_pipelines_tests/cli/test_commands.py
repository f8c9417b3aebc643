"""The command line: help, exit codes, and errors that fit on a line."""

import fcntl
import json
import sqlite3
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from vibes_pipelines.cli.main import main
from vibes_pipelines.demo.run import MARKER
from vibes_pipelines.store.ledger import Ledger

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "sync.example.yaml"

CONTACTS = """\
contact_id,mobile,first_name,last_name,birth_date,score,tier,interests,zip,customer_type,sms_opt_in,sms_opt_in_at
C1,(312) 555-2671,Ada,One,1990-12-01,12.50,Gold,golf;music,02134,A,true,2026-01-01T00:00:00Z
C2,312-555-2672,Grace,Two,1980-01-02,7,Silver,,60601,A,true,2026-01-01T00:00:00Z
"""
PERSONS = """\
person_key,external_person_id,mdn,first_name,last_name,birthdate,score,tier,interests,zip_code
k1,C1,+13125552671,Ada,One,1990-12-01T00:00:00Z,12.5,gold,music|golf,02134
k2,C2,+13125552672,Grace,Too,1980-01-02T00:00:00Z,7,silver,,60601
"""


def _run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def sides(tmp_path: Path) -> Path:
    (tmp_path / "contacts.csv").write_text(CONTACTS, encoding="utf-8")
    (tmp_path / "persons.csv").write_text(PERSONS, encoding="utf-8")
    return tmp_path


def _reconcile(folder: Path, config: Path, *more: object) -> Result:
    sides = ("--contacts", folder / "contacts.csv", "--persons", folder / "persons.csv")
    return _run("reconcile", "--config", config, *sides, "--out", folder / "out", *more)


def _wide_caps(folder: Path) -> Path:
    path = folder / "sync.yaml"
    text = EXAMPLE.read_text(encoding="utf-8").replace("max_share: 0.20", "max_share: 1.0")
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "command", [[], ["demo"], ["sandbox"], ["sandbox", "up"], ["reconcile"], ["approve"]]
)
def test_every_command_has_help(command: list[str]) -> None:
    result = _run(*command, "--help")
    assert result.exit_code == 0
    assert result.output.startswith("Usage: ")


def test_reconcile_within_its_guards_ends_with_0(sides: Path) -> None:
    result = _reconcile(sides, _wide_caps(sides), "--json")
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    assert (summary["updated"], summary["unchanged"], summary["status"]) == (1, 1, "ok")
    assert summary == json.loads((sides / "out" / "summary.json").read_text(encoding="utf-8"))


def test_reconcile_held_by_a_guard_ends_with_3_and_writes_everything(sides: Path) -> None:
    result = _reconcile(sides, EXAMPLE)
    assert result.exit_code == 3
    assert "held: updates: 1 rows are 50.00% of 2 persons" in result.stderr
    written = {path.name for path in (sides / "out").iterdir()}
    assert written >= {
        "person_changes.parquet",
        "subscription_changes.parquet",
        "crm_changes.parquet",
        "quarantine.parquet",
        "summary.json",
        "run.json",
    }


def test_wrong_usage_ends_with_2(sides: Path) -> None:
    assert _run("reconcile").exit_code == 2
    result = _reconcile(sides, EXAMPLE, "--as-of", "yesterday")
    assert result.exit_code == 2
    assert "'yesterday' is not an instant; example: 2026-01-31T06:00:00Z" in result.output
    result = _reconcile(sides, EXAMPLE, "--memory-limit", "lots")
    assert result.exit_code == 2
    assert "'lots' is not a size of memory; example: 4GB" in result.output


def test_a_base_of_contacts_is_refused(sides: Path) -> None:
    result = _reconcile(sides, _wide_caps(sides), "--base", sides / "contacts.csv")
    assert result.exit_code == 1
    assert "contacts.csv: has neither person_key nor external_person_id" in result.output


@pytest.mark.parametrize("instant", ["0001-01-01T00:00:00+14:00", "2026-02-30"])
def test_an_instant_that_there_is_not_is_wrong_usage(sides: Path, instant: str) -> None:
    assert _reconcile(sides, EXAMPLE, "--as-of", instant).exit_code == 2


@pytest.mark.parametrize(
    "url",
    ["postgresql+psycopg://u:s3cret@127.0.0.1:1/db", "nonsense", "mysql://u:s3cret@h/db", "{text}"],
)
@pytest.mark.parametrize("command", [("approve", "abcdef", "--reason", "x"), ("report",)])
def test_a_ledger_that_does_not_open_is_told_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, command: tuple[str, ...]
) -> None:
    (tmp_path / "text.db").write_text("no database, and long enough to be taken for one" * 9)
    monkeypatch.setenv("VIBES_HOME", str(tmp_path))
    monkeypatch.setenv("VIBES_SYNC_CONFIG", str(EXAMPLE))
    monkeypatch.setenv("VIBES_LEDGER_URL", url.format(text=f"sqlite:///{tmp_path}/text.db"))
    result = _run(*command)
    assert result.exit_code == 1
    assert "the ledger's database cannot be opened" in result.output
    assert "check VIBES_LEDGER_URL" in result.output
    assert "s3cret" not in result.output
    assert isinstance(result.exception, SystemExit)


def test_a_ledger_of_a_later_version_is_told_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    with Ledger(url), sqlite3.connect(tmp_path / "ledger.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    monkeypatch.setenv("VIBES_HOME", str(tmp_path))
    monkeypatch.setenv("VIBES_SYNC_CONFIG", str(EXAMPLE))
    monkeypatch.setenv("VIBES_LEDGER_URL", url)
    result = _run("report")
    assert result.exit_code == 1
    assert "the ledger is of another version (Can't locate revision" in result.output


def test_an_env_file_of_another_encoding_is_told_by_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_bytes("A=1\nCRM_URL=s3cr\xe9t\n".encode("latin-1"))
    result = _run("explain", "C1")
    assert result.exit_code == 1
    assert f"{tmp_path / '.env'}:2: not UTF-8" in result.output
    assert "s3cr" not in result.output


def test_ending_lost_runs_needs_to_know_whose(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    result = _run("end-lost-runs")
    assert result.exit_code == 2
    assert "DAGSTER_HOME is not set" in result.output


def test_nothing_is_shown_of_a_day_that_is_yet_to_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VIBES_SIMULATED_DAYS", raising=False)
    result = _run("preview", "--day", "9999-12-31")
    assert result.exit_code == 2
    assert "9999-12-31 is yet to come" in result.output


def test_a_demo_that_runs_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.chdir(ROOT)
    with (home / MARKER).open("w") as marker:
        fcntl.flock(marker, fcntl.LOCK_EX)
        result = _run("demo", "--home", home, "--persons", 1)
    assert result.exit_code == 1
    assert f"a demo runs in {home}" in result.output
    assert (home / MARKER).exists()


def test_a_malformed_sync_config_ends_with_1_and_names_the_line(sides: Path) -> None:
    path = sides / "sync.yaml"
    text = EXAMPLE.read_text(encoding="utf-8").replace("type: date", "type: dat")
    path.write_text(text, encoding="utf-8")
    result = _reconcile(sides, path)
    assert result.exit_code == 1
    assert f"Error: {path}:15: fields[2].type: 'dat' is not allowed" in result.output
    assert "Traceback" not in result.output


def test_a_missing_mapped_column_ends_with_1_and_names_it(sides: Path) -> None:
    contacts = sides / "contacts.csv"
    contacts.write_text(CONTACTS.replace("zip", "postcode", 1), encoding="utf-8")
    result = _reconcile(sides, EXAMPLE)
    assert result.exit_code == 1
    assert "zip" in result.output
    assert "contacts.csv" in result.output


@pytest.mark.parametrize(
    "command",
    [
        ["reconcile", "--out", EXAMPLE],
        ["sandbox", "up", "--home", EXAMPLE],
        ["events", "send", "order_shipped", "--contact", "C1", "--key", " "],
    ],
)
def test_a_file_for_a_folder_and_a_blank_key_are_wrong_usage(command: list[str]) -> None:
    assert _run(*command).exit_code == 2


@pytest.mark.parametrize("command", [["demo"], ["sandbox", "up"]])
def test_nobody_is_wrong_usage(command: list[str]) -> None:
    assert _run(*command, "--persons", 0).exit_code == 2


def test_a_cure_of_the_user_is_one_line(sides: Path) -> None:
    (sides / "out" / "run.json").mkdir(parents=True)
    result = _reconcile(sides, _wide_caps(sides))
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)  # told, not thrown
    assert len(result.stderr.strip().splitlines()) == 1


def test_malformed_faults_are_told_and_not_thrown(tmp_path: Path) -> None:
    faults = tmp_path / "faults.yaml"
    faults.write_text("- {action: [", encoding="utf-8")
    result = _run("sandbox", "up", "--persons", 1, "--home", tmp_path / "home", "--faults", faults)
    assert result.exit_code == 1
    assert "Error: " in result.stderr
    assert isinstance(result.exception, SystemExit)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (CONTACTS + "C3,Xylophonius\n", "line 4 cannot be read"),
        (CONTACTS.partition("\n")[2].replace("Ada", "Xylophonius"), "no column 'contact_id'"),
    ],
)
def test_what_cannot_be_read_is_placed_and_not_shown(sides: Path, text: str, told: str) -> None:
    (sides / "contacts.csv").write_text(text, encoding="utf-8")
    result = _reconcile(sides, EXAMPLE)
    assert result.exit_code == 1
    assert told in result.output
    assert "Xylophonius" not in result.output


def test_approve_without_a_diff_set_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIBES_HOME", str(tmp_path))
    monkeypatch.setenv("VIBES_SYNC_CONFIG", str(EXAMPLE))
    monkeypatch.delenv("VIBES_LEDGER_URL", raising=False)
    result = _run("approve", "0123456789ab", "--reason", "looked at")
    assert result.exit_code == 1
    assert "nothing was reconciled there yet" in result.output
    monkeypatch.setenv("VIBES_LEDGER_URL", f"sqlite:///{tmp_path}/elsewhere.db")
    result = _run("approve", "0123456789ab", "--reason", "looked at")
    assert f"no ledger at {tmp_path}/elsewhere.db: nothing was" in result.output


@pytest.mark.parametrize(
    ("switch", "told"),
    [("nonsense=1", "unknown switch 'nonsense'"), ("delete_status=300", "takes one of (204, 200)")],
)
def test_a_switch_that_there_is_not_is_refused_before_anything_is_served(tmp_path, switch, told):
    result = _run("sandbox", "up", "--home", tmp_path / "home", "--switch", switch)
    assert result.exit_code == 2
    assert told in " ".join(result.output.split())
    assert not (tmp_path / "home").exists()
