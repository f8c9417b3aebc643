"""What the build of the documentation adds to its pages; nothing of it is kept in the project.

The reference, the list of decisions, and what the commands of the pages print, at the places that
`page_blocks` describes. mkdocs calls the functions `on_...`.
"""

from functools import cache
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from tools import reference
from tools.page_blocks import PLACE, with_outputs
from tools.page_outputs import page_outputs

DECISIONS = "decisions"


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
    if not PLACE.search(markdown):
        return markdown
    return with_outputs(markdown, _outputs(config.docs_dir)[page.file.src_path])


@cache
def _outputs(docs: str) -> dict[str, list[str]]:
    """The commands are run once for all pages."""
    return page_outputs(Path(docs))
