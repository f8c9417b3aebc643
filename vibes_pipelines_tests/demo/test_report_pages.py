"""The demo's pages over HTTP: what the folder holds, also what it holds later, and no longer."""

import urllib.error
import urllib.request
from pathlib import Path

import pytest

from vibes_pipelines.demo.report_pages import served_pages


def test_a_page_is_served_as_soon_as_it_is_written_and_until_the_end(tmp_path: Path) -> None:
    folder = tmp_path / "reports"
    with served_pages(folder) as address:
        with pytest.raises(urllib.error.HTTPError) as missing:
            _read(f"{address}/2026-01-01.html")
        missing.value.close()
        assert missing.value.code == 404

        folder.mkdir()
        (folder / "2026-01-01.html").write_text("the day", encoding="utf-8")
        assert _read(f"{address}/2026-01-01.html") == "the day"
    with pytest.raises(urllib.error.URLError):
        _read(address)


def _read(address: str) -> str:
    with urllib.request.urlopen(address, timeout=60) as answer:
        text: str = answer.read().decode()
    return text
