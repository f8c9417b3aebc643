"""`vibes-pipelines report`: where the page is, and what it says when there is nothing to tell."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from vibes_pipelines.cli.report import report
from vibes_pipelines_tests.support.loop import EXAMPLE, process_environment


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    home = tmp_path / "data"
    with process_environment({"VIBES_HOME": str(home), "VIBES_LEDGER_URL": "",
                              "VIBES_SYNC_CONFIG": str(EXAMPLE)}):  # fmt: skip
        yield home


def test_without_a_landed_day_it_says_what_to_run_first(home: Path) -> None:
    done = CliRunner().invoke(report)
    assert done.exit_code == 1
    assert "no day is landed yet; run the daily job" in done.output


def test_a_day_that_was_never_landed_has_a_page_that_says_so(home: Path) -> None:
    done = CliRunner().invoke(report, ["--day", "2026-01-05"])
    page = Path(done.output.strip())
    assert (done.exit_code, page) == (0, home / "reports" / "2026-01-05.html")
    assert "never landed" in page.read_text(encoding="utf-8")
    assert "No day is landed yet" in page.with_name("index.html").read_text(encoding="utf-8")


def test_what_is_no_day_is_wrong_usage(home: Path) -> None:
    done = CliRunner().invoke(report, ["--day", "yesterday"])
    assert done.exit_code == 2
    assert "example: 2026-01-31" in done.output
