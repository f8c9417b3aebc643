"""The reference pages of the documentation, as Markdown, made from what the code says of itself."""

import inspect
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import dagster as dg

from vibes_pipelines.cli.main import main
from vibes_pipelines.orchestration.build import build_defs
from vibes_pipelines.sync_config import SyncConfig

Schema = Mapping[str, Any]


def sync_yaml() -> str:
    """Every section and key of `sync.yaml`: type, default, what is allowed."""
    schema = SyncConfig.model_json_schema(by_alias=True)
    sections = {SyncConfig.__name__: schema, **schema.get("$defs", {})}
    parts = [
        "# sync.yaml",
        "`sync.example.yaml` shows it whole. Keys without a default are needed.",
    ]
    for name, section in sections.items():
        if "properties" not in section:
            continue
        parts += [f"## {name}", inspect.cleandoc(section.get("description", ""))]
        rows = [
            [f"`{key}`", _type(value), _default(key, value, section), _bounds(value)]
            for key, value in section["properties"].items()
        ]
        parts.append(_table(["key", "type", "default", "allowed"], rows))
    return "\n\n".join(parts) + "\n"


def _type(value: Schema) -> str:
    if "$ref" in value:
        name = value["$ref"].rsplit("/", 1)[-1]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in value:
        kinds = [_type(each) for each in value["anyOf"] if each.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    if "enum" in value or "const" in value:
        return "one of"
    if value.get("type") == "array":
        return f"list of {_type(value.get('items', {}))}"
    if value.get("type") == "object" and isinstance(value.get("additionalProperties"), dict):
        return f"map to {_type(value['additionalProperties'])}"
    return str(value.get("type", "any value"))


def _default(key: str, value: Schema, section: Schema) -> str:
    if key in section.get("required", ()):
        return "needed"
    default = value.get("default")
    if isinstance(default, dict):
        return "as there"  # the section has its own defaults
    return "" if default is None else f"`{json.dumps(default)}`"


def _bounds(value: Schema) -> str:
    words = {
        "minimum": "at least {}",
        "exclusiveMinimum": "more than {}",
        "maximum": "at most {}",
        "minLength": "{} characters or more",
        "maxLength": "{} characters or fewer",
        "minItems": "{} or more entries",
        "pattern": "`{}`",
    }
    found = [words[name].format(value[name]) for name in words if name in value]
    if "const" in value:
        found.append(f"`{value['const']}`")
    found += [f"`{choice}`" for choice in value.get("enum", ())]
    for each in value.get("anyOf", ()):
        found += filter(None, [_bounds(each)])
    return ", ".join(found).replace("|", "\\|")


def command_line() -> str:
    """The help of every command."""
    parts = ["# Command line", "Exit codes: 0 ok, 1 failed, 2 wrong usage, 3 held by a guard."]
    for path, command in _commands(main, "vibes-pipelines"):
        context = click.Context(command, info_name=path, max_content_width=100)
        parts += [f"## {path}", f"```text\n{command.get_help(context)}\n```"]
    return "\n\n".join(parts) + "\n"


def _commands(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        for name, below in sorted(command.commands.items()):
            yield from _commands(below, f"{path} {name}")


def dagster() -> str:
    """Assets, checks, jobs, schedules and sensors, as the code location has them."""
    defs = build_defs()
    graph = defs.resolve_asset_graph()
    assets = [
        [f"`{node.key.to_user_string()}`", node.group_name or "", _first(node.description)]
        for node in sorted(graph.asset_nodes, key=lambda node: node.key)
    ]
    checks = [
        [f"`{key.name}`", f"`{key.asset_key.to_user_string()}`"] for key in graph.asset_check_keys
    ]
    repository = defs.get_repository_def()
    jobs = [
        [f"`{job.name}`", _first(job.description)]
        for job in repository.get_all_jobs()
        if not job.name.startswith("__")
    ]
    ticking: list[dg.ScheduleDefinition | dg.SensorDefinition] = [
        *repository.schedule_defs,
        *repository.sensor_defs,
    ]
    starts = [[f"`{each.name}`", _first(each.description)] for each in ticking]
    return "\n\n".join(
        [
            "# Dagster",
            "## Assets",
            _table(["asset", "group", "what it is"], assets),
            "## Checks",
            _table(["check", "of"], sorted(checks)),
            "## Jobs",
            _table(["job", "does"], jobs),
            "## Schedules and sensors",
            _table(["name", "does"], sorted(starts)),
        ]
    )


def decisions(folder: Path) -> str:
    """Every decision by its title."""
    lines = []
    for page in sorted(folder.glob("0*.md")):
        title = page.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
        lines.append(f"- [{title}]({page.name})")
    return "# Decisions\n\nWhat someone could question, and why it is so.\n\n" + "\n".join(lines)


def _first(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
