"""The production layout in deploy/ says what the project says, and nothing that does not exist."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from vibes_pipelines.cli.main import main

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
INSTALLED = "/opt/vibes-pipelines"


def _yaml(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return document


def test_the_production_instance_differs_in_its_storage_only() -> None:
    production, local = _yaml(DEPLOY / "dagster.yaml"), _yaml(ROOT / "dagster.yaml")
    assert production.pop("storage") == {
        "postgres": {"postgres_url": {"env": "DAGSTER_POSTGRES_URL"}}
    }
    local.pop("storage")
    assert production == local


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_systemd_understands_each_unit(unit: Path, tmp_path: Path) -> None:
    verifier = shutil.which("systemd-analyze")
    if verifier is None:
        pytest.skip("needs systemd-analyze")
    # A program that is not installed here is no fault of the unit.
    text = unit.read_text(encoding="utf-8")
    text = re.sub(r"(ExecStart|ExecStartPre|ExecStartPost)=\S+", r"\1=/bin/true", text)
    for name in (each.name for each in UNITS):
        (tmp_path / name).write_text(text if name == unit.name else _minimal(), encoding="utf-8")
    shutil.copy(DEPLOY / "systemd" / "vibes-pipelines.target", tmp_path)
    checked = subprocess.run(
        [verifier, "verify", str(tmp_path / unit.name)], capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stderr) == (0, "")


def _minimal() -> str:
    return "[Service]\nExecStart=/bin/true\n"


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_each_unit_starts_a_program_of_the_environment(unit: Path) -> None:
    [command] = re.findall(r"^ExecStart=(\S+)", unit.read_text(encoding="utf-8"), re.MULTILINE)
    program = command.removeprefix(f"{INSTALLED}/.venv/bin/")
    known = {"dagster", "dagster-webserver", "dagster-daemon", "vibes-pipelines", "python"}
    assert program in known


def test_the_target_wants_every_unit() -> None:
    target = (DEPLOY / "systemd" / "vibes-pipelines.target").read_text(encoding="utf-8")
    [wanted] = re.findall(r"^Wants=(.+)$", target, re.MULTILINE)
    assert sorted(wanted.split()) == [unit.name for unit in UNITS]


def test_compose_runs_what_the_units_run() -> None:
    services = _yaml(DEPLOY / "compose.yaml")["services"]
    for unit in UNITS:
        [line] = re.findall(r"^ExecStart=(.+)$", unit.read_text(encoding="utf-8"), re.MULTILINE)
        told = line.removeprefix(f"{INSTALLED}/.venv/bin/").split()
        command = services[unit.stem.removeprefix("vibes-")]["command"]
        assert len(command) == len(told), unit.name
        same = [a == b for a, b in zip(command, told, strict=True)]
        differing = [b for a, b, equal in zip(command, told, same, strict=True) if not equal]
        # Only where a service listens may differ: in a container it is any address.
        assert all(re.fullmatch(r"127\.0\.0\.1|\$\{VIBES_CODE_SERVER_\w+\}", b) for b in differing)


def test_every_variable_of_the_environment_file_is_known() -> None:
    example = (DEPLOY / "environment.example").read_text(encoding="utf-8")
    names = set(re.findall(r"^([A-Z_]+)=", example, re.MULTILINE))
    known = (ROOT / ".env.example").read_text(encoding="utf-8")
    known += (DEPLOY / "dagster.yaml").read_text(encoding="utf-8")
    known += (DEPLOY / "workspace.yaml").read_text(encoding="utf-8")
    assert {name for name in names if name not in known} == set()


def _environment() -> dict[str, str]:
    example = (DEPLOY / "environment.example").read_text(encoding="utf-8")
    return dict(re.findall(r"^([A-Z_]+)=(.*)$", example, re.MULTILINE))


def test_both_layouts_end_lost_runs_before_the_code_server_starts() -> None:
    unit = (DEPLOY / "systemd" / "vibes-code-server.service").read_text(encoding="utf-8")
    program = f"{INSTALLED}/.venv/bin/vibes-pipelines end-lost-runs"
    lines = unit.splitlines()
    noted, ended = lines.index(f"ExecStartPre={program} --note"), f"ExecStartPost={program}"
    [answers] = [number for number, line in enumerate(lines) if "grpc-health-check" in line]
    assert noted < answers < lines.index(ended)
    before, then, last = _yaml(DEPLOY / "compose.yaml")["services"]["code-server"]["entrypoint"][
        2
    ].splitlines()
    assert before == "vibes-pipelines end-lost-runs --note || exit 1"
    assert then.endswith("done; vibes-pipelines end-lost-runs) &")
    assert last == 'exec "$$@"'
    assert "end-lost-runs" in main.commands


def test_in_both_layouts_what_is_supervised_is_the_server_that_runs_are_children_of() -> None:
    """`dagster code-server start` is a proxy that lives on, and answers, when its server died."""
    unit = (DEPLOY / "systemd" / "vibes-code-server.service").read_text(encoding="utf-8")
    [start] = re.findall(r"^ExecStart=(.*)$", unit, re.MULTILINE)
    command = _yaml(DEPLOY / "compose.yaml")["services"]["code-server"]["command"]
    for words in (start.split(), command):
        assert [Path(words[0]).name, *words[1:3]] == ["dagster", "api", "grpc"]


def test_what_runs_print_is_where_every_container_sees_it() -> None:
    services = _yaml(DEPLOY / "compose.yaml")["services"]
    for name in ("code-server", "webserver", "daemon"):
        mounted = {volume.split(":")[1] for volume in services[name]["volumes"]}
        assert services[name]["environment"]["VIBES_DAGSTER_STORAGE"] in mounted


def test_every_file_that_the_environment_names_is_mounted_and_kept_out_of_git() -> None:
    named = [value for value in _environment().values() if value.startswith("/etc/")]
    volumes = _yaml(DEPLOY / "compose.yaml")["services"]["code-server"]["volumes"]
    mounted = dict(volume.split(":")[:2] for volume in volumes)
    assert len(named) == 3
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    for path in named:
        [source] = [src for src, place in mounted.items() if f"{path}/".startswith(f"{place}/")]
        assert {f"deploy/{source[2:]}", f"deploy/{source[2:]}/"} & set(ignored), source


def test_reports_and_documentation_are_served_where_the_links_lead() -> None:
    unit = (DEPLOY / "systemd" / "vibes-pages.service").read_text(encoding="utf-8")
    [port] = re.findall(r"(\d+)$", re.findall(r"^ExecStart=(.+)$", unit, re.MULTILINE)[0])
    environment = _environment()
    assert environment["VIBES_REPORT_URL"] == f"http://127.0.0.1:{port}/reports"
    assert environment["VIBES_DOCS_URL"] == f"http://127.0.0.1:{port}/docs"
    pages = _yaml(DEPLOY / "compose.yaml")["services"]["pages"]
    assert pages["ports"] == [f"127.0.0.1:{port}:{port}"]
    assert (pages["env_file"], pages["environment"]) == ([], {})  # no secret
    for told in ((DEPLOY / "Dockerfile"), (ROOT / "docs" / "operations.md")):
        assert "ln -s ../data/reports /var/lib/vibes-pipelines/pages/reports" in told.read_text()
