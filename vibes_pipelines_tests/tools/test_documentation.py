"""The documentation builds without a warning, and its drawing agrees with the imports."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tools import architecture
from tools.page_blocks import PLACE, Block, Place, parts, shown_parts, with_outputs

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))
LINK = re.compile(r"\]\(([^)\s]+)\)")


def test_the_drawing_of_the_rooms_is_what_they_import() -> None:
    drawn = architecture.DRAWING.read_text(encoding="utf-8")
    assert drawn == architecture.drawing(), "run python -m tools.architecture"


def test_the_site_builds_and_every_link_leads_somewhere(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    assert (tmp_path / "reference" / "sync-yaml.html").is_file()
    assert "https://" not in _fetched(tmp_path / "index.html")
    for page in PAGES:
        if PLACE.search(page.read_text("utf-8")):
            built_page = (tmp_path / page.with_suffix(".html").name).read_text("utf-8")
            assert "output --" not in built_page, page.name


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_every_relative_link_of_the_first_pages_leads_somewhere(page: str) -> None:
    """They stand outside of the site, whose build looks at its own pages alone."""
    links = [link for link in LINK.findall((ROOT / page).read_text("utf-8")) if ":" not in link]
    assert [link for link in links if not (ROOT / link.partition("#")[0]).exists()] == []
    for link in links:
        file, _, heading = link.partition("#")
        if heading:
            assert heading in headings(ROOT / (file or page)), f"{page}: {link}"


def headings(page: Path) -> set[str]:
    """The anchors of a page's headings."""
    titles = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md"], ids=lambda page: page.name)
def test_no_page_has_pasted_what_a_command_printed(page: Path) -> None:
    """It would be right on the day it was pasted; `<!-- output -->` is right in every build."""
    assert "$ vibes-pipelines" not in page.read_text("utf-8")


PAGE = """# A page

    synopsis [--json]

    export DAY=1
    run it --day $DAY

prints

<!-- output -->

```yaml
key:

    not a command
```

    look

<!-- output: ~/file.yaml -->

    ends here
"""


def test_a_page_tells_its_commands_and_where_it_shows_what_they_print() -> None:
    commands = Block("synopsis [--json]"), Block("export DAY=1\nrun it --day $DAY")
    assert list(parts(PAGE)) == [
        *(*commands, Place()),
        *(Block("look"), Place("~/file.yaml"), Block("ends here")),
    ]


def test_of_another_page_only_what_is_shown_is_run() -> None:
    assert [part.text for part in shown_parts(PAGE) if isinstance(part, Block)] == [
        "export DAY=1\nrun it --day $DAY",
        "look",
    ]


def test_outputs_stand_at_their_places_in_order() -> None:
    shown = with_outputs(PAGE, ["first", "second"])
    assert shown.index("```text\nfirst\n```") < shown.index("```yaml\nsecond\n```")
    assert "<!--" not in shown


def _fetched(page: Path) -> str:
    """What a browser would fetch for this page: it must work without a network."""
    html = page.read_text(encoding="utf-8")
    return "\n".join(
        tag for tag in html.split("<") if tag.startswith(("script ", "link ", "img ", "iframe "))
    )
