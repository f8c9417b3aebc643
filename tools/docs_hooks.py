"""What the build of the documentation adds to its pages; nothing of it is kept in the project.

The reference, the list of decisions, and in docs/set-up.md what the commands print: a line
`<!-- output: NAME -->` becomes the output of that name. mkdocs calls the functions `on_...`.
"""

import re
from functools import cache
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from tools import first_hour, reference

DECISIONS = "decisions"
OUTPUT = re.compile(r"^<!-- output: (\S+) -->$", re.MULTILINE)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Lists every decision below their index, in the order of their numbers."""
    *others, _index = config.nav or []
    pages = sorted((Path(config.docs_dir) / DECISIONS).glob("0*.md"))
    paths = [f"{DECISIONS}/index.md", *(f"{DECISIONS}/{page.name}" for page in pages)]
    config.nav = [*others, {"Decisions": paths}]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the generated pages."""
    generated = {
        "reference/sync-yaml.md": reference.sync_yaml(),
        "reference/command-line.md": reference.command_line(),
        "reference/dagster.md": reference.dagster(),
        f"{DECISIONS}/index.md": reference.decisions(Path(config.docs_dir) / DECISIONS),
    }
    for path, content in generated.items():
        files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001 - mkdocs names them
    """Puts in what the commands of the page print."""
    return OUTPUT.sub(lambda asked: _block(asked[1]), markdown)


def _block(name: str) -> str:
    language = "yaml" if name.endswith(".yaml") else "text"
    return f"```{language}\n{_outputs()[name]}\n```"


@cache
def _outputs() -> dict[str, str]:
    """The commands are run once for all pages."""
    return first_hour.outputs()
