"""`vibes-pipelines report`: where the page is, and what it says when there is nothing to tell."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from vibes_pipelines.cli.report import report
from vibes_pipelines.store.ledger import Ledger
from vibes_pipelines_tests.support.loop import EXAMPLE, process_environment


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    home = tmp_path / "data"
    with process_environment({"VIBES_HOME": str(home), "VIBES_LEDGER_URL": "",
                              "VIBES_SYNC_CONFIG": str(EXAMPLE)}):  # fmt: skip
        home.mkdir()
        Ledger(f"sqlite:///{home / 'ledger.db'}").open().close()
        yield home


def test_without_a_landed_day_it_says_what_to_run_first(home: Path) -> None:
    done = CliRunner().invoke(report)
    assert done.exit_code == 1
    assert "no day is landed yet; run the daily job" in done.output


def test_a_day_that_was_not_landed_has_a_page_that_says_so(home: Path) -> None:
    done = CliRunner().invoke(report, ["--day", "2026-01-05"])
    page = Path(done.output.strip())
    assert (done.exit_code, page) == (0, home / "reports" / "2026-01-05.html")
    assert "This day was not landed" in page.read_text(encoding="utf-8")
    assert "No day is landed yet" in page.with_name("index.html").read_text(encoding="utf-8")


def test_a_day_that_is_yet_to_come_has_no_page(home: Path) -> None:
    done = CliRunner().invoke(report, ["--day", "9999-12-31"])
    assert done.exit_code == 2
    assert "9999-12-31 is yet to come" in done.output
    assert not (home / "reports").exists()


def test_the_first_day_of_the_calendar_is_a_day(home: Path) -> None:
    done = CliRunner().invoke(report, ["--day", "0001-01-01"])
    assert (done.exit_code, Path(done.output.strip()).name) == (0, "0001-01-01.html")


def test_what_is_no_day_is_wrong_usage(home: Path) -> None:
    done = CliRunner().invoke(report, ["--day", "yesterday"])
    assert done.exit_code == 2
    assert "example: 2026-01-31" in done.output
