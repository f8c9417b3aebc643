"""The documentation builds without a warning, and its drawing agrees with the imports."""

import subprocess
import sys
from pathlib import Path

from tools import architecture

ROOT = Path(__file__).parents[2]


def test_the_drawing_of_the_rooms_is_what_they_import() -> None:
    drawn = architecture.DRAWING.read_text(encoding="utf-8")
    assert drawn == architecture.drawing(), "run python -m tools.architecture"


def test_the_site_builds_and_every_link_leads_somewhere(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    assert (tmp_path / "reference" / "sync-yaml.html").is_file()
    assert "https://" not in _fetched(tmp_path / "index.html")


def _fetched(page: Path) -> str:
    """What a browser would fetch for this page: it must work without a network."""
    html = page.read_text(encoding="utf-8")
    return "\n".join(
        tag for tag in html.split("<") if tag.startswith(("script ", "link ", "img ", "iframe "))
    )
